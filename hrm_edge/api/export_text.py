"""An export for people: parity, accuracy and size of an artifact, and what an engine is valid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hrm_edge.api.engine_parity import parity_text
from hrm_edge.api.export import Exported
from hrm_edge.manifest import Manifest
from hrm_edge.terminal import table_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from hrm_edge.runtime.trt.identity import Engine

_PARITY = {  # column → what a row of the manifest's parity says there
    "steps": lambda row: str(row.steps),
    "puzzles": lambda row: str(row.puzzles),
    "of": lambda row: row.over,
    "median difference": lambda row: f"{row.logits_median_abs:.1e}",
    "SQNR dB": lambda row: f"{row.logits_sqnr_db:.1f}",
    "carry cosine mean": lambda row: "" if row.carry_cosine_mean is None else f"{row.carry_cosine_mean:.4f}",
    "worst": lambda row: f"{row.carry_cosine:.4f}",
    "same answers": lambda row: f"{row.same_answers:.1%}",
}


def parts(exported: Exported) -> Iterator[RenderableType]:
    """Yield the tables and sentences about what was written, for a terminal."""
    if exported.manifest is not None:
        yield from _artifact(exported.manifest, exported.folder)
    if exported.engine is not None:
        yield table_of(
            ("", ""),
            _engine(exported, exported.engine),
            words=(0, 1),
            show_header=False,
            title=f"{exported.folder}: {exported.engine.identity.options.precision} engine",
        )


def _artifact(manifest: Manifest, out: Path) -> Iterator[RenderableType]:
    """Yield what the manifest says of parity, accuracy and size."""
    rows = [[cell(row) for cell in _PARITY.values()] for row in [*manifest.parity, *manifest.parity_apart]]
    title = f"{out}: {manifest.spec.variant} {manifest.precision} against torch fp32"
    yield table_of([*_PARITY], rows, words=(), title=title)
    points = manifest.accuracy_lost_points
    accuracy = "not compared (no answers)"
    if points is not None and manifest.accuracy_lost_interval_95 is not None:
        low, high = manifest.accuracy_lost_interval_95
        accuracy = f"{points:+.2f} points lost (paired, 95 %: {low:+.2f} to {high:+.2f})"
    checked_on = manifest.provenance["checked_on"]
    yield f"size {manifest.size_bytes / 1e6:.2f} MB, exact accuracy {accuracy}, checked on {checked_on}"
    if (quantization := manifest.quantization) is not None:
        yield (
            f"{quantization['layers']} layers in INT8, in float: {', '.join(quantization['float_layers'])}; "
            f"calibrated on {quantization['calibration']['source']}"
        )
        sizes = quantization["bytes"]
        yield (
            f"weights are {sizes['weights_of_fp32']:.3f} of float32's: {sizes['int8']:,} bytes in INT8, "
            f"{sizes['scales']:,} of scales, {sizes['float']:,} in float (heads, embeddings); "
            f"constants {sizes['constants']:,}"
        )
    if choice := manifest.provenance.get("precision_choice"):
        yield f"chosen {choice['chosen']}"


def _engine(exported: Exported, engine: Engine) -> Iterator[tuple[str, str]]:
    """Yield what was built, for which GPU, and how it compares with its artifact."""
    from hrm_edge.runtime.trt.identity import MODULE_FILE

    identity, options, built = engine.identity, engine.identity.options, engine.build
    architectures = ", ".join(f"SM{sm}" for sm in identity.sm)
    device = f"{identity.device} ({architectures})" if identity.device else f"GPUs of {architectures}"
    yield "valid for", f"{identity.runtime} {identity.tensorrt}, {device}"
    yield "batch", f"{options.batch.min} to {options.batch.max}, tuned for {options.batch.opt}"
    layers = f", {built.layers} layers before fusion" if built.layers else ""
    yield "size", f"{engine.plan.bytes / 1e6:.1f} MB{layers}"
    if engine.module is not None:
        yield "torch module", f"{MODULE_FILE}, {engine.module.bytes / 1e6:.1f} MB"
    how = f"from the cache ({built.created[:10]})" if exported.from_cache else f"{built.seconds:.1f} s"
    yield "build", f"{how}, peak memory {built.peak_memory_bytes / 2**20:.0f} MiB"
    yield "workspace", f"{options.workspace_mib} MiB, optimization level {options.optimization_level}"
    if identity.plugin:
        yield "needs plugin", f"{identity.plugin['namespace']}::{identity.plugin['name']}"
    parity = parity_text(exported.parity) if exported.parity is not None else f"not measured: {exported.not_measured}"
    yield "beside ONNX Runtime", parity
