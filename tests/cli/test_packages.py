"""A package that is there and does not load: a clear error that is no bug of ours, and a finding of the doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hrm_edge.packages import failed_import, unusable
from tests.needs import left_out, quick_compilers

ROOT = Path(__file__).parents[2]
ABI = "raise ImportError('numpy.core.multiarray failed to import')"
GL = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
TLS = "raise ImportError('/lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block')"
GLIBC = 'raise ImportError("/lib/libc.so.6: version `GLIBC_2.38\' not found (required by x.so)")'
CUDA = "raise OSError('libcudart.so.12: cannot open shared object file: No such file or directory')"
INNER = "import a_module_that_is_not_there"


def hrm_edge(*arguments: object, folder: Path, **texts: str) -> subprocess.CompletedProcess[str]:
    """The command where each package of ``texts`` has that code; other heavy ones are not installed."""
    for module, text in texts.items():
        (folder / "site" / module).mkdir(parents=True)
        (folder / "site" / module / "__init__.py").write_text(f"{text}\n")
    path = [str(folder / "site"), left_out(folder), str(ROOT)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **quick_compilers()}
    command = [sys.executable, "-m", "hrm_edge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)


PICTURE = ("solve", "{}/a.jpg")
EASY = ("solve", "002968470000017200090002016783106020021079053540000061015820007000005000074031009")
CASES = [  # module, what its import raises, a command that needs it, what fixes it
    ("cv2", ABI, PICTURE, "it is built for another NumPy: "),
    ("cv2", "raise AttributeError('_ARRAY_API not found')", PICTURE, "or for apt's: 'numpy<2'"),
    ("cv2", GL, PICTURE, "take the build without windows: "),
    ("cv2", TLS, PICTURE, "export LD_PRELOAD=/lib/aarch64-linux-gnu/libgomp.so.1, then run the same again"),
    ("cv2", "raise SystemError('initialization of cv2 raised unreported exception')", PICTURE, "--force-reinstall"),
    ("cv2", TLS, ("demo", "--web", "0", "--camera", "browser"), "export LD_PRELOAD="),
    ("onnxruntime", GLIBC, EASY, "it is made for a newer system: "),
    ("onnxruntime", TLS, EASY, "export LD_PRELOAD="),
    ("onnxruntime", INNER, EASY, "--force-reinstall onnxruntime"),
    ("openvino", GLIBC, (*EASY, "--backend", "openvino"), "it is made for a newer system: "),
    ("onnx", INNER, (*EASY, "--backend", "native", "--model", "sudoku-nano-int8"), "--force-reinstall onnx"),
    ("torch", CUDA, ("export", "sudoku-nano", "--out", "{}/x", "--fp16"), "--force-reinstall torch"),
    ("numba", INNER, ("data", "build", "mini-sudoku", "--out", "{}/x"), "--force-reinstall numba"),
    ("huggingface_hub", INNER, ("data", "build", "sudoku", "--source", "hub", "--out", "{}/x"), "--force-reinstall"),
]


@pytest.mark.parametrize(("module", "text", "words", "hint"), CASES)
def test_a_package_that_does_not_load_is_a_clear_error(module, text, words, hint, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not looked at")
    done = hrm_edge(*(word.format(tmp_path) for word in words), folder=tmp_path, **{module: text})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert f"{module} is installed and does not load" in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert "is not installed" not in done.stderr


def test_the_doctor_imports_what_it_judges(tmp_path):
    broken = {"cv2": "import os; os.abort()", "openvino": GLIBC, "onnx": INNER, "torch": CUDA}
    hints = {"cv2": "--force-reinstall", "openvino": "it is made for a newer system",
             "onnx": "--force-reinstall onnx", "torch": "--force-reinstall torch"}  # fmt: skip
    done = hrm_edge("doctor", "--json", folder=tmp_path, **broken)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    for module, hint in hints.items():
        finding = found[f"broken-{module}"]
        assert (finding["level"], "is installed and does not load" in finding["what"]) == ("warn", True)
        assert hint in finding["mend"]
    works = {backend["name"]: backend["works"] for backend in report["backends"]}
    assert not works["openvino (CPU)"]
    assert not works["native (CPU)"]


def test_the_doctor_tells_missing_from_broken(tmp_path):
    done = hrm_edge("doctor", "--json", folder=tmp_path, onnxruntime=INNER, cv2=ABI)
    worst, *others = json.loads(done.stdout)["findings"]
    assert (done.returncode, worst["name"]) == (1, "onnxruntime")
    assert "does not load (ModuleNotFoundError: No module named 'a_module_that_is_not_there')" in worst["what"]
    (opencv,) = [finding for finding in others if finding["name"] == "broken-cv2"]
    assert "it is built for another NumPy" in opencv["mend"]


def test_an_error_inside_a_package_that_has_loaded_is_not_its_import():
    with pytest.raises(json.JSONDecodeError) as used:
        json.loads("no JSON")
    assert failed_import(used.value) is None
    assert failed_import(ImportError("cannot import name", name="hrm_edge.x")) is None
    assert failed_import(ImportError("libfoo.so", name="some_library")) == "some_library"
    assert "PIL is not installed" in unusable("PIL", ModuleNotFoundError("x", name="PIL")).problem
    assert unusable("PIL", ModuleNotFoundError("x", name="PIL")).hint == "pip install pillow"
