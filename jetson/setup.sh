#!/usr/bin/env bash
# Installs the part of hrm-edge that runs on a device (no torch) into a folder of its own. Safe to run again: what is
# done is not done twice, and an installation that was cut off is completed.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: setup.sh [--offline WHEELHOUSE] [--prefix DIR] [--link] [--groups] [--service] [--dry-run]

Installs hrm-edge into DIR/venv. Nothing outside DIR is touched unless one of the flags marked * is given.

  --offline WHEELHOUSE  no internet: take every package from this folder (made by 'make wheelhouse')
                        without it: from this checkout and the Python package index
  --prefix DIR          where to install               [default: ~/.local/share/hrm-edge]
  --link       *        link ~/.local/bin/hrm-edge to it
  --groups     *        with sudo: add you to the groups for cameras, GPU and sensors (video, render, i2c)
  --service    *        with sudo: install the kiosk demo as a systemd service (not started)
  --dry-run             say what would be done, do nothing
TEXT
}

say() { printf '%s\n' "$*"; }
# die PROBLEM HINT: one line for the problem, one line how to fix it
die() {
    printf 'Error: %s\n  %s\n' "$1" "$2" >&2
    told=yes
    exit 2
}
# run COMMAND...: what is done, as you would type it
run() {
    printf '  $'
    printf ' %q' "$@"
    printf '\n'
    [[ -n $dry ]] || "$@"
}

prefix=${HOME:-/root}/.local/share/hrm-edge told='' offline='' dry='' link='' groups='' service=''
while (($#)); do
    case $1 in
        --offline | --prefix)
            [[ -n ${2:-} ]] || die "$1 needs a folder" "setup.sh --help"
            declare "${1#--}=$2"
            shift
            ;;
        --link | --groups | --service) declare "${1#--}=yes" ;;
        --dry-run) dry=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown argument $1" "setup.sh --help" ;;
    esac
    shift
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$prefix/venv
ours=$venv/.made-by-hrm-edge-setup # what has no such file is somebody else's, and is left alone
needed_mb=800 # measured: 284 MB installed, 146 MB of cuda-python for JetPack 6; the rest is for unpacking

on_exit() {
    local code=$?
    [[ -n ${work:-} ]] && rm -rf "$work"
    ((code == 0)) || [[ -n $told ]] || say "Not finished: run the same command again, it completes what is missing." >&2
}
trap on_exit EXIT

# --- what this machine is -------------------------------------------------------------------------------------------
release=$(head -n 1 /etc/nv_tegra_release 2>/dev/null || true)
seen=false # whether the virtual environment sees apt's packages
if [[ $release =~ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9.]+) ]]; then
    say "Jetson, L4T ${BASH_REMATCH[1]}.${BASH_REMATCH[2]} ('hrm-edge doctor' names the JetPack)"
    seen=true
elif [[ -n $release ]]; then
    say "/etc/nv_tegra_release reads '$release': not understood, nothing is assumed about this board"
else
    say "No Jetson ($(uname -m), no /etc/nv_tegra_release): for ONNX Runtime on the CPU"
fi
# Python runs with -I, isolated: without it, files of the folder that you are in would take the place of its modules.
# TensorRT's bindings come with the system (apt, or NVIDIA's container image), made for the system's Python.
system=/usr/bin/python3
if [[ -x $system ]] &&
    $system -I -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorrt") is None)'; then
    seen=true
fi
python=python3
[[ $seen == true && -x $system ]] && python=$system
command -v "$python" >/dev/null || die "python3 is not installed" "sudo apt-get install python3 python3-venv"
tag=$("$python" -I -c 'import sys; print("%d%d" % sys.version_info[:2])')
"$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$python is Python ${tag:0:1}.${tag:1}, 3.10 or newer is needed" "JetPack 6 and newer bring one"
"$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
    die "Python cannot make virtual environments" "sudo apt-get install python3-venv"

# --- what will be installed -----------------------------------------------------------------------------------------
if [[ -n $offline ]]; then
    [[ -d $offline ]] || die "$offline: no such folder" "make it with 'make wheelhouse' and copy it here"
    offline=$(cd "$offline" && pwd)
    wanted=$offline/requirements-cp$tag.txt
    [[ -f $wanted ]] || die "$offline has no wheels for Python ${tag:0:1}.${tag:1}" \
        "python scripts/wheelhouse.py --python ${tag:0:1}.${tag:1} (where there is internet)"
    binding=$(grep -o '^cuda-python==[^ ]*' "$wanted" || true)
    [[ -z $release || -n $binding ]] || die "$offline is without cuda-python, which moves an engine's data to the GPU" \
        "make it again with 'make wheelhouse' (where there is internet)"
    what=(--no-index "--find-links=$offline" --require-hashes "--requirement=$wanted")
    state=$(sha256sum <"$wanted" | cut -c 1-64)
else
    source=$(dirname "$here")
    [[ -f $source/constraints.txt ]] || die "$here is not in a checkout of hrm-edge" "name a wheelhouse: --offline DIR"
    extras=web,report binding=''
    # constraints.txt has the cuda-python of each JetPack's CUDA, by its Python
    [[ $seen == true ]] && extras+=,gpu binding="cuda-python of constraints.txt"
    what=(--constraint "$source/constraints.txt" "${source}[$extras]")
    state=$(cd "$source" && find hrm_edge pyproject.toml constraints.txt -type f -not -name '*.pyc' -print0 |
        sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-64)
fi

state+=-$seen # TensorRT that was installed since wants another environment
if [[ -n $service ]]; then
    [[ $prefix/ != /home/* && $prefix/ != /root/* ]] ||
        die "the service runs as a user of its own, who may not read $prefix" \
            "sudo bash ${BASH_SOURCE[0]} --prefix /opt/hrm-edge --service"
    [[ -f $here/hrm-edge-demo.service ]] || die "$here has no hrm-edge-demo.service" "run the setup.sh of a checkout"
fi

parent=$prefix
while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
free_mb=$(df -Pm "$parent" | awk 'NR == 2 { print $4 }')
done_before=''
# An OpenCV of the system's that was used here (see below) may have been removed since.
sees_opencv='import importlib.util, sys; sys.exit(importlib.util.find_spec("cv2") is None)'
[[ -f $prefix/.installed && $(cat "$prefix/.installed") == "$state" && -x $venv/bin/hrm-edge ]] &&
    { [[ $seen == false ]] || "$venv/bin/python" -I -c "$sees_opencv"; } && done_before=yes
[[ -n $done_before ]] || ((free_mb >= needed_mb)) ||
    die "$parent has $free_mb MB free, $needed_mb MB are needed" "free some space, or choose another --prefix"

# failed WHAT: the command's own message is above; what people meet is a full disk, or a folder of another user
failed() { die "$1: see the message above" "df -h $prefix; ls -ld $prefix; then run the same command again"; }

# --- install --------------------------------------------------------------------------------------------------------
if [[ -n $done_before ]]; then
    say "Already installed in $prefix"
else
    [[ -z $binding ]] || binding=" (with $binding, which moves an engine's data to the GPU)"
    say "Install into $prefix$binding:"
    if [[ -e $venv && ! -e $ours && ! -e $prefix/.installed ]]; then
        die "$venv is there already and is not one that this script made" "choose another --prefix, or remove it"
    fi
    # A venv that was cut off has no pip; one with the other flag would hide TensorRT, or show what it should not.
    if [[ -e $venv ]] && { ! "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 ||
        ! grep -qi "^include-system-site-packages = $seen" "$venv/pyvenv.cfg"; }; then
        run rm -rf "$venv"
    fi
    flags=()
    [[ $seen == true ]] && flags=(--system-site-packages)
    run mkdir -p "$prefix" || failed "$prefix cannot be made"
    if [[ -z $dry ]]; then
        work=$venv/.unpacked # pip's: /tmp of a board may be small and in memory
        { mkdir -p "$work" && touch "$ours" && rm -f "$prefix/.installed"; } || failed "$prefix cannot be written"
    fi
    [[ -x $venv/bin/python ]] || run "$python" -I -m venv "${flags[@]}" "$venv" || failed "no virtual environment was made"
    TMPDIR=${work:-} run "$venv/bin/python" -I -m pip --disable-pip-version-check install --no-cache-dir --quiet \
        "${what[@]}" || failed "pip failed"
    if [[ -z $dry ]]; then
        "$venv/bin/hrm-edge" --version
        printf '%s\n' "$state" >"$prefix/.installed.tmp"
        mv "$prefix/.installed.tmp" "$prefix/.installed"
    fi
fi

# --- OpenCV ---------------------------------------------------------------------------------------------------------
# pip's has no GStreamer, through which a CSI camera is read, and hides the system's, which has it. The system's takes
# its place where it loads beside the environment's NumPy, is new enough, and reads videos and network cameras too.
# Where it does not, a CSI camera is read through gst-launch-1.0: 'hrm-edge doctor' says by which way.
usable_opencv='
import re, sys
import numpy  # as hrm-edge will have it
sys.path = [path for path in sys.path if not path.startswith(sys.prefix + "/")]
import cv2
built, version = cv2.getBuildInformation(), tuple(map(int, cv2.__version__.split(".")[:2]))
sys.exit(version < (4, 9) or not all(re.search(part + r":\s+YES", built) for part in ("GStreamer", "FFMPEG")))
'
if [[ $seen == true && -n $dry ]]; then
    say "Then this system's OpenCV takes the place of pip's, where it has GStreamer and loads."
elif [[ $seen == true ]] && "$venv/bin/python" -I -m pip show --quiet opencv-python-headless 2>/dev/null &&
    "$venv/bin/python" -I -c "$usable_opencv" >/dev/null 2>&1; then
    say "This system's OpenCV has GStreamer and loads, so it takes the place of pip's:"
    run "$venv/bin/python" -I -m pip --disable-pip-version-check uninstall --quiet --yes opencv-python-headless ||
        failed "pip failed"
fi

# --- outside the prefix, only when asked ----------------------------------------------------------------------------
as_root() {
    if [[ $(id -u) == 0 ]]; then
        run "$@"
    else
        run sudo "$@" || die "sudo was refused; hrm-edge itself is installed in $prefix" "ask an administrator to run: sudo $*"
    fi
}
user=$(id -un)
if [[ -n $link ]]; then
    say "Outside the prefix (--link):"
    run mkdir -p "$HOME/.local/bin"
    run ln -sfn "$venv/bin/hrm-edge" "$HOME/.local/bin/hrm-edge"
fi
missing=()
for group in video render i2c; do
    getent group "$group" >/dev/null && [[ " $(id -nG "$user") " != *" $group "* ]] && missing+=("$group")
done
if ((${#missing[@]})); then
    list=$(IFS=, && echo "${missing[*]}")
    if [[ -n $groups ]]; then
        say "Outside the prefix (--groups); it holds from your next login:"
        as_root usermod -aG "$list" "$user"
    elif [[ $user != root ]]; then
        say "You are not in $list (cameras, GPU, sensors): run again with --groups, or sudo usermod -aG $list $user"
    fi
fi
if [[ -n $service ]]; then
    say "Outside the prefix (--service):"
    [[ -n ${work:-} || -n $dry ]] || work=$(mktemp -d)
    unit=${work:-/tmp}/hrm-edge-demo.service
    [[ -n $dry ]] || sed "s|/opt/hrm-edge|$prefix|g" "$here/hrm-edge-demo.service" >"$unit"
    as_root install -m 0644 "$unit" /etc/systemd/system/hrm-edge-demo.service
    as_root systemctl daemon-reload
    say "Start it with: sudo systemctl enable --now hrm-edge-demo"
fi

[[ -z $dry ]] || { say "Nothing was done (--dry-run)." && exit 0; }
say ""
"$venv/bin/hrm-edge" doctor || exit 1
