"""Comparison of the measured engine with a float32 one in the same run. Axes: N puzzles, S cells, V vocabulary."""

from __future__ import annotations

import numpy as np

from hrm_edge.report import ReferenceAt, decibels
from hrm_edge.session import Session
from hrm_edge.tasks.base import Tokens

MOST_PUZZLES = 64


def against(session: Session, reference: Session, givens: Tokens, steps: int) -> list[ReferenceAt]:
    """Run both sessions for ``steps`` steps on ``givens`` uint8 [N, S]; compare their logits after 1, 4 and all steps.

    Both start from the initial carry, and each continues from its own.
    """
    batch = min(len(givens), session.max_batch, reference.max_batch)
    tokens, ids = givens[:batch], np.zeros(batch, np.int32)
    ours, theirs = session.initial_carry(batch), reference.initial_carry(batch)
    found = []
    for step in range(1, steps + 1):
        ours, logits, _ = session.step(tokens, ids, ours)
        theirs, reference_logits, _ = reference.step(tokens, ids, theirs)
        if step in (1, 4, steps):
            found_logits, right = logits[:], reference_logits[:]
            signal = float(np.square(right, dtype=np.float64).sum())
            noise = float(np.square(right.astype(np.float64) - found_logits).sum())
            same = float((right.argmax(-1) == found_logits.argmax(-1)).all(-1).mean())
            found.append(ReferenceAt(steps=step, logits_sqnr_db=decibels(signal, noise), same_answers=same))
    return found
