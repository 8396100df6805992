#!/usr/bin/env bash
# imitate.sh CPU ARGUMENTS...: run Python as another x86 processor would, by qemu's user mode, with caches of its own.
#   scripts/imitate.sh Haswell -m pytest tests/runtime/test_arithmetic.py     # AVX2, no VNNI
#   scripts/imitate.sh Nehalem ...                                            # SSE4.2, no AVX
# PYTHON: the interpreter (default: .venv/bin/python). qemu-x86_64 -cpu help lists the processors.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v qemu-x86_64 >/dev/null || { echo "qemu-x86_64 is not installed: sudo apt install qemu-user" >&2; exit 2; }
cpu=$1 && shift
place=$PWD/build/imitated/$cpu && mkdir -p "$place"
# Programs that an imitated one starts are not imitated. The compiler's -march=native has to mean this processor.
printf '#!/bin/sh\nexec qemu-x86_64 -cpu %s "%s" "$@"\n' "$cpu" "$(command -v c++)" >"$place/c++" && chmod +x "$place/c++"
CXX=$place/c++ XDG_CACHE_HOME=$place/cache exec qemu-x86_64 -cpu "$cpu" "${PYTHON:-.venv/bin/python}" "$@"
