"""A small real artifact: an ONNX step that solves Sudokus of naked singles, one round of deduction a step.

It is recurrent (z_h holds the digits found so far), counts its steps in z_l, and its answers can be foretold by
:func:`rounds_needed`, so everything from opening an artifact to the command line is tested on real files.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from hrm_edge.manifest import STATE_FILE, STEP_FILE, Gate, Manifest, Parity, Precision, write_manifest
from hrm_edge.runtime import ort
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, ModelSpec, step_io, variant_spec
from hrm_edge.tasks.base import Tokens
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import BLANK, FIRST_DIGIT, Sudoku
from hrm_edge.tasks.sudoku_board import geometry
from hrm_edge.tasks.sudoku_search import find_solutions
from tests.scripted import puzzles

OPSET = 18
Overrides = dict[str, tuple[int, list[int | str]]]


def singles_spec(task: Sudoku, **overrides: Any) -> ModelSpec:
    hidden = max(8, task.side + task.side % 2)
    return variant_spec(
        "nano",
        vocab=task.vocab,
        seq_len=task.seq_len,
        grid=task.grid,
        hidden=hidden,
        heads=2,
        grid_heads=False,
        **overrides,
    )


def peers_matrix(task: Sudoku) -> NDArray[np.float32]:
    matrix = np.zeros((task.seq_len, task.seq_len), np.float32)
    np.put_along_axis(matrix, geometry(task).peers, 1.0, axis=1)
    return matrix


def rounds_needed(task: Sudoku, puzzle: Tokens) -> int | None:
    """Steps until the singles artifact solves tokens [S] (at least 1); None where naked singles do not suffice."""
    digits, peers = puzzle.copy(), geometry(task).peers
    for rounds in range(1, task.seq_len + 2):
        found = digits.copy()
        for cell in np.flatnonzero(digits == BLANK):
            left = set(range(FIRST_DIGIT, task.vocab)) - set(digits[peers[cell]].tolist())
            if len(left) == 1:
                found[cell] = left.pop()
        if (found != BLANK).all():
            return rounds
        if (found == digits).all():
            return None
        digits = found
    raise AssertionError("each round fills a cell")


def singles_graph(task: Sudoku, spec: ModelSpec, dtype: type, overrides: Overrides | None = None) -> onnx.ModelProto:
    """The step; ``overrides`` replaces the declared (element type, shape) of an input or output by name."""
    side, s, d, p = task.side, task.seq_len, spec.hidden, spec.puzzle_tokens
    known = np.zeros((task.vocab, d), dtype)
    known[np.arange(FIRST_DIGIT, task.vocab), np.arange(side)] = 1
    to_logits = np.zeros((d, task.vocab), dtype)
    to_logits[np.arange(side), np.arange(FIRST_DIGIT, task.vocab)] = 1
    constants = {
        "known_table": known, "peers": peers_matrix(task).astype(dtype), "one": np.ones((), dtype),
        "digits": (np.arange(d) < side).astype(dtype), "last": np.array([-1]), "cells_and_last": np.array([1, 2]),
        "to_logits": to_logits, "pad_bias": (0.5 * (np.arange(task.vocab) == 0)).astype(dtype),
        "almost": np.array(s - 0.5, dtype), "begin": np.array([p]), "end": np.array([p + s]), "axis_1": np.array([1]),
        "padding": np.array([0, p, 0, 0, 0, 0]),
    }  # fmt: skip
    float_type = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    node = helper.make_node
    nodes = [
        node("Gather", ["known_table", "tokens"], ["known"]),
        node("Slice", ["z_h", "begin", "end", "axis_1"], ["cells"]),
        node("Max", ["known", "cells"], ["before"]),
        node("MatMul", ["peers", "before"], ["seen"]),
        node("Sub", ["digits", "seen"], ["unseen"]),
        node("Relu", ["unseen"], ["candidates"]),
        node("ReduceSum", ["candidates", "last"], ["count"], keepdims=1),
        node("Equal", ["count", "one"], ["is_single"]),
        node("Cast", ["is_single"], ["single"], to=float_type),
        node("ReduceSum", ["before", "last"], ["filled"], keepdims=1),
        node("Sub", ["one", "filled"], ["open"]),
        node("Mul", ["single", "open"], ["place"]),
        node("Mul", ["candidates", "place"], ["placed"]),
        node("Max", ["before", "placed"], ["after"]),
        node("Pad", ["after", "padding"], ["z_h_next"]),
        node("MatMul", ["after", "to_logits"], ["scores"]),
        node("Add", ["scores", "pad_bias"], ["logits_carry"]),
        node("Cast", ["logits_carry"], ["logits"], to=TensorProto.FLOAT),
        node("ReduceSum", ["after", "cells_and_last"], ["sum"], keepdims=0),
        node("Sub", ["sum", "almost"], ["q_carry"]),
        node("Cast", ["q_carry"], ["q_flat"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["q_flat", "axis_1"], ["q"]),
        node("Add", ["z_l", "one"], ["counted" if p else "z_l_next"]),
    ]
    if p:  # the puzzle vector becomes visible in z_l's leading positions
        constants["puzzle_shape"] = np.array([-1, p, d])
        constants["tail"] = np.array([0, 0, 0, 0, s, 0])
        nodes.append(node("Reshape", ["puzzle", "puzzle_shape"], ["leading"]))
        nodes.append(node("Pad", ["leading", "tail"], ["spread"]))
        nodes.append(node("Add", ["counted", "spread"], ["z_l_next"]))
    types = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT, "carry": float_type}
    infos = {name: (types[kind], list(shape)) for name, (kind, shape) in step_io(spec).items()} | (overrides or {})
    graph = helper.make_graph(
        nodes,
        "singles",
        [helper.make_tensor_value_info(name, *infos[name]) for name in STEP_INPUTS if name in infos],
        [helper.make_tensor_value_info(name, *infos[name]) for name in STEP_OUTPUTS],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def write_singles_artifact(
    folder: Path, task: Sudoku, *, precision: str = "fp32", max_batch: int = 64, gate_passed: bool = True,
    graph: onnx.ModelProto | None = None, state: dict[str, NDArray[Any]] | None = None, **spec_overrides: Any,
) -> Path:  # fmt: skip
    """Write the artifact, manifest last; ``graph`` or ``state`` replace the right ones in tests of refusals."""
    spec = singles_spec(task, **spec_overrides)
    folder.mkdir(parents=True)
    onnx.save(graph or singles_graph(task, spec, np.float16 if precision == "fp16" else np.float32), folder / STEP_FILE)
    tensors = {name: np.zeros(spec.hidden, np.float32) for name in ("z_h_init", "z_l_init")}
    if spec.puzzle_dim:
        rows = np.arange(spec.puzzles, dtype=np.float32)[:, None]
        tensors["puzzle_table"] = rows + np.arange(spec.puzzle_dim, dtype=np.float32) / 100
    save_file(tensors if state is None else state, folder / STATE_FILE)
    parity = Parity(
        steps=16,
        puzzles=8,
        logits_max_abs=0.0,
        logits_median_abs=0.0,
        logits_sqnr_db=90.0,
        carry_cosine=1.0,
        same_answers=1.0,
    )
    gate = Gate(passed=gate_passed, limits={"same_answers": 0.99}, failures=[] if gate_passed else ["too bad"])
    write_manifest(
        folder,
        Manifest(
            name="singles", task=task.name, precision=precision, spec=spec, opset=OPSET, max_batch=max_batch,
            parity=[parity], gate=gate,
        ),
    )  # fmt: skip
    return folder


def write_random_artifact(folder: Path, spec: ModelSpec, precision: Precision, task: str = "sudoku") -> Path:
    """As ``hrm-edge export`` writes it, of random weights, and without the comparison with torch."""
    import torch

    from hrm_edge.export.graph import StepGraph
    from hrm_edge.model.hrm import HRM
    from hrm_edge.quant.calibrate import activation_scales
    from hrm_edge.recipe import Quantization

    torch.manual_seed(0)
    model = HRM(spec).eval()
    weights = {name: tensor.numpy() for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items()}
    scales = None
    if precision == "int8":
        tokens = np.random.default_rng(0).integers(1, spec.vocab, (16, spec.seq_len)).astype(np.uint8)
        scales = activation_scales(model, as_puzzles(tokens), Quantization(observer="max"), 1)
    folder.mkdir(parents=True)
    graph = StepGraph(spec, weights, half=precision == "fp16", activation_scales=scales).build()
    onnx.save(graph, folder / STEP_FILE)
    state = {"z_h_init": weights["H_init"], "z_l_init": weights["L_init"]}
    if spec.puzzle_dim:
        rows = np.random.default_rng(1).standard_normal((spec.puzzles, spec.puzzle_dim))
        state["puzzle_table"] = rows.astype(np.float32)
    save_file(state, folder / STATE_FILE)
    gate = Gate(passed=True, limits={})
    write_manifest(
        folder,
        Manifest(name="a", task=task, precision=precision, spec=spec, opset=OPSET, max_batch=1024, gate=gate),
    )
    return folder


def as_puzzles(tokens: Tokens) -> Puzzles:
    """For what looks at the tokens alone."""
    return Puzzles.of(Sudoku(), tokens, called="made")


def exact_session(graph: bytes | str, threads: int = 0) -> onnxruntime.InferenceSession:
    """ONNX Runtime on any graph, its products in float32 where the 8-bit ones are not exact on this processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if ort.int8_arithmetic().products != "int8":
        options.add_session_config_entry(*ort.FLOAT_PRODUCTS)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def singles_puzzles(task: Sudoku, count: int, *, solvable: bool = True, seed: int = 0) -> tuple[Tokens, Tokens]:
    """``count`` proper puzzles [N, S] and their answers [N, S]; ``solvable``: whether naked singles solve them.

    Naked singles solve every minimal 4x4 puzzle that was tried: ask for others at 9x9 only.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[Tokens, Tokens]] = []
    for answer in itertools.cycle(puzzles(task, count, blanks=0, seed=seed)):
        if len(found) == count:
            break
        puzzle = answer.copy()
        for cell in rng.permutation(task.seq_len):
            fewer = puzzle.copy()
            fewer[cell] = BLANK
            if len(find_solutions(task, fewer).solutions) == 1 and (
                not solvable or rounds_needed(task, fewer) is not None
            ):
                puzzle = fewer
        if (rounds_needed(task, puzzle) is not None) == solvable:
            found.append((puzzle, answer))
    return np.stack([pair[0] for pair in found]), np.stack([pair[1] for pair in found])
