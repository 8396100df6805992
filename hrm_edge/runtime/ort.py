"""ONNX Runtime on the CPU behind the ``Session`` protocol."""

from __future__ import annotations

import contextlib
import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import writable_cache
from hrm_edge.manifest import STEP_FILE, Manifest
from hrm_edge.packages import unusable
from hrm_edge.quiet import import_onnxruntime
from hrm_edge.runtime import compile_cache
from hrm_edge.runtime.arithmetic import PROBE, Arithmetic, arithmetic, is_exact
from hrm_edge.runtime.host import HostSession, Outputs, Port, check_ports
from hrm_edge.spec import STEP_OUTPUTS

FLOAT_PRODUCTS = ("session.disable_quant_qdq", "1")  # ONNX Runtime then leaves its 8-bit kernels alone
_TYPES = {"tensor(int32)": "int32", "tensor(float)": "float32", "tensor(float16)": "float16"}


class OrtSession(HostSession):
    """The step of an artifact on the CPU.

    ``threads``: of one step; None: as many as ONNX Runtime finds cores. The graph as ONNX Runtime has optimized it is
    kept in the user's cache: a small model loads in a fifth of the time, a large one in half. The carry stays in numpy
    arrays: binding fixed buffers (IO binding) was measured equal within 3 % from batch 1 to 64.
    """

    backend = "onnxruntime-cpu"

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        super().__init__(folder, manifest)
        self.threads = threads
        path = folder / STEP_FILE
        if manifest.precision == "int8":
            self.arithmetic = int8_arithmetic()
        self._session = _load(path, threads, manifest, self.arithmetic)
        inputs, outputs = (_ports(n) for n in (self._session.get_inputs(), self._session.get_outputs()))
        check_ports(inputs, outputs, self.spec, self.dtype, path)

    def run(self, feeds: dict[str, NDArray[Any]]) -> Outputs:
        z_h, z_l, logits, q = self._session.run(STEP_OUTPUTS, feeds)
        return z_h, z_l, logits, q


def _ports(nodes: list[Any]) -> list[Port]:
    return [(node.name, _TYPES.get(node.type, node.type), list(node.shape)) for node in nodes]


def _import() -> Any:
    try:
        return import_onnxruntime()
    except ImportError as error:
        raise unusable("onnxruntime", error, "and it runs the artifact") from error


def int8_arithmetic() -> Arithmetic:
    """Return how ONNX Runtime multiplies INT8 artifacts on this processor.

    Raises ``UserError`` where it has no exact way.
    """
    return arithmetic("onnxruntime", _import().__version__, "", _probe)


def _probe(int8_kernels: bool) -> bool:
    session = _session(PROBE, 1, _import().GraphOptimizationLevel.ORT_ENABLE_ALL, int8_kernels=int8_kernels)
    return is_exact(lambda x: np.asarray(session.run(None, {"x": x})[0]))


def _load(path: Path, threads: int | None, manifest: Manifest, multiplies: Arithmetic | None) -> Any:
    """Open the graph in ``path``, by the form that ONNX Runtime made of it earlier where that is kept."""
    onnxruntime = _import()
    level = onnxruntime.GraphOptimizationLevel
    int8_kernels = multiplies is None or multiplies.products == "int8"
    folder, key = writable_cache("compiled") / "onnxruntime", _cache_key(manifest, multiplies)
    if key is not None:
        with contextlib.suppress(Exception):  # none there, or made by a version that wrote something else
            if (known := compile_cache.find(folder, key, ".onnx")) is not None:
                return _session(known[1], threads, level.ORT_DISABLE_ALL, int8_kernels=int8_kernels)
        with contextlib.suppress(Exception):  # a folder that is read-only, a disk that is full
            _, session = compile_cache.keep(
                folder,
                key,
                ".onnx",
                lambda to: _session(path, threads, level.ORT_ENABLE_ALL, int8_kernels=int8_kernels, keep=to),
            )
            compile_cache.prune(folder)
            return session
    try:
        return _session(path, threads, level.ORT_ENABLE_ALL, int8_kernels=int8_kernels)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: onnxruntime {onnxruntime.__version__} refuses it: {first}",
            "a newer onnxruntime may take it: pip install --upgrade onnxruntime",
        ) from error


def _cache_key(manifest: Manifest, multiplies: Arithmetic | None) -> str | None:
    """Return the name under which a verified artifact's step is kept for this ONNX Runtime on this processor.

    None where there is nothing to tell the step by, as while an artifact is being written.
    """
    entry = manifest.files.get(STEP_FILE)
    if entry is None:
        return None
    parts = (
        entry.sha256,
        metadata.version("onnxruntime"),
        multiplies.products if multiplies else "",
        compile_cache.processor(),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _session(
    graph: Path | bytes, threads: int | None, level: Any, *, int8_kernels: bool = True, keep: Path | None = None
) -> Any:
    onnxruntime = _import()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    if keep is not None:
        options.optimized_model_filepath = str(keep)
    if not int8_kernels:
        options.add_session_config_entry(*FLOAT_PRODUCTS)
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1  # the step is one chain of operators
    options.log_severity_level = 3  # errors; they reach us as exceptions
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
