"""``hrm-edge export``: a checkpoint becomes an artifact that runs without torch, an artifact an engine."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import COUNT, PATH, Parsed, complete_models, option, option_group, say, task_option
from hrm_edge.errors import UserError
from hrm_edge.terminal import echo, open_console, status, table_of

if TYPE_CHECKING:
    from hrm_edge.api.export import Exported, Target
    from hrm_edge.manifest import Manifest
    from hrm_edge.runtime.trt.build import BuildOptions

_ENGINE_FLAGS = {  # parameter → the backends that take it
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


def _architectures(text: str) -> tuple[int, ...]:
    """``86,89,120`` or ``8.6,12.0`` to (86, 89, 120)."""
    numbers = []
    for part in text.split(","):
        digits = part.strip().lower().removeprefix("sm").lstrip("_").replace(".", "")
        if not digits.isdigit():
            raise ValueError(f"'{part}' is no compute capability: write 86,89,120")
        numbers.append(int(digits))
    return tuple(numbers)


_artifact_options = option_group(
    option("--fp32", "precision", flag_value="fp32", help="Float32 (the default)."),
    option("--fp16", "precision", flag_value="fp16", help="Float16 weights, products and state."),
    option("--int8", "precision", flag_value="int8", help="Products in 8-bit integers (Q/DQ nodes)."),
    option(
        "--fastest",
        "precision",
        flag_value="fastest",
        help="Fp32 or INT8, whichever passes its gate and a trial on this CPU finds faster; says why.",
    ),
    option(
        "--calibration",
        type=PATH,
        help="Built data folder (its train part calibrates, its test part checks) or a puzzle file (halved).  "
        "[default, Sudoku: the package's calibration set calibrates, its sample puzzles check]",
    ),
    option(
        "--sensitivity",
        type=PATH,
        metavar="FILE",
        help="INT8: rank the layers by what rounding each does to the last step, write FILE with the layers to "
        "keep in float and why, and export by it. A run of the recurrence for every layer.",
    ),
    option("--policy", type=PATH, metavar="FILE", help="INT8: export by such a file."),
    option(
        "--puzzles",
        type=COUNT,
        help="Measure parity and accuracy on so many.  [default: the recipe's limits.puzzles, 256]",
    ),
    option(
        "--max-steps",
        type=COUNT,
        help="ACT steps that the artifact is calibrated, checked and by default run for.  [default: the recipe's]",
    ),
    option("--plugin", is_flag=True, help="Attention as one node for the TensorRT plugin; other runtimes run it too."),
)
_engine_options = option_group(
    option(
        "--runtime",
        type=click.Choice(["tensorrt", "tensorrt_rtx"]),
        help="Engines: which TensorRT.  [default: the one that is installed; tensorrt_rtx with --sm]",
    ),
    option(
        "--sm", type=Parsed("86,89,…", _architectures), help="Engines: GPUs to build for without having them (RTX)."
    ),
    option("--max-batch", type=COUNT, help="Engines: largest batch.  [default: 64]"),
    option("--opt-batch", type=COUNT, help="Engines: batch to tune for.  [default: 8]"),
    option(
        "--workspace",
        type=COUNT,
        metavar="MIB",
        help="Engines: memory the builder may use.  [default: up to half of what is free]",
    ),
    option("--optimization-level", type=click.IntRange(0, 5), help="Engines: 0 (fast build) to 5.  [default: 3]"),
    option(
        "--plugin-library",
        type=click.Path(path_type=Path, exists=True),
        help="Engines: the attention plugin's library, or its folder of kernels.",
    ),
    option("--no-cache", is_flag=True, help="Engines: build although this machine has the same one already."),
    option(
        "--module",
        is_flag=True,
        help="Torch-TensorRT: save the engine also as step.pt2, an ExportedProgram for torch programs.",
    ),
)
"""The flags of :data:`_ENGINE_FLAGS`."""


@click.command()
@click.argument("model", type=PATH, shell_complete=complete_models)
@option("--out", type=PATH, required=True, help="New folder for the artifact.")
@_artifact_options
@task_option
@option(
    "--backend",
    type=click.Choice(["onnx", "tensorrt", "torch-tensorrt"]),
    default="onnx",
    help="What to build; an engine's folder is an artifact too.",
)
@_engine_options
def export(model: Path, out: Path, task_name: str | None, backend: Target, **flags: Any) -> None:
    """Export MODEL, a run or checkpoint folder of 'hrm-edge train' or a published state-dict file, as an artifact.

    An fp32 artifact or a shipped model may be exported again, in another precision or as an engine.

    The artifact holds one ACT step as ONNX, its initial state, and a manifest with a hash of every file and the
    parity with torch after 1, 4 and all steps. Where the export misses the limits of its recipe, the artifact is
    marked, and the command ends with exit code 1; layers that INT8 harms are found with --sensitivity, and where
    that is not enough, 'hrm-edge train' with --set quantization.aware=true trains the rounding in.

    \b
    hrm-edge export runs/nano --out build/int8 --int8 --calibration data/sudoku
    hrm-edge export sudoku-nano --out build/int8 --int8 --sensitivity policy.yaml

    An engine, on the Jetson for its own GPU; anywhere for RTX cards; for torch:

    \b
    hrm-edge export build/int8 --out build/engine --backend tensorrt
    hrm-edge export sudoku-nano --out build/rtx --backend tensorrt --sm 86,89,120
    hrm-edge export sudoku-nano --out build/tt --backend torch-tensorrt --module
    """
    from hrm_edge.api.export import ExportOptions
    from hrm_edge.api.export import export as run

    engine = _build_options(backend, {name: flags.pop(name) for name in _ENGINE_FLAGS})
    with status("exporting") as show:
        exported = run(
            model,
            out,
            ExportOptions(**flags),
            backend=backend,
            engine=engine,
            task=task_name,
            on_message=say,
            on_progress=lambda what, done, total: show(what),
        )
    if exported.manifest is not None:
        _show_artifact(exported.manifest, out)
    if exported.engine is not None:
        _show_engine(exported)
    exported.check()
    following = f"hrm-edge bench {quote(str(out))}"
    if exported.engine is not None and exported.parity is None:
        echo(f"Next, on the machine with the GPU, measures parity first: {following}")
        return
    calibration = flags["calibration"] if exported.engine is None else None
    echo(f"Next: {following}" + (f" --data {quote(str(calibration))}" if calibration else ""))


def _build_options(backend: str, flags: dict[str, Any]) -> BuildOptions:
    """Make the builder's options; ``UserError`` for a flag that ``backend`` has no use for."""
    for name, backends in _ENGINE_FLAGS.items():
        if flags[name] not in (None, False) and backend not in backends:
            takes = " or ".join(sorted(backends))
            raise UserError(f"--{name.replace('_', '-')} is for --backend {takes}", "leave it out")
    from hrm_edge.runtime.trt.build import BuildOptions

    called = {"sm": "sms", "workspace": "workspace_mib", "plugin_library": "plugin"}  # flag → field
    chosen = {called.get(name, name): value for name, value in flags.items() if value is not None}
    return BuildOptions(use_cache=not chosen.pop("no_cache"), **chosen)


def _show_artifact(manifest: Manifest, out: Path) -> None:
    """Print what the manifest says of parity, accuracy and size."""
    parity = {
        "steps": lambda row: str(row.steps),
        "puzzles": lambda row: str(row.puzzles),
        "of": lambda row: row.over,
        "median difference": lambda row: f"{row.logits_median_abs:.1e}",
        "SQNR dB": lambda row: f"{row.logits_sqnr_db:.1f}",
        "carry cosine mean": lambda row: "" if row.carry_cosine_mean is None else f"{row.carry_cosine_mean:.4f}",
        "worst": lambda row: f"{row.carry_cosine:.4f}",
        "same answers": lambda row: f"{row.same_answers:.1%}",
    }
    rows = [[cell(row) for cell in parity.values()] for row in [*manifest.parity, *manifest.parity_apart]]
    title = f"{out}: {manifest.spec.variant} {manifest.precision} against torch fp32"
    console = open_console()
    console.print(table_of([*parity], rows, words=(), title=title))
    points = manifest.accuracy_lost_points
    accuracy = "not compared (no answers)"
    if points is not None and manifest.accuracy_lost_interval_95 is not None:
        low, high = manifest.accuracy_lost_interval_95
        accuracy = f"{points:+.2f} points lost (paired, 95 %: {low:+.2f} to {high:+.2f})"
    checked_on = manifest.provenance["checked_on"]
    console.print(f"size {manifest.size_bytes / 1e6:.2f} MB, exact accuracy {accuracy}, checked on {checked_on}")
    if (quantization := manifest.quantization) is not None:
        console.print(
            f"{quantization['layers']} layers in INT8, in float: {', '.join(quantization['float_layers'])}; "
            f"calibrated on {quantization['calibration']['source']}"
        )
        parts = quantization["bytes"]
        console.print(
            f"weights are {parts['weights_of_fp32']:.3f} of float32's: {parts['int8']:,} bytes in INT8, "
            f"{parts['scales']:,} of scales, {parts['float']:,} in float (heads, embeddings); "
            f"constants {parts['constants']:,}"
        )
    if choice := manifest.provenance.get("precision_choice"):
        console.print(f"chosen {choice['chosen']}")


def _show_engine(exported: Exported) -> None:
    """Print what was built, for which GPU, and how it compares with its artifact."""
    from rich.table import Table

    from hrm_edge.api.engine_parity import said_of
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
