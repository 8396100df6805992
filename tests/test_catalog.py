"""The shipped recipes: found by name, described by the comment on top, with figures that results files hold."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from hrm_edge import catalog
from hrm_edge.cli import main as frame
from hrm_edge.errors import UserError
from hrm_edge.recipe import read_keys

ROOT = Path(__file__).resolve().parent.parent


def test_every_recipe_of_the_checkout_is_listed_and_says_what_people_ask():
    files = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert files == set(catalog.names())
    for entry in catalog.entries():
        assert entry.summary, entry.name
        assert entry.hardware, entry.name
        assert entry.time, entry.name
        assert entry.accuracy, entry.name
        assert entry.command.startswith(f"hrm-edge train {entry.name} "), entry.name


def figures(results: Any) -> set[float]:
    """Every exact accuracy in a results file, of ARC the shares of cells too, in per cent with one decimal."""
    if arc := results.get("arc"):
        shares = [cells for cells in arc["cells"].values() if isinstance(cells, dict)]
        return {round(100 * share, 1) for cells in shares for share in cells.values()}
    rows = results.get("by_views") or results["points"]
    return {round(100 * row["exact_accuracy"], 1) for row in rows}


@pytest.mark.parametrize("name", catalog.names())
def test_a_recipe_with_a_results_file_tells_its_figures(name):
    text = catalog.find(name).read_text()
    match = re.search(r"^# Results: +(\S+)$", text, re.MULTILINE)
    told = {float(figure) for figure in re.findall(r"([\d.]+) %", catalog.read_entry(catalog.find(name)).accuracy)}
    if match is None:
        assert not re.search(r"benchmarks/results/.*\.json$", text, re.MULTILINE) or name == "digits"
        return
    assert told
    assert told <= figures(json.loads((ROOT / match[1]).read_text()))


def test_a_comment_is_read_over_several_lines_and_remarks_are_left_out(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "# What it is,\n# in two lines.\n# Time:     1 h\n#           or 2\n# A remark.\n# Options: x\ntask: a\n"
    )
    entry = catalog.read_entry(path)
    assert (entry.summary, entry.time, entry.hardware) == ("What it is, in two lines.", "1 h or 2", "")


def test_a_file_wins_over_a_name_and_a_name_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini-sudoku_nano").mkdir()
    assert catalog.find("mini-sudoku_nano") == catalog.RECIPES / "mini-sudoku_nano.yaml"
    (tmp_path / "sudoku_nano").write_text("task: mini-sudoku\n")
    assert catalog.find("sudoku_nano") == Path("sudoku_nano")


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("mini-sudoku_nan", "no recipe 'mini-sudoku_nan'", "did you mean 'mini-sudoku_nano'? 'hrm-edge recipes'"),
        ("recipes/sudoku_nano.yaml", "No such file or directory", "as a shipped recipe it is called sudoku_nano"),
        ("x/mine.yaml", "x/mine.yaml: No such file or directory", "check the path"),
        (".", ". is a folder", "a name that 'hrm-edge recipes' lists"),
    ],
)
def test_a_wrong_name_is_told_the_right_one(name, what, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        catalog.find(name)
    assert what in caught.value.problem
    assert hint in str(caught.value)


def test_the_list_and_its_json(capsys):
    assert frame.main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{shown}" for name in catalog.names())
    assert max(map(len, shown.splitlines())) <= 80
    assert frame.main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["recipes"]
    assert [entry["name"] for entry in listed] == catalog.names()


def test_a_copy_is_the_file_and_is_never_written_over_another(tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert frame.main(["recipes", "copy", "mini-sudoku_nano", str(target)]) == 0
    assert target.read_bytes() == catalog.find("mini-sudoku_nano").read_bytes()
    assert f"Next: hrm-edge train {target} --data DIR" in capsys.readouterr().out
    target.write_text("mine")
    assert frame.main(["recipes", "copy", "mini-sudoku_nano", str(target)]) == 2
    assert target.read_text() == "mine"
    assert frame.main(["recipes", "copy", "mini-sudoku_nano", str(tmp_path)]) == 0
    assert (tmp_path / "mini-sudoku_nano.yaml").is_file()


def test_data_is_taken_as_it_is_written():
    """``--set`` reads YAML: a folder called 2024 or [a] would become something else."""
    for folder in ("2024", "[a]", "a: b", "null"):
        assert read_keys("mini-sudoku_nano", (), folder).raw["data"] == folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.stepz=3"], "--set train.stepz=3: unknown recipe key 'train.stepz'\n  did you mean 'steps'?"),
        (["other.yaml"], "'other.yaml': after the recipe come changes of it, KEY=VALUE"),
        (["--data", "nowhere"], "nowhere"),
        (["--wandb", "project"], "--wandb needs wandb, which is not installed\n  pip install 'hrm-edge[wandb]'"),
    ],
)
def test_mistakes_of_train_are_told_before_work_starts(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else real(name, *more))
    assert frame.main(["train", "mini-sudoku_nano", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_name_and_changes_train_and_go_on(tmp_path, monkeypatch, capsys):
    """``train NAME KEY=VALUE --data DIR`` is a file and ``--set``; the command to go on says the same words."""
    monkeypatch.chdir(tmp_path)
    data = str(tmp_path / "d 1")
    assert frame.main(["data", "build", "mini-sudoku", "--out", data, "--count", "40", "--test-count", "8"]) == 0
    small = ["train.batch=4", "model.hidden=32", "train.compile=false", "evaluate.puzzles=4", "train.warmup=0"]
    words = ["train", "mini-sudoku_nano", *small, "train.steps=3", "--data", data]
    assert frame.main([*words, "--time-limit", "1ms"]) == 0
    said = capsys.readouterr().out
    again = re.search(r"Go on: hrm-edge (.*)", said)[1]
    assert f"--data '{data}' --resume" in again
    assert frame.main(shlex.split(again)) == 0
    assert "Next: hrm-edge export runs/mini-sudoku_nano" in capsys.readouterr().out
    recipe = (tmp_path / "runs/mini-sudoku_nano/recipe.yaml").read_text()
    assert "batch: 4\n" in recipe
    assert f"data: {data}\n" in recipe
