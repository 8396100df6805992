"""Flags and table of ``hrm-edge export`` for ONNX artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import option_group
from hrm_edge.terminal import open_console

if TYPE_CHECKING:
    from hrm_edge.manifest import Manifest

ARTIFACT_FLAGS = ("precision", "calibration", "policy", "sensitivity", "puzzles", "max_steps", "plugin")


artifact_options = option_group(
    click.option("--fp32", "precision", flag_value="fp32", help="Float32 (the default)."),
    click.option("--fp16", "precision", flag_value="fp16", help="Float16 weights, products and state."),
    click.option("--int8", "precision", flag_value="int8", help="Products in 8-bit integers (Q/DQ nodes)."),
    click.option(
        "--fastest",
        "precision",
        flag_value="fastest",
        help="Fp32 or INT8, whichever passes its gate and a trial on this CPU finds faster; says why.",
    ),
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        help="Built data folder (its train part calibrates, its test part checks) or a puzzle file (halved).  "
        "[default, Sudoku: the package's calibration set calibrates, its sample puzzles check]",
    ),
    click.option(
        "--sensitivity",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="INT8: rank the layers by what rounding each does to the last step, write FILE with the layers to "
        "keep in float and why, and export by it. A run of the recurrence for every layer.",
    ),
    click.option("--policy", type=click.Path(path_type=Path), metavar="FILE", help="INT8: export by such a file."),
    click.option(
        "--puzzles",
        type=click.IntRange(1),
        help="Measure parity and accuracy on so many.  [default: the recipe's limits.puzzles, 256]",
    ),
    click.option(
        "--max-steps",
        type=click.IntRange(1),
        help="ACT steps that the artifact is calibrated, checked and by default run for.  [default: the recipe's]",
    ),
    click.option(
        "--plugin", is_flag=True, help="Attention as one node for the TensorRT plugin; other runtimes run it too."
    ),
)
"""The flags of :data:`ARTIFACT_FLAGS`."""


def show_artifact(manifest: Manifest, out: Path) -> None:
    """Print what the manifest says of parity, accuracy and size."""
    from rich.table import Table

    console = open_console()
    table = Table(title=f"{out}: {manifest.spec.variant} {manifest.precision} against torch fp32")
    columns = (
        "steps",
        "puzzles",
        "of",
        "median difference",
        "SQNR dB",
        "carry cosine mean",
        "worst",
        "same answers",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in [*manifest.parity, *manifest.parity_apart]:
        table.add_row(
            str(row.steps),
            str(row.puzzles),
            row.over,
            f"{row.logits_median_abs:.1e}",
            f"{row.logits_sqnr_db:.1f}",
            "" if row.carry_cosine_mean is None else f"{row.carry_cosine_mean:.4f}",
            f"{row.carry_cosine:.4f}",
            f"{row.same_answers:.1%}",
        )
    console.print(table)
    points = manifest.accuracy_lost_points
    accuracy = "not compared (no answers)"
    if points is not None and manifest.accuracy_lost_interval_95 is not None:
        low, high = manifest.accuracy_lost_interval_95
        accuracy = f"{points:+.2f} points lost (paired, 95 %: {low:+.2f} to {high:+.2f})"
    console.print(
        f"size {manifest.size_bytes / 1e6:.2f} MB, exact accuracy {accuracy}, "
        f"checked on {manifest.provenance['checked_on']}"
    )
    if manifest.quantization is not None:
        kept, layers = manifest.quantization["float_layers"], manifest.quantization["layers"]
        console.print(
            f"{layers} layers in INT8, in float: {', '.join(kept)}; calibrated on "
            f"{manifest.quantization['calibration']['source']}"
        )
        parts = manifest.quantization["bytes"]
        console.print(
            f"weights are {parts['weights_of_fp32']:.3f} of float32's: {parts['int8']:,} bytes in INT8, "
            f"{parts['scales']:,} of scales, {parts['float']:,} in float (heads, embeddings); "
            f"constants {parts['constants']:,}"
        )
    if choice := manifest.provenance.get("precision_choice"):
        console.print(f"chosen {choice['chosen']}")
