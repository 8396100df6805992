"""Which puzzles a model has settled: those whose answers a solver would take.

Where a model finds no answer its state never rests, and the recurrence amplifies any difference: a start changed by a
thousandth ends elsewhere, in float32 too. What such a state is after all steps tells nothing about the numbers it was
computed with, so exports are held to the puzzles that both settle, and accuracy tells how many each of them does.

Axes: N puzzles, S cells, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrm_edge.session import wants_to_halt
from hrm_edge.tasks.arc import Arc
from hrm_edge.tasks.base import Task


def settled(
    task: Task, tokens: NDArray[np.uint8], logits: NDArray[np.float32], q: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """[N]: the answers of ``logits`` [N, S, V] to ``tokens`` [N, S] obey the rules.

    ARC has no rules to check an answer by: there the halting head's ``q`` [N, Q] decides.
    """
    return wants_to_halt(q) if isinstance(task, Arc) else task.verify(tokens, logits.argmax(-1).astype(np.uint8))
