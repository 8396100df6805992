#!/usr/bin/env bash
# The whole pipeline on 4x4 Sudoku: data -> train -> export (fp32, INT8) -> bench -> solve.
#   scripts/quickstart.sh [RECIPE FOLDER]     `make quickstart` names neither, `make trm` names a small TRM and build/trm
# A step that is done is not done again, and a training run that was cut off goes on; a changed recipe starts afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RECIPE=${1:-recipes/mini-sudoku_nano.yaml}
OUT=${2:-build/quickstart}
[[ $RECIPE -nt $OUT/.data ]] && rm -rf "$OUT"
mkdir -p "$OUT"

# say TITLE COMMAND...: the command as you would type it, then its run
say() {
    printf '\n== %s\n$ %s\n' "$1" "${*:2}"
    "${@:2}"
}

# once NAME TITLE COMMAND...: as say, unless $OUT/NAME was finished before
once() {
    if [[ -e $OUT/.$1 ]]; then
        printf '\n== %s: done before, see %s\n' "$2" "$OUT/$1"
        return
    fi
    [[ $1 == run ]] || rm -rf "${OUT:?}/$1" # what a killed step left; a training run goes on from it
    say "${@:2}"
    touch "$OUT/.$1"
}

once data "1/6 Build the data: generated puzzles with one solution each" \
    hrm-edge data build mini-sudoku --out "$OUT/data" --source generate --seed 0 --test-count 2000
resume=()
[[ -e $OUT/run ]] && resume=(--resume)
once run "2/6 Train on the CPU" hrm-edge train "$RECIPE" --data "$OUT/data" --out "$OUT/run" "${resume[@]}"
once fp32 "3/6 Export in float32" hrm-edge export "$OUT/run" --out "$OUT/fp32" --fp32 --calibration "$OUT/data"
once int8 "4/6 Export in INT8" hrm-edge export "$OUT/run" --out "$OUT/int8" --int8 --calibration "$OUT/data"
for precision in fp32 int8; do
    say "5/6 Bench $precision" \
        hrm-edge bench "$OUT/$precision" --data "$OUT/data" --duration 5s --json "$OUT/bench-$precision.json"
done
say "6/6 Solve a puzzle with the INT8 artifact" hrm-edge solve 0030400000020100 --model "$OUT/int8"

python - "$OUT" <<'PYTHON'
import json, sys

accuracies = []
print()
for precision in ("fp32", "int8"):
    with open(f"{sys.argv[1]}/bench-{precision}.json", encoding="utf-8") as stream:
        report = json.load(stream)
    accuracies.append(report["exact_accuracy"])
    latency = report["latency_ms"]
    print(f"{precision}: {accuracies[-1]:.2%} of unseen puzzles exactly right, "
          f"latency {latency['p50']:.2f} ms p50, {latency['p90']:.2f} ms p90")
if min(accuracies) < 0.99:
    sys.exit("Failed: 99 % exact accuracy in both precisions is what this recipe promises")
PYTHON
tool=$(command -v hrm-edge)
printf '\nThe whole pipeline took %d s. Reports: %s\n' "$SECONDS" "$OUT/bench-fp32.json $OUT/bench-int8.json"
printf 'Next, a puzzle of your own (0 is a blank):\n  %s\n' "${tool#"$PWD"/} solve 0010040000200300 --model $OUT/int8"
