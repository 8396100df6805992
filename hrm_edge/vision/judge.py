"""The rules judge a reading: a puzzle has exactly one solution, and a wrong digit mostly leaves none.

The rules never give the answer that is drawn: they only say whether the picture was read rightly, and which of the next
likely readings of the least certain cells makes a puzzle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import BLANK, FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_search import SeveralSolutions, find_solutions, only_solution
from hrm_edge.vision.cells import SIDE
from hrm_edge.vision.read import Reading
from hrm_edge.vision.repairs import FIRST_COST, CutOff, repairs

_MAX_NODES = 2000  # guesses of one check: a reading that needs more is no ordinary puzzle
MAX_WORK = 1500  # checks and guesses of all of them: a picture takes no longer, whatever it shows
MAX_TRIES = 3000  # sets of changes looked at for clashes
_MAX_RIVALS = 600  # the same beside a reading that is a puzzle as it is
MARGIN = 4.5  # nats between what is accepted and the next reading that has another solution
_MAX_SEARCHES = 150  # of those without clashes, for a first solution: about a millisecond each
MAX_DOUBT = 3.0  # nats: minus the logarithm of the probability that all digits are right which the solution needs
_DOUBTFUL = 0.9  # probability of a digit, below which it is shown as in doubt
# probabilities of being written by hand, from which on a digit is left out: the next where the last was not enough
_WRITTEN = (0.5, 0.2, 0.08, 0.03)
MAX_COST = 9.0  # nats: how much less likely than the likeliest reading a repaired one may be
RIVALS = 3.0  # nats between an answer and another for which one digit was misread and one was missed
# The same where digits were left out. Then the whole reading was wrong somewhere, and what is said of each cell by
# itself is worth less: printed digits are taken for written ones and written ones for print on the same page.
RIVALS_LEFT_OUT = 5.5
MIN_GIVENS = 17  # no puzzle with fewer has one solution
_TRAINED_BLANKS = 0.47  # of the cells that recipes/digits.yaml trains on
_TRIED_WITHOUT = 16  # digits in doubt that are left out to see whether the others need them
_LITTLE, _CERTAIN = 0.5, 0.005  # nats of a puzzle and of a digit
_MORE_CHANGES = 2  # of a rival than of what it is a rival of: what each costs besides is for the order, no evidence
_REPAIRED_PARTS = 2  # ways of leaving out what was written that are repaired too
_SLIP = 0.05  # share of the digits written by hand that are wrong
_MISSED = 0.02  # printed digits that are missed at least, on average, however sure the blanks are
_MISREAD = 1e-4  # the least probability of any digit: the network is never surer than that
_ALIKE = 0.3  # of its price costs each further cell of one digit that is taken for the same other one
_OTHERS = 20  # other answers that are compared where a digit is taken away
_NAMED = 4  # cells in a message


@dataclass(frozen=True, eq=False)
class Verdict:
    """Verdict of the rules on a reading."""

    puzzle: Tokens | None
    """Tokens [81] of a puzzle with exactly one solution; None: do not trust this reading."""
    why: UserError | None
    """Fault where there is no puzzle, e.g. two 5s in row 3."""
    repaired: tuple[int, ...] = ()
    """Cells where the rules chose a less likely digit."""
    doubtful: tuple[int, ...] = ()
    """Other cells whose digit in the puzzle is less likely than ``_DOUBTFUL``."""
    ignored: tuple[int, ...] = ()
    """Cells whose digit was written by hand (or in another colour) and left out, for with them there was no puzzle."""
    disagreeing: tuple[int, ...] = ()
    """Those of ``ignored`` that have another digit in the solution."""
    doubt: float = 0.0
    """Nats: minus the logarithm of the probability that every digit which the solution needs was read rightly."""


def judge(reading: Reading, task: Sudoku, repair: bool = True) -> Verdict:
    """Accept a reading, repair it, leave out what was written by hand, or say what is wrong with it.

    Doubts between a digit and a blank are first weighed by how full the grid is. The whole reading comes first, then
    repairs of it, then its printed digits alone, then repairs of these. A digit too few makes no wrong answer, for
    there must be one solution; a wrong digit may. So nothing is accepted that needs digits which are together in more
    doubt than ``MAX_DOUBT``; nor where another reading that is hardly less likely is a puzzle with another solution,
    nor where one that is nearer to the whole reading is; nor where one digit less allows another answer that agrees
    better with what was left out (:func:`_rival`); nor where one digit may have been taken for another throughout
    (:func:`_confused`). After ``MAX_WORK`` checks the search ends, and nothing is accepted.
    """
    reading, rules = _weighed(reading), _Rules(task)
    tokens = tokens_of(reading.digits)
    why: UserError | None = None
    refused: Verdict | None = None
    nearest: Tokens | None = None
    try:
        for puzzle, cells, solution, fault in _candidates(reading, tokens, rules, repair):
            why = why or fault
            nearest = solution if nearest is None else nearest
            if puzzle is None or solution is None or nearest is None or not np.array_equal(solution, nearest):
                continue
            verdict = _checked(reading, rules, puzzle, cells, solution)
            if verdict.puzzle is not None:
                return verdict
            refused = refused or verdict
    except _WorkSpent:
        why = UserError(f"what it says was not settled by {MAX_WORK} checks with the rules", "take a sharper picture")
    if refused is not None:
        return refused
    return Verdict(None, _uncertain(reading, np.flatnonzero(reading.confidence < _DOUBTFUL)) if why is None else why)


_Candidate = tuple["Tokens | None", tuple[int, ...], "Tokens | None", "UserError | None"]


def _candidates(reading: Reading, tokens: Tokens, rules: _Rules, repair: bool) -> Iterator[_Candidate]:
    """Yield what a reading may mean, the nearest first: (puzzle, cells repaired, solution, why there is no puzzle).

    A solution without a puzzle is the likeliest of several that are about as likely.
    """
    solution, why = _solved(tokens, rules)
    lacking = isinstance(why, SeveralSolutions)
    yield *(_repaired(reading, tokens, rules, solution, lacking) if repair else (tokens, (), solution)), why
    if lacking:  # to leave out more would not help
        return
    parts: list[Tokens] = []
    for least in _WRITTEN:
        by_hand = (reading.written > least) & (reading.digits > 0)
        printed = np.where(by_hand, np.uint8(BLANK), tokens)
        if not by_hand.any() or int((printed >= FIRST_DIGIT).sum()) < MIN_GIVENS:
            continue
        solution, fault = _solved(printed, rules)
        if isinstance(fault, SeveralSolutions):
            break
        # What is a puzzle as it is gets no repair that would give it another solution.
        if solution is None:
            parts.append(printed)
        else:
            yield *_repaired(_without(reading, printed), printed, rules, solution), None
    for printed in parts[:_REPAIRED_PARTS] if repair else ():
        yield *_repaired(_without(reading, printed), printed, rules, None), None


def _checked(reading: Reading, rules: _Rules, puzzle: Tokens, repaired: tuple[int, ...], solution: Tokens) -> Verdict:
    """Return the verdict on a puzzle with one ``solution`` [81]: accepted, or in too much doubt."""
    given = np.flatnonzero(puzzle >= FIRST_DIGIT)
    share = reading.probabilities[given, puzzle[given] - BLANK]
    doubt = _doubt(reading, rules, puzzle)
    doubtful = tuple(int(cell) for cell in given[share < _DOUBTFUL] if cell not in repaired)
    rival = _rival(reading, rules, puzzle, solution)
    # What is in too much doubt is refused anyway, and it is there that sets of equal doubtful digits are many.
    if not rival and doubt <= MAX_DOUBT:
        rival = _confused(reading, rules, puzzle, solution)
    if rival or doubt > MAX_DOUBT:
        uncertain = np.array(sorted({*repaired, *doubtful, *rival}))
        return Verdict(None, _uncertain(reading, uncertain), doubt=doubt)
    left_out = np.flatnonzero((puzzle == BLANK) & (reading.digits > 0))
    ignored = tuple(int(cell) for cell in left_out if cell not in repaired)
    disagreeing = tuple(cell for cell in ignored if solution[cell] - BLANK != reading.digits[cell])
    return Verdict(puzzle, None, repaired, doubtful, ignored, disagreeing, doubt)


def _uncertain(reading: Reading, cells: NDArray[np.int64]) -> UserError:
    """Return what is said of a reading in too much doubt; ``cells``: those in doubt."""
    least = cells[np.argsort(reading.confidence[cells], kind="stable")]
    named = ", ".join(_cell_text(reading, int(cell)) for cell in least[:_NAMED])
    more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return UserError(f"too much of it is uncertain: {named}{more}", "take a sharper picture")


def _doubt(reading: Reading, rules: _Rules, puzzle: Tokens) -> float:
    """Return, in nats, minus the log probability that all digits are right which the solution of ``puzzle`` needs.

    A digit that may be left out, for the others have the same solution alone, is confirmed by them. None is tried
    where there is little doubt anyway.
    """
    needed = puzzle.copy()
    given = np.flatnonzero(puzzle >= FIRST_DIGIT)
    nats = -np.log(np.maximum(reading.probabilities[given, puzzle[given] - BLANK], 1e-12))
    doubt = float(nats.sum())
    for index in np.argsort(-nats, kind="stable")[:_TRIED_WITHOUT]:
        if doubt <= _LITTLE or nats[index] < _CERTAIN:
            break
        without = needed.copy()
        without[given[index]] = BLANK
        if _solved(without, rules)[0] is not None:
            needed, doubt = without, doubt - float(nats[index])
    return doubt


def _rival(reading: Reading, rules: _Rules, puzzle: Tokens, solution: Tokens) -> tuple[int, ...]:
    """Name the cells with a digit where another answer differs that explains the picture nearly as well.

    Empty: there is no such answer, or it differs only in cells that were read as blanks.

    A digit that was misread, or written by hand and taken for print, makes a wrong answer where a printed one was
    missed, or taken for written. So each digit of ``puzzle`` [81] is taken away in turn: what else is an answer then is
    compared by all that is in the picture, including the digits that were left out.
    """
    evidence, blank = _evidence(reading), puzzle == BLANK
    cells, answer = np.arange(len(puzzle)), solution - FIRST_DIGIT
    lost = evidence[cells, answer][:, None] - evidence  # [81, 9]: nats by which the answer beats another digit
    missed = ((1 - reading.probabilities[:, 0]) * (1 - reading.written))[blank].sum()
    least = RIVALS_LEFT_OUT if (reading.digits[blank] > 0).any() else RIVALS
    least += min(0.0, float(np.log(missed + _MISSED)))
    gain = -float(lost.min(axis=1)[blank].sum())  # of another answer by what was left out, at most
    against = np.where(lost > 0, lost, np.inf).min(axis=1)
    for cell in np.flatnonzero(~blank & (against - gain < least)):
        without = puzzle.copy()
        without[cell] = BLANK
        for other in rules.solutions(without, _OTHERS)[0] - FIRST_DIGIT:
            if (other != answer).any() and float(lost[cells, other].sum()) < least:
                return tuple(int(at) for at in np.flatnonzero((other != answer) & (reading.digits > 0)))
    return ()


def _confused(reading: Reading, rules: _Rules, puzzle: Tokens, solution: Tokens) -> tuple[int, ...]:
    """Name cells of one digit that are all another one in another answer which is hardly less likely; empty: no such.

    What makes one 3 of a print look like a 5 does so to the next: such errors come together. So cells of one digit that
    are each in doubt with the same other digit are changed together, at the full price of one and ``_ALIKE`` of others.
    """
    given = np.flatnonzero(puzzle >= FIRST_DIGIT)
    taken = puzzle[given] - BLANK
    log = np.log(np.maximum(reading.probabilities[given], 1e-12))
    nats = log[np.arange(len(given)), taken][:, None] - log  # [given, 10]: by which the digit taken beats another
    for digit, other in itertools.permutations(range(1, 10), 2):
        doubtful = np.flatnonzero((taken == digit) & (nats[:, other] <= MARGIN))
        for size in range(2, len(doubtful) + 1):
            for chosen in map(list, itertools.combinations(doubtful, size)):
                price = nats[chosen, other]
                if price.max() + _ALIKE * (price.sum() - price.max()) > MARGIN:
                    continue
                changed = puzzle.copy()
                changed[given[chosen]] = other + BLANK
                found, _ = _solved(changed, rules)
                if found is not None and not np.array_equal(found, solution):
                    return tuple(int(cell) for cell in given[chosen])
    return ()


def _evidence(reading: Reading) -> NDArray[np.float64]:
    """Return the logarithm [81, 9] of how likely each cell looks so for each digit of a solution, up to a constant.

    What is printed is right; of what people write a share of ``_SLIP`` is wrong; a blank says nothing.
    """
    ink = np.asarray(reading.probabilities[:, 1:], np.float64)
    by_hand = reading.written[:, None] * ink.sum(axis=1, keepdims=True)
    seen = ink + reading.probabilities[:, :1] / ink.shape[1]
    wrong = by_hand * _SLIP
    return np.asarray(np.log((1 - wrong - _MISREAD) * seen + (wrong + _MISREAD) / ink.shape[1]))


def _cell_text(reading: Reading, cell: int) -> str:
    """Return a cell, what was read in it and how sure that is: ``row 2 column 4 read as 7 (83%)``."""
    digit = int(reading.digits[cell])
    read = str(digit) if digit else "a blank"
    return f"row {cell // SIDE + 1} column {cell % SIDE + 1} read as {read} ({reading.confidence[cell]:.0%})"


def doubts_text(reading: Reading, verdict: Verdict) -> list[str]:
    """Return sentences on what a person should look at: cells in doubt, and digits that were left out."""
    notes = []
    if verdict.repaired:
        assert verdict.puzzle is not None
        taken = (
            f"{_cell_text(reading, c)} taken as {verdict.puzzle[c] - BLANK or 'a blank'}" for c in verdict.repaired
        )
        notes.append(f"read with the help of the rules: {', '.join(taken)}")
    if verdict.doubtful:
        notes.append(f"in doubt: {', '.join(_cell_text(reading, cell) for cell in verdict.doubtful)}")
    if verdict.ignored:
        count, wrong = len(verdict.ignored), len(verdict.disagreeing)
        which = "".join(f", {_cell_text(reading, cell)}" for cell in verdict.disagreeing)
        disagree = f"{wrong} of them disagree{'s' * (wrong == 1)}"
        notes.append(f"{count} written digit{'s'[: count > 1]} ignored, {disagree}{which}")
    return notes


def _without(reading: Reading, printed: Tokens) -> Reading:
    """Return the reading with blanks, for certain, where ``printed`` [81] has one."""
    probabilities = reading.probabilities.copy()
    probabilities[printed == BLANK] = np.eye(probabilities.shape[1], dtype=np.float32)[0]
    return replace(reading, probabilities=probabilities)


def _repaired(
    reading: Reading, tokens: Tokens, rules: _Rules, solution: Tokens | None, lacking: bool = False
) -> tuple[Tokens | None, tuple[int, ...], Tokens | None]:
    """Return (puzzle, cells changed, solution): tokens [81] if they have a ``solution``, else the likeliest that has.

    Changes are tried from the likeliest on, up to ``MAX_COST`` nats. Where another one within ``MARGIN`` nats of what
    is taken has another solution, nothing is taken (None, and the likelier solution); nor is a change where the search
    ended before all of these were looked at. ``lacking``: tokens have several solutions; then digits are only added,
    for nothing says that one of those read is wrong.
    """
    accepted, answer = (tokens, solution) if solution is not None else (None, None)
    chosen: tuple[int, ...] = ()
    spare = _MORE_CHANGES * FIRST_COST
    limit, margin = (MAX_COST, np.inf) if solution is None else (MARGIN + spare, MARGIN)
    tries = MAX_TRIES if solution is None else _MAX_RIVALS
    for looked, repair in enumerate(repairs(reading, tokens, rules.task, limit + MARGIN + spare, tries)):
        # A repair needs all its rivals looked at, however many there are: only MAX_WORK ends that.
        if repair.cost > limit or (looked >= _MAX_SEARCHES and not chosen):
            break
        if isinstance(repair, CutOff):
            if chosen:
                return None, (), answer
            break
        cost, cells, digits = repair
        if lacking and (tokens[list(cells)] != BLANK).any():
            continue
        changed = tokens.copy()
        changed[list(cells)] = np.array(digits) + BLANK
        other, _ = _solved(changed, rules)
        if other is None:
            continue
        if answer is None:
            accepted, chosen, answer = changed, cells, other
            limit, margin = cost + MARGIN + spare, cost - FIRST_COST * len(cells) + MARGIN
        elif cost - FIRST_COST * len(cells) <= margin and not np.array_equal(other, answer):
            return None, (), answer
    return accepted, chosen, answer


def _weighed(reading: Reading) -> Reading:
    """Weigh the reading anew: blanks are as likely beforehand as they are in this grid, not as in training.

    A network's probabilities hold for its training's shares of the classes; Bayes' rule takes them to other shares
    (Saerens, Latinne and Decaestecker 2002, equation 2.4). A grid that is filled in by hand has hardly a blank.
    """
    blanks = (int((reading.digits == 0).sum()) + 1) / (len(reading.digits) + 2)  # never 0 or 1: one cell more of each
    weighed = reading.probabilities.copy()
    weighed[:, 0] *= blanks / (1 - blanks) * (1 - _TRAINED_BLANKS) / _TRAINED_BLANKS
    return replace(reading, probabilities=weighed / weighed.sum(axis=1, keepdims=True))


def tokens_of(digits: NDArray[np.uint8]) -> Tokens:
    """Return digits [81], 0 blank, as tokens."""
    return (digits + BLANK).astype(np.uint8)


class _WorkSpent(Exception):
    """Says that a reading has cost ``MAX_WORK``."""


class _Rules:
    """Answers by Sudoku's rules, and counts what it is asked."""

    def __init__(self, task: Sudoku) -> None:
        self.task, self.left = task, MAX_WORK

    def solutions(self, tokens: Tokens, limit: int = 2) -> tuple[Tokens, bool]:
        """Find up to ``limit`` solutions [n, 81] of tokens [81], and whether the guesses ended before the search."""
        grids, guesses, exhausted = find_solutions(self.task, tokens, limit, max(0, min(_MAX_NODES, self.left)))
        self.left -= 1 + guesses
        if self.left < 0:
            raise _WorkSpent
        return grids, exhausted


def _solved(tokens: Tokens, rules: _Rules) -> tuple[Tokens | None, UserError | None]:
    """Return the only solution [81] of tokens [81], or why they are no puzzle with exactly one."""
    try:
        rules.task.check_givens(tokens)
        givens = int((tokens >= FIRST_DIGIT).sum())
        if givens < MIN_GIVENS:
            raise UserError(
                f"only {givens} digits were read, a puzzle has at least {MIN_GIVENS}",
                "bring the whole puzzle into view, sharp and evenly lit",
            )
        solutions, exhausted = rules.solutions(tokens)
        if exhausted and len(solutions) < 2:
            raise UserError("the puzzle is too hard to check", "read it again")
        solution = only_solution(rules.task, solutions)
    except UserError as error:
        return None, error
    return solution, None
