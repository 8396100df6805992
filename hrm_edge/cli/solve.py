"""``hrm-edge solve``: puzzles in, answers that the rules have checked out."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import Duration, backend_option, guesses_option, task_option
from hrm_edge.tasks.puzzles import TYPED
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.cli.pictures import Picture
    from hrm_edge.cli.resolve import Resolved
    from hrm_edge.errors import GateError
    from hrm_edge.runtime import Backend
    from hrm_edge.solution import Solution, Solutions
    from hrm_edge.tasks.base import Task, Tokens
    from hrm_edge.tasks.puzzles import Puzzles


@click.command()
@click.argument("puzzle")
@click.option("--model", help="Model folder, published file or shipped model.  [default: one for 9x9 Sudoku]")
@task_option
@click.option("--views", type=click.IntRange(1), default=64, show_default=True, help="Symmetries tried per puzzle.")
@guesses_option
@click.option("--budget", type=Duration(), help="Time for a puzzle after which no further view is tried, as 200ms.")
@click.option(
    "--parallel-views",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Further views of a puzzle that are tried at the same time in one batch: quicker on a GPU.",
)
@click.option("--max-steps", type=click.IntRange(1), help="ACT steps per view.  [default: the model's]")
@backend_option
@click.option("--threads", type=click.IntRange(1), help="Threads of one step (ONNX Runtime).")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the symmetries.")
@click.option("--overlay", type=click.Path(path_type=Path),
              help="Of a picture: write it here with the answer drawn in; of a folder: a folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def solve(
    puzzle: str, model: str | None, task_name: str | None, views: int, guesses: int | None, budget: float | None,
    parallel_views: int, max_steps: int | None, backend: Backend | None, threads: int | None, seed: int,
    overlay: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Solve PUZZLE: its cells row by row, a file of puzzles, a picture, or a folder of pictures.

    A blank is one of 0 . _ ? * - x. A file holds one puzzle a line (a rating may follow), grids of nine lines with or
    without frames (.txt, .sdk, .ss), a CSV with a header (question, quizzes or puzzle), or OpenSudoku's XML. It may be
    gzipped, in UTF-8 or UTF-16; - is standard input. What it was taken for is said.

    An answer counts only when it keeps the givens and obeys the rules; until then the puzzle is tried again under
    another symmetry. Exit code 1: some puzzle stayed unsolved.

    \b
    hrm-edge solve 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
    hrm-edge solve puzzles.sdk
    hrm-edge solve 0030400000020100 --model artifacts/mini
    hrm-edge solve photo.jpg --overlay solved.jpg
    """
    from hrm_edge import zoo
    from hrm_edge.cli.options import print_json
    from hrm_edge.cli.pictures import check_overlay, draw_overlay, picture_paths
    from hrm_edge.cli.resolve import resolve_model
    from hrm_edge.errors import UserError

    folder = None
    if model is None and (model := zoo.default_for("sudoku")) is not None:
        folder = zoo.folder_of(model)
    if model is None:
        raise UserError("no model given, and this version ships none", "name a folder: --model ARTIFACT")
    paths = picture_paths(puzzle)
    if overlay is not None:
        check_overlay(overlay, puzzle, paths)
    resolved = resolve_model(model, threads, task_name, backend, folder=folder)
    task = resolved.task
    if not task.has_rules:
        raise UserError(
            f"{model} is for ARC, where a grid alone does not say what to do with it",
            f"build a data folder of the tasks and run: hrm-edge eval {model} --data DATA --submission FILE",
        )
    options = _Options(views, guesses, budget, parallel_views, max_steps, seed)
    results = _pictures(paths, resolved, model, options) if paths else _puzzles(puzzle, resolved, model, options)
    if as_json:
        print_json({"results": [result.document(task) for result in results]})
    else:
        for result in results:
            echo(result.text(task))
    if overlay is not None:
        for result in results:
            if result.picture is not None and result.solution is not None and result.verified:
                target = overlay / result.picture.path.name if Path(puzzle).is_dir() else overlay
                draw_overlay(result.picture, result.solution.answer, target)
    if not all(result.verified for result in results):
        raise _unsolved(results, task, options, resolved.session.spec.max_steps)
    if not as_json:
        data = "PUZZLES" if paths or results[0].source == TYPED else quote(puzzle)
        echo(f"Next: hrm-edge eval {quote(model)} --data {data}")


@dataclass(frozen=True)
class _Options:
    views: int
    guesses: int | None
    budget_s: float | None
    parallel_views: int
    max_steps: int | None
    seed: int


@dataclass(frozen=True, eq=False)
class _Result:
    """What came of one puzzle, or of one picture: ``solution`` is None where no puzzle was read in it."""

    source: str
    solution: Solution | None
    read_as: str
    """What the source was taken for."""
    picture: Picture | None = None

    @property
    def verified(self) -> bool:
        return self.solution is not None and self.solution.verified

    def document(self, task: Task) -> dict[str, Any]:
        """The result for programs."""
        found = self.solution
        return {
            "source": self.source,
            "read_as": self.read_as,
            "puzzle": None if found is None else task.format(found.givens),
            "answer": None if found is None else task.format(found.answer),
            "verified": self.verified,
            "steps": 0 if found is None else found.steps,
            "views": 0 if found is None else found.views,
            "latency_ms": None if found is None else 1e3 * found.latency_s,
            **({} if self.picture is None else {"picture": self.picture.about()}),
        }

    def text(self, task: Task) -> str:
        """The grid and how it was found, or that there is none: a wrong grid is never shown."""
        found, name = self.solution, "" if self.source == TYPED else f"{self.source}: "
        if found is None:
            assert self.picture is not None
            return str(self.picture.error)
        cost = f"{found.steps} steps, {found.views} view{'s'[: found.views > 1]}, {1e3 * found.latency_s:.1f} ms"
        if not found.verified:
            return f"{name}not solved ({cost}): no answer of the model obeyed the rules"
        remarks = "" if self.picture is None else self.picture.remarks()
        givens = found.givens if sys.stdout.isatty() else None
        text = f"{task.pretty(found.answer, givens)}\n{name}solved, verified by the rules ({cost})"
        return f"{text}\n{name}{remarks}" if remarks else text


def _puzzles(puzzle: str, resolved: Resolved, model: str, options: _Options) -> list[_Result]:
    """Solve a typed puzzle or those of a file; ``UserError`` for one without exactly one solution."""
    from hrm_edge.cli.answered import only_solution
    from hrm_edge.cli.options import progress_bar

    puzzles = _read(puzzle, resolved.task, model)
    names = [puzzles.source.name(row) for row in range(len(puzzles))]
    with progress_bar("checking", len(puzzles)) as progress:
        for row, name in enumerate(names):
            only_solution(resolved.task, puzzles.givens[row], name)
            progress(row + 1)
    found = _solve(puzzles.givens, resolved, options)
    return [_Result(name, solution, puzzles.source.format) for name, solution in zip(names, found, strict=True)]


def _pictures(paths: list[Path], resolved: Resolved, model: str, options: _Options) -> list[_Result]:
    """Read and solve pictures; the fault of a single one is a ``UserError``, in a folder it is a result."""
    from hrm_edge.cli.pictures import givens_of, read_pictures

    pictures = read_pictures(paths, resolved.task, model)
    if len(pictures) == 1 and pictures[0].error is not None:
        raise pictures[0].error
    found = iter(_solve(givens_of(pictures), resolved, options))
    return [
        _Result(str(picture.path), None if picture.puzzle is None else next(found), "a picture", picture)
        for picture in pictures
    ]


def _solve(givens: Tokens, resolved: Resolved, options: _Options) -> Solutions:
    from hrm_edge.cli.options import progress_bar
    from hrm_edge.solve import solve as run

    with progress_bar("solving", len(givens)) as progress:
        return run(
            resolved.session, resolved.task, givens, halt="rules", max_steps=options.max_steps, views=options.views,
            guesses=options.guesses, budget_s=options.budget_s, parallel_views=options.parallel_views,
            seed=options.seed, on_progress=lambda done, verified: progress(done),
        )  # fmt: skip


def _unsolved(results: list[_Result], task: Task, options: _Options, default_steps: int) -> GateError:
    """What is left undone, and what helps against each kind of it."""
    from hrm_edge.errors import GateError

    unread = sum(result.solution is None for result in results)
    unsolved = sum(result.solution is not None and not result.verified for result in results)
    what, hints = [], []
    if unread:
        what.append(f"{unread} of {len(results)} pictures not read")
        hints.append("take those pictures again as is said of each")
    if unsolved:
        steps = options.max_steps or default_steps
        cost = f"views tried: {options.views}, steps of each: {steps}"
        what.append(f"{unsolved} of {len(results)} puzzles not solved ({cost})")
        more = [f"--max-steps {default_steps}"] if steps < default_steps else []
        most = task.distinct_views or 4 * options.views
        more += [f"--views {min(most, 4 * options.views)}"] if options.views < most else []
        more += ["a longer --budget"] if options.budget_s is not None else []
        hints.append(f"try more: {' '.join(more)}, or a stronger model" if more else "try a stronger model")
    return GateError("; ".join(what), "; ".join(hints))


def _read(puzzle: str, task: Task, model: str) -> Puzzles:
    """The puzzles of a file, of standard input, or of the text itself."""
    from hrm_edge.cli.answered import say_formats
    from hrm_edge.data.files import read_typed
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.data.text import STDIN
    from hrm_edge.errors import UserError

    try:
        is_file = puzzle == STDIN or Path(puzzle).exists()
    except OSError:  # longer than a file name may be
        is_file = False
    if is_file:
        puzzles = load_puzzles(puzzle, task)
        say_formats({puzzles.source.path: puzzles.source.format})
        return puzzles
    try:
        return read_typed(puzzle, task)
    except UserError as error:
        if "/" in puzzle or re.search(r"\.[A-Za-z]\w{1,10}$", puzzle):
            raise UserError(f"{puzzle}: no such file", "check the path") from error
        raise UserError(f"{error.problem}\n  ({model} solves {task.name})", error.hint) from error
