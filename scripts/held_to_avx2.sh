#!/usr/bin/env bash
# held_to_avx2.sh COMMAND...: run it at full speed as on a processor that has AVX2 and nothing beyond, with own caches.
#   scripts/held_to_avx2.sh make quickstart
# Everything is held where the processor lets CPUID fault (grep cpuid_fault /proc/cpuinfo). Elsewhere torch, its oneDNN
# and MKL, NumPy, OpenBLAS, numba and what C++ compilers make here are; ONNX Runtime and OpenVINO take no such limit.
# HELD_BY_VARIABLES=1: hold only those, on any processor.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
place=${scripts%/*}/build/held-to-avx2
# Within a held run all is held, and $CXX may be a wrapper of the one below, which must not call it.
[[ :${LD_PRELOAD:-}: == *:$place/held.so:* ]] && exec "$@"
mkdir -p "$place"
command -v cc >/dev/null || { echo "cc is not installed: sudo apt install gcc" >&2; exit 2; }
cc -O2 -shared -fPIC -o "$place/held.so.$$" "$scripts/held_to_avx2.c" -ldl && mv "$place/held.so.$$" "$place/held.so"
if compiler=$(command -v "${CXX:-c++}"); then
    printf '#!/bin/sh\nexec "%s" "$@" -march=x86-64-v3\n' "$compiler" >"$place/c++.$$"
    chmod +x "$place/c++.$$" && mv "$place/c++.$$" "$place/c++"
    export CXX=$place/c++
fi
export LD_PRELOAD=$place/held.so${LD_PRELOAD:+:$LD_PRELOAD} NUMBA_CACHE_DIR=$place/numba XDG_CACHE_HOME=$place/cache
exec "$@"
