"""Processes that the package starts never run code of the folder that the user happens to be in."""

from __future__ import annotations

import ast
import multiprocessing.util
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from hrm_edge import child
from hrm_edge.child import python_command, run_verb, spawn_context
from hrm_edge.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = [(3, 10), pytest.param(sys.version_info[:2], id="this Python")]
# what our children, Python's own and the libraries' import early
NAMES = ("json", "click", "runpy", "multiprocessing", "concurrent", "pickle", "importlib", "numpy", "torch",
         "onnxruntime", "tensorrt_rtx", "pydantic", "hrm_edge")  # fmt: skip


class Hostile:
    """The current folder, with a module of every name above that leaves a trace where it is imported."""

    def __init__(self, folder: Path) -> None:
        self.trace = folder / "ran.txt"
        for name in NAMES:
            (folder / f"{name}.py").write_text(f"open({str(self.trace)!r}, 'a').write('{name} ')\nraise ImportError\n")

    def check(self) -> None:
        assert not self.trace.exists(), f"modules of the current folder ran: {self.trace.read_text()}"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "PYTHONSAFEPATH", "")  # put back after the test; empty is not set
    return Hostile(tmp_path)


def test_the_folder_is_hostile(hostile):
    """Python by itself does run it: the other tests can fail."""
    subprocess.run([sys.executable, "-c", "import json"], stderr=subprocess.DEVNULL, check=False)
    assert hostile.trace.read_text().startswith("json ")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_child_runs_nothing_of_the_folder(hostile, version):
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    for command in (
        python_command("-c", code, "one", "two", version=version),
        python_command("-m", "json.tool", "--json-lines", version=version),
        python_command("-m", "hrm_edge", "--version", version=version),
    ):
        done = subprocess.run(command, input="[1]\n", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    hostile.check()


@pytest.mark.parametrize("version", VERSIONS)
def test_arguments_arrive_as_they_are(version):
    code = "import sys; print(sys.argv[1:])"
    found = subprocess.run(python_command("-c", code, "-x", "a b", version=version), capture_output=True, text=True)
    assert found.stdout == "['-x', 'a b']\n"
    found = subprocess.run(
        python_command("-m", "hrm_edge", "sollve", version=version), capture_output=True, text=True, check=False
    )
    assert "No such command 'sollve': did you mean 'solve'?" in found.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pool_runs_nothing_of_the_folder(hostile, monkeypatch, version):
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", multiprocessing.util.spawnv_passfds)
    with ProcessPoolExecutor(2, mp_context=spawn_context(version)) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
    hostile.check()


def test_the_doctor_imports_what_is_installed(hostile):
    from hrm_edge.doctor.machine import try_import

    assert try_import("click").error is None
    assert try_import("onnxruntime").providers
    hostile.check()


def test_a_sweep_and_a_record_run_the_installed_package(hostile):
    assert run_verb(["--version"]).code == 0
    ended = run_verb(["sollve"])
    assert (ended.code, "did you mean 'solve'?" in ended.last_words) == (2, True)
    hostile.check()


def test_the_last_words_of_a_fault_name_it():
    errors = (
        "Traceback (most recent call last):\n  ...\nKeyError: 'lanes'\n\nThis is a bug in hrm-edge: please report it\n"
    )
    assert child._last_words(errors, 70) == "KeyError: 'lanes' (a bug in hrm-edge: please report it)"
    assert child._last_words("Error: no such file\n  name another\n", 2) == "Error: no such file"


def test_a_verb_that_takes_too_long_is_stopped():
    ticks = []
    ended = run_verb(
        ["demo", "--camera", "browser", "--web", "127.0.0.1:0"], limit_s=0.6, on_tick=lambda: ticks.append(1)
    )
    assert ended.code == -9
    assert ended.last_words == "it took longer than 1 s and was stopped"
    assert ticks


def test_several_ranks_run_the_installed_package(hostile, capfd):
    from hrm_edge.training.launch import Hosts, launch

    assert launch(["--version"], Hosts(nproc=2)) == 0
    assert capfd.readouterr().out.count("hrm-edge") == 2
    hostile.check()


def test_the_engine_builder_runs_the_installed_package(hostile, tmp_path):
    from hrm_edge.runtime.trt.build import _run_worker
    from hrm_edge.runtime.trt.identity import BatchRange, Options
    from hrm_edge.runtime.trt.worker import Request

    batch = BatchRange(min=1, opt=1, max=1)
    options = Options(precision="fp32", optimization_level=0, workspace_mib=64, batch=batch)
    request = Request(
        step=tmp_path / "none.onnx", plan=tmp_path / "plan", runtime="tensorrt_rtx", sms=(), options=options,
        timing_cache=None, plugin=None,
    )  # fmt: skip
    with pytest.raises(UserError):  # there is no such model, or no TensorRT-RTX
        _run_worker(request, print)
    hostile.check()


@pytest.mark.parametrize("module", ["sudoku_numba", "canonical_numba", "maze_numba"])
def test_numba_loads_no_machine_code_that_the_folder_names(tmp_path, module):
    """Its index is a pickle."""
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: evil\n")
    code = f"import numba.core.config as c; print(c.CACHE_DIR); import hrm_edge.data.{module}; print(c.CACHE_DIR)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    command = python_command("-c", code)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    before, after = done.stdout.splitlines()
    assert before == "evil", "so that this test can fail"
    assert after != "evil"


# -- no other way ---------------------------------------------------------------------------------------------------


def starts_python(source: str) -> list[str]:
    """Expressions of a module with which processes of Python are started: ``sys.executable``, multiprocessing's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable":
            found.append(f"line {node.lineno}: sys.executable")
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if any(name == "multiprocessing" for name in names):
            found.append(f"line {node.lineno}: multiprocessing")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ProcessPoolExecutor"):
            given = [ast.unparse(value) for value in (*node.args, *(k.value for k in node.keywords))]
            found += [] if "spawn_context()" in given else [f"line {node.lineno}: ProcessPoolExecutor"]
    return found


@pytest.mark.parametrize(
    "source",
    ["import sys\nrun([sys.executable, '-m', 'x'])", "import multiprocessing", "from multiprocessing import Process",
     "with ProcessPoolExecutor(2) as pool: ..."],
)  # fmt: skip
def test_another_way_is_found(source):
    assert len(starts_python(source)) == 1


def test_there_is_no_other_way_to_start_python():
    files = [path for folder in ("hrm_edge", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): starts_python(path.read_text(encoding="utf-8")) for path in files}
    assert found.pop("hrm_edge/child.py")
    for name in ("hrm_edge/doctor/machine.py", "hrm_edge/packages.py"):
        assert len(found.pop(name)) == 1, "printed in advice: PYTHON -m pip install ..."
    assert len(found.pop("scripts/gpu_day.py")) == 2, "benchmarks by their path: not from the current folder"
    assert not {name: lines for name, lines in found.items() if lines}
