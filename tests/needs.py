"""Programs that tests drive: where one is missing a test skips and says so; in CI, which installs them, it fails."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip, or fail where ``.ci/run`` should have installed it: a skip there would be a test that nobody runs."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: .ci/run should have installed it")
    pytest.skip(what)


def installed(name: str, package: str | None = None) -> str:
    """Path of a program of these tests' environment or of the system, those of administrators included."""
    places = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(f"{name} is not installed: apt-get install {package or name}")
    return found
