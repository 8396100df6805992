"""Changes of a reading after which no two equal digits clash, the likeliest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import BLANK, Sudoku
from hrm_edge.tasks.sudoku_board import geometry
from hrm_edge.vision.read import Reading

_SMUDGE = 0.65  # of the doubt about a cell goes to its being blank, times the share of blanks
_FREE_CHANGES = 40  # the cheapest, which are tried where nothing clashes
FIRST_COST = 0.7  # nats that each repaired cell costs besides, so that fewer changes go first

_Change = tuple[float, int, int]  # cost in nats, cell, digit (0 blank)


class _Repair(NamedTuple):
    """Changes of some cells after which no two equal digits clash."""

    cost: float
    """Nats below the likeliest reading, and ``FIRST_COST`` for every cell."""
    cells: tuple[int, ...]
    digits: tuple[int, ...]


class CutOff(NamedTuple):
    """End of a search that has not looked at every set of changes."""

    cost: float
    """The least that a set costs which was not looked at."""


def repairs(  # noqa: C901, PLR0912 - one search, its bounds inside
    reading: Reading, tokens: Tokens, task: Sudoku, limit: float, tries: int
) -> Iterator[_Repair | CutOff]:
    """Yield changes of tokens [81] after which no digit clashes, cheapest first, that cost at most ``limit``.

    Searches best first over sets of single changes. Where two digits clash, one of the two has to change: only sets
    that do are looked at, ``tries`` of them. Where some are left then, a :class:`CutOff` comes last.
    """
    changes = _changes(reading, limit)
    by_cell: dict[int, list[_Change]] = {}
    for change in changes:
        by_cell.setdefault(change[1], []).append(change)
    free = changes[:_FREE_CHANGES]
    clash = _Clashes(tokens, task)
    # (cost, set of changes before, place in ``free`` of one that is added to it or -1, place of the next to add)
    heap: list[tuple[float, tuple[_Change, ...], int, int]] = [(0.0, (), -1, 0)]
    seen: set[tuple[_Change, ...]] = set()
    while heap and len(seen) < tries:
        cost, chosen, added, following = heapq.heappop(heap)
        if added >= 0:
            if added + 1 < len(free):  # the same set with the next change instead
                price = cost - free[added][0] + free[added + 1][0]
                if price <= limit:
                    heapq.heappush(heap, (price, chosen, added + 1, added + 2))
            if any(cell == free[added][1] for _, cell, _ in chosen):
                continue
            chosen = tuple(sorted((*chosen, free[added])))
        if chosen in seen:
            continue
        seen.add(chosen)
        digits = {cell: digit for _, cell, digit in chosen}
        pair = clash.first(digits)
        if pair is not None:
            for cell in pair:
                for change in by_cell.get(cell, ()) if cell not in digits else ():
                    if cost + change[0] <= limit:
                        heapq.heappush(heap, (cost + change[0], tuple(sorted((*chosen, change))), -1, following))
            continue
        if chosen:
            yield _Repair(cost, tuple(digits), tuple(digits.values()))
        if following < len(free) and cost + free[following][0] <= limit:
            heapq.heappush(heap, (cost + free[following][0], chosen, following, following + 1))
    if heap:
        yield CutOff(heap[0][0])


def _changes(reading: Reading, limit: float) -> list[_Change]:
    """Return every other reading of a single cell that costs ``limit`` nats at most, cheapest first."""
    probabilities = reading.probabilities.copy()
    # what looks like every digit a little is a smudge rather than any of them
    blanks = float((reading.digits == 0).mean())  # in a grid that is filled in there is hardly one
    probabilities[:, 0] = np.maximum(probabilities[:, 0], _SMUDGE * blanks * (1 - reading.confidence))
    log = np.log(np.maximum(probabilities, 1e-12))
    gap = np.log(reading.confidence)[:, None] - log + FIRST_COST  # [81, 10]
    gap[np.arange(len(gap)), reading.digits] = np.inf
    cells, digits = np.nonzero(gap <= limit)
    return sorted(zip(gap[cells, digits].tolist(), cells.tolist(), digits.tolist(), strict=True))


class _Clashes:
    """Pairs of cells in one row, column or box with the same digit, in tokens [81] of which some are changed."""

    def __init__(self, tokens: Tokens, task: Sudoku) -> None:
        self._digits: list[int] = (tokens - np.uint8(BLANK)).tolist()
        self._peers: list[list[int]] = geometry(task).peers.tolist()
        self._pairs = [
            (cell, peer)
            for cell, digit in enumerate(self._digits)
            for peer in self._peers[cell]
            if digit and cell < peer and self._digits[peer] == digit
        ]

    def first(self, changed: dict[int, int]) -> tuple[int, int] | None:
        """Return a clash when cells have the digits of ``changed``; None where there is none."""
        for pair in self._pairs:
            if pair[0] not in changed and pair[1] not in changed:
                return pair
        for cell, digit in changed.items():
            for peer in self._peers[cell] if digit else ():
                if changed.get(peer, self._digits[peer]) == digit:
                    return cell, peer
        return None
