"""What each backend and precision can do on a machine, and why not where it cannot."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hrm_edge.doctor.facts import Facts


class Backend(BaseModel):
    """One way of running an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    works: bool
    precisions: list[str] = Field(description="that run here; empty where the backend does not work")
    why: str = Field(description="version and device where it works, else what is missing")


def backends(facts: Facts) -> list[Backend]:
    """Every backend, the default one first. What only a run can show (speed, accuracy) is not claimed."""
    return [_onnxruntime(facts), _tensorrt(facts), _rtx(facts), _torch_tensorrt(facts)]


def _onnxruntime(facts: Facts) -> Backend:
    found = facts.onnxruntime
    if found.error:
        return Backend(name="onnxruntime (CPU)", works=False, precisions=[], why=found.error)
    return Backend(name="onnxruntime (CPU)", works=True, precisions=["fp32", "fp16", "int8"], why=f"{found.version}")


def _no_gpu(facts: Facts) -> str | None:
    if not facts.gpus:
        return "no NVIDIA GPU that we know"
    if not facts.gpu_device:
        return "the GPU's device nodes are missing"
    return None


def _tensorrt(facts: Facts) -> Backend:
    found = facts.tensorrt.imported
    why = _no_gpu(facts)
    if why is None and found is None:
        why = "TensorRT's Python package is not installed"
    if why is None and found is not None and found.error:
        why = f"importing TensorRT fails: {found.error}"
    if why is not None or found is None:
        return Backend(name="tensorrt", works=False, precisions=[], why=why or "")
    gpu = facts.gpus[0]
    return Backend(
        name="tensorrt",
        works=True,
        precisions=["fp32", "fp16", "int8"],
        why=f"{found.version} on {gpu.name}, SM {gpu.sm}",
    )


def _rtx(facts: Facts) -> Backend:
    found = facts.packages.get("tensorrt-rtx")
    if facts.kind == "jetson":
        why = "TensorRT-RTX is for desktop cards"
    elif found is None:
        why = "tensorrt-rtx is not installed"
    else:
        why = _no_gpu(facts) or ""
    if why:
        return Backend(name="tensorrt-rtx", works=False, precisions=[], why=why)
    assert found is not None
    return Backend(name="tensorrt-rtx", works=True, precisions=["fp32", "fp16", "int8"], why=found.version)


def _torch_tensorrt(facts: Facts) -> Backend:
    missing = [name for name in ("torch", "torch-tensorrt") if name not in facts.packages]
    why = _no_gpu(facts) or (f"{' and '.join(missing)} not installed" if missing else "")
    if why:
        return Backend(name="torch-tensorrt", works=False, precisions=[], why=why)
    version = facts.packages["torch-tensorrt"].version
    return Backend(name="torch-tensorrt", works=True, precisions=["fp32", "fp16", "int8"], why=version)
