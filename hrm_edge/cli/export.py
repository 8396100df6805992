"""``hrm-edge export``: a checkpoint becomes an artifact that runs without torch, an artifact an engine."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import COUNT, PATH, Parsed, complete_models, option, option_group, say, task_option
from hrm_edge.errors import UserError
from hrm_edge.terminal import echo, open_console, status

if TYPE_CHECKING:
    from hrm_edge.api.export import Target
    from hrm_edge.runtime.trt.build import BuildOptions

_OF_ENGINES = ("max_batch", "opt_batch", "workspace", "optimization_level", "plugin_library", "no_cache")
_ENGINE_FLAGS = {  # parameter → the backends that take it
    "runtime": ("tensorrt",),
    "sm": ("tensorrt",),
    **dict.fromkeys(_OF_ENGINES, ("tensorrt", "torch-tensorrt")),
    "module": ("torch-tensorrt",),
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
def export(model: Path, out: Path, task: str | None, backend: Target, **flags: Any) -> None:
    """Export MODEL, a run or checkpoint folder of 'hrm-edge train' or a published state-dict file, as an artifact.

    A float artifact, also a shipped one, may be exported again, in another precision or as an engine.

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
    from hrm_edge.api.export_text import parts

    engine = _build_options(backend, {name: flags.pop(name) for name in _ENGINE_FLAGS})
    with status("exporting") as show:
        exported = run(
            model,
            out,
            ExportOptions(**flags),
            backend=backend,
            engine=engine,
            task=task,
            on_message=say,
            on_progress=lambda what, done, total: show(what),
        )
    console = open_console()
    for part in parts(exported):
        console.print(part)
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
            raise UserError(f"--{name.replace('_', '-')} is for --backend {' or '.join(backends)}", "leave it out")
    from hrm_edge.runtime.trt.build import BuildOptions

    called = {"sm": "sms", "workspace": "workspace_mib", "plugin_library": "plugin"}  # flag → field
    chosen = {called.get(name, name): value for name, value in flags.items() if value is not None}
    return BuildOptions(use_cache=not chosen.pop("no_cache"), **chosen)
