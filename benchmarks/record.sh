#!/usr/bin/env bash
# The records of a machine: every shipped precision of a model under one protocol each, side by side, beside its peers.
#   benchmarks/record.sh prepare            export what is measured (needs torch; once per model)
#   benchmarks/record.sh measure MACHINE    measure; the machine should do nothing else (about 4 minutes)
#   benchmarks/record.sh peers MACHINE      beside torch and naive exports (about 3 minutes)
#   MODEL=sudoku-nano CALIBRATION=calibration/sudoku.csv   another model
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MODEL=${MODEL:-sudoku-nano}
CALIBRATION=${CALIBRATION:-calibration/sudoku.csv}
ARTIFACTS=build/records/$MODEL
usage() { sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

case ${1:-} in
    prepare)
        rm -rf "$ARTIFACTS"
        for precision in fp16 int8; do # an export that misses its gate (exit code 1) is measured too: the report says so
            hrm-edge export "$MODEL" --out "$ARTIFACTS/$MODEL-$precision" "--$precision" --calibration "$CALIBRATION" || [[ $? == 1 ]]
        done
        ;;
    measure)
        out=benchmarks/results/${2:?MACHINE is missing}
        mkdir -p "$out"
        reports=()
        for precision in fp32 fp16 int8; do
            model=$MODEL reference=()
            [[ $precision == fp32 ]] || { model=$ARTIFACTS/$MODEL-$precision; reference=(--reference "$MODEL"); }
            report=$out/bench-$MODEL-$precision
            hrm-edge bench "$model" --protocol benchmarks/protocols/single-stream-short.yaml \
                "${reference[@]}" --json "$report.json" --html "$report.html" --markdown "$report.md"
            reports+=("$report.json")
        done
        hrm-edge bench --compare "${reports[@]}" --html "$out/bench-$MODEL.html" --markdown "$out/bench-$MODEL.md"
        ;;
    peers)
        python benchmarks/peers.py --fp32 "$MODEL" --int8 "$ARTIFACTS/$MODEL-int8" --machine "${2:?MACHINE is missing}"
        ;;
    *) usage ;;
esac
