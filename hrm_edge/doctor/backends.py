"""Backends and precisions that work on a machine, with the reason where one does not."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hrm_edge.backends import APART_ON_CPU, ON_GPU, RTX, BackendInfo
from hrm_edge.doctor.facts import Facts
from hrm_edge.doctor.machine import Import, is_missing
from hrm_edge.files import read_json
from hrm_edge.packages import DISTRIBUTIONS
from hrm_edge.records import Record

# Read as data: importing hrm_edge.runtime needs numpy, which may be what is broken here.
TARGETS = Path(__file__).parent.parent / "runtime" / "trt" / "targets.json"


class Backend(Record):
    """One way of running an artifact."""

    name: str
    works: bool
    precisions: list[str] = Field(description="that run here; empty where the backend does not work")
    why: str = Field(description="version and device where it works, else what is missing")


def backends(facts: Facts) -> list[Backend]:
    """Return every backend, the default one first. What only a run can show (speed, accuracy) is not claimed."""
    on_cpu = [_on_cpu(facts, name, about) for name, about in APART_ON_CPU.items()]
    return on_cpu + [_on_gpu(facts, about) for about in ON_GPU]


def _without(about: BackendInfo, why: str) -> Backend:
    return Backend(name=about.title, works=False, precisions=[], why=why)


def _import(facts: Facts, module: str) -> Import | None:
    """Return what came of importing ``module``; None where it is not installed."""
    apart = {"onnxruntime": facts.onnxruntime, "tensorrt": facts.tensorrt.imported}
    result = apart[module] if module in apart else facts.imports.get(module)
    return None if result is None or is_missing(module, result.error) else result


def _lack(facts: Facts, about: BackendInfo) -> str | None:
    """Say why a backend's packages cannot be used: not installed, or what importing one raised. None where they can."""
    results = {DISTRIBUTIONS.get(module, module): _import(facts, module) for module in about.modules}
    missing = ["a C++ compiler"] if about.compiles and not facts.compiler else []
    missing += [name for name, result in results.items() if result is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    return next((f"{name} does not load: {r.error}" for name, r in results.items() if r is not None and r.error), None)


def _version(facts: Facts, about: BackendInfo) -> str:
    result = _import(facts, about.modules[-1])
    return (result.version if result is not None else None) or ""


def _on_cpu(facts: Facts, name: str, about: BackendInfo) -> Backend:
    """Judge a backend on the CPU, and say how INT8 artifacts are multiplied where that was probed."""
    if why := _lack(facts, about):
        return _without(about, why)
    version = f"compiled by {facts.compiler} when first asked for" if about.compiles else _version(facts, about)
    note = f"INT8: {facts.int8[name]}" if name in facts.int8 else about.note
    why = f"{version}; {note}" if note else version
    return Backend(name=about.title, works=True, precisions=list(about.precisions), why=why)


def _on_gpu(facts: Facts, about: BackendInfo) -> Backend:
    """Judge a backend on the GPU: what the first one's architecture runs, by the engine builder's own table."""
    if about is RTX and facts.kind == "jetson":
        return _without(about, "TensorRT-RTX is for desktop cards")
    if not facts.gpus:
        return _without(about, "no NVIDIA GPU that we know")
    if why := _lack(facts, about):
        return _without(about, why)
    gpu, session = facts.gpus[0], facts.gpu_session
    if not facts.gpu_device:
        return _without(about, "the GPU's device nodes are missing")
    if session is not None and session.error:
        return _without(about, session.error)
    row = read_json(TARGETS)[about.architectures].get((gpu.sm or "").replace(".", ""))
    if row is None or not row["precisions"]:
        return _without(about, f"it has no support for {gpu.name}, SM {gpu.sm or 'not known'}")
    by = f" by {session.binding}" if session else ""
    why = f"{_version(facts, about)}{by} on {gpu.name}, SM {gpu.sm}"
    return Backend(name=about.title, works=True, precisions=row["precisions"], why=why)
