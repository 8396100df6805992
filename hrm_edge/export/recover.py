"""The model back out of a float artifact, so that a shipped model can be exported again, or trained on.

What the graph has folded into its constants (``hrm_edge.graph.step``) is unfolded; the function is the same, and
where several weights were added up (row, column and box of a cell) any that add up to the same are as good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import load_file

from hrm_edge.errors import UserError
from hrm_edge.graph.groups import GROUP_LAYERS, group_scale, kind_rows
from hrm_edge.graph.step import embedding_scale, query_scale
from hrm_edge.manifest import STATE_FILE, STEP_FILE, read_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.model.weights import load_weights
from hrm_edge.records import Record
from hrm_edge.spec import ModelSpec, buffer_shapes, cell_ids, parameter_shapes, rotary_rows

Weights = dict[str, NDArray[Any]]  # float32 or float16, as the artifact is


class ArtifactInfo(Record):
    """Description of a recovered model."""

    task: str
    spec: ModelSpec
    from_artifact: dict[str, Any]

    def origin(self) -> dict[str, Any]:
        """Return what provenance records: the artifact that the weights are from, and that one's checkpoint."""
        return self.from_artifact


def recover(folder: Path) -> tuple[HRM, ArtifactInfo]:
    """Rebuild the float32 model of a verified artifact, of float16 with its rounded weights; ``UserError`` for INT8."""
    manifest = read_manifest(folder)
    hint = "export the checkpoint it was made from, or its fp32 or fp16 artifact"
    if manifest.precision == "int8":
        raise UserError(f"{folder} is an INT8 artifact: its float32 weights are gone", hint)
    if manifest.provenance.get("plugin"):
        raise UserError(f"{folder} was exported with --plugin, which is not read back", hint)
    spec = manifest.spec
    try:
        graph = onnx.load(folder / STEP_FILE).graph
        constants: Weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        weights = _unfolded(spec, constants, load_file(folder / STATE_FILE))
        tensors = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}
    except Exception as error:  # crafted bytes raise whatever they lead to: protobuf, onnx, NumPy
        raise UserError(f"{folder / STEP_FILE} is not as this version writes it: {error}", hint) from error
    model = HRM(spec)
    load_weights(model, tensors, folder)
    origin = {"artifact": manifest.name, **manifest.provenance.get("checkpoint", {})}
    return model.eval(), ArtifactInfo(task=manifest.task, spec=spec, from_artifact=origin)


def _unfolded(spec: ModelSpec, constants: Weights, state: Weights) -> Weights:
    weights: Weights = {}
    for name in parameter_shapes(spec):
        if name.startswith("embed_"):
            continue
        value = constants[name]
        is_matrix = name.endswith(".weight") and value.ndim == 2
        value = value.T if is_matrix else value
        if ".qkv_proj." in name:
            value = _unpacked(spec, value)
        elif name.rsplit(".", 2)[-2] in GROUP_LAYERS:
            value = value / group_scale(spec)
        weights[name] = value
    weights |= _embeddings(spec, constants)
    for name in buffer_shapes(spec):
        if name == "embed_pos.table":
            weights[name] = HRM(spec).get_buffer(name).numpy()  # not trained
        elif name == "puzzle_emb.weights":
            weights[name] = state["puzzle_table"]
        else:
            weights[name] = state["z_h_init" if name == "H_init" else "z_l_init"]
    return weights


def _unpacked(spec: ModelSpec, value: NDArray[Any]) -> NDArray[Any]:
    """Return rows of qkv in the model's order and without the scale of QK^T."""
    if spec.positions == "rope":
        rows = rotary_rows(spec)
        ordered = np.empty_like(value)
        ordered[rows] = value
        value = ordered
    scale = query_scale(spec)
    return value / (scale[:, None] if value.ndim == 2 else scale)


def _embeddings(spec: ModelSpec, constants: Weights) -> Weights:
    scale = embedding_scale(spec)
    if spec.mixing == "groups":
        return {"embed_kinds.embedding_weight": kind_rows(spec, (constants["embedding"] / scale).astype(np.float32))}
    tables: Weights = {"embed_tokens.embedding_weight": constants["embedding"] / scale}
    if spec.positions == "learned" and spec.grid_positions:
        raise ValueError("learned positions and those of the grid were added up")
    if spec.positions == "learned":
        tables["embed_pos.embedding_weight"] = constants["positions"] / scale
    if spec.grid_positions:
        positions = constants["positions"][spec.puzzle_tokens :]
        tables |= _grid_tables(spec, positions / scale, float(np.finfo(positions.dtype).eps))
    return tables


def _grid_tables(spec: ModelSpec, sums: NDArray[Any], rounding: float) -> Weights:
    """Return the smallest tables of row, column and box that add up to ``sums`` [S, D], to relative ``rounding``."""
    assert spec.grid is not None
    ids = cell_ids(spec.grid)
    shapes = {name: parameter_shapes(spec)[f"embed_{name}.embedding_weight"][0] for name in ids}
    chosen = np.concatenate([np.eye(shapes[name])[index] for name, index in ids.items()], axis=1)
    tables = np.linalg.lstsq(chosen, sums.astype(np.float64), rcond=None)[0]
    allowed = max(1e-4, rounding * float(np.abs(sums).max()))
    if not np.allclose(chosen @ tables, sums, rtol=0, atol=allowed):
        raise ValueError("its positions are no sum of rows, columns and boxes")
    parts = np.split(tables, np.cumsum(list(shapes.values()))[:-1])
    return {f"embed_{name}.embedding_weight": part.astype(np.float32) for name, part in zip(ids, parts, strict=True)}
