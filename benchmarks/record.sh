#!/usr/bin/env bash
# The records of a machine: every shipped precision of a model under one protocol each, side by side, beside its peers.
#   benchmarks/record.sh measure MACHINE    measure; the machine should do nothing else (about 4 minutes)
#   benchmarks/record.sh peers MACHINE      beside torch and naive exports (about 3 minutes; needs torch and onnxscript)
#   MODEL=sudoku-nano    another model: a name or an artifact, with -fp16 and -int8 beside it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MODEL=${MODEL:-sudoku-nano}
usage() { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

case ${1:-} in
    measure)
        out=benchmarks/results/${2:?MACHINE is missing}
        mkdir -p "$out"
        reports=()
        for precision in fp32 fp16 int8; do
            model=$MODEL reference=()
            [[ $precision == fp32 ]] || { model=$MODEL-$precision; reference=(--reference "$MODEL"); }
            report=$out/bench-$(basename "$MODEL")-$precision
            hrm-edge bench "$model" --protocol benchmarks/protocols/single-stream-short.yaml \
                "${reference[@]}" --json "$report.json" --html "$report.html" --markdown "$report.md"
            reports+=("$report.json")
        done
        both=$out/bench-$(basename "$MODEL")
        hrm-edge bench --compare "${reports[@]}" --html "$both.html" --markdown "$both.md"
        ;;
    peers)
        python benchmarks/peers.py --fp32 "$MODEL" --int8 "$MODEL-int8" --machine "${2:?MACHINE is missing}"
        ;;
    *) usage ;;
esac
