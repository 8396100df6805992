"""Rewrite constraints.txt: exact pins of every package that the extras pull in, for the Pythons and machines we serve.

    python scripts/constraints.py [--upgrade]

Resolves with uv, once for all of them; a package that Python 3.10 needs older is listed twice, with a marker. The
versions already pinned are held wherever they still resolve; with ``--upgrade`` everything moves to the newest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hrm_edge.files import write_text

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
BESIDE = """\
torch==2.13.0  # moved by hand: the newest torch that the export tests have passed with
cuda-python==12.6.2.post1; python_version < '3.11' and platform_machine == 'aarch64'  # JetPack 6's, as in jetpack.yaml
hatchling
editables
setuptools
wheel
"""  # the last four build this project and the packages that come as sources
HEADER = """\
# Exact versions of every package, direct and transitive, that any extra installs.
# Written by scripts/constraints.py (see CONTRIBUTING.md); the ranges that we support are in pyproject.toml.
# A torch from PyTorch's index of CPU wheels (2.13.0+cpu) satisfies the pin too and spares the CUDA packages.
"""


def main() -> None:
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.10", "--all-extras"]
    command += ["--no-annotate", "--no-header", "--output-file", str(CONSTRAINTS), *sys.argv[1:], "pyproject.toml", "-"]
    subprocess.run(command, cwd=ROOT, input=BESIDE, text=True, check=True)
    write_text(CONSTRAINTS, HEADER + CONSTRAINTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
