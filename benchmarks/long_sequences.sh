#!/usr/bin/env bash
# INT8 at 900 cells: a maze and an ARC model of the reduced variant, trained briefly, exported in INT8, compared with
# float32 torch after every mark of the recurrence.
#   benchmarks/long_sequences.sh MACHINE MAZES.npz ARC.tar.gz     (hours of one core at the defaults; minutes on a GPU)
#   STEPS=200 BATCH=8 MAX_STEPS=16 PUZZLES=64 TASKS="maze arc"    training steps and batch, ACT steps, puzzles compared
# What briefly trained models do not solve cannot be compared in exact accuracy: SQNR and carry cosine are.
set -euo pipefail
[[ $# == 3 ]] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
machine=$1 mazes=$(realpath "$2") arc=$(realpath "$3")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
STEPS=${STEPS:-200} BATCH=${BATCH:-8} MAX_STEPS=${MAX_STEPS:-16} PUZZLES=${PUZZLES:-64}
made=build/long out=benchmarks/results/$machine
mkdir -p "$out"

for task in ${TASKS:-maze arc}; do
    rm -rf "${made:?}/$task"*
    case $task in
        maze) recipe=maze-hard_reduced build=(--source "$mazes" --test-count "$PUZZLES") ;;
        arc) recipe=arc-1_reduced build=(--source "$arc" --augment 2) ;;
    esac
    hrm-edge data build "$task" --out "$made/$task-data" "${build[@]}"
    hrm-edge train "recipes/$recipe.yaml" --out "$made/$task-run" --set "data=$made/$task-data" \
        --set "train.batch=$BATCH" --set "train.steps=$STEPS" --set train.warmup=5 --set train.lr=1e-3 \
        --set train.ema=0.9 --set train.compile=false --set "model.max_steps=$MAX_STEPS" --set checkpoints.every=10 \
        --set evaluate.every=1000000 --set evaluate.puzzles=1 --set quantization.calibration_puzzles=16
    code=0 # an export that misses its gate (exit code 1) is a result too: the manifest says so
    hrm-edge export "$made/$task-run" --out "$made/$task-reduced-int8" --int8 --calibration "$made/$task-data" \
        --puzzles "$PUZZLES" || code=$?
    ((code < 2)) || exit "$code"
    cp "$made/$task-reduced-int8/manifest.json" "$out/int8-$task-reduced.json"
done
