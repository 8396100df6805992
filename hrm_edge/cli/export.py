"""``hrm-edge export``: a checkpoint becomes an artifact that runs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.engine import artifact_folder, check_flags, engine_options, export_engine, export_through
from hrm_edge.cli.options import task_option

if TYPE_CHECKING:
    from hrm_edge.export.artifact import WrittenAs
    from hrm_edge.manifest import Manifest


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the artifact.")
@click.option("--fp32", "precision", flag_value="fp32", help="Float32 (the default).")
@click.option("--fp16", "precision", flag_value="fp16", help="Float16 weights, products and carry.")
@click.option("--int8", "precision", flag_value="int8", help="INT8 products by explicit Q/DQ; needs --calibration.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True),
    help="Built data folder (its train part calibrates, its test part checks) or a puzzle file (halved); "
    "without it the package's own puzzles check.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    help="ACT steps that the artifact is calibrated, checked and by default run for.  [default: the recipe's]",
)
@task_option
@click.option(
    "--backend",
    type=click.Choice(["onnx", "tensorrt", "torch-tensorrt"]),
    default="onnx",
    show_default=True,
    help="What to build; an engine's folder is an artifact too.",
)
@click.option(
    "--plugin", is_flag=True, help="Attention as one node for the TensorRT plugin; other runtimes run it too."
)
@engine_options
def export(
    model: Path,
    out: Path,
    precision: str | None,
    calibration: Path | None,
    max_steps: int | None,
    task_name: str | None,
    backend: str,
    plugin: bool,
    **engine: Any,
) -> None:
    """Export MODEL, a run or checkpoint folder of 'hrm-edge train' or a published state-dict file, as an artifact.

    Engines are built from an artifact as well, or from a shipped model.

    The artifact holds one ACT step as ONNX, its initial state, and a manifest with a hash of every file and the
    parity with torch after 1, 4 and all steps. Where the export misses the limits of its recipe, the artifact is
    marked, and the command ends with exit code 1.

    \b
    hrm-edge export runs/nano --out artifacts/nano-int8 --int8 --calibration data/sudoku
    hrm-edge export artifacts/nano-int8 --out engines/nano-int8 --backend tensorrt      # on the Jetson
    hrm-edge export sudoku-nano --out engines/rtx --backend tensorrt --sm 86,89,120     # anywhere, for RTX cards
    """
    from hrm_edge.errors import UserError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} already exists", "choose another folder, or remove it first")
    check_flags(backend, engine)
    artifact = artifact_folder(model)
    if artifact is not None:
        own = {"--fp32, --fp16 or --int8": precision, "--calibration": calibration, "--max-steps": max_steps,
               "--plugin": plugin or None, "--task": task_name}  # fmt: skip
        for flag, value in own.items():
            if value is not None:
                raise UserError(f"{flag}: {model} is an artifact, which has this settled", "export the checkpoint")
        if backend == "torch-tensorrt":
            raise UserError(f"{model} is an artifact, Torch-TensorRT converts the torch model", "export the checkpoint")
        if backend != "tensorrt":
            raise UserError(f"{model} is an artifact already", "add --backend tensorrt for its engine")
        export_engine(artifact, out, engine)
        return

    def write(folder: Path, written_as: WrittenAs | None = None) -> None:
        _export_checkpoint(model, folder, task_name, precision or "fp32", calibration, max_steps, plugin, written_as)

    if backend != "onnx":
        export_through(out, backend, write, engine)
        return
    write(out)
    click.echo(f"Next: hrm-edge bench {out}" + (f" --data {calibration}" if calibration else ""))


def _export_checkpoint(
    model: Path, out: Path, task_name: str | None, precision: str, calibration: Path | None,
    max_steps: int | None, plugin: bool, written_as: WrittenAs | None,
) -> None:  # fmt: skip
    from typing import cast

    from rich.console import Console

    from hrm_edge.cli.resolve import tell_assumed
    from hrm_edge.errors import GateError
    from hrm_edge.export.artifact import export as run
    from hrm_edge.manifest import Precision
    from hrm_edge.model.load import load_model
    from hrm_edge.recipe import Limits, Quantization, load_recipe
    from hrm_edge.train.checkpoint import RECIPE_FILE

    network, info, found = load_model(model, task_name)
    tell_assumed(str(found), info.origin())
    recipe = load_recipe(found / RECIPE_FILE) if found.is_dir() else None  # a published file has none
    if max_steps is not None:
        network.spec = network.spec.model_copy(update={"max_steps": max_steps})
    console = Console(stderr=True)
    with console.status("exporting") as status:
        manifest = run(
            network,
            info,
            out,
            precision=cast(Precision, precision),
            calibration=calibration,
            quantization=recipe.quantization if recipe else Quantization(),
            limits=recipe.limits if recipe else Limits(),
            plugin=plugin,
            **({} if written_as is None else {"written_as": written_as}),
            tell=lambda message: status.update(message),
        )
    _show(Console(), manifest, out)
    if not manifest.gate.passed:
        raise GateError("; ".join(manifest.gate.failures), f"{out} is marked; see its manifest.json")


def _show(console: object, manifest: Manifest, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(title=f"{out}: {manifest.spec.variant} {manifest.precision} against torch fp32")
    columns = ("steps", "puzzles", "logits max abs", "median puzzle", "SQNR dB", "worst carry cosine", "same answers")
    for column in columns:
        table.add_column(column, justify="right")
    for row in manifest.parity:
        table.add_row(
            str(row.steps),
            str(row.puzzles),
            f"{row.logits_max_abs:.2e}",
            f"{row.logits_median_abs:.2e}",
            f"{row.logits_sqnr_db:.1f}",
            f"{row.carry_cosine:.6f}",
            f"{row.same_answers:.2%}",
        )
    console.print(table)
    size = sum(entry.bytes for entry in manifest.files.values())
    lost = manifest.accuracy_lost_points
    accuracy = "not compared (no answers)" if lost is None else f"{lost:+.2f} points lost"
    console.print(
        f"size {size / 1e6:.2f} MB, exact accuracy {accuracy}, checked on {manifest.provenance['checked_on']}"
    )
