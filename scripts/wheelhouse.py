"""Gather the edge part and its exact wheels for boards without internet. `make wheelhouse` runs it.

    python scripts/wheelhouse.py [--out DIR] [--machine aarch64] [--python 3.10 --python 3.12] [--extra NAME]…

DIR gets this project's own wheel, the pinned wheels of constraints.txt for every Python named, one
``requirements-cp310.txt`` with hashes for each Python, ``wheels.md`` (sizes, licences) and ``setup.sh``, which installs
from it: ``bash DIR/setup.sh --offline DIR``. It needs hatchling, editables, click and uv, and of this project what is
in the checkout (PYTHONPATH); `make wheelhouse` makes such an environment.
"""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.message import Message
from pathlib import Path

import click

from hrm_edge.child import python_command
from hrm_edge.errors import UserError
from hrm_edge.files import sha256, write_text

ROOT = Path(__file__).resolve().parent.parent
PIP = python_command("-m", "pip", "--quiet")
GLIBC = range(35, 16, -1)  # Ubuntu 22.04, JetPack 6's, has 2.35


def resolve(python: str, machine: str, extras: tuple[str, ...]) -> list[str]:
    """The ``name==version`` that the edge part needs on the target, all of them pinned in constraints.txt."""
    constraints = ROOT / "constraints.txt"
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary=:all:"]
    command += [f"--python-version={python}", f"--python-platform={machine}-manylinux_2_{GLIBC[0]}"]
    command += [f"--constraint={constraints}", *(f"--extra={name}" for name in extras), str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"no set of wheels for Python {python} on {machine}", done.stderr.strip())
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition(";")[0].strip() for line in lines}
    if missing := set(done.stdout.split()) - pinned:
        raise UserError(f"not in constraints.txt: {', '.join(sorted(missing))}", "python scripts/constraints.py")
    return done.stdout.split()


def download(pins: list[str], python: str, machine: str, folder: Path) -> list[Path]:
    """The wheels of ``pins`` for the target, in ``folder``."""
    command = [
        *PIP,
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
    ]
    command += [f"--platform=manylinux2014_{machine}"]
    command += [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
    with tempfile.TemporaryDirectory(dir=folder) as fresh:  # apart, to know which of several wheels is this target's
        if subprocess.run([*command, f"--dest={fresh}", *pins], check=False).returncode:
            raise UserError(
                f"pip could not bring every wheel for Python {python} on {machine}", "see its message above"
            )
        return [path.replace(folder / path.name) for path in sorted(Path(fresh).iterdir())]


def own_wheel(folder: Path) -> Path:
    """This project as it stands in the working tree."""
    for old in folder.glob("hrm_edge-*.whl"):
        old.unlink()
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("hrm_edge-*.whl")
    return path


def metadata(path: Path) -> Message:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return email.message_from_bytes(archive.read(name))


def licence(about: Message) -> str:
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if c.startswith("License ::")]
    named = about["License-Expression"] or ", ".join(classifiers) or (about["License"] or "").split("\n")[0]
    return named or "not named"


def table(wheels: dict[str, list[Path]]) -> str:
    """Sizes and licences, once per wheel."""
    rows = ["| package | version | for Python | MB | licence |", "|---|---|---|---|---|"]
    every = sorted({path for found in wheels.values() for path in found})
    for path in every:
        about, pythons = metadata(path), ", ".join(python for python, found in wheels.items() if path in found)
        size = path.stat().st_size / 1e6
        rows.append(f"| {about['Name']} | {about['Version']} | {pythons} | {size:.1f} | {licence(about)} |")
    sums = [f"Python {python}: {len(found)} wheels, {megabytes(found):.0f} MB" for python, found in wheels.items()]
    return "\n".join([*rows, "", f"{'; '.join(sums)}; together {megabytes(every):.0f} MB.", ""])


def megabytes(paths: list[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1e6


@click.command()
@click.option("--out", default="build/wheelhouse", show_default=True, type=click.Path(path_type=Path))
@click.option("--machine", default="aarch64", show_default=True, type=click.Choice(["aarch64", "x86_64"]))
@click.option("--python", "pythons", multiple=True, default=["3.10", "3.12"], show_default=True)
@click.option(
    "--extra",
    "extras",
    multiple=True,
    default=["web", "report", "gpu"],
    show_default=True,
    help="Extras of the project.",
)
def main(out: Path, machine: str, pythons: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Gather the edge part's wheels into a folder."""
    pins = {python: resolve(python, machine, extras) for python in pythons}
    out.mkdir(parents=True, exist_ok=True)
    own = own_wheel(out)
    wheels = {python: [own, *download(pins[python], python, machine, out)] for python in pythons}
    for python, found in wheels.items():
        names = [(about["Name"], about["Version"], sha256(path)) for path in found for about in [metadata(path)]]
        lines = [f"{name}=={version} --hash=sha256:{digest}" for name, version, digest in names]
        write_text(out / f"requirements-cp{python.replace('.', '')}.txt", "\n".join(lines) + "\n")
    for stale in {*out.glob("*.whl")} - {path for found in wheels.values() for path in found}:
        stale.unlink()
    write_text(out / "wheels.md", table(wheels))
    for name in ("setup.sh", "hrm-edge-demo.service", "hrm-edge-kiosk.service"):
        shutil.copy2(ROOT / "jetson" / name, out / name)
    click.echo((out / "wheels.md").read_text(encoding="utf-8"))
    click.echo(f"Next, over ssh: hrm-edge remote HOST setup --wheelhouse {out}")
    click.echo(f"Or carry {out.name} to the board, and there: bash {out.name}/setup.sh --offline {out.name}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error.problem}\n  {error.hint}")
