"""Opening a model by what a user calls it: an artifact, an engine, a run, a checkpoint, or a published file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_edge import zoo
from hrm_edge.callbacks import OnMessage, log
from hrm_edge.checkpoint import CHECKPOINT, CHECKPOINTS, is_checkpoint
from hrm_edge.costs import parameter_table, weight_bytes
from hrm_edge.errors import UserError, nearest
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, read_manifest
from hrm_edge.report.schema import ModelInfo
from hrm_edge.session import Session
from hrm_edge.spec import VARIANTS, ModelSpec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task

if TYPE_CHECKING:
    from hrm_edge.backends import Backend

PUBLISHED_CONFIG = "all_config.yaml"  # beside a published state-dict file, hrm_edge.model.published reads it


@dataclass(frozen=True, eq=False)
class Opened:
    """An opened model as data; :class:`hrm_edge.Model` adds what can be done with it."""

    called: str
    """The name or path that the user gave."""
    session: Session
    """Advances a batch of puzzles by one step; see :mod:`hrm_edge.session`."""
    task: Task
    """The puzzles it is for: text to tokens and back, the rules."""
    about: ModelInfo
    """Name, variant, precision, number of parameters, size in bytes."""
    folder: Path
    """The artifact's or checkpoint's folder, or the published file."""
    manifest: Manifest | None
    """An artifact's; None of a checkpoint."""
    origin: dict[str, Any]
    """Where the weights are from, as far as it is known."""
    threads: int | None = None
    """Threads of one step on the CPU; None: the backend's default."""

    @property
    def backend(self) -> str:
        """What runs it, for example ``onnxruntime-cpu``."""
        return self.session.backend

    @property
    def parity(self) -> list[dict[str, Any]]:
        """The manifest's comparison with torch, a row for each number of steps."""
        return [] if self.manifest is None else [row.model_dump(mode="json") for row in self.manifest.parity]


def open_model(
    name: str | Path,
    *,
    backend: Backend | None = None,
    threads: int | None = None,
    task: str | None = None,
    slots: int = 1,
    folder: Path | None = None,
    on_message: OnMessage = log,
) -> Opened:
    """Open a model as data; the arguments are those of :func:`hrm_edge.load`."""
    name = str(name)
    path = folder or zoo.path_of(name)
    if (path / MANIFEST).is_file():
        refuse_task(path, task)
        return _artifact(path, name, threads, backend, slots, on_message)
    if is_checkpoint(path) or is_published(path):
        if backend is not None:
            raise UserError(f"--backend: {path} is a checkpoint, which torch runs", "leave it out, or export the model")
        return _checkpoint(path, name, threads, task, on_message)
    raise unknown_model(name)


def named_or_default(name: str | None, task: str = "sudoku") -> tuple[str, Path | None]:
    """Return ``name``, or where it is None the name and the folder of the shipped model of ``task``."""
    if name is not None:
        return name, None
    default = zoo.default_for(task)
    if default is None:
        raise UserError("no model given, and this version ships none", "name a folder: --model ARTIFACT")
    return default, zoo.folder_of(default)


def is_published(path: Path) -> bool:
    """Return whether ``path`` may be a published state-dict file, or is a folder as it was downloaded."""
    return path.is_file() or (path / PUBLISHED_CONFIG).is_file()


def refuse_task(path: Path | str, task: str | None) -> None:
    """``UserError`` where --task was given for a model that says its own."""
    if task is not None:
        raise UserError(f"--task is for a published state-dict file, {path} says its own", "leave it out")


def note_assumed(path: str, about: dict[str, Any], on_message: OnMessage) -> None:
    """Say what of a published model had to be assumed, and which of its weights were taken."""
    if about.get("assumed"):
        on_message(f"Note: no {PUBLISHED_CONFIG} beside {path} says it, taken as published: {about['assumed']}")
    if about.get("weights"):
        on_message(f"Note: the weights of {path} are {about['weights']}")


def unknown_model(name: str, also: str = "", more: Sequence[str] = ()) -> UserError:
    """Return the error for a name that no model has; ``also``: what else the verb takes, ``more``: names of it."""
    path = Path(name)
    takes = (
        f"a model is an artifact folder (with {MANIFEST}), a run or checkpoint folder of 'hrm-edge train', "
        f"or a published state-dict file{also}"
    )
    if path.is_dir():
        missing = f"{MANIFEST}, {CHECKPOINT}, {CHECKPOINTS}/ nor {PUBLISHED_CONFIG}"
        return UserError(
            f"{name} is no model: the folder has neither {missing}", f"{takes}; an export cut off has none"
        )
    if name in VARIANTS:
        return UserError(f"'{name}' is a variant without weights", takes)
    guess = nearest(name, [*zoo.names(), *more])
    if not guess.endswith("?"):
        guess = f"shipped: {', '.join(zoo.names())};"
    return UserError(f"no model '{name}': there is no such folder or file", f"{guess} {takes}")


def _opened(path: Path, threads: int | None, backend: Backend | None, slots: int) -> tuple[Session, Manifest]:
    """Open an artifact's session; the one of Torch-TensorRT is on the host's side."""
    from hrm_edge.runtime import open_artifact, refuse_threads

    if backend != "torch-tensorrt":
        return open_artifact(path, threads, backend, slots=slots)
    refuse_threads(threads)
    with _torch_for("--backend torch-tensorrt", "run the engine without torch: --backend tensorrt"):
        from hrm_edge.export.torch_module import open_module
    manifest = read_manifest(path)
    return open_module(path, manifest), manifest


def _artifact(
    path: Path,
    called: str,
    threads: int | None,
    backend: Backend | None,
    slots: int,
    on_message: OnMessage,
) -> Opened:
    from hrm_edge.runtime.trt.identity import known_parity

    session, manifest = _opened(path, threads, backend, slots)
    if chosen := getattr(session, "chosen", None):
        on_message(f"Backend: {chosen}")
    arithmetic = getattr(session, "arithmetic", None)
    if arithmetic is not None and arithmetic.why is not None:
        on_message(f"Note: {session.backend}, {arithmetic}")
    if not manifest.gate.passed:
        on_message(f"Warning: {path} failed its export gate: {'; '.join(manifest.gate.failures)}")
    known = known_parity(session)
    if known is not None and not known.gate.passed:
        on_message(f"Warning: {path}: its engine misses its gate: {'; '.join(known.gate.failures)}")
    about = ModelInfo(
        name=manifest.name,
        path=called,
        kind="artifact",
        task=manifest.task,
        variant=manifest.spec.variant,
        precision=manifest.precision,
        parameters=parameter_table(manifest.spec)["trainable"],
        size_bytes=manifest.size_bytes,
        sha256=manifest.files[STEP_FILE].sha256,
        gate_passed=manifest.gate.passed,
    )
    origin = manifest.provenance.get("checkpoint") or {}
    return Opened(called, session, get_task(manifest.task), about, path, manifest, origin, threads)


def _checkpoint(path: Path, called: str, threads: int | None, task: str | None, on_message: OnMessage) -> Opened:
    if threads is not None:
        raise UserError(f"--threads: {path} is a checkpoint, which torch runs", "leave it out, or export the model")
    with _torch_for(f"{path} is a checkpoint, which"):
        from hrm_edge.model.load import load_session
    session, origin = load_session(path, task)
    note_assumed(origin["path"], origin, on_message)
    spec = session.spec
    about = ModelInfo(
        name=path.name,
        path=str(origin["path"]),
        kind="checkpoint",
        task=origin["task"],
        variant=spec.variant,
        precision="fp32",
        parameters=parameter_table(spec)["trainable"],
        size_bytes=weight_bytes(spec)["fp32"],
        sha256=None,
        gate_passed=None,
    )
    return Opened(called, session, get_task(origin["task"]), about, Path(origin["path"]), None, origin, threads)


@contextlib.contextmanager
def _torch_for(what: str, otherwise: str = "export it where torch is and copy the artifact here") -> Iterator[None]:
    """Turn the lack of torch, around an import of its side, into a ``UserError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError(f"{what} needs torch", f"pip install 'hrm-edge[train]', or {otherwise}") from error


def published_spec(path: Path, task: str | None) -> tuple[ModelSpec, dict[str, Any]]:
    """Return spec and description of a published file or of the folder it is in, all its tensors checked against it."""
    with _torch_for(f"{path} is a checkpoint, which"):
        from hrm_edge.model.published import find_published, read_published
    file = find_published(path)
    assert file is not None, "is_published said so"
    info, _ = read_published(file, task)
    return info.spec, {"path": str(file), "task": info.task, **info.origin()}
