"""``hrm-edge data``: data sets from a hub, a file or the generator."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku import Sudoku

if TYPE_CHECKING:
    from hrm_edge.data.build import Progress as Report
    from hrm_edge.data.build import Summary
    from hrm_edge.data.generator import Wanted


@click.group()
def data() -> None:
    """Build data sets from a file, a hub or the puzzle generator."""


@data.command()
@click.argument("task", metavar="{sudoku|mini-sudoku|sudoku-RxC}")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make; it must not exist yet.")
@click.option(
    "--source",
    default="generate",
    show_default=True,
    metavar="hub|generate|PATH",
    help="hub: Sudoku-Extreme from Hugging Face. generate: new puzzles. PATH: a CSV (header question,answer[,source,"
    "rating], answers may be missing), a text file with one puzzle a line, either gzipped, or a folder with the "
    "hub's train.csv and test.csv.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and options give the same bytes.")
@click.option(
    "--augment", type=int, default=0, show_default=True, help="Random symmetries added to each training puzzle."
)
@click.option("--test-count", type=int, metavar="N", help="Test puzzles; no symmetry turns one into a training puzzle. "
    "[default: 1000; of a file at most a tenth; of the hub all]")  # fmt: skip
@click.option("--subsample", type=int, metavar="N", help="Draw N training puzzles from the hub or PATH.")
@click.option("--count", type=int, metavar="N", help="Training puzzles to generate.  [default: 10000]")
@click.option("--clues", metavar="N|LOW-HIGH", help="Clues of generated puzzles.  [default: as few as each grid "
    "allows; mini-sudoku 4-8]")  # fmt: skip
@click.option("--minimal", is_flag=True, help="Generate only puzzles that need every one of their clues.")
@click.option("--difficulty", metavar="NAME", help="Of generated puzzles, by the solver's guesses: easy 0, medium 1-3, "
    "hard 4-15, extreme 16 and more (about one in 200).")  # fmt: skip
@click.option("--min-guesses", type=int, metavar="N", help="The same as a number.")
@click.option("--max-guesses", type=int, metavar="N", help="The same as a number.")
@click.option(
    "--processes", type=int, default=1, show_default=True, help="Processes that generate; not part of the result."
)
def build(
    task: str, out: Path, source: str, seed: int, augment: int, test_count: int | None, subsample: int | None,
    count: int | None, clues: str | None, minimal: bool, difficulty: str | None, min_guesses: int | None,
    max_guesses: int | None, processes: int,
) -> None:  # fmt: skip
    """Build the data folder OUT: train/ and test/ in the published layout.

    \b
    hrm-edge data build mini-sudoku --out build/data --count 5000
    hrm-edge data build sudoku --out build/hard --difficulty hard --processes 4
    hrm-edge data build sudoku --out build/mine --source puzzles.csv --test-count 500
    hrm-edge data build sudoku --out build/extreme --source hub --subsample 1000 --augment 1000
    """
    from hrm_edge.data.build import Options
    from hrm_edge.data.build import build as build_folder

    board = get_task(task)
    options = Options(
        source=source, subsample=subsample, augment=augment, seed=seed, count=count, test_count=test_count,
        wanted=_wanted(board, clues, minimal, difficulty, min_guesses, max_guesses), processes=processes,
    )  # fmt: skip
    with _progress() as report:
        summary = build_folder(board, out, options, report)
    _show(board, out, summary)


def _wanted(
    task: Sudoku, clues: str | None, minimal: bool, difficulty: str | None, least: int | None, most: int | None
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
    return Wanted(clues=_clue_range(clues), minimal=minimal, guesses=guesses)


def _clue_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise UserError(f"--clues {text} is no number of clues", "give it as N or LOW-HIGH, e.g. --clues 28-34")
    return int(low), int(high or low)


@contextmanager
def _progress() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        rows: dict[str, object] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what)
            bars.update(rows[what], completed=done, total=total)  # type: ignore[arg-type]

        yield report


def _show(task: Sudoku, out: Path, summary: Summary) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title=f"{task.name} in {out}", title_justify="left")
    for name in ("part", "puzzles", "examples", "clues", "guesses"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for split, part in summary.parts.items():
        fewest, mean, most = part.clues
        guesses = "-" if part.guesses is None else f"mean {part.guesses:.2f}"
        table.add_row(split, f"{part.groups:,}", f"{part.examples:,}", f"{fewest}-{most}, mean {mean:.1f}", guesses)
    console.print(table)
    if summary.solved:
        console.print(f"{summary.solved:,} puzzles had no answer and were solved.")
    if summary.dropped:
        console.print(f"{summary.dropped:,} puzzles equivalent to a test puzzle were left out of training.")
    recipe = f"recipes/{task.name}_nano.yaml"
    console.print(f"Next: hrm-edge train {recipe} --set {shlex.quote(f'data={out}')}")
