"""Precision of training: bfloat16 where this machine multiplies in it, else float32.

The answer is written into the run's recipe, so that a run that is resumed on another machine keeps its arithmetic.
"""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

import torch

from hrm_edge.recipe import Recipe
from hrm_edge.training.distributed import World

Precision = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

# Of the timed product [_ROWS, _SIDE] × [_SIDE, _SIDE]: about that of a training step of a small model.
_ROWS, _SIDE = 128, 256
_REPEATS = 5


class Bf16(NamedTuple):
    """Whether bfloat16 is faster than float32 here, and why: a sentence for a person."""

    is_native: bool
    why: str


def bf16_on(world: World) -> Bf16:
    """Find out for the machines of all ranks together; each rank has to call this."""
    own = _bf16_of(world.device)
    everywhere = all(world.exchange(int(own.is_native)))
    if own.is_native and not everywhere:
        return Bf16(False, "the processor of another rank only emulates bfloat16")
    return own


def _bf16_of(device: torch.device) -> Bf16:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Bf16(native, f"this GPU {'multiplies in' if native else 'only emulates'} bfloat16")
    ratio = _bf16_time_ratio()
    verb = "multiplies in" if ratio < 1 else "only emulates"
    return Bf16(ratio < 1, f"this processor {verb} bfloat16: a product takes {ratio:.2g} times as long as in float32")


def decided(recipe: Recipe, bf16: Bf16, began_in: Precision | None = None) -> tuple[Recipe, str]:
    """Replace ``train.precision: auto``; return the recipe, and what to say about it before training starts.

    ``began_in``: the precision of the run that is resumed, which ``auto`` keeps. So does a precision that the recipe
    names; where that one is slow, the text says so.
    """
    fastest: Precision = "bf16" if bf16.is_native else "fp32"
    wanted = recipe.train.precision
    if wanted != "auto":
        if (wanted, fastest) == ("bf16", "fp32"):
            return recipe, f"train.precision=bf16 is slow here: {bf16.why}. A new run with 'auto' or 'fp32' is faster."
        return recipe, ""
    chosen = began_in or fastest
    train = recipe.train.model_copy(update={"precision": chosen})
    if began_in is None:
        text = f"train.precision=auto is {chosen}: {bf16.why}"
    elif began_in == fastest:
        text = f"train.precision=auto is {chosen}, as the run began"
    else:
        text = f"train.precision=auto is {chosen}, as the run began; a new run would take {fastest}: {bf16.why}"
    return recipe.model_copy(update={"train": train}), text


def _bf16_time_ratio() -> float:
    """Return how long a matrix product takes on this processor in bfloat16, as a multiple of its time in float32.

    Measured were 0.5 where the processor has the instructions, and 3 to 30 where it has not. It is timed because the
    processor's flags are not enough: torch has to use them. One thread's processor time counts, so that other programs
    do not decide.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _product_s(torch.bfloat16) / _product_s(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _product_s(dtype: torch.dtype) -> float:
    left, right = torch.ones(_ROWS, _SIDE, dtype=dtype), torch.ones(_SIDE, _SIDE, dtype=dtype)
    times = []
    for _ in range(_REPEATS):
        begun = time.thread_time()
        torch.mm(left, right)
        times.append(time.thread_time() - begun)
    return min(times)
