"""Inputs that break attention kernels, and what attention of them is, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.interpreted import run_interpreted
from hrm_edge.ops.reference import reference_attention, rope_tables
from hrm_edge.ops.tuning import Config

THETA = 10000.0
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place of 1
PATTERNS = ("random", "large logits", "one-hot", "constant rows")
GUARD = 64  # elements around every buffer that must neither be read nor written


@dataclass(frozen=True)
class Case:
    length: int
    head_dim: int
    heads: int
    dtype: str
    rope: bool
    grid: tuple[int, ...] = ()

    def __str__(self) -> str:
        name = f"S{self.length}-D{self.head_dim}-H{self.heads}-{self.dtype}-{'rope' if self.rope else 'plain'}"
        return f"{name}-{'x'.join(map(str, self.grid))}" if self.grid else name


def make(case: Case, patterns: tuple[str, ...] = PATTERNS) -> Tensor:
    """qkv [len(patterns), S, 3*H*Dh] inside a buffer of NaN, one pattern per sequence of the batch."""
    rng = np.random.default_rng(case.length + case.head_dim)
    s, h, d = case.length, case.heads, case.head_dim
    packed = np.empty((len(patterns), s, 3, h, d))
    for x, pattern in zip(packed, patterns, strict=True):
        x[:] = rng.standard_normal(x.shape)
        if pattern == "large logits":  # up to about 100: exp overflows float32 unless the maximum is subtracted
            x[:, :2] *= 5
        elif pattern == "one-hot":  # a query meets its own keys alone; the products overflow a float16 sum
            axis = np.eye(d)[np.arange(s) % d][:, None, None, :]
            x[:, :2] = axis * (16 if case.rope else 256)
        elif pattern == "constant rows":
            x[:] = x[:1]
    buffer = torch.full((packed.size + 2 * GUARD,), float("nan"), dtype=DTYPES[case.dtype])
    inside = buffer[GUARD:-GUARD].view(len(patterns), s, 3 * h * d)
    inside.copy_(torch.from_numpy(packed).view(inside.shape))
    return inside


def tables(case: Case) -> tuple[Tensor, Tensor] | None:
    if not case.rope:
        return None
    cos, sin = rope_tables(case.length, case.head_dim, THETA)
    return cos[:, : case.head_dim // 2], sin[:, : case.head_dim // 2]


def exact(case: Case, qkv: Tensor) -> NDArray[np.float64]:
    """softmax(QK^T / sqrt(Dh)) V in float64 [B, S, H*Dh], the rotation as a product with the tables' complex numbers.

    For 16-bit types Q and K are rotated in float32 and rounded to the type: that is part of the operator's definition.
    (Rotated in float64 some would round to the other neighbour, and that meets a logit of up to 100.)
    """
    batch = qkv.shape[0]
    packed = qkv.double().numpy().reshape(batch, case.length, 3, case.heads, case.head_dim)
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    rope = tables(case)
    if rope is not None:
        cos, sin = (table.double().numpy() for table in rope)
        q, k = (_turned(x, cos, sin, case.dtype) for x in (q, k))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(case.head_dim)
    if case.grid:
        scores = np.where(seen(case), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = weights @ v / weights.sum(-1, keepdims=True)
    return out.transpose(0, 2, 1, 3).reshape(batch, case.length, -1)


def seen(case: Case) -> NDArray[np.bool_]:
    """Which cells each head sees [H, S, S], cell by cell: its row, its column, its box, or all, in turn."""
    columns, box_rows, box_columns = case.grid[1:]
    places = [divmod(cell, columns) for cell in range(case.length)]
    shown = (
        lambda a, b: a[0] == b[0],
        lambda a, b: a[1] == b[1],
        lambda a, b: a[0] // box_rows == b[0] // box_rows and a[1] // box_columns == b[1] // box_columns,
        lambda a, b: True,
    )
    return np.array([[[shown[head % 4](a, b) for b in places] for a in places] for head in range(case.heads)])


def _turned(
    x: NDArray[np.float64], cos: NDArray[np.float64], sin: NDArray[np.float64], dtype: str
) -> NDArray[np.float64]:
    half = x.shape[-1] // 2
    if dtype == "float32":
        pair = (x[..., :half] + 1j * x[..., half:]) * (cos + 1j * sin)
        return np.concatenate([pair.real, pair.imag], axis=-1)
    a, b, c, s = (part.astype(np.float32) for part in (x[..., :half], x[..., half:], cos, sin))
    turned = np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    return torch.from_numpy(turned).to(DTYPES[dtype]).double().numpy()


def tolerance(case: Case, qkv: Tensor, expected: NDArray[np.float64]) -> float:
    """What an error may be.

    float32: 1e-5, except where logits are so large that plain torch in float32 is not that near either: four times its
    error (the rounding of rotated Q and K times a logit of 100), for in another order of its sums, which the processor
    chooses, torch's own differs twofold. 16-bit: weights and result are each rounded once, by half a unit in the last
    place at most.
    """
    if case.dtype == "float32":
        plain = reference_attention(qkv, case.heads, tables(case), case.grid).double().numpy()
        return max(1e-5, 4 * float(np.abs(plain - expected).max()))
    largest = float(qkv[..., -case.heads * case.head_dim :].abs().max())
    return 2.5 * UNIT[case.dtype] * largest


def run(case: Case, qkv: Tensor, config: Config) -> Tensor:
    """The kernel's result, computed into a poisoned buffer; fails where it wrote outside or left a part unwritten."""
    batch, length, packed = qkv.shape
    size = batch * length * packed // 3
    buffer = torch.full((size + 2 * GUARD,), float("nan"), dtype=qkv.dtype)
    out = buffer[GUARD:-GUARD].view(batch, length, packed // 3)
    run_interpreted(qkv, case.heads, tables(case), out, config, case.grid)
    assert buffer[:GUARD].isnan().all(), "wrote before its output"
    assert buffer[-GUARD:].isnan().all(), "wrote behind its output"
    assert out.isfinite().all(), "left a part of its output unwritten, or read a neighbour"
    return out


def worst_error(case: Case, config: Config, patterns: tuple[str, ...] = PATTERNS) -> tuple[float, float]:
    """(largest absolute error of the kernel, what is allowed)."""
    qkv = make(case, patterns)
    expected = exact(case, qkv)
    error = np.abs(run(case, qkv, config).double().numpy() - expected).max()
    return float(error), tolerance(case, qkv, expected)
