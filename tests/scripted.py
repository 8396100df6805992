"""A session whose model is a script: it solves a puzzle after a known number of steps, and watches how it is driven."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrm_edge.session import FRESH, StepResult
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.sudoku import BLANK, Sudoku
from hrm_edge.tasks.sudoku_search import find_solutions

NEVER = 10**6


def spec_of(task: Sudoku, **overrides: object) -> ModelSpec:
    options = {"grid_heads": False, **overrides}
    return variant_spec("nano", vocab=task.vocab, seq_len=task.seq_len, grid=task.grid, **options)


@functools.cache
def _answer(task: Sudoku, puzzle: bytes) -> bytes:
    (answer,) = find_solutions(task, np.frombuffer(puzzle, np.uint8), 1).solutions
    return answer.tobytes()


def answer_of(task: Sudoku, puzzle: Tokens) -> Tokens:
    """A solution [S] of tokens [S]; the only one where the puzzle is a proper one."""
    return np.frombuffer(_answer(task, puzzle.tobytes()), np.uint8)


def puzzles(task: Sudoku, count: int, *, blanks: int, seed: int = 0) -> Tokens:
    """``count`` different grids [N, S] of which ``blanks`` cells are open (more than one solution may fit)."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(task.seq_len), task.side)
    shift = row % task.box_rows * task.box_cols + row // task.box_rows
    grid = ((shift + column) % task.side + 2).astype(np.uint8)
    found: dict[bytes, Tokens] = {}
    while len(found) < count:
        puzzle = task.random_views(1, rng).apply(grid[None])[0]
        puzzle[rng.choice(task.seq_len, blanks, replace=False)] = BLANK
        found[puzzle.tobytes()] = puzzle
    return np.stack(list(found.values())) if found else np.zeros((0, task.seq_len), np.uint8)


@dataclass
class ScriptedCarry:
    """Per slot: steps since the initial state, and what it has been thinking about since."""

    steps: NDArray[np.int64]
    about: list[tuple[bytes, int] | None]
    used: bool = False


@dataclass
class ScriptedSession:
    """Solves tokens after ``needed`` steps; asserts that a carry never changes its puzzle and is never used twice."""

    task: Sudoku
    spec: ModelSpec
    max_batch: int = 64
    longest: int = 6
    """Steps needed are 1 … longest, or never for some."""
    hopeless: float = 0.2
    """Share of the views (not puzzles) that are never solved."""
    early_claims: bool = False
    """The head claims to be done one step too soon."""
    batches: list[int] = field(default_factory=list)
    backend: str = "scripted"

    def needed(self, tokens: Tokens) -> int:
        """Steps until these tokens, as the slot shows them, are solved; NEVER for some."""
        luck = np.random.default_rng(zlib.crc32(tokens.tobytes()))
        return NEVER if luck.random() < self.hopeless else int(luck.integers(1, self.longest + 1))

    def predict(self, tokens: Tokens, steps: int) -> Tokens:
        answer = answer_of(self.task, tokens).copy()
        if steps < self.needed(tokens):
            cell = int(np.flatnonzero(tokens == BLANK)[0])
            answer[cell] = (answer[cell] - 2 + 1 + steps % (self.task.side - 1)) % self.task.side + 2  # another digit
        return answer

    def halts(self, tokens: Tokens, steps: int) -> bool:
        return steps >= self.needed(tokens) - self.early_claims

    # -- the protocol -------------------------------------------------------------------------------------------

    def initial_carry(self, batch: int) -> ScriptedCarry:
        assert 1 <= batch <= self.max_batch
        return ScriptedCarry(np.zeros(batch, np.int64), [None] * batch)

    def gather(self, carry: ScriptedCarry, rows: NDArray[np.int64]) -> ScriptedCarry:
        assert not carry.used, "a carry was used twice"
        assert 1 <= len(rows) <= self.max_batch
        kept = rows[rows != FRESH]
        assert len(set(kept.tolist())) == len(kept), "a slot was copied"
        carry.used = True
        return ScriptedCarry(
            np.array([0 if row == FRESH else carry.steps[row] for row in rows]),
            [None if row == FRESH else carry.about[row] for row in rows],
        )

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: ScriptedCarry) -> StepResult:
        assert not carry.used, "a carry was used twice"
        assert tokens.dtype == np.uint8
        assert puzzle_ids.dtype == np.int32
        assert len(tokens) == len(puzzle_ids) == len(carry.steps) <= self.max_batch
        carry.used = True
        self.batches.append(len(tokens))
        about = [(row.tobytes(), int(i)) for row, i in zip(tokens, puzzle_ids, strict=True)]
        for before, now in zip(carry.about, about, strict=True):
            assert before in (None, now), "a carry met another puzzle"
        steps = carry.steps + 1
        answers = np.stack([self.predict(row, int(n)) for row, n in zip(tokens, steps, strict=True)])
        logits = np.eye(self.spec.vocab, dtype=np.float32)[answers]
        halts = np.array([self.halts(row, int(n)) for row, n in zip(tokens, steps, strict=True)])
        q = np.where(halts, 1.0, -1.0).astype(np.float32)[:, None]
        return ScriptedCarry(steps, list(about)), logits, q


@dataclass
class Oracle:
    """A session that gives the answer it was told for each question, in one step; what it was not told it repeats."""

    spec: ModelSpec
    answers: dict[tuple[int, bytes], tuple[Tokens, float]]
    """(puzzle id, question) → (answer [S], halting score)."""
    backend: str = "scripted"
    max_batch: int = 64

    def tell(self, ids: NDArray[np.int32], questions: Tokens, answers: Tokens, halt: NDArray[np.float64]) -> None:
        for key, question, answer, score in zip(ids, questions, answers, halt, strict=True):
            self.answers[int(key), question.tobytes()] = (answer, float(score))

    def initial_carry(self, batch: int) -> int:
        return batch

    def gather(self, carry: int, rows: NDArray[np.int64]) -> int:
        return len(rows)

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: int) -> StepResult:
        known = [
            self.answers.get((int(key), question.tobytes()), (question, -1.0))
            for key, question in zip(puzzle_ids, tokens, strict=True)
        ]
        logits = np.zeros((*tokens.shape, self.spec.vocab), np.float32)
        np.put_along_axis(logits, np.stack([answer for answer, _ in known])[..., None].astype(np.int64), 1, axis=-1)
        return carry, logits, np.array([[score] for _, score in known], np.float32)
