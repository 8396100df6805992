#!/usr/bin/env bash
# held_to_avx2.sh COMMAND...: run it with everything held to AVX2 that can be, at full speed, with caches of its own.
#   scripts/held_to_avx2.sh make quickstart
# torch and its oneDNN and MKL, NumPy and its OpenBLAS, numba, and the native step, which is compiled for x86-64-v3.
# ONNX Runtime and OpenVINO take no such limit: what they compute as on a Haswell is scripts/imitate.sh's to show.
set -euo pipefail
place=$(cd "$(dirname "$0")/.." && pwd)/build/held-to-avx2
mkdir -p "$place"
if compiler=$(command -v "${CXX:-c++}"); then
    printf '#!/bin/sh\nexec "%s" "$@" -march=x86-64-v3\n' "$compiler" >"$place/c++"
    chmod +x "$place/c++"
    export CXX=$place/c++
fi
export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
export NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell
export NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES='' NUMBA_CACHE_DIR=$place/numba
XDG_CACHE_HOME=$place/cache exec "$@"
