"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hrm_edge.costs import parameter_table
from hrm_edge.errors import UserError
from hrm_edge.recipe import Recipe, load_recipe
from hrm_edge.tasks import get_task

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

TEXT = "task: mini-sudoku\nvariant: nano\ntrain: {batch: 8}\n"


ARC = "task: arc\nvariant: reduced\n"


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
        (
            ARC,
            ["augment.symmetries=true"],
            r"--set .*: recipe key 'augment\.symmetries': an ARC puzzle has its symmetry",
        ),
        (ARC + "evaluate: {views: 2}\n", [], r"r\.yaml: recipe key 'evaluate\.views': an ARC puzzle"),
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


# Parameters that a recipe trains: full and reduced as the variants are specified, at the vocabulary of the task.
PUBLISHED = {
    "sudoku-extreme-1k": ("sudoku", 27_275_266, 5_667_084),
    "sudoku-full": ("sudoku", 27_275_266 + 82 * 512, 5_667_084),  # learned positions
    "maze-hard": ("maze", 27_270_146, 5_664_519),
    "arc-1": ("arc", 27_276_290, 5_667_597),
    "arc-2": ("arc", 27_276_290, 5_667_597),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("variant", ["full", "reduced"])
def test_recipes_of_the_paper_build_the_specified_models(name: str, variant: str) -> None:
    task_name, *parameters = PUBLISHED[name]
    path = RECIPES / f"{name}_{variant}.yaml"
    heading = re.findall(r"^# (\w+):", path.read_text().partition("\n\n")[0], re.MULTILINE)
    assert {"Command", "Data", "Hardware", "Time", "Accuracy"} <= set(heading)
    recipe = load_recipe(path)
    task = get_task(task_name)
    assert (recipe.task, recipe.variant) == (task_name, variant)
    spec = recipe.spec(vocab=task.vocab, seq_len=task.seq_len, grid=task.grid, puzzles=3)
    assert parameter_table(spec)["trainable"] == parameters[variant == "reduced"]
    if variant == "full":
        assert (spec.q_outputs, spec.puzzle_dim, spec.h_cycles) == (2, 512, 2)
        assert (recipe.train.ema, recipe.train.gradient, recipe.train.grad_clip) == (0, "one_step", 0)


@pytest.mark.parametrize("variant", ["full", "reduced"])
def test_options_leave_the_specified_tables_untouched_where_they_are_off(variant: str) -> None:
    path = RECIPES / f"sudoku-extreme-1k_{variant}.yaml"
    board = {"vocab": 11, "seq_len": 81, "grid": (9, 9, 3, 3)}

    def table(*overrides: str) -> dict[str, int]:
        spec = load_recipe(path, overrides).spec(**board)
        return {row["name"]: row["count"] for row in parameter_table(spec)["table"]}

    plain = table()
    assert table("model.h_cycles=3", "model.l_cycles=3", "train.ema=0.5", "train.loss=softmax") == plain
    assert table("model.grid_positions=false") == plain
    hidden = {"full": 512, "reduced": 256}[variant]
    assert table("model.grid_positions=true") == plain | {"position embeddings": (9 + 9 + 9) * hidden}
    halved = {"full": 513, "reduced": 513}[variant]
    assert table("model.q_outputs=1") == plain | {"halt predictor": halved}
