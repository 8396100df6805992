"""``hrm-edge data``: data sets from a hub, a file, an archive or a generator."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from rich.table import Table

from hrm_edge import catalog
from hrm_edge.cli.options import progress_bars, say
from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.arc import Arc
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.maze import Maze
from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.terminal import open_console

if TYPE_CHECKING:
    from hrm_edge.data.generator import Wanted

_COMMON = ("source", "seed", "augment", "subsample", "processes")
_FLAGS = {  # kind of task → the options it takes
    "sudoku": (*_COMMON, "count", "test_count", "clues", "minimal", "difficulty", "min_guesses", "max_guesses"),
    "maze": (*_COMMON, "count", "test_count", "min_path"),
    "arc": _COMMON,
}


@click.group()
def data() -> None:
    """Build data sets from a file, a hub, an archive or a generator."""


@data.command()
@click.argument("task", metavar="{sudoku|mini-sudoku|sudoku-RxC|maze|maze-RxC|arc}")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make; it must not exist yet.")
@click.option(
    "--source",
    multiple=True,
    metavar="hub|generate|PATH",
    help="hub: Sudoku-Extreme or Maze-Hard from Hugging Face. generate: new puzzles. PATH: a file of puzzles in any "
    "form that 'hrm-edge solve' reads (answers may be missing), - for standard input, or a folder with the hub's "
    "train.csv and test.csv; mazes also as .npz. arc: an archive, a folder or Kaggle's *_challenges.json, given once "
    "for each.  [default: generate]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and options give the same bytes.")
@click.option(
    "--augment", type=int, metavar="N", help="Random symmetries added to each training puzzle.  [default: 0; arc 1000]"
)
@click.option(
    "--test-count",
    type=int,
    metavar="N",
    help="Test puzzles; no symmetry turns one into a training puzzle. "
    "[default: 1000; of a file at most a tenth; of the hub all]",
)
@click.option("--subsample", type=int, metavar="N", help="Draw N training puzzles from the hub or PATH (arc: tasks).")
@click.option("--count", type=int, metavar="N", help="Training puzzles to generate.  [default: 10000; maze 1000]")
@click.option(
    "--min-path",
    type=int,
    metavar="N",
    help="Of generated mazes: fewest moves of the shortest path.  [default: 112 at 30x30]",
)
@click.option(
    "--clues",
    metavar="N|LOW-HIGH",
    help="Clues of generated puzzles.  [default: as few as each grid allows; mini-sudoku 4-8]",
)
@click.option("--minimal", is_flag=True, help="Generate only puzzles that need every one of their clues.")
@click.option(
    "--difficulty",
    metavar="NAME",
    help="Of generated puzzles, by the solver's guesses: easy 0, medium 1-3, "
    "hard 4-15, extreme 16 and more (about one in 200).",
)
@click.option("--min-guesses", type=int, metavar="N", help="The same as a number.")
@click.option("--max-guesses", type=int, metavar="N", help="The same as a number.")
@click.option(
    "--processes",
    type=int,
    default=1,
    show_default=True,
    help="Processes that share the work; they do not change the result.",
)
def build(task: str, out: Path, **flags: Any) -> None:
    """Build the data folder OUT: train/ and test/ in the published layout.

    \b
    hrm-edge data build mini-sudoku --out build/data --count 5000
    hrm-edge data build sudoku --out build/hard --difficulty hard --processes 4
    hrm-edge data build sudoku --out build/mine --source puzzles.csv
    hrm-edge data build sudoku --out build/extreme --source hub --subsample 1000
    hrm-edge data build maze --out build/maze --count 1000 --augment 7
    hrm-edge data build arc --out build/arc-2 --source arc-agi-2.tar.gz
    """
    board = get_task(task)
    kind = "maze" if isinstance(board, Maze) else "arc" if isinstance(board, Arc) else "sudoku"
    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
    for name in given:
        if name not in _FLAGS[kind]:
            known = ", ".join(f"--{flag.replace('_', '-')}" for flag in _FLAGS[kind])
            raise UserError(f"--{name.replace('_', '-')} is no option of {board.name}", f"it takes {known}")
    if isinstance(board, Arc):
        built = _arc(out, given)
    else:
        sources = given.pop("source", ("generate",))
        if len(sources) > 1:
            raise UserError(f"{board.name} is built from one --source, not {len(sources)}", "give one of them")
        given["source"] = sources[0]
        built = _maze(board, out, given) if isinstance(board, Maze) else _sudoku(cast("Sudoku", board), out, given)
    _show(board, out, built)


@dataclass(frozen=True)
class _Built:
    """Display of a build: a table with a row for each part, and sentences below it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    recipe: str


def _sudoku(task: Sudoku, out: Path, given: dict[str, Any]) -> _Built:
    from hrm_edge.data.build import Options
    from hrm_edge.data.build import build as build_folder

    wanted = _wanted(task, *(given.pop(name, None) for name in _FLAGS["sudoku"][-5:]))
    with progress_bars() as on_progress:
        summary = build_folder(task, out, Options(wanted=wanted, **given), on_progress)
    _say_formats(summary.formats)
    rows = []
    for split, part in summary.parts.items():
        fewest, mean, most = part.clues
        guesses = "-" if part.guesses is None else f"mean {part.guesses:.2f}"
        rows.append((split, f"{part.groups:,}", f"{part.examples:,}", f"{fewest}-{most}, mean {mean:.1f}", guesses))
    notes = _notes("puzzles", summary.solved, summary.dropped)
    recipe = f"{task.name}_nano" if f"{task.name}_nano" in catalog.names() else "RECIPE"
    return _Built(("part", "puzzles", "examples", "clues", "guesses"), rows, notes, recipe)


def _maze(task: Maze, out: Path, given: dict[str, Any]) -> _Built:
    from hrm_edge.data.maze import Options
    from hrm_edge.data.maze import build as build_folder

    if "min_path" in given:
        given["min_length"] = given.pop("min_path")
    with progress_bars() as on_progress:
        summary = build_folder(task, out, Options(**given), on_progress)
    _say_formats(summary.formats)
    rows = []
    for split, part in summary.parts.items():
        fewest, mean, most = part.moves
        moves = f"{fewest}-{most}, mean {mean:.1f}"
        rows.append((split, f"{part.groups:,}", f"{part.examples:,}", moves, f"{part.walls:.0%}"))
    return _Built(
        ("part", "mazes", "examples", "moves", "walls"),
        rows,
        _notes("mazes", summary.solved, summary.dropped),
        "maze-hard_reduced" if task.name == "maze" else "RECIPE",
    )


def _arc(out: Path, given: dict[str, Any]) -> _Built:
    from hrm_edge.data.arc import Options
    from hrm_edge.data.arc import build as build_folder

    sources = given.pop("source", ())
    if not sources or set(sources) & {"generate", "hub"}:
        raise UserError(
            "arc is built from the archives of its repositories",
            "download those of fchollet/ARC-AGI and victorvikram/ConceptARC, or of arcprize/ARC-AGI-2, and give each "
            "as --source",
        )
    with progress_bars() as on_progress:
        summary = build_folder(out, Options(tuple(sources), **given), on_progress)
    rows = [(split, f"{p.groups:,}", f"{p.puzzles:,}", f"{p.examples:,}") for split, p in summary.parts.items()]
    notes = [f"{summary.short:,} tasks have fewer different augmentations than that."] if summary.short else []
    return _Built(("part", "tasks", "puzzles", "examples"), rows, notes, "arc-1_reduced")


def _notes(things: str, solved: int, dropped: int) -> list[str]:
    notes = [f"{solved:,} {things} had no answer and were solved."] if solved else []
    if dropped:
        notes.append(f"{dropped:,} {things} equivalent to one for testing were left out of training.")
    return notes


def _wanted(
    task: Sudoku, clues: str | None, minimal: bool | None, difficulty: str | None, least: int | None, most: int | None
) -> Wanted | None:
    """What the flags ask of generated puzzles; None when they ask nothing."""
    from hrm_edge.data.generator import Wanted
    from hrm_edge.data.generator import difficulty as named

    if clues is None and not minimal and difficulty is None and least is None and most is None:
        return None
    if difficulty is not None and (least is not None or most is not None):
        raise UserError("--difficulty is a range of guesses itself", "leave out --min-guesses and --max-guesses")
    if task.side == 4 and (difficulty is not None or least):
        raise UserError(f"{task.name} puzzles never need a guess", "leave out --difficulty and --min-guesses")
    guesses = named(difficulty) if difficulty is not None else (least or 0, most)
    return Wanted(clues=_clue_range(clues), minimal=bool(minimal), guesses=guesses)


def _clue_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise UserError(f"--clues {text} is no number of clues", "give it as N or LOW-HIGH, e.g. --clues 28-34")
    return int(low), int(high or low)


def _say_formats(formats: dict[str, str]) -> None:
    """Say what each file (path → words) was taken for."""
    for path, form in formats.items():
        say(f"{path}: read as {form}")


def _show(task: Task, out: Path, built: _Built) -> None:
    console = open_console(soft_wrap=True)
    table = Table(title=f"{task.name} in {out}", title_justify="left")
    for name in built.columns:
        table.add_column(name, justify="left" if name == "part" else "right")
    for row in built.rows:
        table.add_row(*row)
    console.print(table)
    for note in built.notes:
        console.print(note)
    console.print(f"Next: hrm-edge train {built.recipe} --data {shlex.quote(str(out))}")
