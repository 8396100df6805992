"""A model comes back out of its fp32 or fp16 artifact; a float16 tensor that overflows is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hrm_edge.errors import UserError
from hrm_edge.export.graph import StepGraph
from hrm_edge.export.ranges import half_range
from hrm_edge.export.recover import recover
from hrm_edge.manifest import MANIFEST, STATE_FILE, Manifest, write_manifest
from hrm_edge.model.hrm import HRM
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import write_singles_artifact
from tests.export.test_graph import SPECS, make, tokens_of, weights


def artifact_of(model: HRM, folder, precision="fp32"):
    graph = StepGraph(model.spec, weights(model), half=precision == "fp16").build()
    write_singles_artifact(folder, Sudoku(2, 2), graph=graph)
    state = {"z_h_init": model.H_init.numpy(), "z_l_init": model.L_init.numpy()}
    if model.spec.puzzle_dim:
        state["puzzle_table"] = model.puzzle_emb.weights.numpy()
    save_file(state, folder / STATE_FILE)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    write_manifest(folder, manifest.model_copy(update={"spec": model.spec, "precision": precision}))
    return folder


@pytest.mark.parametrize("name", SPECS)
def test_the_model_comes_back(tmp_path, name):
    model = make(SPECS[name])
    found, info = recover(artifact_of(model, tmp_path / "a"))
    assert info.spec == model.spec
    tokens, ids = torch.from_numpy(tokens_of(model.spec, 2)), torch.zeros(2, dtype=torch.int32)
    with torch.no_grad():
        results = [m(tokens, m.puzzle_vectors(ids), *m.initial_state(2, torch.float32)) for m in (model, found)]
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(expected, got, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_a_float16_artifact_gives_its_rounded_weights(tmp_path, name):
    model = make(SPECS[name])
    full, half = (recover(artifact_of(model, tmp_path / kind, kind))[0].state_dict() for kind in ("fp32", "fp16"))
    for tensor, value in full.items():
        torch.testing.assert_close(half[tensor], value, rtol=0, atol=2e-3 * float(value.abs().max()))


def test_int8_has_lost_the_weights(tmp_path):
    folder = artifact_of(make(SPECS["nano"]), tmp_path / "a", precision="int8")
    with pytest.raises(UserError, match=r"is an INT8 artifact: its float32 weights are gone\nexport the checkpoint"):
        recover(folder)
    other = write_singles_artifact(tmp_path / "b", Sudoku(2, 2))
    with pytest.raises(UserError, match=r"step.onnx is not as this version writes it"):
        recover(other)


def test_the_tensor_that_leaves_float16_is_named():
    model = make(SPECS["full without puzzle"])
    check = Puzzles.of(get_task("sudoku"), tokens_of(model.spec, 2).astype(np.uint8), called="random")
    fine = half_range(model, StepGraph(model.spec, weights(model), half=True).build(), check, 2)
    assert fine.failure() is None
    assert 0 < fine.largest < 1000
    with torch.no_grad():
        model.get_parameter("L_level.layers.1.mlp.gate_up_proj.weight").mul_(2000)
    found = half_range(model, StepGraph(model.spec, weights(model), half=True).build(), check, 2)
    failure = found.failure()
    assert failure is not None
    assert "'L_level.layers.1/Mul_" in failure  # silu(gate) * up
    assert "leaves the range of float16 (65,504) in step 1" in failure
