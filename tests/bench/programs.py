"""Loads a program of ``benchmarks/`` as a module, its results and its work going to another folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_program(name: str, to: Path, patch: pytest.MonkeyPatch) -> Any:
    """``benchmarks/NAME.py``, with its ``ROOT`` (and ``WORK``, where it has one) below ``to``."""
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(f"{name}_program", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, f"{name}_program", module)  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    patch.setattr(module, "ROOT", to)
    if hasattr(module, "WORK"):
        patch.setattr(module, "WORK", to / "work")
    return module


def run_program(program: Any, patch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Its exit code with such a command line."""
    patch.setattr(sys, "argv", ["program", *arguments])
    code: int = program.main()
    return code
