"""The native step of a lattice: float32 as ONNX Runtime and torch have it, the same bits however it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hrm_edge import zoo
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import UserError
from hrm_edge.export.recover import recover
from hrm_edge.manifest import read_manifest
from hrm_edge.model.session import TorchSession
from hrm_edge.runtime import open_artifact, open_step
from hrm_edge.runtime.choose import candidates
from hrm_edge.runtime.native.session import why_unsupported
from hrm_edge.solve import solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks import get_task
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.samples import sample_file
from tests.artifacts import write_random_artifact
from tests.runtime.native import MARCHES, boards, changed, compiled_for, negate_the_logits, processor_runs, run

BOARD = {"vocab": 11, "seq_len": 81, "grid": (9, 9, 3, 3)}
LATTICE = variant_spec("lattice", **BOARD)
LATTICE_2X3 = variant_spec(  # cells, rows of a tile and threads divide in no way
    "lattice", vocab=8, seq_len=36, grid=(6, 6, 2, 3), symbol_width=64, expansion=1.25, l_layers=3, h_cycles=2
)
SPECS = {"lattice": LATTICE, "lattice 2x3": LATTICE_2X3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lattices")
    return {name: write_random_artifact(root / name, spec, "fp32") for name, spec in SPECS.items()}


def puzzles(count: int) -> Puzzles:
    path = sample_file("sudoku")
    assert path is not None
    return load_puzzles(path, get_task("sudoku"), count)


def assert_near(found, wanted, tolerance):
    """Compare each output: no value is further off than ``tolerance`` of their root mean square."""
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.sqrt(np.square(theirs).mean())


@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize("name", SPECS)
def test_a_lattice_in_float32_is_onnxruntimes(folders, monkeypatch, march, name):
    """Sums in another order are all that is different."""
    if not processor_runs(march):
        pytest.skip(f"this processor does not run {march}")
    manifest = read_manifest(folders[name])
    tokens, ids = boards(manifest.spec, 5)
    theirs = run(open_step(folders[name], manifest, 1, "onnxruntime"), tokens, ids, 1)
    compiled_for(march, monkeypatch)
    assert_near(run(open_step(folders[name], manifest, 2, "native"), tokens, ids, 1), theirs, 1e-4)


def test_the_shipped_lattice_is_the_torch_model():
    folder = zoo.folder_of("sudoku-lattice")
    assert folder is not None
    tokens, ids = puzzles(4).givens, np.zeros(4, np.int32)
    theirs = run(TorchSession(recover(folder)[0]), tokens, ids, 1)
    ours = run(open_step(folder, read_manifest(folder), 1, "native"), tokens, ids, 1)
    for found, wanted in zip(ours[2:], theirs[2:], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_lattice_with_large_states_stays_finite(folders):
    """silu of what no float32 exponential holds is the number itself, or zero."""
    session = open_step(folders["lattice"], read_manifest(folders["lattice"]), 1, "native")
    other = open_step(folders["lattice"], read_manifest(folders["lattice"]), 1, "onnxruntime")
    rng, (tokens, ids) = np.random.default_rng(0), boards(LATTICE, 2)
    carry = tuple((1e4 * rng.standard_normal((2, 81, LATTICE.hidden))).astype(np.float32) for _ in range(2))
    found, wanted = session.step(tokens, ids, carry), other.step(tokens, ids, carry)
    assert all(np.isfinite(array).all() for array in (*found[0], *found[1:]))
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-3 * np.abs(wanted[1]).max())


def test_neither_threads_nor_the_batch_change_a_bit():
    """Of the shipped model: its puzzles, not yet solved, tell every difference of a sum apart."""
    folder = zoo.folder_of("sudoku-lattice")
    assert folder is not None
    manifest, tokens, ids = read_manifest(folder), puzzles(5).givens, np.zeros(5, np.int32)
    want = run(open_step(folder, manifest, 1, "native"), tokens, ids, 2)
    for threads in (2, 3, 4, 81):
        session = open_step(folder, manifest, threads, "native")
        for found, expected in zip(run(session, tokens, ids, 2), want, strict=True):
            assert (found == expected).all()
        alone = run(session, tokens[1:2], ids[1:2], 2)
        assert all((a[0] == b[1]).all() for a, b in zip(alone, want, strict=True))


def test_boards_of_other_sizes_have_the_same_bits_on_any_number_of_threads(folders):
    manifest = read_manifest(folders["lattice 2x3"])
    tokens, ids = boards(LATTICE_2X3, 3)
    want = run(open_step(folders["lattice 2x3"], manifest, 1, "native"), tokens, ids, 2)
    found = run(open_step(folders["lattice 2x3"], manifest, 5, "native"), tokens, ids, 2)
    assert all((a == b).all() for a, b in zip(found, want, strict=True))


def test_the_shipped_lattice_solves_as_with_onnxruntime():
    folder = zoo.folder_of("sudoku-lattice")
    assert folder is not None
    task, given, found = get_task("sudoku"), puzzles(24).givens, []
    for backend in ("native", "onnxruntime"):
        session, _ = open_artifact(folder, threads=2, backend=backend)  # type: ignore[arg-type]
        found.append(solve(session, task, given, slots=16))
    ours, theirs = found
    both = ours.verified & theirs.verified
    assert both.mean() > 0.8
    assert (ours.answers[both] == theirs.answers[both]).all()
    assert (ours.verified == theirs.verified).mean() > 0.9  # a puzzle in doubt may go either way


def test_the_choice_tries_it(folders):
    ways = candidates(folders["lattice 2x3"], read_manifest(folders["lattice 2x3"]))
    assert "native" in {way.backend for way in ways}


# -- what it refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"symbol_width": 24}, "its symbols' width of 24 is no multiple of 32"),
        ({"expansion": 1.25}, "its MLP's size of 40 is no multiple of 16"),
    ],
)
def test_lattices_of_other_sizes(folders, options, why):
    spec = variant_spec("lattice", **BOARD, **options)
    assert why_unsupported(read_manifest(folders["lattice"]).model_copy(update={"spec": spec})) == why


def test_another_precision(folders):
    assert why_unsupported(read_manifest(folders["lattice"]).model_copy(update={"precision": "int8"})) == (
        "it is int8, not fp32"
    )


def change_an_activation(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Sigmoid")
    node.op_type = "Tanh"


def sum_over_other_axes(graph: onnx.GraphProto) -> None:
    """What rows send goes to columns."""
    node = next(node for node in graph.node if node.op_type == "ReduceSum")
    node.input[1] = "axes_1"


def give_blanks_a_logit(graph: onnx.GraphProto) -> None:
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == "before_symbols"]
    pads = onnx.numpy_helper.to_array(tensor).copy()
    pads[2], pads[5] = 1, 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(pads, "before_symbols"))


def drop_a_weight(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.name == "L_level.layers.0.pool_proj.weight":
            tensor.name = "another.weight"


def widen_a_weight(graph: onnx.GraphProto) -> None:
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == "L_level.layers.1.mlp.down_proj.weight"]
    wide = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))


def skip_a_residual(graph: onnx.GraphProto) -> None:
    node = [node for node in graph.node if node.op_type == "Add" and "layers.0" in node.name][-1]
    node.input[0] = node.input[1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (negate_the_logits, "it has a Neg more|its outputs are computed as"),
        (skip_a_residual, "is not the Add of"),
        (change_an_activation, "is not the Sigmoid of"),
        (sum_over_other_axes, "is not the ReduceSum of"),
        (give_blanks_a_logit, "its constant 'before_symbols' has another value"),
    ],
)
def test_a_graph_that_computes_something_else(folders, tmp_path, change, why):
    folder = changed(folders["lattice"], tmp_path / "a", change)
    with pytest.raises(UserError, match=rf"is not the graph that --backend native computes: .*({why})"):
        open_artifact(folder, backend="native")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (drop_a_weight, "the graph that --backend native computes: it has no 'L_level.layers.0.pool_proj.weight'"),
        (widen_a_weight, r"mlp.down_proj.weight' is float64 \[64, 32\], the manifest's model has float32 \[64, 32\]"),
    ],
)
def test_other_tensors(folders, tmp_path, change, why):
    folder = changed(folders["lattice"], tmp_path / "a", change)
    with pytest.raises(UserError, match=why):
        open_artifact(folder, backend="native")
