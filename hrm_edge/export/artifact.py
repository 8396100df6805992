"""Checkpoint → artifact folder: calibrate, write the graph, measure it against torch, judge, seal with hashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from hrm_edge import __version__
from hrm_edge.checkpoint import CheckpointInfo
from hrm_edge.export.graph import OPSET, StepGraph
from hrm_edge.export.ranges import Range, half_range
from hrm_edge.export.size import bytes_by_kind
from hrm_edge.files import atomic_folder
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Gate, Manifest, Precision, write_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.model.published import PublishedInfo
from hrm_edge.model.session import TorchSession
from hrm_edge.parity import judge, measure
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION
from hrm_edge.quant.prepare import Quantized, prepare
from hrm_edge.quant.sets import puzzle_sets
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.tasks.puzzles import Puzzles

MAX_BATCH = 1024

OnMessage = Callable[[str], None]
WrittenAs = Callable[[HRM, "dict[str, float] | None"], None]
"""Told what a graph is written from: the model, smoothed where that is asked for, and its activation scales."""


def _silent(message: str) -> None:
    """Do nothing: the default for ``on_message``."""


def export(
    model: HRM,
    info: CheckpointInfo | PublishedInfo,
    out: Path,
    *,
    precision: Precision,
    calibration: Path | None = None,
    quantization: Quantization | None = None,
    limits: Limits | None = None,
    policy: Path | None = None,
    sensitivity: Path | None = None,
    plugin: bool = False,
    on_message: OnMessage = _silent,
    written_as: WrittenAs | None = None,
) -> Manifest:
    """Write the artifact folder ``out`` and return its manifest; a missed limit is marked in it, not raised.

    ``calibration``: see ``quant.sets``; ``policy`` and ``sensitivity``: files that INT8 reads or writes, see
    ``quant.prepare``; ``plugin``: see :class:`StepGraph`. ``model`` is in float32, as ``load_model`` gives it.
    """
    quantization, limits = quantization or Quantization(), limits or Limits()
    spec, steps, is_int8 = model.spec, model.spec.max_steps, precision == "int8"
    wanted = quantization.calibration_puzzles if is_int8 else 0
    seen, check = puzzle_sets(calibration, info.task, calibrate_on=wanted, check_on=limits.puzzles)
    quantized: Quantized | None = None
    if seen is not None:
        quantized = prepare(
            model,
            seen,
            quantization,
            limits,
            policy_file=policy,
            sensitivity_file=sensitivity,
            on_message=on_message,
        )
    source, scales = (quantized.model, quantized.scales) if quantized else (model, None)
    if written_as is not None:
        written_as(source, scales)
    with atomic_folder(out) as folder:
        on_message("writing the graph")
        graph = _graph(source, quantized, precision == "fp16", plugin)
        onnx.save(graph, folder / STEP_FILE)
        (folder / STATE_FILE).write_bytes(save(_state(source)))  # not save_file: a full disk must be an OSError
        on_message(f"comparing with torch on {len(check)} puzzles, {steps} steps each")
        manifest = Manifest(
            name=out.name,
            task=info.task,
            precision=precision,
            spec=spec,
            opset=OPSET,
            max_batch=MAX_BATCH,
            gate=Gate(passed=False, limits={}, failures=["not measured"]),
            quantization={**quantized.description, "bytes": bytes_by_kind(graph, spec)} if quantized else None,
            provenance={
                "checkpoint": info.origin(),
                "checked_on": check.source.path,
                "versions": {"hrm_edge": __version__, "torch": str(torch.__version__), "onnx": onnx.__version__},
                "plugin": {"name": NAME, "version": VERSION, "namespace": NAMESPACE} if plugin else None,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        rotation = None if quantized is None else quantized.rotation
        measured = _measured(model, graph, OrtSession(folder, manifest), check, limits, manifest, rotation, on_message)
        return write_manifest(folder, manifest.model_copy(update=measured))


def _graph(source: HRM, quantized: Quantized | None, half: bool, plugin: bool) -> onnx.ModelProto:
    weights: dict[str, NDArray[np.float32]] = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    if quantized is None:
        return StepGraph(source.spec, weights, half=half, plugin=plugin).build()
    return StepGraph(
        source.spec, weights, activation_scales=quantized.scales, int8_weights=quantized.int8_weights, plugin=plugin
    ).build()


def _measured(
    model: HRM,
    graph: onnx.ModelProto,
    session: OrtSession,
    check: Puzzles,
    limits: Limits,
    manifest: Manifest,
    rotation: Tensor | None,
    on_message: OnMessage,
) -> dict[str, Any]:
    """Return the fields of the manifest about parity, accuracy and the gate."""
    steps, precision = model.spec.max_steps, manifest.precision
    basis = None if rotation is None else rotation.numpy()
    found = measure(TorchSession(model), session, check, steps, basis)
    gate = judge(found, precision, limits)
    measured: dict[str, Any] = {"parity": found.everywhere, "parity_apart": found.apart, "gate": gate}
    if found.drop is not None:
        measured |= {"accuracy_lost_points": found.drop.points, "accuracy_lost_interval_95": found.drop.interval_95}
    if precision == "fp16":
        on_message("looking at the range of every float16 tensor")
        measured |= _ranged(half_range(model, graph, check, steps), gate, manifest)
    return measured


def _ranged(found: Range, gate: Gate, manifest: Manifest) -> dict[str, Any]:
    """Return the fields of the manifest that the range check adds."""
    failure = found.failure()
    if failure is not None:
        gate = gate.model_copy(update={"passed": False, "failures": [failure, *gate.failures]})
    return {"gate": gate, "provenance": {**manifest.provenance, "float16_range": found.describe()}}


def _state(model: HRM) -> dict[str, NDArray[np.float32]]:
    """Return the arrays that a session needs with the graph: the initial state and the puzzle table."""
    state = {"z_h_init": model.H_init.numpy(), "z_l_init": model.L_init.numpy()}
    if model.spec.puzzle_dim:
        state["puzzle_table"] = model.puzzle_emb.weights.numpy()
    return state
