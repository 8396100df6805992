"""Sensitivity of each layer to INT8, measured after all steps of the recurrence, and the policy that follows.

Runs in torch with rounded inputs and weights (``hrm_edge.model.fake_quant``): the same integers as the exported
graph's, without an export per layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm_edge.callbacks import OnMessage
from hrm_edge.model.fake_quant import fake_quantized_rows, scale_of
from hrm_edge.model.hrm import HRM
from hrm_edge.model.session import TorchSession
from hrm_edge.parity import converged
from hrm_edge.quant.policy import Policy, Sensitivity, linear_layers
from hrm_edge.report.figures import decibels
from hrm_edge.session import rollout
from hrm_edge.tasks.puzzles import Puzzles

_MARGIN_DB = 3.0  # kept between the policy's own measurement and the limit that the export is held to


@contextmanager
def rounded(model: HRM, scales: Mapping[str, float], int8_weights: Collection[str] = ()) -> Iterator[None]:
    """Make the layers of ``scales`` compute as INT8 inside the block; those of ``int8_weights`` only round weights."""
    layers = linear_layers(model)
    exact = {name: layers[name].weight.data for name in int8_weights}
    try:
        for name, scale in scales.items():
            layers[name].input_scale = scale_of(scale, layers[name].weight)
        for name, weight in exact.items():
            layers[name].weight.data = fake_quantized_rows(weight)
        yield
    finally:
        for name in scales:
            layers[name].input_scale = None
        for name, weight in exact.items():
            layers[name].weight.data = weight


@dataclass(frozen=True)
class Final:
    """Outputs of a model after its last step, without halting."""

    logits: NDArray[np.float32]  # [N, S, V]
    converged: NDArray[np.bool_]  # [N]

    def sqnr_db(self, other: Final) -> float:
        """Return the SQNR of ``other``'s logits in dB, on the puzzles that converge in both, or on all if none do."""
        both = self.converged & other.converged
        return sqnr_db(*(part.logits[both] if both.any() else part.logits for part in (self, other)))


def final(model: HRM, puzzles: Puzzles, steps: int) -> Final:
    """Run ``steps`` steps on every puzzle."""
    logits_of, converged_of = [], []
    for after in rollout(TorchSession(model), puzzles, steps):
        if after.step == steps:
            logits_of.append(after.logits[:])
            converged_of.append(converged(after))
    return Final(np.concatenate(logits_of), np.concatenate(converged_of))


def sqnr_db(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the SQNR of ``other`` in dB."""
    noise = reference.astype(np.float64) - other
    return decibels(float(np.square(reference, dtype=np.float64).sum()), float(np.square(noise).sum()))


def find_policy(
    model: HRM,
    scales: Mapping[str, float],
    puzzles: Puzzles,
    *,
    steps: int,
    floor_db: float,
    on_message: OnMessage,
) -> Policy:
    """Rank the layers of ``scales``, each rounded alone; then compute the worst ones in float until the limit holds.

    ``floor_db``: SQNR of the logits that the export is held to; the policy keeps 3 dB above it. Weights stay in INT8.
    """
    reference = final(model, puzzles, steps)

    def measured(chosen: Mapping[str, float], weights: Collection[str] = ()) -> float:
        with rounded(model, chosen, weights):
            return reference.sqnr_db(final(model, puzzles, steps))

    alone = {}
    for number, (name, scale) in enumerate(scales.items(), 1):
        on_message(f"sensitivity: layer {number} of {len(scales)}, {name}")
        alone[name] = measured({name: scale})
    ranking = sorted(alone, key=lambda name: alone[name])
    in_int8 = dict(scales)
    reasons: dict[str, str] = {}
    whole = measured(in_int8)
    for rank, name in enumerate(ranking, 1):
        if whole >= floor_db + _MARGIN_DB or len(in_int8) == 1:
            break
        before = whole
        on_message(f"sensitivity: without {name}")
        del in_int8[name]
        whole = measured(in_int8, (*reasons, name))
        reasons[name] = (
            f"rank {rank} of {len(scales)}: in INT8 alone it leaves {alone[name]:.1f} dB after {steps} steps; "
            f"in float it lifts the whole model from {before:.1f} to {whole:.1f} dB (wanted: {floor_db + _MARGIN_DB:g})"
        )
    return Policy(
        task=puzzles.task.name,
        variant=model.spec.variant,
        measured_on=f"{len(puzzles)} puzzles of {puzzles.source.path}",
        steps=steps,
        sqnr_db=round(whole, 2),
        float_layers=reasons,
        ranking=[Sensitivity(layer=name, sqnr_db=round(alone[name], 2)) for name in ranking],
    )
