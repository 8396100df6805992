"""Find out whether a runtime's 8-bit products are exact on this processor, by computing extreme ones.

An x86 processor without VNNI multiplies bytes with an instruction that cuts the sum of two products off at 16 bits, and
a runtime that uses it gives other answers than the artifact. No list of processors tells which runtime does: a small
graph like an artifact's (``probe.onnx``, written by scripts/probe_graph.py) is run instead, and the result is kept in
the user's cache. Where a runtime is not exact, its sessions multiply in float32.

Axes: B batch, T positions, K inputs, N outputs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.files import read_json, writable_cache, write_json
from hrm_edge.runtime.compile_cache import processor

PROBE = Path(__file__).with_name("probe.onnx")
INPUTS, OUTPUTS = 64, 48  # K and N of the probe's one product
_SHAPES = ((1, 1), (2, 5), (1, 81))  # (B, T) that are computed: runtimes have other code for a single row
INPUT_SCALE = np.float32(0.5)
_TOLERANCE = 1e-4  # of the largest sum: float32's rounding stays far below, a cut-off product lies far above
_EXTREMES = (127, -128, 127, -127, -128, 126)
_ENVIRONMENT = ("ONEDNN_", "DNNL_", "OV_", "ORT_", "OPENVINO_")  # variables that may choose other instructions

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""The probe on [B, T, K]; gives [B, T, N]."""


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of a session's products of INT8 activations and weights."""

    products: Literal["int8", "float32"]
    """Operands of the products: bytes with exact sums, or their values in float32."""
    why: str | None = None
    """Why the runtime's own 8-bit products are not used; None where they are."""

    def __str__(self) -> str:
        said = "exact 8-bit products" if self.products == "int8" else "products in float32"
        return said if self.why is None else f"{said}, for {self.why}"


def extreme_weights() -> NDArray[np.int8]:
    """Return weights [K, N] whose products reach every limit: constant columns, alternating signs, mixtures."""
    k, n = np.meshgrid(np.arange(INPUTS), np.arange(OUTPUTS), indexing="ij")
    weights = np.array(_EXTREMES, np.int8)[(k * (n + 3) + k * k * n // 5) % len(_EXTREMES)]
    weights[:, 0], weights[:, 1], weights[:, 2] = 127, -127, -128
    weights[::2, 3], weights[1::2, 3] = 127, -128
    return weights


def weight_scales() -> NDArray[np.float32]:
    """Return scales [N] of the weights, powers of two: the expected sums are exact in float32."""
    return np.asarray(2.0 ** -(np.arange(OUTPUTS) % 4), np.float32)


def _extreme_inputs(batch: int, positions: int) -> NDArray[np.int64]:
    """Return activations [B, T, K] in steps of ``INPUT_SCALE``; the first rows are all 127 and all -128."""
    rows, k = np.meshgrid(np.arange(batch * positions), np.arange(INPUTS), indexing="ij")
    inputs = np.array(_EXTREMES)[(k * (rows + 2) + rows * rows) % len(_EXTREMES)]
    inputs[0] = 127
    inputs[1::7] = -128
    return np.asarray(inputs.reshape(batch, positions, INPUTS), np.int64)


def is_exact(run: Run) -> bool:
    """Compute the probe with ``run`` and compare with the true sums."""
    for batch, positions in _SHAPES:
        inputs = _extreme_inputs(batch, positions)
        wanted = (inputs @ extreme_weights().astype(np.int64)) * (INPUT_SCALE * weight_scales())
        computed = run(inputs.astype(np.float32) * INPUT_SCALE)
        if computed.shape != wanted.shape or not np.abs(computed - wanted).max() <= _TOLERANCE * np.abs(wanted).max():
            return False
    return True


def _int8_is_exact(runtime: str, version: str, settings: str, probe: Callable[[], bool]) -> bool:
    """Return whether a version of a runtime with its settings multiplies bytes exactly on this processor.

    ``probe`` is asked once per processor, version, settings and environment; then the user's cache knows. Where the
    probe fails the answer is no, and it is asked again the next time.
    """
    chosen = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_ENVIRONMENT))
    parts = (runtime, version, settings, processor(), *chosen, hashlib.sha256(PROBE.read_bytes()).hexdigest())
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = writable_cache("arithmetic") / f"{name}.json"
    with contextlib.suppress(HrmEdgeError, TypeError, KeyError):
        known = read_json(path)["exact"]
        if isinstance(known, bool):
            return known
    try:
        exact = probe()
    except Exception:  # noqa: BLE001 - a runtime that fails at one product raises its own kind
        return False
    with contextlib.suppress(HrmEdgeError, OSError):
        write_json(path, {"runtime": runtime, "version": version, "settings": settings, "exact": exact})
    return exact


def arithmetic(runtime: str, version: str, settings: str, probe: Callable[[bool], bool]) -> Arithmetic:
    """Decide how a runtime's sessions multiply; ``UserError`` where neither of its ways is exact.

    ``probe``: whether the products are exact with the runtime's 8-bit kernels (True) or without them (False).
    """
    if _int8_is_exact(runtime, version, settings, lambda: probe(True)):
        return Arithmetic("int8")
    if _int8_is_exact(runtime, version, f"{settings} float32", lambda: probe(False)):
        return Arithmetic("float32", f"the 8-bit products of {runtime} {version} are not exact on this processor")
    raise UserError(
        f"{runtime} {version} computes other products than the artifact's here",
        "run it with --backend native, or try another version of the runtime",
    )
