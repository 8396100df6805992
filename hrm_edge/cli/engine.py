"""Flags and table of ``hrm-edge export`` for engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import option_group
from hrm_edge.errors import UserError
from hrm_edge.terminal import open_console

if TYPE_CHECKING:
    from hrm_edge.api.export import Exported
    from hrm_edge.runtime.trt.build import BuildOptions

ENGINE_FLAGS = {  # parameter → the backends that take it
    "runtime": {"tensorrt"},
    "sm": {"tensorrt"},
    "max_batch": {"tensorrt", "torch-tensorrt"},
    "opt_batch": {"tensorrt", "torch-tensorrt"},
    "workspace": {"tensorrt", "torch-tensorrt"},
    "optimization_level": {"tensorrt", "torch-tensorrt"},
    "plugin_library": {"tensorrt", "torch-tensorrt"},
    "no_cache": {"tensorrt", "torch-tensorrt"},
    "module": {"torch-tensorrt"},
}


class _Architectures(click.ParamType):
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


engine_options = option_group(
    click.option(
        "--runtime",
        type=click.Choice(["tensorrt", "tensorrt_rtx"]),
        help="Engines: which TensorRT.  [default: the one that is installed; tensorrt_rtx with --sm]",
    ),
    click.option("--sm", type=_Architectures(), help="Engines: GPUs to build for without having them (RTX)."),
    click.option("--max-batch", type=click.IntRange(1), help="Engines: largest batch.  [default: 64]"),
    click.option("--opt-batch", type=click.IntRange(1), help="Engines: batch to tune for.  [default: 8]"),
    click.option(
        "--workspace",
        type=click.IntRange(1),
        metavar="MIB",
        help="Engines: memory the builder may use.  [default: up to half of what is free]",
    ),
    click.option("--optimization-level", type=click.IntRange(0, 5), help="Engines: 0 (fast build) to 5.  [default: 3]"),
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
"""The flags of engines; see :data:`ENGINE_FLAGS`."""


def check_flags(backend: str, given: dict[str, Any]) -> None:
    """Raise ``UserError`` for a flag that ``backend`` has no use for."""
    for name, backends in ENGINE_FLAGS.items():
        if given[name] not in (None, False) and backend not in backends:
            raise UserError(
                f"--{name.replace('_', '-')} is for --backend {' or '.join(sorted(backends))}", "leave it out"
            )


def build_options(given: dict[str, Any]) -> BuildOptions:
    """Make the builder's options of the flags that were given."""
    from hrm_edge.runtime.trt.build import BuildOptions

    called = {"sm": "sms", "workspace": "workspace_mib", "plugin_library": "plugin"}  # flag → field
    chosen = {called.get(name, name): value for name, value in given.items() if value is not None}
    use_cache = not chosen.pop("no_cache", False)
    return BuildOptions(use_cache=use_cache, **chosen)


def show_engine(exported: Exported) -> None:
    """Print what was built, for which GPU, and how it compares with its artifact."""
    from rich.table import Table

    from hrm_edge.bench.engine_parity import said_of
    from hrm_edge.runtime.trt.identity import MODULE_FILE

    engine, out = exported.engine, exported.folder
    assert engine is not None
    parity = said_of(exported.parity) if exported.parity is not None else f"not measured: {exported.not_measured}"
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
    how = f"from the cache ({built.created[:10]})" if exported.from_cache else f"{built.seconds:.1f} s"
    table.add_row("build", f"{how}, peak memory {built.peak_memory_bytes / 2**20:.0f} MiB")
    table.add_row("workspace", f"{options.workspace_mib} MiB, optimization level {options.optimization_level}")
    if identity.plugin:
        table.add_row("needs plugin", f"{identity.plugin['namespace']}::{identity.plugin['name']}")
    table.add_row("beside ONNX Runtime", parity)
    open_console().print(table)
