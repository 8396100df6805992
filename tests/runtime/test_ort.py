"""Artifacts run by the real ONNX Runtime; every refusal by its words."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto

from hrm_edge.errors import UserError
from hrm_edge.manifest import MANIFEST, STATE_FILE, STEP_FILE, Manifest, write_manifest
from hrm_edge.runtime import open_artifact
from hrm_edge.session import FRESH, wants_to_halt
from hrm_edge.solve import solve
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import rounds_needed, singles_graph, singles_puzzles, singles_spec, write_singles_artifact

MINI = Sudoku(2, 2)
NINE = Sudoku(3, 3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("task", [MINI, NINE], ids=lambda task: task.name)
def test_an_artifact_solves(tmp_path, task, precision):
    session, manifest = open_artifact(write_singles_artifact(tmp_path / "a", task, precision=precision), threads=1)
    givens, answers = singles_puzzles(task, 12)
    needed = [rounds_needed(task, puzzle) for puzzle in givens]
    assert len(set(needed)) > 1
    assert (manifest.task, manifest.precision, session.backend) == (task.name, precision, "onnxruntime-cpu")
    for halt in ("rules", "head"):
        found = solve(session, task, givens, halt=halt, slots=5, max_steps=task.seq_len)
        assert (found.answers == answers).all()
        assert found.verified.all()
        assert found.steps.tolist() == needed
        assert found.halted_by == [halt] * 12


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_step_and_gather(tmp_path, precision):
    """Types, shapes, the initial state per slot, rows moved with what they hold (z_l counts the steps)."""
    folder = write_singles_artifact(tmp_path / "a", MINI, precision=precision)
    session, manifest = open_artifact(folder)
    givens, _ = singles_puzzles(MINI, 4)
    dtype = np.float16 if precision == "fp16" else np.float32
    carry = session.initial_carry(4)
    assert [level.dtype for level in carry] == [dtype, dtype]
    ids = np.zeros(4, np.int32)
    for _ in range(3):
        carry, logits, q = session.step(givens, ids, carry)
    assert (logits.dtype, logits.shape) == (np.float32, (4, 16, manifest.spec.vocab))
    assert (q.dtype, q.shape) == (np.float32, (4, 1))
    assert wants_to_halt(q).tolist() == [rounds_needed(MINI, puzzle) <= 3 for puzzle in givens]
    kept = [carry[0][0].copy(), carry[0][2].copy()]
    carry = session.gather(carry, np.array([2, FRESH, 0]))  # moved and shrunk
    assert carry[1][:, 0, 0].tolist() == [3, 0, 3]
    assert (carry[0][0] == kept[1]).all()
    assert (carry[0][2] == kept[0]).all()
    assert not carry[0][1].any()
    carry = session.gather(carry, np.array([0, 1, FRESH]))  # refilled in place
    assert carry[1][:, 0, 0].tolist() == [3, 0, 0]
    carry = session.gather(carry, np.array([FRESH, 0, FRESH, FRESH, 1]))  # grown
    assert carry[1][:, 0, 0].tolist() == [0, 3, 0, 0, 0]
    carry, _, _ = session.step(np.repeat(givens[:1], 5, axis=0), np.zeros(5, np.int32), carry)
    assert carry[1][:, 0, 0].tolist() == [1, 4, 1, 1, 1]


def test_initial_state_is_the_files(tmp_path):
    start = {"z_h_init": np.arange(8, dtype=np.float32), "z_l_init": -np.arange(8, dtype=np.float32)}
    session, _ = open_artifact(write_singles_artifact(tmp_path / "a", MINI, state=start))
    z_h, z_l = session.initial_carry(2)
    assert z_h.shape == z_l.shape == (2, 16, 8)
    assert (z_h == np.arange(8)).all()
    assert (z_l == -np.arange(8)).all()
    z_h, z_l = session.gather((z_h * 0, z_l * 0), np.array([0, FRESH]))
    assert not z_h[0].any()
    assert (z_l[1] == -np.arange(8)).all()


def test_puzzle_vectors_come_from_the_table_padded_with_zeros(tmp_path):
    session, manifest = open_artifact(write_singles_artifact(tmp_path / "a", MINI, puzzle_dim=10, puzzles=5))
    assert manifest.spec.puzzle_tokens == 2
    givens, answers = singles_puzzles(MINI, 2)
    carry, _, _ = session.step(givens, np.array([3, 1], np.int32), session.initial_carry(2))
    vectors = carry[1][:, :2].reshape(2, 16) - 1  # the graph adds the vector to z_l, and 1 everywhere
    np.testing.assert_allclose(vectors[:, :10], np.array([[3], [1]]) + np.arange(10) / 100, rtol=1e-5)
    assert not vectors[:, 10:].any()
    found = solve(session, MINI, givens, puzzle_ids=np.array([3, 1]))
    assert (found.answers == answers).all()


def test_a_batch_beyond_the_range_is_refused(tmp_path):
    session, _ = open_artifact(write_singles_artifact(tmp_path / "a", MINI, max_batch=2))
    with pytest.raises(ValueError, match=r"batch 3 is not in 1..2"):
        session.step(np.ones((3, 16), np.uint8), np.zeros(3, np.int32), session.initial_carry(3))
    givens, answers = singles_puzzles(MINI, 5)
    assert (solve(session, MINI, givens, slots=64).answers == answers).all()


# -- refusals ---------------------------------------------------------------------------------------------------


def test_no_artifact(tmp_path):
    with pytest.raises(UserError, match=r"is no artifact: manifest.json is missing"):
        open_artifact(tmp_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = [
    (STEP_FILE, flip, "step.onnx: hash mismatch, sha256 is"),
    (STATE_FILE, flip, "state.safetensors: hash mismatch, sha256 is"),
    (STEP_FILE, lambda path: path.write_bytes(path.read_bytes()[:-7]), "step.onnx has .* bytes, the manifest says"),
    (STATE_FILE, lambda path: path.unlink(), "state.safetensors is missing although the manifest lists it"),
    ("manifest.json", lambda path: path.write_text(path.read_text()[:50]), "manifest.json is not valid JSON"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES, ids=[words[:25] for *_, words in DAMAGES])
def test_a_torn_artifact_is_named(tmp_path, name, damage, words):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    damage(folder / name)
    with pytest.raises(UserError, match=words):
        open_artifact(folder)


def test_a_manifest_that_lists_no_step(tmp_path):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    text = (folder / "manifest.json").read_text().replace('"step.onnx"', '"other.onnx"')
    (folder / "manifest.json").write_text(text)
    (folder / STEP_FILE).rename(folder / "other.onnx")
    with pytest.raises(UserError, match=r"the manifest lists no step\.onnx"):
        open_artifact(folder)


GRAPHS = [
    (
        {"z_h": (TensorProto.FLOAT16, ["B", 16, 8])},
        r"input 'z_h' is float16, the manifest's model has float32",
    ),
    (
        {"z_l": (TensorProto.FLOAT, ["B", 16, "D"])},
        r"input 'z_l' is \[B, 16, D\], the manifest's model has \[B, 16, 8\]",
    ),
    ({"tokens": (TensorProto.INT32, [4, 16])}, "input 'tokens' has a fixed batch of 4"),
    ({"tokens": (TensorProto.INT64, ["B", 16])}, r"input 'tokens' is tensor\(int64\), the manifest's model has int32"),
]


@pytest.mark.parametrize(("overrides", "words"), GRAPHS, ids=lambda value: str(value)[:20])
def test_a_graph_of_another_model_is_named(tmp_path, overrides, words):
    spec = singles_spec(MINI)
    graph = singles_graph(MINI, spec, np.float16 if "z_h" in overrides else np.float32, overrides)
    if "z_h" in overrides:
        for value in [*graph.graph.input, *graph.graph.output]:
            if value.name in ("z_l", "z_h_next", "z_l_next"):
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
    folder = write_singles_artifact(tmp_path / "a", MINI, graph=graph)
    with pytest.raises(UserError, match=words):
        open_artifact(folder)


def test_a_missing_and_an_unknown_input_are_named(tmp_path):
    with_puzzle = singles_graph(MINI, singles_spec(MINI, puzzle_dim=8, puzzles=2), np.float32)
    with pytest.raises(UserError, match=r"step.onnx has an unknown input 'puzzle'"):
        open_artifact(write_singles_artifact(tmp_path / "a", MINI, graph=with_puzzle))
    plain = singles_graph(MINI, singles_spec(MINI), np.float32)
    folder = write_singles_artifact(tmp_path / "b", MINI, graph=plain, puzzle_dim=8, puzzles=2)
    with pytest.raises(UserError, match=r"step.onnx lacks the input 'puzzle'"):
        open_artifact(folder)


def test_a_file_that_is_no_graph(tmp_path):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    (folder / STEP_FILE).write_bytes(b"no graph")
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    write_manifest(folder, manifest)  # with the right hashes
    with pytest.raises(UserError, match=r"step.onnx: onnxruntime .* refuses it"):
        open_artifact(folder)


def test_a_state_of_another_size(tmp_path):
    ok = np.zeros(8, np.float32)
    with pytest.raises(UserError, match=r"'z_l_init' is missing, the manifest's model needs \[8\]"):
        open_artifact(write_singles_artifact(tmp_path / "a", MINI, state={"z_h_init": ok}))
    state = {"z_h_init": np.zeros(9, np.float32), "z_l_init": ok}
    with pytest.raises(UserError, match=r"'z_h_init' is \[9\], the manifest's model needs \[8\]"):
        open_artifact(write_singles_artifact(tmp_path / "b", MINI, state=state))
    folder = write_singles_artifact(tmp_path / "c", MINI, state={"z_h_init": ok, "z_l_init": ok}, puzzle_dim=4)
    with pytest.raises(UserError, match=r"'puzzle_table' is missing, the manifest's model needs \[1, 4\]"):
        open_artifact(folder)


def test_without_onnxruntime(tmp_path, monkeypatch):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed.*\npip install onnxruntime"):
        open_artifact(folder)
