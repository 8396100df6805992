#!/usr/bin/env bash
# Makes a Debian arm64 root that runs here through qemu-user, for tests/arm64. `make test-arm64` calls it; needs root.
#   scripts/arm64_root.sh DIR
# DIR/root is made once (about 7 minutes); DIR/wheelhouse is renewed at every call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=${1:?usage: scripts/arm64_root.sh DIR}
packages=python3,python3-venv,ca-certificates,procps
die() {
    printf 'Error: %s\n  %s\n' "$1" "$2" >&2
    exit 2
}
[[ $(id -u) == 0 ]] || die "making a root file system needs root" "sudo make test-arm64"
for tool in debootstrap qemu-aarch64-static update-binfmts; do
    command -v "$tool" >/dev/null || die "$tool is missing" "apt-get install debootstrap qemu-user-static binfmt-support"
done

# The kernel hands arm64 programs to qemu; the flag F keeps the interpreter open, so the root needs no copy of it.
binfmt=/proc/sys/fs/binfmt_misc
[[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc $binfmt ||
    die "binfmt_misc cannot be mounted" "run on a kernel with CONFIG_BINFMT_MISC, outside an unprivileged container"
[[ -e $binfmt/qemu-aarch64 ]] || update-binfmts --enable qemu-aarch64

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [[ ! -e $dir/root/.complete ]]; then
    rm -rf --one-file-system "$dir/root"
    debootstrap --arch=arm64 --variant=minbase --include=$packages bookworm "$dir/root" ||
        die "debootstrap failed" "see $dir/root/debootstrap/debootstrap.log"
    touch "$dir/root/.complete"
fi
version=$(chroot "$dir/root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python scripts/wheelhouse.py --out "$dir/wheelhouse" --machine aarch64 --python "$version"
rm -rf "$dir/root/opt/wheelhouse"
cp -r "$dir/wheelhouse" "$dir/root/opt/wheelhouse"
