"""``hrm-edge export``: a checkpoint becomes an artifact that runs without torch."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.artifact import ARTIFACT_FLAGS, artifact_options, is_asked, write_artifact
from hrm_edge.cli.engine import artifact_folder, check_flags, engine_options, export_engine, export_through
from hrm_edge.cli.options import task_option
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.export.artifact import WrittenAs


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
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
def export(model: Path, out: Path, task_name: str | None, backend: str, **flags: Any) -> None:
    """Export MODEL, a run or checkpoint folder of 'hrm-edge train' or a published state-dict file, as an artifact.

    An fp32 artifact or a shipped model may be exported again, in another precision or as an engine.

    The artifact holds one ACT step as ONNX, its initial state, and a manifest with a hash of every file and the
    parity with torch after 1, 4 and all steps. Where the export misses the limits of its recipe, the artifact is
    marked, and the command ends with exit code 1; layers that INT8 harms are found with --sensitivity, and where
    that is not enough, 'hrm-edge train' with --set quantization.aware=true trains the rounding in.

    \b
    hrm-edge export runs/nano --out artifacts/nano-int8 --int8 --calibration data/sudoku
    hrm-edge export sudoku-nano --out artifacts/nano-int8 --int8 --sensitivity policy.yaml
    hrm-edge export artifacts/nano-int8 --out engines/nano-int8 --backend tensorrt      # on the Jetson
    hrm-edge export sudoku-nano --out engines/rtx --backend tensorrt --sm 86,89,120     # anywhere, for RTX cards
    hrm-edge export sudoku-nano --out engines/torch --backend torch-tensorrt --module   # for torch programs
    """
    from hrm_edge.errors import UserError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} already exists", "choose another folder, or remove it first")
    check_flags(backend, flags)
    artifact = artifact_folder(model)
    own = {name: flags.pop(name) for name in ARTIFACT_FLAGS}
    if artifact is not None and task_name is not None:
        raise UserError(f"--task: {model} is an artifact, which says its own", "leave it out")
    if artifact is not None and backend == "tensorrt":
        if is_asked(own):
            raise UserError(
                f"{model} is an artifact, whose precision and steps are settled for an engine",
                "leave such flags out, or export it first without --backend",
            )
        export_engine(artifact, out, flags)
        return

    def write(folder: Path, written_as: WrittenAs | None = None) -> None:
        write_artifact(artifact or model, folder, task_name, own, written_as)

    if backend != "onnx":
        export_through(out, backend, write, flags, own["plugin"])
        return
    if artifact is not None and not is_asked(own):
        raise UserError(f"{model} is an artifact already", "add --int8 or --fp16, or --backend tensorrt for its engine")
    write(out)
    calibration = own["calibration"]
    echo(f"Next: hrm-edge bench {quote(str(out))}" + (f" --data {quote(str(calibration))}" if calibration else ""))
