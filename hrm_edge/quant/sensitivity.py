"""Which layers suffer from INT8, measured after all steps of the recurrence, and the policy that follows.

Runs in torch with rounded inputs and weights (``hrm_edge.model.fake_quant``): the same integers as the exported
graph's, without an export per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from hrm_edge.model.fake_quant import scale_of
from hrm_edge.model.hrm import HRM
from hrm_edge.model.session import TorchSession
from hrm_edge.quant.policy import Policy, Sensitivity, linear_layers
from hrm_edge.quant.sets import CheckSet

Tell = Callable[[str], None]
BATCH = 64
MARGIN_DB = 3.0  # kept between the policy's own measurement and the limit that the export is held to


def decibels(signal: float, noise: float) -> float:
    """Signal to quantization noise, 10 log10(signal / noise), capped at 200 dB for equal arrays."""
    return 200.0 if noise == 0 else min(200.0, 10.0 * float(np.log10(max(signal, 1e-300) / noise)))


@contextmanager
def rounded(model: HRM, scales: Mapping[str, float]) -> Iterator[None]:
    """Inside, the named layers compute as INT8 would."""
    layers = linear_layers(model)
    try:
        for name, scale in scales.items():
            layers[name].input_scale = scale_of(scale, layers[name].weight)
        yield
    finally:
        for name in scales:
            layers[name].input_scale = None


def final_logits(model: HRM, puzzles: CheckSet, steps: int) -> NDArray[np.float32]:
    """Logits [N, S, V] after ``steps`` steps; nobody halts."""
    session, found = TorchSession(model), []
    for begin in range(0, len(puzzles), BATCH):
        part = slice(begin, begin + BATCH)
        tokens, ids = puzzles.inputs[part], puzzles.puzzle_ids[part]
        carry = session.initial_carry(len(tokens))
        for _ in range(steps):
            carry, logits, _ = session.step(tokens, ids, carry)
        found.append(logits)
    return np.concatenate(found)


def sqnr_db(reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """SQNR of ``found`` in dB."""
    noise = reference.astype(np.float64) - found
    return decibels(float(np.square(reference, dtype=np.float64).sum()), float(np.square(noise).sum()))


def find_policy(
    model: HRM, scales: Mapping[str, float], puzzles: CheckSet, *, task: str, steps: int, floor_db: float, tell: Tell
) -> Policy:
    """Rank the layers of ``scales``, each rounded alone; then keep the worst ones in float until the limit holds.

    ``floor_db``: SQNR of the logits that the export is held to; the policy keeps 3 dB above it.
    """
    reference = final_logits(model, puzzles, steps)

    def measured(chosen: Mapping[str, float]) -> float:
        with rounded(model, chosen):
            return sqnr_db(reference, final_logits(model, puzzles, steps))

    alone = {}
    for number, (name, scale) in enumerate(scales.items(), 1):
        tell(f"sensitivity: layer {number} of {len(scales)}, {name}")
        alone[name] = measured({name: scale})
    ranking = sorted(alone, key=lambda name: alone[name])
    in_int8, reasons = dict(scales), {}
    whole = measured(in_int8)
    for rank, name in enumerate(ranking, 1):
        if whole >= floor_db + MARGIN_DB or len(in_int8) == 1:
            break
        before = whole
        tell(f"sensitivity: without {name}")
        del in_int8[name]
        whole = measured(in_int8)
        reasons[name] = (
            f"rank {rank} of {len(scales)}: in INT8 alone it leaves {alone[name]:.1f} dB after {steps} steps; "
            f"in float it lifts the whole model from {before:.1f} to {whole:.1f} dB (wanted: {floor_db + MARGIN_DB:g})"
        )
    return Policy(
        task=task,
        variant=model.spec.variant,
        measured_on=f"{len(puzzles)} puzzles of {puzzles.source}",
        steps=steps,
        sqnr_db=round(whole, 2),
        float_layers=reasons,
        ranking=[Sensitivity(layer=name, sqnr_db=round(alone[name], 2)) for name in ranking],
    )
