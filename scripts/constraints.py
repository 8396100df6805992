"""Rewrite constraints.txt: exact pins of every package that the extras pull in, for the Pythons and machines we serve.

    python scripts/constraints.py [--keep]

Resolves with pip (no download of wheels) once per (Python, machine) of TARGETS. With ``--keep`` the versions already
pinned are held and only what is missing is added. What a newer Python does not need other versions for is pinned once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
TARGETS = [(python, machine) for python in ("3.11", "3.10") for machine in ("x86_64", "aarch64")]
TORCH = "2.13.0"  # moved by hand: the newest torch that the export tests have passed with
# pip judges environment markers by the Python that runs it, so what only 3.10 needs is named here.
ONLY_310 = ["exceptiongroup", "tomli"]
# Published as source packages, which pip cannot resolve for another Python.
BY_HAND = {
    "tensorrt-lean-cu13-bindings": "11.4.0.106",
    "tensorrt-lean-cu13-libs": "11.4.0.106",
    "tensorrt-rtx": "1.7.1.116",
    "tensorrt-rtx-cu13": "1.7.1.116",
    "tensorrt-rtx-cu13-bindings": "1.7.1.116",
    "tensorrt-rtx-cu13-libs": "1.7.1.116",
    "wandb": "0.31.0",  # alone: its own pins ask for a pre-release
    "wheel": "0.48.0",  # what those build with
}
HEADER = """\
# Exact versions of every package, direct and transitive, that any extra installs.
# Written by scripts/constraints.py (see CONTRIBUTING.md); the ranges that we support are in pyproject.toml.
# A torch from PyTorch's index of CPU wheels (2.13.0+cpu) satisfies the pin too and spares the CUDA packages.
"""


def requirements() -> list[str]:
    """The names in pyproject.toml's dependency lists (without our own extras), plus the build backend's."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    names = {match.group(1) for match in re.finditer(r'"([A-Za-z0-9_.-]+)[>;]', lists)}
    names -= {*BY_HAND, "torch"}
    return sorted(names | {f"torch=={TORCH}", "hatchling", "editables", "setuptools"})


def resolve(python: str, machine: str, held: Path | None) -> dict[str, str]:
    """Name → version of all that pip would install on that Python and machine."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(5, 40)] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--target", folder, "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += [f"--platform={tag}" for tag in tags] + [f"--report={report}"]
        command += ["--constraint", str(held)] if held else []
        subprocess.run([*command, *requirements(), *(ONLY_310 if python == "3.10" else [])], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        re.sub(r"[-_.]+", "-", i["metadata"]["name"]).lower(): i["metadata"]["version"].split("+")[0] for i in found
    }


def render(tables: dict[tuple[str, str], dict[str, str]]) -> str:
    """The text of constraints.txt; a version that only 3.10 needs gets a marker."""
    lines = []
    for name in sorted({name for table in tables.values() for name in table}):
        old = {table[name] for (python, _), table in tables.items() if python == "3.10" and name in table}
        new = {table[name] for (python, _), table in tables.items() if python != "3.10" and name in table}
        if len(old) > 1 or len(new) > 1:
            raise SystemExit(f"{name}: machines disagree: {old} {new}; pin it by hand")
        if old == new:
            lines.append(f"{name}=={new.pop()}")
            continue
        lines += [f'{name}=={version}; python_version < "3.11"' for version in old]
        lines += [f'{name}=={version}; python_version >= "3.11"' for version in new]
    return "\n".join(lines) + "\n"


def main() -> None:
    held = CONSTRAINTS if "--keep" in sys.argv[1:] else None
    tables = {(python, machine): resolve(python, machine, held) for python, machine in TARGETS}
    for table in tables.values():
        table.update(BY_HAND)
    CONSTRAINTS.write_text(HEADER + render(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
