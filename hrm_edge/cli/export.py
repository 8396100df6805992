"""``hrm-edge export``: a checkpoint becomes an artifact that runs without torch."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.artifact import ARTIFACT_FLAGS, artifact_options, show_artifact
from hrm_edge.cli.engine import build_options, check_flags, engine_options, show_engine
from hrm_edge.cli.options import complete_models, task_option
from hrm_edge.terminal import echo, status

if TYPE_CHECKING:
    from hrm_edge.api.export import Target


@click.command()
@click.argument("model", type=click.Path(path_type=Path), shell_complete=complete_models)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the artifact.")
@artifact_options
@task_option
@click.option(
    "--backend",
    type=click.Choice(["onnx", "tensorrt", "torch-tensorrt"]),
    default="onnx",
    show_default=True,
    help="What to build; an engine's folder is an artifact too.",
)
@engine_options
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
    from hrm_edge.cli.options import say

    check_flags(backend, flags)
    own = {name: flags.pop(name) for name in ARTIFACT_FLAGS}
    with status("exporting") as show:
        exported = run(
            model,
            out,
            ExportOptions(**own),
            backend=backend,
            engine=build_options(flags),
            task=task_name,
            on_message=say,
            on_progress=lambda what, done, total: show(what),
        )
    if exported.manifest is not None:
        show_artifact(exported.manifest, out)
    if exported.engine is not None:
        show_engine(exported)
    exported.check()
    following = f"hrm-edge bench {quote(str(out))}"
    if exported.engine is not None and exported.parity is None:
        echo(f"Next, on the machine with the GPU, measures parity first: {following}")
        return
    calibration = own["calibration"] if exported.engine is None else None
    echo(f"Next: {following}" + (f" --data {quote(str(calibration))}" if calibration else ""))
