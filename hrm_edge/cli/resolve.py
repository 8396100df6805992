"""From what a user calls a model to a session: an artifact, a checkpoint or run folder, or a published file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from hrm_edge import zoo
from hrm_edge.costs import parameter_table, weight_bytes
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_json
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, check_version, read_manifest
from hrm_edge.report import Model
from hrm_edge.session import Session
from hrm_edge.spec import VARIANTS, ModelSpec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.base import Task
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.runtime import Backend

CHECKPOINT_FILE = "checkpoint.json"  # a checkpoint folder's, hrm_edge.model.weights writes it
BEST_FILE = "best.json"  # a run folder's
CHECKPOINTS_FOLDER = "checkpoints"
PUBLISHED_CONFIG = "all_config.yaml"  # beside a published state-dict file, hrm_edge.model.published reads it


@dataclass(frozen=True)
class Resolved:
    """A loaded model and what reports say about it."""

    session: Session
    task: Task
    model: Model
    manifest: Manifest | None
    """Of an artifact."""
    origin: dict[str, Any]
    """What is known of where the weights are from."""

    @property
    def parity(self) -> list[dict[str, Any]]:
        return [] if self.manifest is None else [p.model_dump(mode="json") for p in self.manifest.parity]


def resolve_model(
    name: str,
    threads: int | None = None,
    task: str | None = None,
    backend: Backend | Literal["torch-tensorrt"] | None = None,
    *,
    slots: int = 1,
    folder: Path | None = None,
) -> Resolved:
    """Load a model by folder, file or shipped name; ``threads`` of one step (artifacts only; None: the backend's
    default); ``task`` of a published file that does not tell it; ``backend`` of an artifact and the ``slots`` it is to
    be fast with, see ``open_artifact``; ``folder`` of the model where the user did not name one: ``name`` then says
    only how it is called, whatever the current folder holds.

    Raises ``UserError`` saying what was tried, or what is wrong with the folder.
    """
    path = folder or zoo.path_of(name)
    if (path / MANIFEST).is_file():
        refuse_task(path, task)
        return _artifact(path, name, threads, backend, slots)
    if is_checkpoint(path) or is_published(path):
        if backend is not None:
            raise UserError(f"--backend: {path} is a checkpoint, which torch runs", "leave it out, or export the model")
        return _checkpoint(path, threads, task)
    raise unknown_model(name)


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a checkpoint folder or a run folder with checkpoints."""
    return (path / CHECKPOINT_FILE).is_file() or (path / CHECKPOINTS_FOLDER).is_dir()


def is_published(path: Path) -> bool:
    """Whether ``path`` may be a published state-dict file, or is a folder as it was downloaded."""
    return path.is_file() or (path / PUBLISHED_CONFIG).is_file()


def refuse_task(path: Path | str, task: str | None) -> None:
    """``UserError`` where --task was given for a model that says its own."""
    if task is not None:
        raise UserError(f"--task is for a published state-dict file, {path} says its own", "leave it out")


def tell_assumed(path: str, about: dict[str, Any]) -> None:
    """Say on stderr what of a published model had to be assumed, and which of its weights were taken."""
    if about.get("assumed"):
        echo(f"Note: no {PUBLISHED_CONFIG} beside {path} says it, taken as published: {about['assumed']}", err=True)
    if about.get("weights"):
        echo(f"Note: the weights of {path} are {about['weights']}", err=True)


def unknown_model(name: str, also: str = "", more: Sequence[str] = ()) -> UserError:
    """Nothing is called ``name``; ``also`` says what else the verb takes, ``more`` are the names of it."""
    path = Path(name)
    takes = (
        f"a model is an artifact folder (with {MANIFEST}), a run or checkpoint folder of 'hrm-edge train', "
        f"or a published state-dict file{also}"
    )
    if path.is_dir():
        missing = f"{MANIFEST}, {CHECKPOINT_FILE}, {CHECKPOINTS_FOLDER}/ nor {PUBLISHED_CONFIG}"
        return UserError(
            f"{name} is no model: the folder has neither {missing}", f"{takes}; an export cut off has none"
        )
    if name in VARIANTS:
        return UserError(f"'{name}' is a variant without weights", takes)
    known = [*zoo.names(), *more]
    guess = nearest(name, known)  # "did you mean …?", or the list of them
    stop = "" if guess.endswith("?") else ";"
    return UserError(f"no model '{name}': there is no such folder or file", f"{guess}{stop} {takes}")


def _opened(
    path: Path, threads: int | None, backend: Backend | Literal["torch-tensorrt"] | None, slots: int
) -> tuple[Session, Manifest]:
    """The session of an artifact; the one of torch is on the host's side."""
    from hrm_edge.runtime import open_artifact

    if backend != "torch-tensorrt":
        return open_artifact(path, threads, backend, slots=slots)
    if threads is not None:
        raise UserError("--threads is for the CPU's backends", "leave it out, or add --backend onnxruntime")
    with _torch_for("--backend torch-tensorrt", "run the engine without torch: --backend tensorrt"):
        from hrm_edge.export.torch_module import open_module
    manifest = read_manifest(path)
    return open_module(path, manifest), manifest


def _artifact(
    path: Path, called: str, threads: int | None, backend: Backend | Literal["torch-tensorrt"] | None, slots: int
) -> Resolved:
    from hrm_edge.runtime.trt.identity import known_parity

    session, manifest = _opened(path, threads, backend, slots)
    if chosen := getattr(session, "chosen", None):
        echo(f"Backend: {chosen}", err=True)
    arithmetic = getattr(session, "arithmetic", None)
    if arithmetic is not None and arithmetic.why is not None:
        echo(f"Note: {session.backend}, {arithmetic}", err=True)
    if not manifest.gate.passed:
        echo(f"Warning: {path} failed its export gate: {'; '.join(manifest.gate.failures)}", err=True)
    known = known_parity(session)
    if known is not None and not known.gate.passed:
        echo(f"Warning: {path}: its engine misses its gate: {'; '.join(known.gate.failures)}", err=True)
    model = Model(
        name=manifest.name,
        path=called,
        kind="artifact",
        task=manifest.task,
        variant=manifest.spec.variant,
        precision=manifest.precision,
        parameters=parameter_table(manifest.spec)["trainable"],
        size_bytes=sum(entry.bytes for entry in manifest.files.values()),
        sha256=manifest.files[STEP_FILE].sha256,
        gate_passed=manifest.gate.passed,
    )
    return Resolved(session, get_task(manifest.task), model, manifest, manifest.provenance.get("checkpoint") or {})


def _checkpoint(path: Path, threads: int | None, task: str | None) -> Resolved:
    if threads is not None:
        raise UserError(f"--threads: {path} is a checkpoint, which torch runs", "leave it out, or export the model")
    with _torch_for(f"{path} is a checkpoint, which"):
        from hrm_edge.model.load import load_session
    session, about = load_session(path, task)
    tell_assumed(about["path"], about)
    spec = session.spec
    model = Model(
        name=path.name,
        path=str(about["path"]),
        kind="checkpoint",
        task=about["task"],
        variant=spec.variant,
        precision="fp32",
        parameters=parameter_table(spec)["trainable"],
        size_bytes=weight_bytes(spec)["fp32"],
        sha256=None,
        gate_passed=None,
    )
    return Resolved(session, get_task(about["task"]), model, None, about)


@contextlib.contextmanager
def _torch_for(what: str, otherwise: str = "export it where torch is and copy the artifact here") -> Iterator[None]:
    """Around the import of the torch side: without torch, ``UserError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError(f"{what} needs torch", f"pip install 'hrm-edge[train]', or {otherwise}") from error


def published_spec(path: Path, task: str | None) -> tuple[ModelSpec, dict[str, Any]]:
    """Spec and description of a published file or of the folder that it is in, all its tensors checked against it."""
    with _torch_for(f"{path} is a checkpoint, which"):
        from hrm_edge.model.published import find_published, read_published
    file = find_published(path)
    assert file is not None, "is_published said so"
    info, _ = read_published(file, task)
    return info.spec, {"path": str(file), "task": info.task, **info.origin()}


def checkpoint_spec(path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """Spec and description of a checkpoint, or of a run's best one, read without torch."""
    folder = path
    if not (path / CHECKPOINT_FILE).is_file():
        found = sorted(p.parent for p in (path / CHECKPOINTS_FOLDER).glob(f"*/{CHECKPOINT_FILE}"))
        if not found:
            raise UserError(f"{path} holds no checkpoint", "the run was stopped before its first: train on")
        folder = found[-1]
        if (path / BEST_FILE).is_file():
            best = read_json(path / BEST_FILE)
            if not isinstance(best, dict) or not isinstance(best.get("checkpoint"), str):
                raise UserError(f"{path / BEST_FILE} names no checkpoint", "remove it: the newest one is taken then")
            folder = path / CHECKPOINTS_FOLDER / best["checkpoint"]
    about = read_json(folder / CHECKPOINT_FILE)
    check_version(folder / CHECKPOINT_FILE, about, 1, "copy the checkpoint again, or choose another one of the run")
    try:
        spec = ModelSpec.model_validate(about.pop("spec"))
        about.pop("files")
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        hint = "copy the checkpoint again, or choose another one of the run"
        raise UserError(f"{folder / CHECKPOINT_FILE} describes no model", hint) from error
    return spec, {"path": str(folder), **about}
