"""``hrm-edge solve``: puzzles in, answers that the rules have checked out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import backend_option, task_option
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.cli.pictures import Picture
    from hrm_edge.cli.resolve import Resolved
    from hrm_edge.runtime import Backend
    from hrm_edge.solve import Solution, Solutions
    from hrm_edge.tasks.base import Task, Tokens

LITERAL = "argument"  # the source of a puzzle that was typed, not read from a file


@click.command()
@click.argument("puzzle")
@click.option("--model", help="Model folder, published file or shipped model.  [default: one for 9x9 Sudoku]")
@task_option
@click.option("--views", type=click.IntRange(1), default=64, show_default=True, help="Symmetries tried per puzzle.")
@click.option("--max-steps", type=click.IntRange(1), help="ACT steps per view.  [default: the model's]")
@backend_option
@click.option("--threads", type=click.IntRange(1), help="Threads of one step (ONNX Runtime).")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the symmetries.")
@click.option("--overlay", type=click.Path(path_type=Path),
              help="Of a picture: write it here with the answer drawn in; of a folder: a folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def solve(
    puzzle: str, model: str | None, task_name: str | None, views: int, max_steps: int | None,
    backend: Backend | None, threads: int | None, seed: int, overlay: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Solve PUZZLE: its cells row by row (0 or . is a blank), a file with one puzzle a line, a picture, or a folder
    of pictures.

    An answer counts only when it keeps the givens and obeys the rules; until then the puzzle is tried again under
    another symmetry. Exit code 1: some puzzle stayed unsolved.

    \b
    hrm-edge solve 0030400000020100 --model artifacts/mini
    hrm-edge solve photo.jpg --overlay solved.jpg
    """
    from hrm_edge import zoo
    from hrm_edge.cli.options import print_json
    from hrm_edge.cli.pictures import check_overlay, draw_overlay, picture_paths
    from hrm_edge.cli.resolve import resolve_model
    from hrm_edge.errors import GateError, UserError
    from hrm_edge.tasks.arc import Arc

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
    if isinstance(task, Arc):
        raise UserError(
            f"{model} is for ARC, where a grid alone does not say what to do with it",
            f"build a data folder of the tasks and run: hrm-edge eval {model} --data DATA --submission FILE",
        )
    options = _Options(views, max_steps, seed)
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
    unsolved = sum(not result.verified for result in results)
    if unsolved:
        steps = max_steps or resolved.session.spec.max_steps
        what = f"{unsolved} of {len(results)} puzzles not solved (views tried: {views}, steps of each: {steps})"
        raise GateError(what, f"try more: --views {4 * views}, or a stronger model")
    if not as_json:
        data = "PUZZLES" if paths or results[0].source == LITERAL else quote(puzzle)
        echo(f"Next: hrm-edge eval {quote(model)} --data {data}")


@dataclass(frozen=True)
class _Options:
    views: int
    max_steps: int | None
    seed: int


@dataclass(frozen=True, eq=False)
class _Result:
    """What came of one puzzle, or of one picture: ``solution`` is None where no puzzle was read in it."""

    source: str
    solution: Solution | None
    picture: Picture | None = None

    @property
    def verified(self) -> bool:
        return self.solution is not None and self.solution.verified

    def document(self, task: Task) -> dict[str, Any]:
        """The result for programs."""
        found = self.solution
        return {
            "source": self.source,
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
        found, name = self.solution, "" if self.source == LITERAL else f"{self.source}: "
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

    givens, sources = _read(puzzle, resolved.task, model)
    with progress_bar("checking", len(givens)) as progress:
        for row, source in enumerate(sources):
            only_solution(resolved.task, givens[row], source)
            progress(row + 1)
    found = _solve(givens, resolved, options)
    return [_Result(source, solution) for source, solution in zip(sources, found, strict=True)]


def _pictures(paths: list[Path], resolved: Resolved, model: str, options: _Options) -> list[_Result]:
    """Read and solve pictures; the fault of a single one is a ``UserError``, in a folder it is a result."""
    from hrm_edge.cli.pictures import givens_of, read_pictures

    pictures = read_pictures(paths, resolved.task, model)
    if len(pictures) == 1 and pictures[0].error is not None:
        raise pictures[0].error
    found = iter(_solve(givens_of(pictures), resolved, options))
    return [
        _Result(str(picture.path), None if picture.puzzle is None else next(found), picture) for picture in pictures
    ]


def _solve(givens: Tokens, resolved: Resolved, options: _Options) -> Solutions:
    from hrm_edge.cli.options import progress_bar
    from hrm_edge.solve import solve as run

    with progress_bar("solving", len(givens)) as progress:
        return run(
            resolved.session, resolved.task, givens, halt="rules", max_steps=options.max_steps, views=options.views,
            seed=options.seed, on_progress=lambda done, verified: progress(done),
        )  # fmt: skip


def _read(puzzle: str, task: Task, model: str) -> tuple[Tokens, list[str]]:
    """Givens [N, S] of a literal puzzle or of a file, and where each is from."""
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.errors import UserError

    try:
        is_path = Path(puzzle).exists()
    except OSError:  # longer than a file name may be
        is_path = False
    if is_path:
        found = load_puzzles(puzzle, task)
        return found.inputs, found.sources
    if "/" in puzzle or Path(puzzle).suffix in (".txt", ".csv", ".sdk"):
        raise UserError(f"{puzzle}: no such file", "check the path")
    try:
        return task.parse(puzzle)[None], [LITERAL]
    except UserError as error:
        raise UserError(f"{error.what}\n  ({model} solves {task.name})", error.mend) from error
