"""What ``hrm-edge export`` does for ONNX artifacts: its flags, the export, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import check_writable
from hrm_edge.errors import UserError
from hrm_edge.files import check_input
from hrm_edge.terminal import open_console, status

if TYPE_CHECKING:
    from rich.console import Console

    from hrm_edge.export.artifact import WrittenAs
    from hrm_edge.manifest import Manifest

ARTIFACT_FLAGS = ("precision", "calibration", "policy", "sensitivity", "puzzles", "max_steps", "plugin")
_INT8_ONLY = ("policy", "sensitivity")
FASTEST = "fastest"


def artifact_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of :data:`ARTIFACT_FLAGS`."""
    options = (
        click.option("--fp32", "precision", flag_value="fp32", help="Float32 (the default)."),
        click.option("--fp16", "precision", flag_value="fp16", help="Float16 weights, products and carry."),
        click.option("--int8", "precision", flag_value="int8", help="INT8 products by explicit Q/DQ."),
        click.option(
            "--fastest",
            "precision",
            flag_value=FASTEST,
            help="Fp32 or INT8, whichever passes its gate and a trial on this CPU finds faster; says why.",
        ),
        click.option(
            "--calibration",
            type=click.Path(path_type=Path),
            help="Built data folder (its train part calibrates, its test part checks) or a puzzle file (halved).  "
            "[default: the set of calibration/ calibrates (sudoku), the package's own puzzles check]",
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
    for option in reversed(options):
        command = option(command)
    return command


def is_asked(flags: dict[str, Any]) -> bool:
    """Whether any of the flags was given."""
    return any(value not in (None, False) for value in flags.values())


def write_artifact(
    model: Path, out: Path, task: str | None, flags: dict[str, Any], written_as: WrittenAs | None = None
) -> None:
    """Export ``model``, a checkpoint or an fp32 artifact, by its flags; raises ``GateError`` at the end."""
    from hrm_edge.errors import GateError
    from hrm_edge.export.artifact import export
    from hrm_edge.export.fastest import export_fastest

    precision = flags["precision"] or "fp32"
    _check(precision, flags)
    network, info, quantization, limits = _load(model, task)
    if flags["max_steps"] is not None:
        network.spec = network.spec.model_copy(update={"max_steps": flags["max_steps"]})
    if flags["puzzles"] is not None:
        limits = limits.model_copy(update={"puzzles": flags["puzzles"]})
    with status("exporting") as on_message:

        def one(chosen: Any, folder: Path) -> Manifest:
            for_int8 = {name: flags[name] if chosen == "int8" else None for name in _INT8_ONLY}
            return export(
                network, info, folder, precision=chosen, calibration=flags["calibration"], quantization=quantization,
                limits=limits, plugin=flags["plugin"], on_message=on_message, written_as=written_as, **for_int8,
            )  # fmt: skip

        manifest = export_fastest(one, out, on_message) if precision == FASTEST else one(precision, out)
    _show(open_console(), manifest, out)
    if not manifest.gate.passed:
        raise GateError("; ".join(manifest.gate.failures), _next_step(out, manifest, flags))


def _check(precision: str, flags: dict[str, Any]) -> None:
    for name in _INT8_ONLY:
        if flags[name] is not None and precision not in ("int8", FASTEST):
            raise UserError(f"--{name} is for INT8", "add --int8, or leave it out")
    if flags["policy"] is not None and flags["sensitivity"] is not None:
        raise UserError("--policy reads a file that --sensitivity writes: they exclude each other", "give one of them")
    if flags["policy"] is not None:
        check_input(flags["policy"])  # before the model is loaded
    if flags["sensitivity"] is not None:
        check_writable("--sensitivity", flags["sensitivity"])


def _load(model: Path, task: str | None) -> tuple[Any, Any, Any, Any]:
    """Model, info, and the recipe's sections quantization and limits (their defaults where there is no recipe)."""
    from hrm_edge.cli.resolve import tell_assumed
    from hrm_edge.export.recover import recover
    from hrm_edge.manifest import MANIFEST
    from hrm_edge.model.load import load_model
    from hrm_edge.recipe import Limits, Quantization, load_recipe
    from hrm_edge.training.checkpoint import RECIPE_FILE

    if (model / MANIFEST).is_file():
        return *recover(model), Quantization(), Limits()
    network, info, found = load_model(model, task)
    tell_assumed(str(found), info.origin())
    if not found.is_dir():  # a published file has no recipe
        return network, info, Quantization(), Limits()
    recipe = load_recipe(found / RECIPE_FILE)
    return network, info, recipe.quantization, recipe.limits


def _next_step(out: Path, manifest: Manifest, flags: dict[str, Any]) -> str:
    """What to try after a missed gate."""
    marked = f"{out} is marked; see its manifest.json"
    if manifest.precision != "int8":
        return marked
    if not any(flags[name] for name in _INT8_ONLY):
        return f"{marked}. Find the layers to keep in float: add --sensitivity FILE"
    return f"{marked}. Train the rounding in: hrm-edge train RECIPE --set init=MODEL --set quantization.aware=true"


def _show(console: Console, manifest: Manifest, out: Path) -> None:
    from rich.table import Table

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
    size = sum(entry.bytes for entry in manifest.files.values())
    points = manifest.accuracy_lost_points
    accuracy = "not compared (no answers)"
    if points is not None and manifest.accuracy_lost_interval_95 is not None:
        low, high = manifest.accuracy_lost_interval_95
        accuracy = f"{points:+.2f} points lost (paired, 95 %: {low:+.2f} to {high:+.2f})"
    console.print(
        f"size {size / 1e6:.2f} MB, exact accuracy {accuracy}, checked on {manifest.provenance['checked_on']}"
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
