"""The direction of imports, as a test, so that it lasts.

base <- core loop <- edge (numpy, no torch) and base <- model <- train, quant, export (torch). The two arms meet only
in ``export`` and in the command line, which imports the host's side lazily.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hrm_edge"

BASE = {
    "backends",
    "callbacks",
    "catalog",
    "checkpoint",
    "child",
    "costs",
    "device",
    "quiet",
    "records",
    "errors",
    "files",
    "packages",
    "power",
    "spec",
    "recipe",
    "manifest",
    "report",
    "tasks",
    "terminal",
    "zoo",
}
CORE = {"graph", "session", "solution", "solve", "parity"}
EDGE = {"runtime", "plugin", "vision", "bench", "demo", "doctor", "record", "remote"}
HOST = {"model", "ops", "data", "training", "quant", "export", "digits"}

# A file or folder of the package → the others that it may import (itself and __init__ always).
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"api", "errors"},  # lazily: see the test of the import's time
    "__main__": {"cli"},
    # base
    "backends": set(),
    "callbacks": set(),
    "child": {"errors"},
    "quiet": set(),
    "errors": set(),
    "files": {"errors"},
    "packages": {"errors"},
    "spec": {"errors"},
    "costs": {"spec"},
    "catalog": {"errors"},
    "recipe": {"catalog", "errors", "files", "spec"},
    "records": {"errors", "files"},
    "manifest": {"costs", "errors", "files", "records", "spec"},
    "checkpoint": {"errors", "files", "manifest", "records", "spec"},
    "device": {"errors", "files", "records"},
    "power": {"child", "device", "errors", "records", "report"},
    "report": {"device", "errors", "files", "records", "terminal"},
    "zoo": {"errors", "files", "manifest", "records"},
    "tasks": {"errors"},
    "terminal": set(),
    # core
    "session": {"costs", "spec", "tasks"},
    "solution": {"tasks"},
    "solve": {"errors", "spec", "tasks", "session", "solution"},
    "parity": {"costs", "manifest", "recipe", "report", "session", "tasks"},
    "graph": {"spec"},
    # edge
    "runtime": {
        "backends",
        "callbacks",
        "device",
        "child",
        "quiet",
        "errors",
        "files",
        "packages",
        "records",
        "spec",
        "manifest",
        "session",
        "plugin",
        "graph",
    },
    "plugin": {"errors", "files"},
    "vision": {"child", "errors", "files", "quiet", "tasks"},
    "bench": BASE | CORE | {"runtime"},
    "demo": BASE | CORE | {"runtime", "vision", "bench"},
    "doctor": BASE,
    "record": BASE | {"doctor", "runtime"},
    "remote": BASE,
    # host
    "ops": {"errors", "files", "plugin"},
    "model": BASE | {"graph", "session", "ops"},
    "data": BASE,
    "digits": BASE | {"vision"},
    "training": BASE | CORE | {"model", "data", "quant"},
    "quant": BASE | {"session", "parity", "model", "data"},
    "export": BASE | CORE | {"graph", "model", "data", "quant", "plugin", "runtime", "ops"},
    "api": BASE | CORE | EDGE | HOST,
    "cli": BASE | CORE | EDGE | HOST | {"api"},
}
# The same for packages of others; the standard library is free.
MAY_USE: dict[str, set[str]] = {
    "files": {"yaml"},
    "quiet": {"onnxruntime", "openvino"},  # nobody else: they would report to their makers
    "spec": {"pydantic"},
    "recipe": {"pydantic", "yaml"},
    "records": {"pydantic"},
    "checkpoint": {"pydantic"},
    "manifest": {"pydantic"},
    "zoo": {"pydantic", "huggingface_hub"},
    "device": {"pydantic", "yaml"},
    "report": {"pydantic", "rich", "matplotlib"},
    "tasks": {"numpy"},
    "terminal": {"rich"},
    "session": {"numpy"},
    "solution": {"numpy"},
    "solve": {"numpy"},
    "parity": {"numpy"},
    "graph": {"numpy"},
    "runtime": {
        "numpy",
        "safetensors",
        "pydantic",
        "onnx",
        "tensorrt",
        "tensorrt_rtx",
        "cuda",
        "pycuda",
    },
    "plugin": {"numpy", "tensorrt", "cuda"},
    "vision": {"numpy", "cv2"},
    "bench": {"numpy", "pydantic", "yaml"},
    "power": {"numpy", "pydantic", "jtop", "pynvml"},
    "demo": {"numpy", "cv2", "segno", "starlette", "uvicorn"},
    "doctor": {"pydantic", "rich"},
    "record": {"pydantic"},
    "ops": {"numpy", "torch", "triton", "tensorrt", "torch_tensorrt"},
    "model": {"numpy", "torch", "safetensors", "pydantic", "yaml"},
    "data": {"numpy", "numba", "pydantic", "rich", "huggingface_hub"},
    "training": {"numpy", "torch", "safetensors", "pydantic", "rich", "wandb"},
    "digits": {"numpy", "torch", "onnx", "cv2", "PIL", "pydantic"},
    "quant": {"numpy", "torch", "yaml", "pydantic"},
    "export": {
        "numpy",
        "torch",
        "torch_tensorrt",
        "tensorrt",
        "safetensors",
        "onnx",
        "pydantic",
        "rich",
    },
    "api": {"numpy", "pydantic", "rich"},
    "cli": {"click", "rich", "numpy", "pydantic"},
}
# The door and the command line import these only inside functions: they must run where there is no torch.
LAZY = HOST
# of these only: a device may lack them, and is told so when it asks
INSIDE_FUNCTIONS = {"zoo": {"huggingface_hub"}, "runtime": {"onnx"}}
BLOCKED_ON_EDGE = ("torch", "onnx", "numba", "huggingface_hub")


def unit_of(path: Path) -> str:
    """``hrm_edge/data/sudoku.py`` → ``data``, ``hrm_edge/spec.py`` → ``spec``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, whether at module level) of every import, ``import_module("...")`` included."""
    top = {id(node) for statement in tree.body for node in ([statement] if _is_import(statement) else [])}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}", id(node) in top
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value), False


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def violations(source: str, unit: str, where: str) -> list[str]:
    """Every import in ``source``, a file of ``unit``, that the tables forbid: ``file:line: the rule``."""
    found = []
    for line, name, at_top in imports(ast.parse(source)):
        first, _, rest = name.partition(".")
        if first == PACKAGE.name:
            target = rest.partition(".")[0]
            is_ours = (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file() or target in MAY_IMPORT
            target = target if is_ours else "__init__"
            if target not in {unit, "__init__"} | MAY_IMPORT[unit]:
                allowed = ", ".join(sorted(MAY_IMPORT[unit])) or "nothing"
                found.append(f"{where}:{line}: '{unit}' may not import '{target}' (it may import {allowed})")
            elif unit in ("api", "cli") and at_top and target in LAZY:
                found.append(f"{where}:{line}: '{unit}' imports '{target}' (host side) inside functions only")
        elif first not in sys.stdlib_module_names and first not in MAY_USE.get(unit, set()):
            allowed = ", ".join(sorted(MAY_USE.get(unit, set()))) or "the standard library only"
            found.append(f"{where}:{line}: '{unit}' may not use '{first}' (it may use {allowed})")
    return found


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def test_every_module_is_in_the_table():
    units = {unit_of(path) for path in modules()}
    assert len(units) > 5
    assert units <= set(MAY_IMPORT), f"enter {sorted(units - set(MAY_IMPORT))} in MAY_IMPORT of {__file__}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    assert not violations(path.read_text(encoding="utf-8"), unit_of(path), str(path.relative_to(ROOT)))


def test_the_table_has_no_cycle():
    """Leaves are taken away until nothing is left; a cycle would stay."""
    left = {unit: {target for target in targets if target != unit} for unit, targets in MAY_IMPORT.items()}
    while left:
        leaves = {unit for unit, targets in left.items() if not targets & set(left)}
        assert leaves, f"cycle among {sorted(left)}"
        left = {unit: targets for unit, targets in left.items() if unit not in leaves}


def test_files_import_each_other_in_one_direction():
    """Also inside functions: an import there may save time, not break a circle."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    left = {}
    for name, path in names.items():
        tree = _without_type_checking(ast.parse(path.read_text(encoding="utf-8")))
        dotted = [imported for _, imported, _ in imports(tree)]
        targets = {each if each in names else each.rpartition(".")[0] for each in dotted} & set(names)
        left[name] = targets - {name, PACKAGE.name}
    while leaves := {name for name, targets in left.items() if not targets & set(left)}:
        left = {name: targets for name, targets in left.items() if name not in leaves}
    while unused := set(left) - set().union(*left.values()):
        left = {name: targets for name, targets in left.items() if name not in unused}
    assert not left


def _without_type_checking(tree: ast.Module) -> ast.Module:
    kept = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    return ast.Module(kept, tree.type_ignores)


@pytest.mark.parametrize("unit", sorted(BASE | CORE | EDGE))
def test_the_edge_may_not_import_the_host_side(unit):
    assert not MAY_IMPORT[unit] & HOST
    assert not (MAY_USE.get(unit, set()) - INSIDE_FUNCTIONS.get(unit, set())) & set(BLOCKED_ON_EDGE)


def test_programs_beside_the_package_use_the_library_not_the_command_line():
    """But for the page that documents the command line itself."""
    allowed = {ROOT / "scripts/docs_reference.py"}
    for path in sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]):
        names = [name for _, name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))]
        assert path in allowed or not any(name.startswith("hrm_edge.cli") for name in names), path


@pytest.mark.parametrize(
    ("unit", "source", "rule"),
    [
        ("solve", "import torch", "'solve' may not use 'torch'"),
        ("solve", "def f():\n    from torch.nn import functional", "'solve' may not use 'torch'"),
        ("runtime", "from hrm_edge.model.full import X", "'runtime' may not import 'model'"),
        ("runtime", "def f():\n    from hrm_edge import model", "'runtime' may not import 'model'"),
        ("tasks", "import importlib\nimportlib.import_module('hrm_edge.data')", "'tasks' may not import 'data'"),
        ("errors", "import numpy as np", "'errors' may not use 'numpy'"),
        (
            "cli",
            "from hrm_edge.training.loop import train",
            "'cli' imports 'training' (host side) inside functions only",
        ),
        ("cli", "def f():\n    import torch", "'cli' may not use 'torch'"),
    ],
)
def test_a_wrong_import_is_found(unit, source, rule):
    (found,) = violations(source, unit, "x.py")
    assert rule in found
    assert found.startswith(f"x.py:{len(source.splitlines())}: ")


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("solve", "import numpy as np\nfrom hrm_edge.session import Session"),
        ("cli", "def f():\n    from hrm_edge.training.loop import train"),
        ("cli", "from hrm_edge import __version__\nfrom hrm_edge.runtime import open_artifact"),
        ("export", "import torch\nfrom hrm_edge.export.onnx import x"),
    ],
)
def test_a_right_import_passes(unit, source):
    assert violations(source, unit, "x.py") == []


def test_edge_imports_with_torch_blocked():
    """A device has neither torch nor the exporters: base, core, edge and every verb's module load without them."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules()]
    units = BASE | CORE | EDGE | {"api", "cli"}
    wanted = [name.removesuffix(".__init__") for name in names if name.split(".")[1] in units]
    code = (
        "import importlib, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {BLOCKED_ON_EDGE!r}:\n"
        "            raise ImportError(f'{name} is not on the edge')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"for name in {BLOCKED_ON_EDGE!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: pass\n"
        "    else: sys.exit(f'{name} was not blocked')\n"
        f"for name in {wanted!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert len(wanted) > 5
    assert done.returncode == 0, done.stderr
