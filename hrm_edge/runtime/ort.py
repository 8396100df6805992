"""ONNX Runtime on the CPU behind the ``Session`` protocol.

Axes: B slots, S cells, P puzzle tokens, T = P + S, D hidden, V vocabulary, Q halting outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Manifest
from hrm_edge.runtime.state import AGAIN, read_state
from hrm_edge.session import FRESH, StepResult
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, ModelSpec, step_io

OrtCarry = tuple[NDArray[Any], NDArray[Any]]  # z_h, z_l [B, T, D] float32 or float16, on the host

_ORT_TYPES = {"int32": "tensor(int32)", "float32": "tensor(float)", "float16": "tensor(float16)"}


class OrtSession:
    """The step of an artifact on the CPU.

    ``threads``: of one step; None: as many as ONNX Runtime finds cores. The carry stays in numpy arrays: binding
    fixed buffers (IO binding) was measured equal within 3 % from batch 1 to 64.
    """

    backend = "onnxruntime-cpu"

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        self.spec = manifest.spec
        self.max_batch = manifest.max_batch
        self.dtype = np.dtype(np.float16 if manifest.precision == "fp16" else np.float32)
        self._session = _load(folder / STEP_FILE, threads)
        _check_graph(self._session, self.spec, self.dtype, folder / STEP_FILE)
        self._state = read_state(folder / STATE_FILE, self.spec, self.dtype)

    def initial_carry(self, batch: int) -> OrtCarry:
        """Every position of both levels starts from its level's vector."""
        shape = (batch, self.spec.total_len, self.spec.hidden)
        z_h, z_l = (np.broadcast_to(start, shape).copy() for start in self._state.start)
        return z_h, z_l

    def gather(self, carry: OrtCarry, rows: NDArray[np.int64]) -> OrtCarry:
        fresh = rows == FRESH
        same = len(rows) == len(carry[0]) and bool((fresh | (rows == np.arange(len(rows)))).all())
        z_h, z_l = carry if same else (level[rows] for level in carry)  # row -1 is overwritten below
        z_h[fresh], z_l[fresh] = self._state.start
        return z_h, z_l

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: OrtCarry) -> StepResult:
        if not 1 <= len(tokens) <= self.max_batch:
            raise ValueError(
                f"batch {len(tokens)} is not in 1..{self.max_batch}, the range the artifact was checked for"
            )
        feeds: dict[str, NDArray[Any]] = {"tokens": tokens.astype(np.int32), "z_h": carry[0], "z_l": carry[1]}
        if self._state.puzzle_table is not None:
            feeds["puzzle"] = self._state.puzzle_vectors(puzzle_ids)
        z_h, z_l, logits, q = self._session.run(STEP_OUTPUTS, feeds)
        return (z_h, z_l), logits, q


def _load(path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed, and it runs the artifact", "pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1  # the step is one chain of operators
    options.log_severity_level = 3  # errors; they reach us as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: onnxruntime {onnxruntime.__version__} refuses it: {first}",
            "a newer onnxruntime may take it: pip install --upgrade onnxruntime",
        ) from error


def _check_graph(session: Any, spec: ModelSpec, dtype: np.dtype[Any], path: Path) -> None:
    """Names, types and shapes against ``step_io``; the batch axis must be dynamic."""
    table = step_io(spec)
    for kind, nodes, order in (
        ("input", session.get_inputs(), STEP_INPUTS),
        ("output", session.get_outputs(), STEP_OUTPUTS),
    ):
        wanted = [name for name in order if name in table]
        found = {node.name: node for node in nodes}
        for name in sorted(set(wanted) ^ set(found)):
            raise UserError(f"{path} {'lacks the' if name in wanted else 'has an unknown'} {kind} '{name}'", AGAIN)
        for name in wanted:
            type_name, shape = table[name]
            type_name = dtype.name if type_name == "carry" else type_name
            node = found[name]
            if node.type != _ORT_TYPES[type_name]:
                raise UserError(f"{path}: {kind} '{name}' is {node.type}, the manifest's model has {type_name}", AGAIN)
            if isinstance(node.shape[0], int):
                raise UserError(f"{path}: {kind} '{name}' has a fixed batch of {node.shape[0]}", AGAIN)
            if tuple(node.shape[1:]) != shape[1:]:
                raise UserError(
                    f"{path}: {kind} '{name}' is [B, {', '.join(map(str, node.shape[1:]))}], "
                    f"the manifest's model has [B, {', '.join(map(str, shape[1:]))}]",
                    AGAIN,
                )
