"""Exporting a model: a checkpoint becomes an artifact, an artifact another precision or an engine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hrm_edge import zoo
from hrm_edge.api.engine_parity import check_built, refuse_failed
from hrm_edge.api.open import note_assumed, unknown_model
from hrm_edge.callbacks import OnMessage, OnProgress
from hrm_edge.errors import GateError, UserError
from hrm_edge.files import check_input, check_writable
from hrm_edge.manifest import MANIFEST, Manifest, Precision

if TYPE_CHECKING:
    from hrm_edge.export.artifact import Prepared
    from hrm_edge.runtime.trt.build import BuildOptions, Make
    from hrm_edge.runtime.trt.identity import Engine, EngineParity

FASTEST = "fastest"
Target = Literal["onnx", "tensorrt", "torch-tensorrt"]


@dataclass(frozen=True)
class ExportOptions:
    """What an artifact is to be; see ``hrm-edge export --help``."""

    precision: Literal["fp32", "fp16", "int8", "fastest"] | None = None
    """None: fp32."""
    calibration: Path | None = None
    policy: Path | None = None
    sensitivity: Path | None = None
    puzzles: int | None = None
    max_steps: int | None = None
    plugin: bool = False

    @property
    def asked(self) -> bool:
        """Whether anything differs from the defaults."""
        return self != ExportOptions()

    def check(self) -> None:
        """Raise ``UserError`` for options that exclude each other, before the model is loaded."""
        for name, file in (("policy", self.policy), ("sensitivity", self.sensitivity)):
            if file is not None and self.precision not in ("int8", FASTEST):
                raise UserError(f"--{name} is for INT8", "add --int8, or leave it out")
        if self.policy is not None and self.sensitivity is not None:
            raise UserError(
                "--policy reads a file that --sensitivity writes: they exclude each other", "give one of them"
            )
        if self.policy is not None:
            check_input(self.policy)
        if self.sensitivity is not None:
            check_writable("--sensitivity", self.sensitivity)


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    folder: Path
    options: ExportOptions
    manifest: Manifest | None = None
    """The artifact's, with its parity; None where an engine was built of an artifact that was there."""
    engine: Engine | None = None
    """The engine's sidecar; None of an ONNX artifact, or where the artifact missed its gate."""
    from_cache: bool = False
    """Whether this machine had built the same engine before."""
    parity: EngineParity | None = None
    """The engine beside its artifact; None where it was not measured."""
    not_measured: str = ""
    """Why the engine was not measured."""

    def check(self) -> None:
        """Raise ``GateError`` where the artifact or the engine misses its limits; the folder is marked then."""
        if self.manifest is not None and not self.manifest.gate.passed:
            raise GateError("; ".join(self.manifest.gate.failures), self._next_step(self.manifest))
        if self.parity is not None:
            refuse_failed(self.parity, self.folder)

    def _next_step(self, manifest: Manifest) -> str:
        """Say what to try after a missed gate."""
        marked = f"{self.folder} is marked; see its manifest.json"
        if manifest.precision != "int8":
            return marked
        if self.options.policy is None and self.options.sensitivity is None:
            return f"{marked}. Find the layers to keep in float: add --sensitivity FILE"
        return f"{marked}. Train the rounding in: hrm-edge train RECIPE --set init=MODEL --set quantization.aware=true"


def _artifact_folder(model: Path | str) -> Path | None:
    """Return the folder of the artifact that ``model`` names, or None where it is a checkpoint."""
    folder = zoo.path_of(str(model))
    return folder if (folder / MANIFEST).is_file() else None


def export(
    model: Path | str,
    out: Path,
    options: ExportOptions,
    *,
    backend: Target = "onnx",
    engine: BuildOptions | None = None,
    task: str | None = None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> Exported:
    """Export ``model``, a checkpoint, a published file, a float artifact or a shipped model, into the folder ``out``.

    ``backend``: what to build; an engine's folder is an artifact too, and ``engine`` says how it is built. ``task``: of
    a published file that does not say it. Where the artifact misses its gate no engine is built; see
    :meth:`Exported.check`. Raises ``UserError`` for an ``out`` that holds something, and for what the model, the
    options or the machine cannot do; ``out`` is then absent.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} already exists", "choose another folder, or remove it first")
    artifact = _artifact_folder(model)
    if artifact is None and not Path(model).exists():
        raise unknown_model(str(model))
    if artifact is not None and task is not None:
        raise UserError(f"--task: {model} is an artifact, which says its own", "leave it out")
    if artifact is not None and backend == "tensorrt":
        if options.asked:
            raise UserError(
                f"{model} is an artifact, whose precision and steps are settled for an engine",
                "leave such flags out, or export it first without --backend",
            )
        return _build(Exported(out, options), artifact, engine, None, on_message, on_progress)
    if backend == "onnx" and artifact is not None and not options.asked:
        raise UserError(f"{model} is an artifact already", "add --int8 or --fp16, or --backend tensorrt for its engine")
    source = artifact or Path(model)
    if backend == "onnx":
        return Exported(out, options, _write(source, out, options, task, on_message, on_progress)[0])
    if backend == "torch-tensorrt":
        from hrm_edge.export.torch_trt import check_plugin, load_torch_tensorrt, make_plan
        from hrm_edge.runtime.trt.device import find_gpu
        from hrm_edge.runtime.trt.plugins import find_attention

        load_torch_tensorrt()  # what is missing is said before the work
        if options.plugin:
            check_plugin()
            find_attention(engine.plugin if engine else None)
        find_gpu()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / out.name
        manifest, prepared = _write(source, folder, options, task, on_message, on_progress)
        exported = Exported(out, options, manifest)
        if not manifest.gate.passed:
            return exported
        make = None if backend == "tensorrt" else partial(make_plan, prepared.model, prepared.scales)
        return _build(exported, folder, engine, make, on_message, on_progress)


def _write(
    source: Path,
    out: Path,
    options: ExportOptions,
    task: str | None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> tuple[Manifest, Prepared]:
    """Write the artifact of a checkpoint or of a float artifact; return also what it was written from."""
    from hrm_edge.export.artifact import prepare_export, write_artifact
    from hrm_edge.export.fastest import PRECISIONS, keep_fastest

    options.check()
    network, info, quantization, limits = _load(source, task, on_message)
    if options.max_steps is not None:
        network.spec = network.spec.model_copy(update={"max_steps": options.max_steps})
    if options.puzzles is not None:
        limits = limits.model_copy(update={"puzzles": options.puzzles})

    def show(step: str) -> None:
        on_progress(step, 0, 1)

    def write(precision: Precision, folder: Path) -> tuple[Manifest, Prepared]:
        is_int8 = precision == "int8"
        prepared = prepare_export(
            network,
            info.task,
            precision=precision,
            calibration=options.calibration,
            quantization=quantization,
            limits=limits,
            policy=options.policy if is_int8 else None,
            sensitivity=options.sensitivity if is_int8 else None,
            on_message=show,
        )
        manifest = write_artifact(
            network, info, prepared, folder, limits=limits, plugin=options.plugin, on_message=show
        )
        return manifest, prepared

    if options.precision != "fastest":
        return write(options.precision or "fp32", out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folders = {precision: Path(scratch) / precision / out.name for precision in PRECISIONS}
        sources = {precision: write(precision, folder)[1] for precision, folder in folders.items()}
        show("measuring both precisions")
        manifest = keep_fastest(folders, out)
    return manifest, sources[manifest.precision]


def _load(model: Path, task: str | None, on_message: OnMessage) -> tuple[Any, Any, Any, Any]:
    """Load the network, what it is, and its recipe's sections quantization and limits (defaults without a recipe)."""
    from hrm_edge.export.recover import recover
    from hrm_edge.model.load import load_model
    from hrm_edge.recipe import Limits, Quantization, load_recipe
    from hrm_edge.training.checkpoint import RECIPE_FILE

    if (model / MANIFEST).is_file():
        return *recover(model), Quantization(), Limits()
    network, info, source = load_model(model, task)
    note_assumed(str(source), info.origin(), on_message)
    if not source.is_dir():  # a published file has no recipe
        return network, info, Quantization(), Limits()
    recipe = load_recipe(source / RECIPE_FILE)
    return network, info, recipe.quantization, recipe.limits


def _build(
    exported: Exported,
    artifact: Path,
    options: BuildOptions | None,
    make: Make | None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> Exported:
    """Build an artifact's engine, and compare it with the artifact where there is its GPU; ``make``: see there."""
    from hrm_edge.runtime.trt.build import BuildOptions, build_engine

    wanted = replace(options or BuildOptions(), frontend="onnx" if make is None else "torch-tensorrt")
    engine, cached = build_engine(
        artifact, exported.folder, wanted, on_message=lambda step: on_progress(step, 0, 1), make=make
    )
    parity, reason = check_built(exported.folder, engine, on_message)
    return replace(exported, engine=engine, from_cache=cached, parity=parity, not_measured=reason)
