"""``hrm-edge solve``: puzzles in, answers that the rules have checked out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import backend_option, task_option

if TYPE_CHECKING:
    from hrm_edge.runtime import Backend
    from hrm_edge.solve import Solution
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def solve(
    puzzle: str, model: str | None, task_name: str | None, views: int, max_steps: int | None,
    backend: Backend | None, threads: int | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Solve PUZZLE: its cells row by row (0 or . is a blank), or a file with one puzzle a line.

    An answer counts only when it keeps the givens and obeys the rules; until then the puzzle is tried again under
    another symmetry. Exit code 1: some puzzle stayed unsolved.

    \b
    hrm-edge solve 0030400000020100 --model artifacts/mini
    """
    from hrm_edge import zoo
    from hrm_edge.cli.answered import only_solution
    from hrm_edge.cli.options import print_json, progress_bar
    from hrm_edge.cli.resolve import resolve_model
    from hrm_edge.errors import GateError, UserError
    from hrm_edge.solve import solve as run
    from hrm_edge.tasks.arc import Arc

    if model is None:
        model = zoo.default_for("sudoku")
    if model is None:
        raise UserError("no model given, and this version ships none", "name a folder: --model ARTIFACT")
    resolved = resolve_model(model, threads, task_name, backend)
    task = resolved.task
    if isinstance(task, Arc):
        raise UserError(
            f"{model} is for ARC, where a grid alone does not say what to do with it",
            f"build a data folder of the tasks and run: hrm-edge eval {model} --data DATA --submission FILE",
        )
    givens, sources = _read(puzzle, task, model)
    with progress_bar("checking", len(givens)) as progress:
        for row, source in enumerate(sources):
            only_solution(task, givens[row], source)
            progress(row + 1)
    with progress_bar("solving", len(givens)) as progress:
        found = run(
            resolved.session, task, givens, halt="rules", max_steps=max_steps, views=views, seed=seed,
            on_progress=lambda done, verified: progress(done),
        )  # fmt: skip
    if as_json:
        print_json({"results": [_result(task, *pair) for pair in zip(found, sources, strict=True)]})
    else:
        for solution, source in zip(found, sources, strict=True):
            click.echo(_text(task, solution, source))
    unsolved = len(found) - int(found.verified.sum())
    if unsolved:
        steps = max_steps or resolved.session.spec.max_steps
        what = f"{unsolved} of {len(found)} puzzles not solved (views tried: {views}, steps of each: {steps})"
        raise GateError(what, f"try more: --views {4 * views}, or a stronger model")
    if not as_json:
        data = "PUZZLES" if sources == [LITERAL] else puzzle
        click.echo(f"Next: hrm-edge eval {model} --data {data}")


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


def _result(task: Task, solution: Solution, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "puzzle": task.format(solution.givens),
        "answer": task.format(solution.answer),
        "verified": solution.verified,
        "steps": solution.steps,
        "views": solution.views,
        "latency_ms": 1e3 * solution.latency_s,
    }


def _text(task: Task, solution: Solution, source: str) -> str:
    """The grid and how it was found, or that there is none: a wrong grid is never shown."""
    name = "" if source == LITERAL else f"{source}: "
    cost = (
        f"{solution.steps} steps, {solution.views} view{'s'[: solution.views > 1]}, {1e3 * solution.latency_s:.1f} ms"
    )
    if not solution.verified:
        return f"{name}not solved ({cost}): no answer of the model obeyed the rules"
    givens = solution.givens if sys.stdout.isatty() else None
    return f"{task.pretty(solution.answer, givens)}\n{name}solved, verified by the rules ({cost})"
