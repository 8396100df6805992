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

from hrm_edge import __version__
from hrm_edge.data.dataset import Dataset
from hrm_edge.data.layout import is_data_folder
from hrm_edge.data.puzzles import PuzzleSet, load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.export.graph import OPSET, StepGraph
from hrm_edge.export.parity import CheckSet, judge, measure
from hrm_edge.files import atomic_folder
from hrm_edge.manifest import STATE_FILE, STEP_FILE, Gate, Manifest, Precision, write_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.model.published import PublishedInfo
from hrm_edge.model.session import TorchSession
from hrm_edge.model.weights import CheckpointInfo
from hrm_edge.plugin.contract import NAME, NAMESPACE, VERSION
from hrm_edge.quant.calibrate import activation_scales
from hrm_edge.quant.policy import exceptions, int8_layers
from hrm_edge.quant.smooth import smoothed
from hrm_edge.recipe import Limits, Quantization
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.tasks import get_task
from hrm_edge.tasks.samples import sample_file

MAX_BATCH = 1024
MOST_PUZZLES = 10_000  # read of a data folder's part: more would only cost memory

Tell = Callable[[str], None]
WrittenAs = Callable[[HRM, "dict[str, float] | None"], None]
"""Told what a graph is written from: the model, smoothed where that is asked for, and its activation scales."""


def _silent(message: str) -> None:
    """The default for ``tell``."""


def _unheard(model: HRM, scales: dict[str, float] | None) -> None:
    """The default for ``written_as``."""


def puzzle_sets(path: Path | None, task_name: str, limits: Limits) -> tuple[CheckSet | None, CheckSet]:
    """(calibration set or None, check set), disjoint.

    A built folder's train part calibrates and its test part checks; of a puzzle file the first half calibrates and
    the second checks. Without a path there is no calibration, and the package's own puzzles check.
    """
    task = get_task(task_name)
    if path is None:
        sample = sample_file(task_name)
        if sample is None:
            raise UserError(f"the package has no puzzles of {task_name} to check on", "name a set: --calibration PATH")
        return None, _checks_of(load_puzzles(sample, task), slice(None), "the package's own puzzles").head(
            limits.puzzles
        )
    if is_data_folder(path):
        calibration, check = (_part_of(Dataset(path, split, task)) for split in ("train", "test"))
    else:
        puzzles = load_puzzles(path, task=task)
        half = len(puzzles) // 2
        calibration = _checks_of(puzzles, slice(half), f"{path.name}, first half")
        check = _checks_of(puzzles, slice(half, None), f"{path.name}, second half")
    if not len(check.inputs):
        raise UserError(f"{path} has no puzzles to check the export on", "give a larger set with --calibration")
    return calibration, check.head(limits.puzzles)


def _checks_of(puzzles: PuzzleSet, rows: slice, source: str) -> CheckSet:
    inputs = puzzles.inputs[rows]
    labels = None if puzzles.labels is None else puzzles.labels[rows]
    return CheckSet(inputs, labels, np.zeros(len(inputs), np.int32), source)


def _part_of(data: Dataset) -> CheckSet:
    rows = np.arange(min(len(data), MOST_PUZZLES))
    if data.metadata.num_puzzle_identifiers > 1:  # ARC: the head of a part is one task under its augmentations
        rows = np.random.default_rng(0).permutation(data.spread(MOST_PUZZLES))
    inputs, labels = data.examples(rows)
    return CheckSet(inputs, labels, data.identifiers(rows), f"{data.folder.name}/{data.split}")


def export(
    model: HRM,
    info: CheckpointInfo | PublishedInfo,
    out: Path,
    *,
    precision: Precision,
    calibration: Path | None = None,
    quantization: Quantization | None = None,
    limits: Limits | None = None,
    plugin: bool = False,
    tell: Tell = _silent,
    written_as: WrittenAs = _unheard,
) -> Manifest:
    """Write the artifact folder ``out`` and return its manifest; a missed limit is marked in it, not raised.

    INT8 needs ``calibration``. ``plugin``: see :class:`StepGraph`. ``model`` is in float32, as ``load_model`` gives it.
    """
    quantization, limits = quantization or Quantization(), limits or Limits()
    if precision == "int8" and calibration is None:
        raise UserError("INT8 needs real puzzles to calibrate on", "name a data folder or file: --calibration PATH")
    spec, steps = model.spec, model.spec.max_steps
    seen, check = puzzle_sets(calibration, info.task, limits)
    scales: dict[str, float] | None = None
    written = model
    if precision == "int8":
        assert seen is not None
        chosen = seen.head(quantization.calibration_puzzles)
        tell(f"calibrating on {len(chosen.inputs)} puzzles, {steps} steps each")
        if quantization.smooth:
            written = smoothed(model, chosen.inputs, chosen.puzzle_ids, quantization.smooth, steps)
        scales = activation_scales(written, chosen.inputs, chosen.puzzle_ids, quantization, steps)
    written_as(written, scales)
    weights: dict[str, NDArray[np.float32]] = {n: t.numpy() for n, t in written.state_dict().items()}
    with atomic_folder(out) as folder:
        tell("writing the graph")
        graph = StepGraph(spec, weights, half=precision == "fp16", activation_scales=scales, plugin=plugin).build()
        onnx.save(graph, folder / STEP_FILE)
        (folder / STATE_FILE).write_bytes(save(_state(model)))  # not save_file: a full disk must be an OSError
        tell(f"comparing with torch on {len(check.inputs)} puzzles, {steps} steps each")
        manifest = Manifest(
            name=out.name,
            task=info.task,
            precision=precision,
            spec=spec,
            opset=OPSET,
            max_batch=MAX_BATCH,
            gate=Gate(passed=False, limits={}, failures=["not measured"]),
            quantization=_describe(model, scales, quantization, seen) if scales else None,
            provenance={
                "checkpoint": info.origin(),
                "checked_on": check.source,
                "versions": {"hrm_edge": __version__, "torch": str(torch.__version__), "onnx": onnx.__version__},
                "plugin": {"name": NAME, "version": VERSION, "namespace": NAMESPACE} if plugin else None,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        table, lost = measure(TorchSession(model), OrtSession(folder, manifest), check, steps)
        gate = judge(table, lost, precision, limits)
        manifest = manifest.model_copy(update={"parity": table, "accuracy_lost_points": lost, "gate": gate})
        return write_manifest(folder, manifest)


def _state(model: HRM) -> dict[str, NDArray[np.float32]]:
    """What a session needs beside the graph: the initial state and the puzzle table."""
    state = {"z_h_init": model.H_init.numpy(), "z_l_init": model.L_init.numpy()}
    if model.spec.puzzle_dim:
        state["puzzle_table"] = model.puzzle_emb.weights.numpy()
    return state


def _describe(model: HRM, scales: dict[str, float], options: Quantization, seen: CheckSet | None) -> dict[str, Any]:
    assert seen is not None
    return {
        "scheme": "symmetric int8, zero point 0; weights per output channel, activations per tensor",
        "observer": options.observer,
        "smooth": options.smooth,
        "percentile": options.percentile if options.observer == "percentile" else None,
        "calibration": {"source": seen.source, "puzzles": min(options.calibration_puzzles, len(seen.inputs)),
                        "steps": model.spec.max_steps},
        "layers": len(int8_layers(model)),
        "float_layers": exceptions(model),
        "input_scales": scales,
    }  # fmt: skip
