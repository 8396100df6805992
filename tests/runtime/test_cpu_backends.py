"""OpenVINO runs the same artifacts as ONNX Runtime, and the faster of the two is found by running both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.cli.main import main
from hrm_edge.errors import UserError
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, write_manifest
from hrm_edge.runtime import open_artifact, openvino, ort
from hrm_edge.runtime.choose import candidates
from hrm_edge.session import FRESH
from hrm_edge.solve import solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks.samples import sample_file
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import (
    rounds_needed,
    singles_graph,
    singles_puzzles,
    singles_spec,
    write_random_artifact,
    write_singles_artifact,
)

pytest.importorskip("openvino", reason="pip install 'hrm-edge[openvino]'")
MINI = Sudoku(2, 2)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_solves_as_onnxruntime_does(tmp_path, precision):
    folder = write_singles_artifact(tmp_path / "a", MINI, precision=precision)
    givens, answers = singles_puzzles(MINI, 8)
    session, _ = open_artifact(folder, threads=1, backend="openvino")
    assert session.backend == "openvino-cpu"
    for slots in (1, 3):  # the graph of one puzzle, and the one of a batch that shrinks to one
        found = solve(session, MINI, givens, slots=slots, max_steps=16)
        assert (found.answers == answers).all()
        assert found.steps.tolist() == [rounds_needed(MINI, puzzle) for puzzle in givens]


def test_a_carry_outlives_the_next_step(tmp_path):
    """Outputs are the caller's: a step may not overwrite what an earlier one gave."""
    session, _ = open_artifact(write_singles_artifact(tmp_path / "a", MINI), backend="openvino")
    givens, _ = singles_puzzles(MINI, 2)
    ids = np.zeros(2, np.int32)
    first, logits, _ = session.step(givens, ids, session.initial_carry(2))
    kept = [first[0].copy(), first[1].copy(), logits.copy()]
    session.step(givens[::-1], ids, session.initial_carry(2))
    assert all((a == b).all() for a, b in zip(kept, [*first, logits], strict=True))
    assert session.gather(first, np.array([1, FRESH]))[1][:, 0, 0].tolist() == [1, 0]


def test_bfloat16_only_where_asked_for(tmp_path):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    plain, _ = open_artifact(folder, backend="openvino")
    half, _ = open_artifact(folder, backend="openvino-bf16")
    assert (plain.backend, half.backend) == ("openvino-cpu", "openvino-cpu-bf16")
    assert plain._config["INFERENCE_PRECISION_HINT"] == "f32"  # type: ignore[attr-defined]
    assert half._config["INFERENCE_PRECISION_HINT"] == "bf16"  # type: ignore[attr-defined]
    givens, answers = singles_puzzles(MINI, 4)
    assert (solve(half, MINI, givens, max_steps=16).answers == answers).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("variant", ["full", "trm", "trm-mixer"])
def test_a_real_step_is_the_same_on_both(tmp_path, variant, precision):
    layers = {"full": {"h_layers": 1, "puzzle_dim": 0}}.get(variant, {"h_cycles": 1, "l_cycles": 1, "puzzle_dim": 64})
    spec = variant_spec(variant, vocab=MINI.vocab, seq_len=16, hidden=64, heads=2, l_layers=1, **layers)
    folder = write_random_artifact(tmp_path / "a", spec, precision, MINI.name)
    tokens = np.random.default_rng(0).integers(1, 6, (3, 16)).astype(np.uint8)
    found = []
    for backend in ("onnxruntime", "openvino"):
        session, _ = open_artifact(folder, backend=backend)
        found.append(session.step(tokens, np.zeros(3, np.int32), session.initial_carry(3))[1])
    # INT8: the same integers; what is left is the order of float sums, and a rare rounding to the next integer
    limit = {"fp32": 1e-4, "fp16": 0.02 * np.abs(found[0]).max(), "int8": 0.05 * np.abs(found[0]).max()}[precision]
    assert np.abs(found[0] - found[1]).max() < limit


def test_the_choice_measures_every_way_and_says_so(tmp_path):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    ways = candidates(folder, manifest)
    assert {way.backend for way in ways} == {"onnxruntime", "openvino"}
    assert [way.step_ms for way in ways] == sorted(way.step_ms for way in ways)
    assert all(way.step_ms > 0 for way in ways)
    assert {way.threads for way in candidates(folder, manifest, threads=1)} == {1}
    session, _ = open_artifact(folder, backend="auto")
    assert session.chosen is not None  # type: ignore[attr-defined]
    assert "ms a step (" in session.chosen  # type: ignore[attr-defined]
    session, _ = open_artifact(folder, backend="auto", slots=4)
    assert "ms a step of 4 puzzles (" in session.chosen  # type: ignore[attr-defined]


def test_the_report_says_how_it_was_chosen(tmp_path):
    folder, out = write_singles_artifact(tmp_path / "a", MINI), tmp_path / "report.json"
    command = ["eval", str(folder), "--data", str(sample_file("mini-sudoku")), "--limit", "8", "--slots", "4"]
    assert main([*command, "--backend", "auto", "--json", str(out)]) == 0
    engine = json.loads(out.read_text())["engine"]
    assert "ms a step of 4 puzzles (" in engine["chosen"]
    assert engine["version"] != "unknown"
    assert main([*command, "--backend", "onnxruntime", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["engine"]["chosen"] is None


def test_a_backend_that_refuses_is_no_candidate(tmp_path, monkeypatch):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())

    def refuse(path: Path) -> None:
        raise UserError("openvino refuses it", "")

    monkeypatch.setattr(openvino, "_read", refuse)
    assert {way.backend for way in candidates(folder, manifest)} == {"onnxruntime"}
    monkeypatch.setattr(ort, "_load", lambda *given: refuse(folder))
    with pytest.raises(UserError, match="refuses it"):  # the one that is always there: its reason is told
        candidates(folder, manifest)


def test_a_graph_that_openvino_refuses_is_named(tmp_path):
    graph = singles_graph(MINI, singles_spec(MINI), np.float32)
    node = next(node for node in graph.graph.node if node.op_type == "Relu")
    node.op_type, node.domain, node.name = "Unheard", "of.nobody", "the_odd_one"
    graph.opset_import.add(domain="of.nobody", version=1)
    folder = write_singles_artifact(tmp_path / "a", MINI, graph=graph)
    with pytest.raises(UserError, match=r"openvino .* refuses it: .*of.nobody.Unheard\n.*--backend onnxruntime"):
        open_artifact(folder, backend="openvino")
    with pytest.raises(UserError, match=r"step.onnx: onnxruntime .* refuses it: .*Unheard"):
        open_artifact(folder, backend="onnxruntime")


def test_without_openvino(tmp_path, monkeypatch):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        UserError,
        match=r"which --backend openvino needs\npip install 'hrm-edge\[openvino\]'",
    ):
        open_artifact(folder, backend="openvino")


def test_a_file_that_is_no_graph(tmp_path):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    (folder / STEP_FILE).write_bytes(b"no graph")
    write_manifest(folder, Manifest.model_validate_json((folder / MANIFEST).read_text()))
    with pytest.raises(UserError, match=r"step.onnx: openvino .* refuses it"):
        open_artifact(folder, backend="openvino")
