"""``hrm-edge data``: data sets from a hub, a file, an archive or a generator."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hrm_edge import catalog
from hrm_edge.callbacks import OnProgress
from hrm_edge.cli.options import PATH, Decorator, option, progress_bars, say
from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.terminal import open_console, table_of

if TYPE_CHECKING:
    from hrm_edge.data.builder import Summary

_COMMON = ("source", "seed", "augment", "subsample", "processes")
_WANTED = ("clues", "minimal", "difficulty", "min_guesses", "max_guesses")  # of generated Sudokus


def _number(flag: str, text: str) -> Decorator:
    return option(flag, type=int, metavar="N", help=text)


@click.group()
def data() -> None:
    """Build data sets from a file, a hub, an archive or a generator."""


@data.command("build")
@click.argument("task", metavar="{sudoku|mini-sudoku|sudoku-RxC|maze|maze-RxC|arc}")
@option("--out", required=True, type=PATH, help="Folder to make; it must not exist yet.")
@option(
    "--source",
    multiple=True,
    metavar="hub|generate|PATH",
    help="hub: Sudoku-Extreme or Maze-Hard from Hugging Face. generate: new puzzles. PATH: a file of puzzles in any "
    "form that 'hrm-edge solve' reads (answers may be missing), - for standard input, or a folder with the hub's "
    "train.csv and test.csv; mazes also as .npz. arc: an archive, a folder or Kaggle's *_challenges.json, given once "
    "for each.  [default: generate]",
)
@option("--seed", type=int, default=0, help="The same seed and options give the same bytes.")
@_number("--augment", "Random symmetries added to each training puzzle.  [default: 0; arc 1000]")
@_number(
    "--test-count",
    "Test puzzles; no symmetry turns one into a training puzzle. [default: 1000; of a file at most a tenth; of the hub "
    "all]",
)
@_number("--subsample", "Draw N training puzzles from the hub or PATH (arc: tasks).")
@_number("--count", "Training puzzles to generate.  [default: 10000; maze 1000]")
@_number("--min-path", "Of generated mazes: fewest moves of the shortest path.  [default: 112 at 30x30]")
@option(
    "--clues",
    metavar="N|LOW-HIGH",
    help="Clues of generated puzzles.  [default: as few as each grid allows; mini-sudoku 4-8]",
)
@option("--minimal", is_flag=True, help="Generate only puzzles that need every one of their clues.")
@option(
    "--difficulty",
    metavar="NAME",
    help="Of generated puzzles, by the solver's guesses: easy 0, medium 1-3, "
    "hard 4-15, extreme 16 and more (about one in 200).",
)
@_number("--min-guesses", "The same as a number.")
@_number("--max-guesses", "The same as a number.")
@option("--processes", type=int, default=1, help="Processes that share the work; they do not change the result.")
def _build(task: str, out: Path, **flags: Any) -> None:
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
    flags_of_task, build = _FAMILIES[board.family]
    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
    for name in given:
        if name not in flags_of_task:
            known = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags_of_task)
            raise UserError(f"--{name.replace('_', '-')} is no option of {board.name}", f"it takes {known}")
    if board.family != "arc":
        sources = given.pop("source", ("generate",))
        if len(sources) > 1:
            raise UserError(f"{board.name} is built from one --source, not {len(sources)}", "give one of them")
        given["source"] = sources[0]
    with progress_bars() as on_progress:
        built = build(board, out, given, on_progress)
    console = open_console(soft_wrap=True)
    console.print(table_of(built.columns, built.rows, title=f"{board.name} in {out}"))
    for note in built.notes:
        console.print(note)
    console.print(f"Next: hrm-edge train {built.recipe} --data {shlex.quote(str(out))}")


class _Built(NamedTuple):
    """Display of a build: a table with a row for each part, and sentences below it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    recipe: str


def _sudoku(task: Any, out: Path, given: dict[str, Any], on_progress: OnProgress) -> _Built:
    from hrm_edge.data.generator import wanted_of
    from hrm_edge.data.sudoku import Options, build

    wanted = wanted_of(task, **{name: given.pop(name, None) for name in _WANTED})
    summary = build(task, out, Options(wanted=wanted, **given), on_progress)
    rows = [
        (*_row(split, part), _span(part.clues), "-" if part.guesses is None else f"mean {part.guesses:.2f}")
        for split, part in summary.parts.items()
    ]
    recipe = f"{task.name}_nano" if f"{task.name}_nano" in catalog.names() else "RECIPE"
    return _Built(("part", "puzzles", "examples", "clues", "guesses"), rows, _notes("puzzles", summary), recipe)


def _maze(task: Any, out: Path, given: dict[str, Any], on_progress: OnProgress) -> _Built:
    from hrm_edge.data.maze import Options, build

    min_length = given.pop("min_path", None)
    summary = build(task, out, Options(min_length=min_length, **given), on_progress)
    rows = [(*_row(split, part), _span(part.moves), f"{part.walls:.0%}") for split, part in summary.parts.items()]
    recipe = "maze-hard_reduced" if task.name == "maze" else "RECIPE"
    return _Built(("part", "mazes", "examples", "moves", "walls"), rows, _notes("mazes", summary), recipe)


def _arc(task: Any, out: Path, given: dict[str, Any], on_progress: OnProgress) -> _Built:
    from hrm_edge.data.arc import Options, build

    sources = given.pop("source", ())
    if not sources or set(sources) & {"generate", "hub"}:
        raise UserError(
            "arc is built from the archives of its repositories",
            "download those of fchollet/ARC-AGI and victorvikram/ConceptARC, or of arcprize/ARC-AGI-2, and give each "
            "as --source",
        )
    summary = build(out, Options(sources, **given), on_progress)
    rows = [(split, f"{p.groups:,}", f"{p.puzzles:,}", f"{p.examples:,}") for split, p in summary.parts.items()]
    notes = [f"{summary.short:,} tasks have fewer different augmentations than that."] if summary.short else []
    return _Built(("part", "tasks", "puzzles", "examples"), rows, notes, "arc-1_reduced")


_FAMILIES: dict[str, tuple[tuple[str, ...], Callable[[Any, Path, dict[str, Any], OnProgress], _Built]]] = {
    "sudoku": ((*_COMMON, "count", "test_count", *_WANTED), _sudoku),
    "maze": ((*_COMMON, "count", "test_count", "min_path"), _maze),
    "arc": (_COMMON, _arc),
}
"""Family of tasks → the options that it takes, and what builds it."""


def _row(split: str, part: Any) -> tuple[str, str, str]:
    return split, f"{part.groups:,}", f"{part.examples:,}"


def _span(numbers: tuple[int, float, int]) -> str:
    """Write fewest, mean and most."""
    return f"{numbers[0]}-{numbers[2]}, mean {numbers[1]:.1f}"


def _notes(things: str, summary: Summary[Any]) -> list[str]:
    """Say what each file was taken for; return what was done to its puzzles."""
    for path, form in summary.formats.items():
        say(f"{path}: read as {form}")
    notes = [f"{summary.solved:,} {things} had no answer and were solved."] if summary.solved else []
    if summary.dropped:
        notes.append(f"{summary.dropped:,} {things} equivalent to one for testing were left out of training.")
    return notes
