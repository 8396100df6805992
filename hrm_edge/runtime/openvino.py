"""OpenVINO on the CPU behind the ``Session`` protocol: the same ONNX file, often faster on Intel's processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.manifest import STEP_FILE, Manifest
from hrm_edge.packages import unusable
from hrm_edge.quiet import import_openvino
from hrm_edge.runtime.arithmetic import PROBE, Arithmetic, arithmetic, is_exact
from hrm_edge.runtime.host import HostSession, Outputs, Port, check_ports
from hrm_edge.spec import STEP_OUTPUTS

_DEFAULT_CONFIG: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
_FLOAT_PRODUCTS = {"LP_TRANSFORMS_MODE": "NO"}  # OpenVINO then leaves its 8-bit kernels alone
_TYPES = {"i32": "int32", "f32": "float32", "f16": "float16"}


class OpenVinoSession(HostSession):
    """The step of an artifact, compiled by OpenVINO when it is first needed.

    ``threads``: of one step; None: OpenVINO's choice. ``bf16``: what the file has in float32 is computed in bfloat16,
    which the export's parity was not measured with; off unless asked for, although OpenVINO's own default on
    processors with AMX is on. One puzzle has a graph of its own with every shape fixed: 10 % faster a step than the
    one with a dynamic batch, which serves all other batches. Nothing compiled is cached (CACHE_DIR): OpenVINO 2026.4
    ended in a segmentation fault with it.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None, bf16: bool = False) -> None:
        super().__init__(folder, manifest)
        self.threads = threads
        self.backend = "openvino-cpu-bf16" if bf16 else "openvino-cpu"
        path = folder / STEP_FILE
        self._core, self._model = _read(path)
        check_ports(_ports(self._model.inputs), _ports(self._model.outputs), self.spec, self.dtype, path)
        hint = {"INFERENCE_PRECISION_HINT": "bf16"} if bf16 else {}
        self._config: dict[str, Any] = {**_DEFAULT_CONFIG, **hint, "INFERENCE_NUM_THREADS": threads or 0}
        if manifest.precision == "int8":
            self.arithmetic = int8_arithmetic(self._config)
            if self.arithmetic.products != "int8":
                self._config |= _FLOAT_PRODUCTS
        self._requests: dict[bool, Any] = {}

    def run(self, feeds: dict[str, NDArray[Any]]) -> Outputs:
        single = len(feeds["tokens"]) == 1
        if single not in self._requests:
            self._requests[single] = self._compile(single)
        # inputs are read where they lie; outputs are copied, for the next call overwrites OpenVINO's own
        contiguous = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        outputs = self._requests[single].infer(contiguous, share_inputs=True, share_outputs=False)
        z_h, z_l, logits, q = (outputs[name] for name in STEP_OUTPUTS)
        return z_h, z_l, logits, q

    def _compile(self, single: bool) -> Any:
        model = self._model.clone()
        if single:
            model.reshape({p.any_name: [1, *(d.get_length() for d in list(p.partial_shape)[1:])] for p in model.inputs})
        return self._core.compile_model(model, "CPU", self._config).create_infer_request()


def int8_arithmetic(config: dict[str, Any] = _DEFAULT_CONFIG) -> Arithmetic:
    """Return how OpenVINO multiplies INT8 artifacts on this processor with a session's ``config``.

    Raises ``UserError`` where it has no exact way.
    """
    openvino = _import()
    version, settings = openvino.__version__.partition("-")[0], str(config["INFERENCE_PRECISION_HINT"])
    return arithmetic("openvino", version, settings, lambda int8_kernels: _probe(config, int8_kernels))


def _probe(config: dict[str, Any], int8_kernels: bool) -> bool:
    config = {**config, "INFERENCE_NUM_THREADS": 1, **({} if int8_kernels else _FLOAT_PRODUCTS)}
    core, model = _read(PROBE)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x.shape[:2] == (1, 1):  # as for one puzzle, every shape is fixed
            fixed = model.clone()
            fixed.reshape({"x": list(x.shape)})
            return np.asarray(core.compile_model(fixed, "CPU", config).create_infer_request().infer({"x": x})["y"])
        return np.asarray(request.infer({"x": x})["y"])

    request = core.compile_model(model, "CPU", config).create_infer_request()
    return is_exact(run)


def _ports(ports: list[Any]) -> list[Port]:
    return [
        (
            port.any_name,
            _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            [None if axis.is_dynamic else axis.get_length() for axis in port.partial_shape],
        )
        for port in ports
    ]


def _import() -> Any:
    try:
        return import_openvino()
    except ImportError as error:
        raise unusable("openvino", error, "which --backend openvino needs") from error


def _read(path: Path) -> tuple[Any, Any]:
    openvino = _import()
    core = openvino.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        # most lines are places in its source; the cause is the one on operators, else the last
        lines = [line.strip(" -") for line in str(error).strip().splitlines()]
        reason = next((line for line in lines if line.startswith("No conversion rule")), lines[-1])
        raise UserError(
            f"{path}: openvino {openvino.__version__.partition('-')[0]} refuses it: {reason}",
            "run it with --backend onnxruntime, or try a newer openvino",
        ) from error
