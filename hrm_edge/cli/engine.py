"""What ``hrm-edge export`` does for engines: its flags, the build, and the table at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.errors import UserError
from hrm_edge.terminal import echo, open_console, status

if TYPE_CHECKING:
    from hrm_edge.export.artifact import WrittenAs
    from hrm_edge.runtime.trt.build import Make
    from hrm_edge.runtime.trt.identity import Engine

ENGINE_FLAGS = {  # parameter → the backends that take it
    "runtime": {"tensorrt"},
    "sm": {"tensorrt"},
    "max_batch": {"tensorrt", "torch-tensorrt"},
    "opt_batch": {"tensorrt", "torch-tensorrt"},
    "workspace": {"tensorrt", "torch-tensorrt"},
    "optimization_level": {"tensorrt", "torch-tensorrt"},
    "plugin_library": {"tensorrt"},
    "no_cache": {"tensorrt", "torch-tensorrt"},
    "module": {"torch-tensorrt"},
}


class Architectures(click.ParamType):
    """``86,89,120`` or ``8.6,12.0`` to (86, 89, 120)."""

    name = "86,89,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found = []
        for part in str(value).split(","):
            digits = part.strip().lower().removeprefix("sm").lstrip("_").replace(".", "")
            if not digits.isdigit():
                self.fail(f"'{part}' is no compute capability: write 86,89,120", param, ctx)
            found.append(int(digits))
        return tuple(found)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of engines; see :data:`ENGINE_FLAGS`."""
    options = (
        click.option(
            "--runtime",
            type=click.Choice(["tensorrt", "tensorrt_rtx"]),
            help="Engines: which TensorRT.  [default: the one that is installed; tensorrt_rtx with --sm]",
        ),
        click.option("--sm", type=Architectures(), help="Engines: GPUs to build for without having them (RTX)."),
        click.option("--max-batch", type=click.IntRange(1), help="Engines: largest batch.  [default: 64]"),
        click.option("--opt-batch", type=click.IntRange(1), help="Engines: batch to tune for.  [default: 8]"),
        click.option(
            "--workspace",
            type=click.IntRange(1),
            metavar="MIB",
            help="Engines: memory the builder may use.  [default: up to half of what is free]",
        ),
        click.option(
            "--optimization-level", type=click.IntRange(0, 5), help="Engines: 0 (fast build) to 5.  [default: 3]"
        ),
        click.option(
            "--plugin-library",
            type=click.Path(path_type=Path, exists=True),
            help="Engines: the attention plugin's library, or its folder of kernels.",
        ),
        click.option("--no-cache", is_flag=True, help="Engines: build although this machine has the same one already."),
        click.option(
            "--module",
            is_flag=True,
            help="Torch-TensorRT: save the engine also as step.pt2, an ExportedProgram for torch programs.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_flags(backend: str, given: dict[str, Any]) -> None:
    """Raise ``UserError`` for a flag that ``backend`` has no use for."""
    for name, backends in ENGINE_FLAGS.items():
        if given[name] not in (None, False) and backend not in backends:
            raise UserError(
                f"--{name.replace('_', '-')} is for --backend {' or '.join(sorted(backends))}", "leave it out"
            )


def artifact_folder(model: Path) -> Path | None:
    """The artifact that MODEL names, or None where it is a checkpoint."""
    from hrm_edge import zoo
    from hrm_edge.manifest import MANIFEST

    folder = zoo.path_of(str(model))
    return folder if (folder / MANIFEST).is_file() else None


def export_engine(artifact: Path, out: Path, given: dict[str, Any], make: Make | None = None) -> None:
    """Build an artifact's engine into ``out``, compare it with the artifact where there is its GPU, and show both.

    ``make``: see ``build_engine``. Raises ``GateError`` where the engine misses the artifact's limits.
    """

    from hrm_edge.bench.engine_parity import said_of
    from hrm_edge.cli.engine_parity import check_built, refuse_failed
    from hrm_edge.runtime.trt.build import BuildOptions, build_engine

    chosen = {name: value for name, value in given.items() if value is not None}
    options = BuildOptions(
        runtime=chosen.get("runtime"),
        sms=chosen.get("sm", ()),
        max_batch=chosen.get("max_batch", BuildOptions.max_batch),
        opt_batch=chosen.get("opt_batch"),
        workspace_mib=chosen.get("workspace"),
        optimization_level=chosen.get("optimization_level", BuildOptions.optimization_level),
        plugin=chosen.get("plugin_library"),
        use_cache=not chosen.get("no_cache", False),
        frontend="onnx" if make is None else "torch-tensorrt",
        module=chosen.get("module", False),
    )
    with status("building the engine") as on_message:
        engine, cached = build_engine(artifact, out, options, on_message=on_message, make=make)
    parity, reason = check_built(out, engine)
    _show(engine, out, cached, f"not measured: {reason}" if parity is None else said_of(parity))
    if parity is None:
        echo(f"Next, on the machine with the GPU, measures parity first: hrm-edge bench {quote(str(out))}")
        return
    refuse_failed(parity, out)
    echo(f"Next: hrm-edge bench {quote(str(out))}")


def export_through(
    out: Path, backend: str, artifact: Callable[[Path, WrittenAs | None], None], given: dict[str, Any]
) -> None:
    """The same for a checkpoint: ``artifact`` writes the folder that the engine is built from, or with."""
    from hrm_edge.runtime.trt.device import find_gpu

    make: Make | None = None
    written_as: WrittenAs | None = None
    if backend == "torch-tensorrt":
        from hrm_edge.export.torch_trt import Maker, load_torch_tensorrt

        load_torch_tensorrt()  # what is missing is said before the work
        find_gpu()
        maker = Maker()
        make, written_as = maker.make, maker.written
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / out.name
        artifact(folder, written_as)
        export_engine(folder, out, given, make)


def _show(engine: Engine, out: Path, cached: bool, parity: str) -> None:
    from rich.table import Table

    from hrm_edge.runtime.trt.identity import MODULE_FILE

    identity, options, built = engine.identity, engine.identity.options, engine.build
    table = Table(title=f"{out}: {options.precision} engine", show_header=False)
    architectures = ", ".join(f"SM{sm}" for sm in identity.sm)
    device = f"{identity.device} ({architectures})" if identity.device else f"GPUs of {architectures}"
    table.add_row("valid for", f"{identity.runtime} {identity.tensorrt}, {device}")
    table.add_row("batch", f"{options.batch.min} to {options.batch.max}, tuned for {options.batch.opt}")
    layers = f", {built.layers} layers before fusion" if built.layers else ""
    table.add_row("size", f"{engine.plan.bytes / 1e6:.1f} MB{layers}")
    if engine.module is not None:
        table.add_row("torch module", f"{MODULE_FILE}, {engine.module.bytes / 1e6:.1f} MB")
    how = f"from the cache ({built.created[:10]})" if cached else f"{built.seconds:.1f} s"
    table.add_row("build", f"{how}, peak memory {built.peak_memory_bytes / 2**20:.0f} MiB")
    table.add_row("workspace", f"{options.workspace_mib} MiB, optimization level {options.optimization_level}")
    if identity.plugin:
        table.add_row("needs plugin", f"{identity.plugin['namespace']}::{identity.plugin['name']}")
    table.add_row("beside ONNX Runtime", parity)
    open_console().print(table)
