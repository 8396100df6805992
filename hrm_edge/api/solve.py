"""Solving whatever a user has: a puzzle as text, many of them, an array, a file, a picture, a folder of pictures.

Axes: N puzzles, S cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrm_edge.api.answers import note_format, only_solution
from hrm_edge.api.open import Opened
from hrm_edge.api.pictures import Picture, draw_overlay, givens_of, picture_paths, read_pictures
from hrm_edge.callbacks import OnMessage, OnProgress, ignore, log
from hrm_edge.errors import GateError, UserError
from hrm_edge.solution import Solution
from hrm_edge.solve import Progress, SolveOptions, solve
from hrm_edge.tasks.base import Task, Tokens
from hrm_edge.tasks.puzzles import TYPED, Puzzles
from hrm_edge.tasks.sudoku import BLANK

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ARRAY = "array"  # what messages and results call a puzzle that was given as an array


@dataclass(frozen=True, eq=False)
class Result:
    """Result of solving one puzzle, or one picture. Printed, it is the solved grid, or why there is none."""

    source: str
    """Name of the puzzle: file and line, the picture's path, ``argument`` or ``array``."""
    read_as: str
    """What the source was taken for, in words."""
    task: Task
    solution: Solution | None
    """Tokens, steps and times; None where no puzzle was read in a picture."""
    picture: Picture | None = None

    @property
    def verified(self) -> bool:
        """Whether the answer keeps the givens and obeys the rules. Where this is False the puzzle is not solved."""
        return self.solution is not None and self.solution.verified

    @property
    def puzzle(self) -> str | None:
        """The puzzle as one line of S characters, 0 for a blank; None where no puzzle was read."""
        return None if self.solution is None else self.task.format(self.solution.givens)

    @property
    def answer(self) -> str | None:
        """The model's answer as one line of S characters; see ``verified`` for whether it is one."""
        return None if self.solution is None else self.task.format(self.solution.answer)

    @property
    def steps(self) -> int:
        """ACT steps spent on the puzzle, all views together."""
        return 0 if self.solution is None else self.solution.steps

    @property
    def views(self) -> int:
        """Views tried; 1 is the puzzle as given."""
        return 0 if self.solution is None else self.solution.views

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds that the puzzle held a slot of the batch, all views together."""
        return None if self.solution is None else 1e3 * self.solution.latency_s

    def document(self) -> dict[str, Any]:
        """Return the entry of ``hrm-edge solve --json``."""
        return {
            "source": self.source,
            "read_as": self.read_as,
            "puzzle": self.puzzle,
            "answer": self.answer,
            "verified": self.verified,
            "steps": self.steps,
            "views": self.views,
            "latency_ms": self.latency_ms,
            **({} if self.picture is None else {"picture": self.picture.about()}),
        }

    def text(self, *, bold: bool = False) -> str:
        """Return the grid and how it was found, or that there is none: a wrong grid is never shown.

        ``bold``: write the answer's own cells bold, for a terminal.
        """
        solution, name = self.solution, "" if self.source in (TYPED, _ARRAY) else f"{self.source}: "
        if solution is None:
            assert self.picture is not None
            return str(self.picture.error)
        views = f"{solution.views} view{'s'[: solution.views > 1]}"
        steps = f"{solution.steps} step{'s'[: solution.steps != 1]}"
        cost = f"{steps}, {views}, {1e3 * solution.latency_s:.1f} ms"
        if not solution.verified:
            return f"{name}not solved ({cost}): no answer of the model obeyed the rules"
        remarks = "" if self.picture is None else self.picture.remarks()
        grid = self.task.pretty(solution.answer, solution.givens if bold else None)
        text = f"{grid}\n{name}solved, verified by the rules ({cost})"
        return f"{text}\n{name}{remarks}" if remarks else text

    def __str__(self) -> str:
        if self.solution is None or not self.verified:
            return self.text()
        return self.task.pretty(self.solution.answer)

    def save(self, path: str | Path) -> None:
        """Write the picture with the answer drawn into its blanks; the ending says the format (.jpg, .png …).

        Raises ``UserError`` where the puzzle is not solved, or was not read from a picture.
        """
        if self.picture is None:
            raise UserError(f"{self.source} is no picture", "print the result, or take its 'answer'")
        if self.solution is None or not self.verified:
            raise UserError(f"{self.source} is not solved", "look at the result's text for what helps")
        draw_overlay(self.picture, self.solution.answer, Path(path))


def solve_all(
    model: Opened,
    puzzles: str | Path | Sequence[str] | ArrayLike,
    options: SolveOptions,
    *,
    paths: list[Path] | None = None,
    on_message: OnMessage = log,
    on_progress: OnProgress = ignore,
) -> tuple[list[Result], bool]:
    """Solve what ``puzzles`` is, see :meth:`Model.solve`: (a result for each puzzle, whether there is one by nature).

    ``paths``: of the pictures that ``puzzles`` names, where they are known already.
    Raises ``UserError`` for what is no puzzle, has no solution or several, or is a picture without a puzzle in it; in
    a folder of pictures the fault of a single one is its result.
    """
    task = model.task
    if not task.has_rules:
        raise UserError(
            f"{model.called} is for ARC, where a grid alone does not say what to do with it",
            f"build a data folder of the tasks and run: hrm-edge eval {model.called} --data DATA --submission FILE",
        )
    if isinstance(puzzles, str | Path) and (paths := picture_paths(str(puzzles)) if paths is None else paths):
        pictures = read_pictures(paths, task, model.called, on_progress)
        single = paths == [Path(puzzles)]
        if single and pictures[0].error is not None:
            raise pictures[0].error
        givens = givens_of(pictures)
        solutions = iter(solve(model.session, task, givens, options, on_progress=_solving(on_progress, len(givens))))
        results = [
            Result(str(p.path), "a picture", task, None if p.puzzle is None else next(solutions), p) for p in pictures
        ]
        return results, single
    single = False
    if isinstance(puzzles, str | Path):
        read, single = _read(str(puzzles), task, model.called, on_message)
    elif isinstance(puzzles, list | tuple) and all(isinstance(puzzle, str) for puzzle in puzzles):
        read = _read_list([str(puzzle) for puzzle in puzzles], task)
    else:
        read, single = _from_array(np.asarray(puzzles), task)
    names = [read.source.name(row) for row in range(len(read))]
    for row, name in enumerate(names):
        only_solution(task, read.givens[row], name)
        on_progress("checking", row + 1, len(read))
    solved = solve(model.session, task, read.givens, options, on_progress=_solving(on_progress, len(read)))
    return [Result(n, read.source.format, task, solution) for n, solution in zip(names, solved, strict=True)], single


def unsolved_error(results: list[Result], model: Opened, options: SolveOptions) -> GateError:
    """Return the error that says what is left undone, and what helps against each kind of it."""
    default_steps = model.session.spec.max_steps
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
        most = model.task.distinct_views or 4 * options.views
        more += [f"--views {min(most, 4 * options.views)}"] if options.views < most else []
        more += ["a longer --budget"] if options.budget_s is not None else []
        hints.append(f"try more: {' '.join(more)}, or a stronger model" if more else "try a stronger model")
    return GateError("; ".join(what), "; ".join(hints))


def _solving(on_progress: OnProgress, total: int) -> Progress:
    """Return the loop's callback, which tells ``on_progress``."""
    return lambda done, verified: on_progress("solving", done, total)


def _read(puzzle: str, task: Task, model: str, on_message: OnMessage) -> tuple[Puzzles, bool]:
    """Read the puzzles of a file, of standard input, or of the text itself, and whether it is one typed puzzle."""
    from hrm_edge.data.files import read_typed
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.data.text import STDIN

    try:
        is_file = puzzle == STDIN or Path(puzzle).exists()
    except OSError:  # longer than a file name may be
        is_file = False
    if is_file:
        puzzles = load_puzzles(puzzle, task)
        note_format(puzzles, on_message)
        return puzzles, False
    try:
        typed = read_typed(puzzle, task)
    except UserError as error:
        if "/" in puzzle or re.search(r"\.[A-Za-z]\w{1,10}$", puzzle):
            raise UserError(f"{puzzle}: no such file", "check the path") from error
        raise UserError(f"{error.problem}\n  ({model} solves {task.name})", error.hint) from error
    return typed, len(typed) == 1


def _read_list(texts: Sequence[str], task: Task) -> Puzzles:
    """Read puzzles that are given as a list of texts."""
    from hrm_edge.data.files import read_typed

    rows = []
    for number, text in enumerate(texts):
        try:
            rows.append(read_typed(text, task).givens)
        except UserError as error:
            raise UserError(f"puzzle {number} of the list: {error.problem}", error.hint) from error
    givens = np.concatenate(rows) if rows else np.zeros((0, task.seq_len), np.uint8)
    return _puzzles(givens, task, "a list", "list")


def _from_array(array: np.ndarray, task: Task) -> tuple[Puzzles, bool]:
    """Read digits [S], [side, side], [N, S] or [N, side, side], 0 for a blank, and whether they are one puzzle."""
    if task.family != "sudoku":
        raise UserError(f"an array of digits is a Sudoku, the model solves {task.name}", "give the puzzle as text")
    side, cells = task.grid[0], task.seq_len
    count = len(array) if array.ndim else 0
    shapes = (cells,), (side, side), (count, cells), (count, side, side)
    if array.shape not in shapes or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"an array of {array.dtype} {list(array.shape)} is no {task.name}",
            f"give integers [{cells}], [{side}, {side}], [N, {cells}] or [N, {side}, {side}], 0 for a blank",
        )
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= side:
        raise UserError(f"a cell of the array is not in 0 to {side}", "give digits, and 0 for a blank")
    givens = (array.reshape(-1, cells) + BLANK).astype(np.uint8)
    for row, tokens in enumerate(givens):
        try:
            task.check_givens(tokens)
        except UserError as error:
            raise UserError(f"puzzle {row} of the array: {error.problem}", error.hint) from error
    return _puzzles(givens, task, "an array of digits", _ARRAY), array.shape in shapes[:2]


def _puzzles(givens: Tokens, task: Task, form: str, label: str) -> Puzzles:
    puzzles = Puzzles.of(task, givens, called=label)
    return replace(puzzles, source=replace(puzzles.source, format=form, given=[label] if len(givens) == 1 else None))
