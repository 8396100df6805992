"""ONNX Runtime on the CPU behind the ``Session`` protocol."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file
from hrm_edge.manifest import STEP_FILE, Manifest
from hrm_edge.packages import unusable
from hrm_edge.runtime import compiled
from hrm_edge.runtime.host import HostSession, Outputs, Port, check_ports
from hrm_edge.spec import STEP_OUTPUTS

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
        self._session = _load(path, threads, compiled.file_for(manifest))
        inputs, outputs = (_ports(n) for n in (self._session.get_inputs(), self._session.get_outputs()))
        check_ports(inputs, outputs, self.spec, self.dtype, path)

    def run(self, feeds: dict[str, NDArray[Any]]) -> Outputs:
        z_h, z_l, logits, q = self._session.run(STEP_OUTPUTS, feeds)
        return z_h, z_l, logits, q


def _ports(nodes: list[Any]) -> list[Port]:
    return [(node.name, _TYPES.get(node.type, node.type), list(node.shape)) for node in nodes]


def _load(path: Path, threads: int | None, optimized: Path | None) -> Any:
    """A session of the graph in ``path``; ``optimized``: where ONNX Runtime's own form of it is, or shall be, kept."""
    try:
        import onnxruntime
    except ImportError as error:
        raise unusable("onnxruntime", error, "and it runs the artifact") from error
    level = onnxruntime.GraphOptimizationLevel
    if optimized is not None:
        with contextlib.suppress(Exception):  # none there, or torn; a folder that is read-only, a disk that is full
            if optimized.is_file():
                return _session(optimized, threads, level.ORT_DISABLE_ALL)
        with contextlib.suppress(Exception):
            with atomic_file(optimized) as temporary:
                session = _session(path, threads, level.ORT_ENABLE_ALL, keep=temporary)
            compiled.prune(optimized.parent)
            return session
    try:
        return _session(path, threads, level.ORT_ENABLE_ALL)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: onnxruntime {onnxruntime.__version__} refuses it: {first}",
            "a newer onnxruntime may take it: pip install --upgrade onnxruntime",
        ) from error


def _session(path: Path, threads: int | None, level: Any, keep: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    if keep is not None:
        options.optimized_model_filepath = str(keep)
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1  # the step is one chain of operators
    options.log_severity_level = 3  # errors; they reach us as exceptions
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
