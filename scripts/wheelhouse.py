"""Gather the edge part and its exact wheels for boards without internet. `make wheelhouse` runs it.

    python scripts/wheelhouse.py [--out DIR] [--machine aarch64] [--python 3.10 --python 3.12] [--extra web]…

DIR gets this project's own wheel, the pinned wheels of constraints.txt for every Python named, one
``requirements-cp310.txt`` with hashes for each Python, ``wheels.md`` (sizes, licences) and ``setup.sh``, which installs
from it: ``bash DIR/setup.sh --offline DIR``.
"""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import click
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_text

ROOT = Path(__file__).resolve().parent.parent
PIP = (sys.executable, "-m", "pip", "--quiet")
GLIBC = range(35, 16, -1)  # Ubuntu 22.04, JetPack 6's, has 2.35


@dataclass(frozen=True)
class Wheel:
    """A downloaded wheel and what its own metadata say."""

    path: Path
    name: str
    version: str
    licence: str
    requires: list[Requirement]


def read_wheel(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        metadata = email.message_from_bytes(archive.read(name))
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    licence = metadata["License-Expression"] or ", ".join(classifiers) or (metadata["License"] or "").split("\n")[0]
    requires = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return Wheel(path, canonicalize_name(metadata["Name"]), metadata["Version"], licence or "not named", requires)


def environment(python: str, machine: str) -> dict[str, str]:
    """What a marker is judged by on the target, not on this machine."""
    return {
        "python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip


def wanted(marker: Marker | None, target: dict[str, str], extras: set[str]) -> bool:
    return marker is None or any(marker.evaluate({**target, "extra": extra}) for extra in extras or {""})


def pins(target: dict[str, str]) -> dict[str, str]:
    """Name → version of constraints.txt on the target."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in found if wanted(r.marker, target, set())
    }


def download(name: str, version: str, python: str, machine: str, folder: Path) -> Path:
    """One wheel, fetched again only when it is not there."""
    pattern = rf"{re.sub('[-_.]+', '[-_.]+', name)}-{re.escape(version)}-(?:\d\w*-)?(.+)\.whl"
    for path in folder.glob("*.whl"):
        tags = re.fullmatch(pattern, path.name, re.IGNORECASE)
        minor = python.partition(".")[2]
        if tags and (f"cp3{minor}-" in tags[1] or "py3-none" in tags[1] or "abi3" in tags[1]):
            return path
    before = set(folder.glob("*.whl"))
    command = [*PIP, "download", "--no-deps", "--only-binary=:all:", f"{name}=={version}", f"--dest={folder}"]
    command += ["--implementation=cp", f"--python-version={python}", f"--platform=manylinux2014_{machine}"]
    command += [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"no wheel of {name} {version} for Python {python} on {machine}", "see pip's message above")
    return max(set(folder.glob("*.whl")) - before, key=lambda path: path.stat().st_mtime)


def own_wheel(folder: Path) -> Wheel:
    """This project as it stands in the working tree."""
    for old in folder.glob("hrm_edge-*.whl"):
        old.unlink()
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("hrm_edge-*.whl")
    return read_wheel(path)


def gather(own: Wheel, python: str, machine: str, extras: set[str], folder: Path) -> list[Wheel]:
    """Every wheel that ``hrm-edge[extras]`` needs on the target, in the order met."""
    target = environment(python, machine)
    pinned = pins(target)
    found: dict[str, Wheel] = {own.name: own}
    queue = [(requirement, extras) for requirement in own.requires]
    while queue:
        requirement, asked = queue.pop(0)
        name = canonicalize_name(requirement.name)
        if not wanted(requirement.marker, target, asked):
            continue
        if name == own.name:  # an extra that names another one
            queue += [(r, set(requirement.extras)) for r in own.requires]
        elif name not in found:
            if name not in pinned:
                raise UserError(f"{name} is not in constraints.txt", "python scripts/constraints.py --keep")
            found[name] = read_wheel(download(name, pinned[name], python, machine, folder))
            queue += [(r, set(requirement.extras)) for r in found[name].requires]
    return list(found.values())


def table(wheels: dict[str, list[Wheel]]) -> str:
    """Sizes and licences, once per wheel."""
    users: dict[Path, list[str]] = {}
    for python, found in wheels.items():
        for wheel in found:
            users.setdefault(wheel.path, []).append(python)
    every = sorted({wheel.path: wheel for found in wheels.values() for wheel in found}.values(), key=lambda w: w.name)
    rows = ["| package | version | for Python | MB | licence |", "|---|---|---|---|---|"]
    for wheel in every:
        pythons, size = ", ".join(users[wheel.path]), wheel.path.stat().st_size / 1e6
        rows.append(f"| {wheel.name} | {wheel.version} | {pythons} | {size:.1f} | {wheel.licence} |")
    total = sum(wheel.path.stat().st_size for wheel in every) / 1e6
    sums = [
        f"Python {python}: {len(found)} wheels, {sum(w.path.stat().st_size for w in found) / 1e6:.0f} MB"
        for python, found in wheels.items()
    ]
    return "\n".join([*rows, "", f"{'; '.join(sums)}; together {total:.0f} MB.", ""])


@click.command()
@click.option("--out", default="build/wheelhouse", show_default=True, type=click.Path(path_type=Path))
@click.option("--machine", default="aarch64", show_default=True, type=click.Choice(["aarch64", "x86_64"]))
@click.option("--python", "pythons", multiple=True, default=["3.10", "3.12"], show_default=True)
@click.option("--extra", "extras", multiple=True, help="An extra of the project to add, such as web.")
def main(out: Path, machine: str, pythons: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Gather the edge part's wheels into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    own = own_wheel(out)
    known = set(re.findall(r"extra == ['\"](\S+?)['\"]", " ".join(str(r.marker) for r in own.requires)))
    if unknown := set(extras) - known:
        raise UserError(f"no extra {', '.join(sorted(unknown))}", f"known: {', '.join(sorted(known))}")
    wheels = {}
    for python in pythons:
        wheels[python] = gather(own, python, machine, set(extras), out)
        lines = [f"{w.name}=={w.version} --hash=sha256:{sha256(w.path)}" for w in wheels[python]]
        write_text(out / f"requirements-cp{python.replace('.', '')}.txt", "\n".join(lines) + "\n")
    kept = {wheel.path.name for found in wheels.values() for wheel in found}
    for path in out.glob("*.whl"):
        if path.name not in kept:
            path.unlink()
    write_text(out / "wheels.md", table(wheels))
    for name in ("setup.sh", "hrm-edge-demo.service"):
        shutil.copy2(ROOT / "jetson" / name, out / name)
    click.echo((out / "wheels.md").read_text(encoding="utf-8"))
    click.echo(f"Next, on the board: bash {out.name}/setup.sh --offline {out.name}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error.what}\n  {error.mend}")
