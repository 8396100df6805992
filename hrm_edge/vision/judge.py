"""The rules judge a reading: a puzzle has exactly one solution, and a wrong digit mostly leaves none.

The rules never give the answer that is drawn: they only say whether the picture was read rightly, and which of the next
likely readings of the least certain cells makes a puzzle.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import BLANK, FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_search import require_unique
from hrm_edge.vision.read import Reading

MAX_NODES = 2000  # guesses of one check: a reading that needs more is no ordinary puzzle
MAX_TRIES = 400  # readings tried, about a millisecond each
MAX_COST = 9.0  # nats: how much less likely than the likeliest reading a repaired one may be
MIN_GIVENS = 17  # no puzzle with fewer has one solution
_MARGIN = 1.5  # nats between an accepted repair and the next one that would do
_FIRST_COST = 0.7  # nats that each repaired cell costs besides, so that fewer changes go first


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the rules say about a reading."""

    puzzle: Tokens | None
    """Tokens [81] of a puzzle with exactly one solution; None: do not trust this reading."""
    why: UserError | None
    """Where there is no puzzle: what is wrong, e.g. two 5s in row 3."""
    repaired: tuple[int, ...] = ()
    """Cells where the rules chose a less likely digit."""


def judge(reading: Reading, task: Sudoku, repair: bool = True) -> Verdict:
    """Accept a reading, repair it, or say what is wrong with it.

    Repairs are tried from the likeliest on, up to ``MAX_COST`` nats and ``MAX_TRIES`` readings. When two repairs that
    are about as likely both make a puzzle, neither is taken.
    """
    tokens = tokens_of(reading.digits)
    why = fault(tokens, task)
    if why is None:
        return Verdict(tokens, None)
    if not repair:
        return Verdict(None, why)
    accepted: tuple[float, Tokens, tuple[int, ...]] | None = None
    for cost, cells, digits in _repairs(reading):
        if accepted is not None and cost > accepted[0] + _MARGIN:
            break
        changed = tokens.copy()
        changed[list(cells)] = np.array(digits) + BLANK
        if fault(changed, task) is None:
            if accepted is not None:
                return Verdict(None, why)
            accepted = cost, changed, cells
    return Verdict(None, why) if accepted is None else Verdict(accepted[1], None, accepted[2])


def tokens_of(digits: NDArray[np.uint8]) -> Tokens:
    """Digits [81], 0 blank, as tokens."""
    return (digits + BLANK).astype(np.uint8)


def fault(tokens: Tokens, task: Sudoku) -> UserError | None:
    """Why tokens [81] are no puzzle with exactly one solution; None where they are one."""
    try:
        task.check_givens(tokens)
    except UserError as error:
        return error
    givens = int((tokens >= FIRST_DIGIT).sum())
    if givens < MIN_GIVENS:
        return UserError(
            f"only {givens} digits were read, a puzzle has at least {MIN_GIVENS}",
            "bring the whole puzzle into view, sharp and evenly lit",
        )
    try:
        unique = require_unique(task, tokens, MAX_NODES)
    except UserError as error:
        return error
    return None if unique is not None else UserError("the puzzle is too hard to check", "read it again")


def _repairs(reading: Reading) -> Iterator[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """(cost, cells, their digits) of the readings next to the likeliest one, cheapest first.

    Cost: nats below the likeliest reading. Best first over sets of single changes, each set once.
    """
    log = np.log(np.maximum(reading.probabilities, 1e-12))
    gap = log.max(axis=1, keepdims=True) - log + _FIRST_COST  # [81, 10]
    gap[np.arange(len(gap)), reading.digits] = np.inf
    order = np.argsort(gap, axis=None)
    changes = [(float(gap.flat[i]), int(i) // gap.shape[1], int(i) % gap.shape[1]) for i in order[:40]]
    changes = [change for change in changes if change[0] <= MAX_COST]
    heap: list[tuple[float, tuple[int, ...]]] = [(changes[0][0], (0,))] if changes else []
    tries = 0
    while heap and tries < MAX_TRIES:
        cost, chosen = heapq.heappop(heap)
        last = chosen[-1]
        if last + 1 < len(changes):  # the next set of the same size, and this one with one change more
            step = changes[last + 1][0]
            for following, price in (
                ((*chosen[:-1], last + 1), cost - changes[last][0] + step),
                ((*chosen, last + 1), cost + step),
            ):
                if price <= MAX_COST:
                    heapq.heappush(heap, (price, following))
        cells = tuple(changes[i][1] for i in chosen)
        if len(set(cells)) == len(cells):
            tries += 1
            yield cost, cells, tuple(changes[i][2] for i in chosen)
