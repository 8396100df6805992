"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm_edge.errors import UserError
from hrm_edge.recipe import Recipe, load_recipe

TEXT = "task: mini-sudoku\nvariant: nano\ntrain: {batch: 8}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_overrides_win_and_keep_their_types(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    overrides = ["train.batch=16", "train.lr=1e-4", "model.hidden=64", "augment.extra_clues=[1, 3]", "data=a b"]
    recipe = load_recipe(path, overrides)
    assert recipe.train.batch == 16
    assert recipe.train.lr == 1e-4
    assert recipe.model == {"hidden": 64}
    assert recipe.augment.extra_clues == (1, 3)
    assert recipe.data == "a b"


def test_resolved_dump_reads_back_to_the_same_hash(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TEXT), ["train.lr=0.3"])
    again = load_recipe(write(tmp_path, recipe.dump()))
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert recipe.hash() != load_recipe(write(tmp_path, TEXT)).hash()


@pytest.mark.parametrize(
    ("text", "overrides", "what"),
    [
        (TEXT + "trian: {lr: 1}\n", [], r"r\.yaml: unknown recipe key 'trian'\ndid you mean 'train'\?"),
        (
            "task: a\nvariant: nano\ntrain: {bacth: 1}\n",
            [],
            r"unknown recipe key 'train\.bacth'\ndid you mean 'batch'\?",
        ),
        (TEXT, ["train.stepz=3"], r"--set train\.stepz=3: unknown recipe key 'train\.stepz'\ndid you mean 'steps'\?"),
        (TEXT, ["model.hiden=3"], r"unknown recipe key 'model\.hiden'\ndid you mean 'hidden'\?"),
        (TEXT, ["model.vocab=3"], r"unknown recipe key 'model\.vocab'"),
        (TEXT, ["train.lr"], r"--set train\.lr: no '=' found"),
        (TEXT, ["train.lr=fast"], r"--set train\.lr=fast: recipe key 'train\.lr': .*number"),
        (TEXT, ["task.a=1"], r"--set task\.a=1: 'task' is a value, not a section"),
        (TEXT, ["variant=nanno"], r"unknown variant 'nanno'\ndid you mean 'nano'\?"),
        ("variant: nano\n", [], r"recipe key 'task' is missing"),
        ("- a\n", [], r"holds no keys"),
        ("a: [", [], r"is not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, overrides: list[str], what: str) -> None:
    with pytest.raises(UserError, match=what):
        load_recipe(write(tmp_path, text), overrides)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothere\.yaml: No such file"):
        load_recipe(tmp_path / "nothere.yaml")


def test_a_model_that_cannot_be_names_its_key() -> None:
    recipe = Recipe(task="sudoku", variant="nano", model={"heads": 3})
    with pytest.raises(UserError, match=r"recipe key 'model.*not divisible by heads=3"):
        recipe.spec(vocab=11, seq_len=81, grid=(9, 9, 3, 3))
