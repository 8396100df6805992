"""``hrm_edge.load`` and what its object does, as a Python program uses it; from a wheel, with what a device has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hrm_edge
from hrm_edge.tasks import get_task

ROOT = Path(__file__).resolve().parents[2]
PUZZLE = "002968470000017200090002016783106020021079053540000061015820007000005000074031009"


@pytest.fixture(scope="module")
def model() -> hrm_edge.Model:
    return hrm_edge.load("sudoku-nano", threads=1)


def digits(text: str) -> np.ndarray:
    return np.array([int(cell) for cell in text])


def test_what_it_says_of_itself(model: hrm_edge.Model) -> None:
    assert repr(model) == "<hrm_edge.Model sudoku-nano: sudoku, fp32, onnxruntime-cpu>"
    assert model.folder.name == "sudoku-nano"
    assert model.manifest is not None
    assert set(hrm_edge.__all__) <= set(dir(hrm_edge))


@pytest.mark.parametrize("puzzle", [PUZZLE, PUZZLE.replace("0", "."), digits(PUZZLE), digits(PUZZLE).reshape(9, 9)])
def test_one_puzzle_has_one_result(model: hrm_edge.Model, puzzle: str | np.ndarray) -> None:
    result = model.solve(puzzle)
    assert isinstance(result, hrm_edge.Result)
    assert (result.puzzle, result.verified, result.views) == (PUZZLE, True, 1)
    assert result.answer is not None
    assert model.task.verify(model.task.parse(PUZZLE)[None], model.task.parse(result.answer)[None]).all()
    assert str(result).startswith("┌───")
    assert result.text().startswith(str(result))
    assert "solved, verified by the rules" in result.text()


def test_many_puzzles_have_many_results(model: hrm_edge.Model, tmp_path: Path) -> None:
    file = tmp_path / "puzzles.txt"
    file.write_text(f"{PUZZLE}\n{PUZZLE}\n")
    notes: list[str] = []
    seen: list[tuple[str, float, float]] = []
    several = [
        model.solve([PUZZLE, PUZZLE]),
        model.solve(np.stack([digits(PUZZLE)] * 2)),
        model.solve(np.stack([digits(PUZZLE)] * 2).reshape(2, 9, 9)),
        model.solve(file, on_message=notes.append, on_progress=lambda *row: seen.append(row)),
    ]
    for results in several:
        assert isinstance(results, list)
        assert [result.verified for result in results] == [True, True]
    assert notes == [f"{file}: read as one puzzle a line"]
    assert ("checking", 2, 2) in seen
    assert seen[-1] == ("solving", 2, 2)
    one = model.solve(digits(PUZZLE)[None])
    assert isinstance(one, list)
    assert len(one) == 1


@pytest.mark.parametrize(
    ("puzzle", "problem", "hint"),
    [
        ("12", "read 2 cells, a sudoku puzzle has 81", "give every cell a character"),
        ("missing.csv", "missing.csv: no such file", "check the path"),
        (["12"], "puzzle 0 of the list: read 2 cells", "give every cell a character"),
        (
            np.zeros(5, int),
            r"an array of int64 \[5\] is no sudoku",
            r"integers \[81\], \[9, 9\], \[N, 81\] or \[N, 9, 9\]",
        ),
        (np.zeros(81), r"an array of float64 \[81\] is no sudoku", "0 for a blank"),
        (np.full(81, 10), "a cell of the array is not in 0 to 9", "give digits"),
        (np.full(81, 7), "puzzle 0 of the array: contradictory givens: 9 7s in row 1", "check that cell"),
        (np.zeros(81, int), "array: the puzzle has several solutions", "a given is missing"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_puzzle(model: hrm_edge.Model, puzzle: object, problem: str, hint: str) -> None:
    with pytest.raises(hrm_edge.UserError, match=problem) as caught:
        model.solve(puzzle)  # type: ignore[arg-type]
    assert re.search(hint, caught.value.hint)


def test_only_a_picture_is_saved(model: hrm_edge.Model, tmp_path: Path) -> None:
    result = model.solve(PUZZLE)
    assert isinstance(result, hrm_edge.Result)
    with pytest.raises(hrm_edge.UserError, match="argument is no picture"):
        result.save(tmp_path / "solved.png")


def test_a_name_that_nothing_has() -> None:
    with pytest.raises(hrm_edge.UserError, match="no model 'sudoku-nanno'") as caught:
        hrm_edge.load("sudoku-nanno")
    assert "did you mean 'sudoku-nano'?" in caught.value.hint
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = hrm_edge.lode


def test_what_export_and_train_refuse(model: hrm_edge.Model, tmp_path: Path) -> None:
    with pytest.raises(hrm_edge.UserError, match="is an artifact already"):
        model.export(tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(hrm_edge.UserError, match="already exists"):
        model.export(tmp_path / "full", precision="fp16")
    with pytest.raises(hrm_edge.UserError, match="no recipe 'sudoku_nanno'"):
        hrm_edge.train("sudoku_nanno", data=tmp_path)


# -- a device: the wheel, and what the edge part depends on ------------------------------------------------------------

HOST_ONLY = ("torch", "onnx", "numba", "huggingface_hub", "cv2", "matplotlib")
DEVICE = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HOST_ONLY!r}:
            raise ModuleNotFoundError(f'{{name}} is not on the edge', name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built and unpacked, as pip does it."""
    pytest.importorskip("hatchling", reason="builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def on_device(site: Path, program: str) -> str:
    """Run ``program`` with the wheel's package, without anything that only a host has; returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEVICE + program],
        cwd=site.parent, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_of_the_documentation_run_on_an_edge_install(site: Path) -> None:
    text = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    first, second, *_ = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(first.splitlines()) == 5
    assert len(second.splitlines()) == 12
    assert on_device(site, first).startswith("┌───────┬")
    said = on_device(site, second + f"assert hrm_edge.__file__.startswith({str(site)!r})\n")
    answer = re.search(r"^(\d{81}) True \d+ [\d.]+$", said, re.MULTILINE)
    assert answer is not None
    task = get_task("sudoku")
    assert task.verify(task.parse(PUZZLE)[None], task.parse(answer[1])[None]).all()
    assert "100% of 20 puzzles exactly right" in said
    assert re.search(r"[\d.]+ ms at the median by onnxruntime-cpu", said)


def test_importing_it_loads_nothing_else(site: Path) -> None:
    program = (
        "before = set(sys.modules)\nimport hrm_edge\nafter = set(sys.modules) - before\n"
        "import json\nprint(json.dumps(sorted(after)))"
    )
    assert json.loads(on_device(site, program)) == ["__future__", "hrm_edge"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("hrm_edge.load('sudoku-nano').export('out', precision='fp16')", "needs onnx"),
        ("hrm_edge.train('mini-sudoku_nano', data='.')", "needs torch"),
    ],
)
def test_what_a_device_lacks_is_said(site: Path, call: str, said: str) -> None:
    lines = ("import hrm_edge", "try:", f"    {call}", "except hrm_edge.UserError as error:", "    print(error)")
    program = "\n".join(lines)
    assert said in on_device(site, program)
