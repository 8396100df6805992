"""Identity of an engine, everything it depends on: written with it when it is built, compared before it is read.

An engine runs on the TensorRT build and the GPU it was made for, and elsewhere fails in ways that say nothing, or
gives wrong answers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hrm_edge.device.identity import l4t_release
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.manifest import (
    STEP_FILE,
    FileEntry,
    Gate,
    Manifest,
    Parity,
    Precision,
    file_entries,
    verify_files,
)
from hrm_edge.records import Record, read_record
from hrm_edge.runtime.trt.api import Api, Runtime
from hrm_edge.runtime.trt.device import Gpu, platform_name

PLAN_FILE = "engine.plan"  # nothing but TensorRT's plan: trtexec reads it
SIDECAR_FILE = "engine.json"
MODULE_FILE = "step.pt2"  # the same engine inside an ExportedProgram; see hrm_edge.export.torch_module
_SCHEMA_VERSION = 1


class BatchRange(Record):
    """The optimization profile: smallest, tuned-for and largest batch."""

    min: int = Field(ge=1, le=1 << 20)
    opt: int = Field(ge=1, le=1 << 20)
    max: int = Field(ge=1, le=1 << 20)


Frontend = Literal["onnx", "torch-tensorrt"]


class Options(Record):
    """Options of the builder."""

    frontend: Frontend = "onnx"
    """Origin of the network."""
    precision: Precision
    tf32: bool = False
    """Whether float32 products may be cut to TF32; never silently."""
    optimization_level: int
    workspace_mib: int
    batch: BatchRange


class Identity(Record):
    """Every field that an engine depends on; None where it does not depend on it (an engine built for targets)."""

    runtime: Runtime
    tensorrt: str
    platform: str
    sm: tuple[int, ...]
    device: str | None
    sm_count: int | None
    cuda: str | None
    l4t: str | None
    options: Options
    model_sha256: str
    calibration_sha256: str | None
    plugin: dict[str, Any] | None

    def key(self) -> str:
        """Return the key of the engine cache."""
        return hashlib.sha256(_canonical(self.model_dump(mode="json"))).hexdigest()[:24]


class BuildRecord(Record):
    seconds: float
    peak_memory_bytes: int
    """Peak memory of the building process."""
    tensorrt_peak_mib: dict[str, int] = Field(default={})
    layers: int | None
    """Layers of the network before fusion; None where it was not available."""
    timing_cache: bool
    packages: dict[str, str] = Field(default={})
    """Versions of what built it besides TensorRT: torch and Torch-TensorRT."""
    created: str
    hrm_edge: str


class EngineParity(Record):
    """An engine's steps beside the artifact's own in ONNX Runtime on the CPU, over the whole recurrence."""

    device: str
    """The GPU it ran on."""
    backend: str
    reference: str
    puzzles_from: str
    after: list[Parity]
    """Over all puzzles, after 1, 4 and all steps."""
    held: Parity
    """After all steps, of the puzzles that both settle where there are enough: what the gate looks at."""
    accuracy_lost_points: float | None
    accuracy_lost_interval_95: tuple[float, float] | None
    gate: Gate
    created: str
    hrm_edge: str


class Engine(Record):
    """The sidecar, ``engine.json``."""

    kind: Literal["hrm-edge engine"] = "hrm-edge engine"
    schema_version: int = _SCHEMA_VERSION
    identity: Identity
    plan: FileEntry
    module: FileEntry | None = None
    """:data:`MODULE_FILE`, where that was asked for."""
    build: BuildRecord
    parity: tuple[EngineParity, ...] | Literal["not measured"] = "not measured"
    """The latest for every GPU and backend."""

    def parity_on(self, device: str, backend: str) -> EngineParity | None:
        """Return what was measured on that GPU."""
        measured = () if self.parity == "not measured" else self.parity
        return next((one for one in measured if (one.device, one.backend) == (device, backend)), None)


@dataclass(frozen=True)
class Opened:
    """An engine that a session runs: the artifact's folder, its own (another one where it is cached), and the GPU."""

    artifact: Path
    folder: Path
    engine: Engine
    device: str


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _calibration_sha256(manifest: Manifest) -> str | None:
    """Hash all that the manifest says about quantization (set, observer, scales); None where nothing is quantized."""
    record = manifest.quantization
    return hashlib.sha256(_canonical(record)).hexdigest() if record else None


@dataclass(frozen=True)
class Machine:
    """This one, as far as an engine depends on it."""

    api: Api
    gpu: Gpu | None

    def identity(
        self, manifest: Manifest, options: Options, sms: tuple[int, ...], plugin: dict[str, Any] | None
    ) -> Identity:
        """Return an engine's identity; with ``sms`` it depends on the architectures, not on the GPU at hand."""
        gpu = None if sms else self.gpu
        assert sms or gpu is not None
        return Identity(
            runtime=self.api.name,
            tensorrt=self.api.version,
            platform=platform_name(),
            sm=(gpu.sm,) if gpu else sms,
            device=gpu.name if gpu else None,
            sm_count=gpu.sm_count if gpu else None,
            cuda=gpu.cuda if gpu else None,
            l4t=l4t_release(System()) if gpu else None,
            options=options,
            model_sha256=manifest.files[STEP_FILE].sha256,
            calibration_sha256=_calibration_sha256(manifest),
            plugin=plugin,
        )


def differences(identity: Identity, machine: Machine, manifest: Manifest) -> list[tuple[str, Any, Any]]:
    """List (field, the engine's value, the value here) of all that make the engine invalid here, most telling first."""
    gpu = machine.gpu
    here: dict[str, Any] = {
        "runtime": machine.api.name,
        "tensorrt": machine.api.version,
        "platform": platform_name(),
        "device": gpu.name if gpu else "none",
        "sm_count": gpu.sm_count if gpu else 0,
        "cuda": gpu.cuda if gpu else "none",
        "l4t": l4t_release(System()),
    }
    fields = [
        (name, getattr(identity, name), value)
        for name, value in here.items()
        if getattr(identity, name) not in (None, value)
    ]
    if gpu is not None and gpu.sm not in identity.sm:
        fields.append(("sm", list(identity.sm), gpu.sm))
    of_model = {
        "model_sha256": (identity.model_sha256, manifest.files[STEP_FILE].sha256),
        "calibration_sha256": (identity.calibration_sha256, _calibration_sha256(manifest)),
        "precision": (identity.options.precision, manifest.precision),
    }
    return fields + [(name, was, now) for name, (was, now) in of_model.items() if was != now]


def rebuild(folder: Path) -> str:
    """Return the command that makes a valid engine of an engine's folder."""
    return f"build it here: hrm-edge export {folder} --out {folder}-here --backend tensorrt"


def rebuild_module(folder: Path, precision: Precision) -> str:
    """Return the command for a torch module; in a lower precision it is made from the float32 model of the artifact."""
    model, flag = (folder, "") if precision == "fp32" else ("MODEL", f" --{precision}")
    return f"build it here: hrm-edge export {model} --out {folder}-here{flag} --backend torch-tensorrt --module"


def read_engine(folder: Path) -> Engine:
    """Read the sidecar and verify the plan's bytes; raises ``UserError`` naming what is missing, torn or changed."""
    plan, sidecar, again = folder / PLAN_FILE, folder / SIDECAR_FILE, rebuild(folder)
    if not plan.is_file():
        raise UserError(f"{folder} holds no engine: {PLAN_FILE} is missing", again)
    if not sidecar.is_file():
        raise UserError(f"{sidecar} is missing: what {PLAN_FILE} was built for cannot be known", again)
    engine = read_record(sidecar, Engine, _SCHEMA_VERSION, again=again)
    verify_files(folder, {PLAN_FILE: engine.plan}, again=again)
    return engine


def opened_by(session: Any) -> Opened | None:
    """Return the engine that a session runs; None where it runs none."""
    opened: Opened | None = getattr(session, "opened", None)
    return opened


def known_parity(session: Any) -> EngineParity | None:
    """Return what the sidecar records for this GPU; None also where the session runs no engine."""
    opened = opened_by(session)
    return None if opened is None else opened.engine.parity_on(opened.device, session.backend)


def record_parity(opened: Opened, parity: EngineParity) -> None:
    """Put a measurement into the sidecar, in the place of an earlier one of the same GPU and backend."""
    before = () if opened.engine.parity == "not measured" else opened.engine.parity
    kept = tuple(one for one in before if (one.device, one.backend) != (parity.device, parity.backend))
    engine = opened.engine.model_copy(update={"parity": (*kept, parity)})
    engine.write(opened.folder / SIDECAR_FILE)


def verify_module(folder: Path, engine: Engine) -> None:
    """Verify the torch module's bytes by the sidecar; raises ``UserError`` where it is missing, torn or changed."""
    again = rebuild_module(folder, engine.identity.options.precision)
    if engine.module is None:
        raise UserError(f"{folder} holds no torch module: its engine was built without --module", again)
    verify_files(folder, {MODULE_FILE: engine.module}, again=again)


def refuse(path: Path, different: list[tuple[str, Any, Any]], again: str) -> None:
    """Raise ``UserError`` naming every field of :func:`differences`, where there are any."""
    if different:
        said = "; ".join(f"{name}: built for {was}, here is {now}" for name, was, now in different)
        raise UserError(f"{path} is not valid here: {said}", again)


def entry_of(plan: Path) -> FileEntry:
    """Hash and size of a plan."""
    return file_entries(plan.parent, [plan.name])[plan.name]
