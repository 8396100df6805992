"""Backends and precisions that work on a machine, with the reason where one does not."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hrm_edge.doctor.facts import Facts
from hrm_edge.files import read_json
from hrm_edge.packages import DISTRIBUTIONS
from hrm_edge.records import Record

# Read as data: importing hrm_edge.runtime needs numpy, which may be what is broken here.
TARGETS = Path(__file__).parent.parent / "runtime" / "trt" / "targets.json"
ON_CPU = ["fp32", "fp16", "int8"]


class Backend(Record):
    """One way of running an artifact."""

    name: str
    works: bool
    precisions: list[str] = Field(description="that run here; empty where the backend does not work")
    why: str = Field(description="version and device where it works, else what is missing")


def backends(facts: Facts) -> list[Backend]:
    """Return every backend, the default one first. What only a run can show (speed, accuracy) is not claimed."""
    return [
        _onnxruntime(facts),
        _openvino(facts),
        _native(facts),
        _tensorrt(facts),
        _rtx(facts),
        _torch_tensorrt(facts),
    ]


def _without(name: str, why: str) -> Backend:
    return Backend(name=name, works=False, precisions=[], why=why)


def _why(module: str, facts: Facts) -> str:
    """Say why ``module`` cannot be used: not installed, or what importing it raised."""
    found = facts.imports.get(module)
    name = DISTRIBUTIONS.get(module, module)
    return f"{name} is not installed" if found is None else f"{name} does not load: {found.error}"


def _onnxruntime(facts: Facts) -> Backend:
    found, name = facts.onnxruntime, "onnxruntime (CPU)"
    if found.error:
        return _without(name, found.error)
    return Backend(name=name, works=True, precisions=ON_CPU, why=_version(facts, "onnxruntime", found.version))


def _openvino(facts: Facts) -> Backend:
    found, name = facts.imports.get("openvino"), "openvino (CPU)"
    if found is None or found.error:
        return _without(name, _why("openvino", facts))
    return Backend(name=name, works=True, precisions=ON_CPU, why=_version(facts, "openvino", found.version))


def _version(facts: Facts, backend: str, version: str | None) -> str:
    """Return the version, with how INT8 artifacts are multiplied where that was probed."""
    said = facts.int8.get(backend)
    return f"{version or ''}; INT8: {said}" if said else version or ""


def _native(facts: Facts) -> Backend:
    name = "native (CPU)"
    onnx = facts.imports.get("onnx")
    missing = [what for what, found in (("a C++ compiler", facts.compiler), ("onnx", onnx)) if not found]
    if missing:
        return _without(name, f"{' and '.join(missing)} not installed")
    if onnx is not None and onnx.error:
        return _without(name, _why("onnx", facts))
    return Backend(
        name=name,
        works=True,
        precisions=["fp32", "int8"],
        why=f"compiled by {facts.compiler} when first asked for; fp32: lattices, int8: models with attention",
    )


def _on_gpu(facts: Facts, name: str, table: str, version: str) -> Backend:
    """A backend that is installed: what the first GPU's architecture runs, by the engine builder's own table."""
    if not facts.gpus:
        return _without(name, "no NVIDIA GPU that we know")
    gpu = facts.gpus[0]
    if not facts.gpu_device:
        return _without(name, "the GPU's device nodes are missing")
    session = facts.gpu_session
    if session is not None and session.error:
        return _without(name, session.error)
    row = read_json(TARGETS)[table].get((gpu.sm or "").replace(".", ""))
    if row is None or not row["precisions"]:
        return _without(name, f"it has no support for {gpu.name}, SM {gpu.sm or 'not known'}")
    by = f" by {session.binding}" if session else ""
    return Backend(name=name, works=True, precisions=row["precisions"], why=f"{version}{by} on {gpu.name}, SM {gpu.sm}")


def _tensorrt(facts: Facts) -> Backend:
    found = facts.tensorrt.imported
    if facts.gpus and found is None:
        return _without("tensorrt", "TensorRT's Python package is not installed")
    if facts.gpus and found is not None and found.error:
        return _without("tensorrt", f"importing TensorRT fails: {found.error}")
    return _on_gpu(facts, "tensorrt", "tensorrt", (found.version if found else None) or "")


def _rtx(facts: Facts) -> Backend:
    found, name = facts.imports.get("tensorrt_rtx"), "tensorrt-rtx"
    if facts.kind == "jetson":
        return _without(name, "TensorRT-RTX is for desktop cards")
    if found is None or found.error:
        return _without(name, _why("tensorrt_rtx", facts))
    return _on_gpu(facts, name, "tensorrt_rtx", found.version or "")


def _torch_tensorrt(facts: Facts) -> Backend:
    modules = ("torch", "torch_tensorrt")
    missing = [DISTRIBUTIONS.get(name, name) for name in modules if name not in facts.imports]
    if missing:
        return _without("torch-tensorrt", f"{' and '.join(missing)} not installed")
    for name in modules:
        if facts.imports[name].error:
            return _without("torch-tensorrt", _why(name, facts))
    return _on_gpu(facts, "torch-tensorrt", "tensorrt", facts.imports["torch_tensorrt"].version or "")
