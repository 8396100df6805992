#!/usr/bin/env bash
# INT8 at 900 cells: a maze and an ARC model, trained briefly, exported in INT8, compared with float32 torch after every
# mark of the recurrence. The mazes are made here, the ARC tasks are given.
#   benchmarks/long_sequences.sh MACHINE ARC.tar.gz     (hours of one core at the defaults; minutes on a GPU)
#   STEPS=200 BATCH=8 MAX_STEPS=16 PUZZLES=2000 TASKS="maze arc"    training steps and batch, ACT steps, puzzles compared
#   MODEL="hidden=128 heads=4 h_layers=2 l_layers=2"                the reduced variant made smaller; default: as it is
# What briefly trained models do not solve cannot be compared in exact accuracy: SQNR and carry cosine are.
set -euo pipefail
[[ $# == 2 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
machine=$1 arc=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
STEPS=${STEPS:-200} BATCH=${BATCH:-8} MAX_STEPS=${MAX_STEPS:-16} PUZZLES=${PUZZLES:-2000}
made=build/long out=benchmarks/results/$machine
mkdir -p "$out"
model=(--set "model.max_steps=$MAX_STEPS")
for field in ${MODEL:-}; do model+=(--set "model.$field"); done

for task in ${TASKS:-maze arc}; do
    rm -rf "${made:?}/$task"*
    case $task in
        maze) recipe=maze-hard_reduced build=(--count 1000 --test-count "$PUZZLES" --min-path 40) ;;
        arc) recipe=arc-1_reduced build=(--source "$arc" --augment 4) ;;
    esac
    hrm-edge data build "$task" --out "$made/$task-data" "${build[@]}"
    hrm-edge train "recipes/$recipe.yaml" --out "$made/$task-run" --set "data=$made/$task-data" \
        --set "train.batch=$BATCH" --set "train.steps=$STEPS" --set train.warmup=5 --set train.lr=1e-3 \
        --set train.ema=0.9 --set train.compile=false "${model[@]}" --set checkpoints.every=10 \
        --set evaluate.every=1000000 --set evaluate.puzzles=1 --set quantization.calibration_puzzles=16
    code=0 # an export that misses its gate (exit code 1) is a result too: the manifest says so
    hrm-edge export "$made/$task-run" --out "$made/$task-int8" --int8 --calibration "$made/$task-data" \
        --puzzles "$PUZZLES" || code=$?
    ((code < 2)) || exit "$code"
    cp "$made/$task-int8/manifest.json" "$out/int8-$task.json"
done
