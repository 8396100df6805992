"""Backends that run a model's step, as one table: runtime, command line, doctor and reports read it.

It is plain data, so that the doctor can read it where NumPy or a runtime does not load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

CpuBackend = Literal["onnxruntime", "openvino", "openvino-bf16", "native"]
DeviceBackend = CpuBackend | Literal["tensorrt", "auto"]
"""Name of a backend that needs no torch; ``auto``: the CPU's that a trial finds fastest."""
Backend = DeviceBackend | Literal["torch-tensorrt"]
"""Name of a backend, as ``--backend`` takes it."""

EVERY_PRECISION = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class BackendInfo:
    """What there is to know about a backend before it is loaded."""

    title: str
    """Its name in the doctor's table."""
    modules: tuple[str, ...]
    """Packages of Python that it needs, by the names they are imported by."""
    precisions: tuple[str, ...] = ()
    """Precisions of artifacts that it runs; of a GPU's the table of its architectures says more."""
    session: str = ""
    """``module:class`` of its session on the CPU; empty for a GPU's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Arguments that make its session this backend's."""
    architectures: str = ""
    """Table of ``runtime/trt/targets.json`` that says what a GPU's architecture runs; empty on the CPU."""
    compiles: bool = False
    """Whether it needs a C++ compiler."""
    keeps_precision: bool = True
    """Whether it computes in the artifact's precision, so that a trial may choose it."""
    note: str = ""
    """What the doctor says in addition to the version."""

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU, and takes a number of threads."""
        return bool(self.session)

    @property
    def probe(self) -> str:
        """Module that finds out how INT8 is multiplied here (``int8_arithmetic``); empty where it is always exact."""
        return "" if self.compiles or not self.on_cpu else self.session.partition(":")[0]


BACKENDS = {  # the default one first
    "onnxruntime": BackendInfo(
        "onnxruntime (CPU)", ("onnxruntime",), EVERY_PRECISION, session="hrm_edge.runtime.ort:OrtSession"
    ),
    "openvino": BackendInfo(
        "openvino (CPU)", ("openvino",), EVERY_PRECISION, session="hrm_edge.runtime.openvino:OpenVinoSession"
    ),
    "openvino-bf16": BackendInfo(
        "openvino (CPU)",
        ("openvino",),
        EVERY_PRECISION,
        session="hrm_edge.runtime.openvino:OpenVinoSession",
        settings={"bf16": True},
        keeps_precision=False,
    ),
    "native": BackendInfo(
        "native (CPU)",
        ("onnx",),
        ("fp32", "int8"),
        session="hrm_edge.runtime.native.session:NativeSession",
        compiles=True,
        note="fp32: lattices, int8: models with attention",
    ),
    "tensorrt": BackendInfo("tensorrt", ("tensorrt",), architectures="tensorrt"),
    "torch-tensorrt": BackendInfo("torch-tensorrt", ("torch", "torch_tensorrt"), architectures="tensorrt"),
}
RTX = BackendInfo("tensorrt-rtx", ("tensorrt_rtx",), architectures="tensorrt_rtx")
"""The other TensorRT, for desktop cards, whose engines ``tensorrt`` opens."""
NAMES = (*BACKENDS, "auto")
APART_ON_CPU = {name: about for name, about in BACKENDS.items() if about.on_cpu and not about.settings}
"""Backends of the CPU without those that are another one with other settings."""
ON_GPU = (BACKENDS["tensorrt"], RTX, BACKENDS["torch-tensorrt"])
"""Backends that run an engine."""


def package_of(label: str) -> str:
    """Return the distribution whose version a report gives for a session's ``backend`` label."""
    first = label.partition("-")[0]
    return "hrm-edge" if first == "native" else first
