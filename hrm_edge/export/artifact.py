"""Checkpoint → artifact folder: calibrate, write the graph, measure it against torch, judge, seal with hashes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from hrm_edge import __version__
from hrm_edge.callbacks import OnMessage
from hrm_edge.checkpoint import CheckpointInfo
from hrm_edge.export.graph import OPSET, StepGraph
from hrm_edge.export.ranges import Range, half_range
from hrm_edge.export.recover import ArtifactInfo
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

_MAX_BATCH = 1024


def _silent(message: str) -> None:
    """Do nothing: the default for ``on_message``."""


@dataclass(frozen=True)
class Prepared:
    """What an artifact's graph is written from, and the puzzles that it is checked on."""

    precision: Precision
    model: HRM
    """Migrated and rotated where INT8 wants that; else the model itself."""
    quantized: Quantized | None
    check: Puzzles

    @property
    def scales(self) -> dict[str, float] | None:
        """Scales of the activations by layer; None of a float model."""
        return None if self.quantized is None else self.quantized.scales


def prepare_export(
    model: HRM,
    task: str,
    *,
    precision: Precision,
    calibration: Path | None = None,
    quantization: Quantization | None = None,
    limits: Limits | None = None,
    policy: Path | None = None,
    sensitivity: Path | None = None,
    on_message: OnMessage = _silent,
) -> Prepared:
    """Choose the puzzles and calibrate. ``model`` is in float32, as ``load_model`` gives it.

    ``calibration``: see ``quant.sets``; ``policy`` and ``sensitivity``: files that INT8 reads or writes, see
    ``quant.prepare``.
    """
    quantization, limits = quantization or Quantization(), limits or Limits()
    wanted = quantization.calibration_puzzles if precision == "int8" else 0
    seen, check = puzzle_sets(calibration, task, calibrate_on=wanted, check_on=limits.puzzles)
    if seen is None:
        return Prepared(precision, model, None, check)
    quantized = prepare(
        model, seen, quantization, limits, policy_file=policy, sensitivity_file=sensitivity, on_message=on_message
    )
    return Prepared(precision, quantized.model, quantized, check)


def write_artifact(
    model: HRM,
    info: CheckpointInfo | PublishedInfo | ArtifactInfo,
    prepared: Prepared,
    out: Path,
    *,
    limits: Limits | None = None,
    plugin: bool = False,
    on_message: OnMessage = _silent,
) -> Manifest:
    """Write the artifact folder ``out`` and return its manifest; a missed limit is marked in it, not raised.

    ``model`` is what it is compared with; ``plugin``: see :meth:`StepGraph.build`.
    """
    spec, quantized, check = model.spec, prepared.quantized, prepared.check
    with atomic_folder(out) as folder:
        on_message("writing the graph")
        graph = _graph(prepared, plugin)
        onnx.save(graph, folder / STEP_FILE)
        (folder / STATE_FILE).write_bytes(save(_state(prepared.model)))  # not save_file: a full disk must be an OSError
        on_message(f"comparing with torch on {len(check)} puzzles, {spec.max_steps} steps each")
        manifest = Manifest(
            name=out.name,
            task=info.task,
            precision=prepared.precision,
            spec=spec,
            opset=OPSET,
            max_batch=_MAX_BATCH,
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
        measured = _measured(model, graph, folder, prepared, limits or Limits(), manifest, on_message)
        return write_manifest(folder, manifest.model_copy(update=measured))


def _graph(prepared: Prepared, plugin: bool) -> onnx.ModelProto:
    source, quantized = prepared.model, prepared.quantized
    weights: dict[str, NDArray[np.float32]] = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    if quantized is None:
        return StepGraph(source.spec, weights, half=prepared.precision == "fp16").build(plugin=plugin)
    return StepGraph(
        source.spec, weights, activation_scales=quantized.scales, int8_weights=quantized.int8_weights
    ).build(plugin=plugin)


def _measured(
    model: HRM,
    graph: onnx.ModelProto,
    folder: Path,
    prepared: Prepared,
    limits: Limits,
    manifest: Manifest,
    on_message: OnMessage,
) -> dict[str, Any]:
    """Return the fields of the manifest about parity, accuracy and the gate."""
    steps, precision, check = model.spec.max_steps, manifest.precision, prepared.check
    rotation = None if prepared.quantized is None else prepared.quantized.rotation
    basis = None if rotation is None else rotation.numpy()
    result = measure(TorchSession(model), OrtSession(folder, manifest), check, steps, basis)
    gate = judge(result, precision, limits)
    measured: dict[str, Any] = {"parity": result.everywhere, "parity_apart": result.apart, "gate": gate}
    if result.drop is not None:
        measured |= {"accuracy_lost_points": result.drop.points, "accuracy_lost_interval_95": result.drop.interval_95}
    if precision == "fp16":
        on_message("looking at the range of every float16 tensor")
        measured |= _ranged(half_range(model, graph, check, steps), gate, manifest)
    return measured


def _ranged(range_: Range, gate: Gate, manifest: Manifest) -> dict[str, Any]:
    """Return the fields of the manifest that the range check adds."""
    failure = range_.failure()
    if failure is not None:
        gate = gate.model_copy(update={"passed": False, "failures": [failure, *gate.failures]})
    return {"gate": gate, "provenance": {**manifest.provenance, "float16_range": range_.describe()}}


def _state(model: HRM) -> dict[str, NDArray[np.float32]]:
    """Return the arrays that a session needs with the graph: the initial state and the puzzle table."""
    state = {"z_h_init": model.H_init.numpy(), "z_l_init": model.L_init.numpy()}
    if model.spec.puzzle_dim:
        state["puzzle_table"] = model.puzzle_emb.weights.numpy()
    return state
