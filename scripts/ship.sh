#!/usr/bin/env bash
# A trained run into the zoo: its float32 artifact, float16 and INT8 made from that, accuracy of each, cards, tables.
#   scripts/ship.sh weights NAME RUN DATA             float32 from a run; DATA: its built data folder, for the check
#                                                     (of so many puzzles: PUZZLES=64; MAX_STEPS=16 of the
#                                                     artifact, where training took fewer); one of more than 20 MB
#                                                     stays in build/ship, since the package has to stay below 40
#   scripts/ship.sh precisions NAME DATA SET MACHINE  float16 and INT8 of it; SET: at least 2,000 held-out puzzles with
#                                                     answers; writes benchmarks/results/MACHINE/eval-NAME-*.json;
#                                                     further words go to scripts/card.py, instead of --like NAME
# An artifact that misses its gate stops the script, and the zoo keeps what it had.
set -euo pipefail
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 4 ]] || usage
verb=$1 name=$2 set_given=${4:-}
[[ $verb == weights ]] && { run=$(realpath "$3"); data=$(realpath "$4"); }
[[ $verb == precisions ]] && { [[ $# -ge 5 ]] || usage; data=$(realpath "$3"); set_given=$(realpath "$4"); machine=$5; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
zoo=hrm_edge/zoo made=build/ship PUZZLES=${PUZZLES:-} MAX_STEPS=${MAX_STEPS:-}

ship() { # NAME: the artifact that was made replaces the shipped one
    rm -rf "${zoo:?}/$1"
    mv "$made/$1" "$zoo/$1"
}

mkdir -p "$made"
case $verb in
    weights)
        rm -rf "${made:?}/$name"
        hrm-edge export "$run" --out "$made/$name" --fp32 --calibration "$data" ${PUZZLES:+--puzzles "$PUZZLES"} \
            ${MAX_STEPS:+--max-steps "$MAX_STEPS"}
        if (($(du -sk "$made/$name" | cut -f 1) > 20000)); then
            echo "$made/$name stays there, too large for the package; its float16 and INT8 are made from it"
        else
            ship "$name"
        fi
        ;;
    precisions)
        held_out=$made/$(basename "$set_given") # a relative path: reports tell it
        cp "$set_given" "$held_out"
        fp32=$name about=("${@:6}")
        [[ -d $zoo/$name ]] || fp32=$made/$name
        ((${#about[@]})) || about=(--like "$name")
        for precision in fp16 int8; do
            rm -rf "${made:?}/$name-$precision"
            hrm-edge export "$fp32" --out "$made/$name-$precision" "--$precision" --calibration "$data" \
                --puzzles "${PUZZLES:-2000}"
            ship "$name-$precision"
            report=benchmarks/results/$machine/eval-$name-$precision.json
            hrm-edge eval "$zoo/$name-$precision" --data "$held_out" --paired "$fp32" --json "$report"
            python scripts/card.py "$name-$precision" "${about[@]}" "$report"
        done
        python scripts/tables.py
        ;;
    *) usage ;;
esac
