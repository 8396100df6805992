"""TRM checkpoints as published, made from the golden files, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import yaml

from hrm_edge.manifest import read_manifest
from hrm_edge.model.load import load_model
from hrm_edge.model.published import CONFIG
from tests.published import arrays_of, tensor, weights_of

PUBLISHED = "_orig_mod.model.inner."
Tensors = dict[str, "torch.Tensor"]


def arch_of(kind: str) -> dict[str, Any]:
    """The section of the config that the golden file was computed with, and what else the published one holds."""
    config = json.loads(str(arrays_of(f"trm_{kind}")["config_json"]))
    return {
        "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
        **{
            k: v
            for k, v in config.items()
            if k not in ("batch_size", "seq_len", "num_puzzle_identifiers", "vocab_size")
        },
    }


def tensors_of(kind: str, prefix: str = PUBLISHED, vocab: int = 6) -> Tensors:
    """The golden weights, their vocabulary cut to that of a 4x4 Sudoku, which has as many cells."""
    tensors = weights_of(arrays_of(f"trm_{kind}"))
    for name in ("embed_tokens.embedding_weight", "lm_head.weight"):
        tensors[name] = tensors[name][:vocab]
    return {prefix + name: tensor for name, tensor in tensors.items()}


def write_config(folder: Path, kind: str, *, ema: bool = True, **arch: Any) -> None:
    config = {"arch": {**arch_of(kind), **arch}, "data_paths": ["data/mini-sudoku-1k"], "ema": ema, "lr": 1e-4}
    (folder / CONFIG).write_text(yaml.safe_dump(config))


@pytest.fixture(params=["attention", "mixer"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, kind: str) -> Path:
    """As it is downloaded: ``step_300`` and ``all_config.yaml``."""
    torch.save(tensors_of(kind), tmp_path / "step_300")
    write_config(tmp_path, kind)
    return tmp_path


@pytest.mark.parametrize("name", ["", "step_300"])
def test_info_of_the_folder_and_of_the_file(run, folder, kind, name):
    done = run("info", folder / name, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    spec = document["spec"]
    assert document["checkpoint"]["task"] == "mini-sudoku"
    assert document["checkpoint"]["assumed"] is None
    assert "averaged ones: all_config.yaml says ema" in done.err
    assert (spec["variant"], spec["mixing"]) == {"attention": ("trm", "attention"), "mixer": ("trm-mixer", "mlp")}[kind]
    assert (spec["h_layers"], spec["l_layers"], spec["h_cycles"], spec["l_cycles"]) == (0, 2, 2, 3)
    assert (spec["puzzle_len"], spec["q_outputs"], spec["q_unused"]) == ({"attention": 2, "mixer": 4}[kind], 1, 1)
    assert document["parameters"]["tensors"] == 12


def test_the_loaded_model_gives_the_published_states(folder, kind):
    model = load_model(folder)[0]
    golden = arrays_of(f"trm_{kind}")
    inputs = torch.from_numpy(golden["eval_batch/inputs"].clip(max=5))
    ids = tensor(golden, "eval_batch/puzzle_identifiers")
    rows = (golden["eval_batch/inputs"] < 6).all(1)
    expected = golden["eval/step0/z_H"][rows]
    with torch.no_grad():
        z_h = model(inputs, model.puzzle_vectors(ids), *model.initial_state(len(ids), torch.float32))[0]
    np.testing.assert_allclose(z_h.numpy()[rows], expected, rtol=0, atol=1e-5)
    for name, published in tensors_of(kind, "").items():
        assert torch.equal(model.state_dict()[name], published), name


def test_eval_and_solve_take_it(run, folder, mini):
    done = run("eval", folder, "--data", mini / "plain.txt", "--limit", 2, "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["max_steps"] == 3
    done = run("solve", "0030400000020100", "--model", folder, "--views", 1)
    assert done.code == 1, "random weights solve nothing, and it says so"


@pytest.mark.parametrize(("precision", "floor_db"), [("fp32", 90), ("fp16", 40), ("int8", 10)])
def test_export_takes_the_file(run, folder, kind, trained, tmp_path, precision, floor_db):
    """Weights at random enlarge every rounding, so the gate may fail; then it says so, and the first step holds."""
    out, data = tmp_path / "artifact", trained.parent / "data"
    done = run("export", folder / "step_300", "--out", out, f"--{precision}", "--calibration", data)
    manifest = read_manifest(out)
    assert done.code == (0 if manifest.gate.passed else 1), done.err
    assert ("is marked; see its manifest.json" in done.err) == (done.code == 1)
    assert manifest.parity[0].logits_sqnr_db > floor_db
    assert (manifest.spec, manifest.precision) == (load_model(folder)[1].spec, precision)
    assert manifest.provenance["checkpoint"]["published"] == "step_300"
    if precision == "int8":
        done = run("eval", out, "--data", data, "--backend", "native")
        why = {"mixer": "it has mixing=mlp", "attention": "its hidden size of 32 is no multiple of 64"}[kind]
        assert (done.code, done.out) == (2, "")
        assert f"--backend native does not run artifact: {why}" in done.err
        assert "run it with --backend onnxruntime" in done.err


def test_bench_takes_the_file(run, folder, kind, mini, tmp_path):
    report_file = tmp_path / "report.json"
    options = ("--data", mini / "plain.txt", "--duration", "50ms", "--power", "none", "--json", report_file)
    done = run("bench", folder / "step_300", *options)
    assert done.code == 0, done.err
    report = json.loads(report_file.read_text())
    assert report["model"]["variant"] == {"mixer": "trm-mixer", "attention": "trm"}[kind]
    assert report["engine"]["backend"] == "torch-cpu"
    assert report["latency_ms"]["p50"] > 0
    assert "averaged ones: all_config.yaml says ema" in done.err


def test_real_sizes_without_a_config_say_what_was_assumed(run, tmp_path):
    """Zeros of the published shapes: no config tells cycles, steps or, with attention, heads and leading positions."""
    from hrm_edge.spec import buffer_shapes, parameter_shapes, variant_spec

    for variant, vocab, seq_len, cycles, also in (
        ("trm-mixer", 11, 81, (3, 6), ""),
        ("trm", 11, 81, (3, 6), "8 heads"),
        ("trm", 12, 900, (3, 4), "16 leading positions"),
    ):
        spec = variant_spec(variant, vocab=vocab, seq_len=seq_len)
        shapes = {**parameter_shapes(spec), **buffer_shapes(spec)}
        torch.save({f"model.inner.{name}": torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "trm.pt")
        done = run("info", tmp_path / "trm.pt", "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)["spec"]
        assert (found["variant"], found["seq_len"], found["puzzle_len"]) == (variant, seq_len, 16)
        assert (found["h_cycles"], found["l_cycles"], found["max_steps"]) == (*cycles, 16)
        assert f"cycles 3 x {cycles[1]}, 16 steps" in done.err
        assert also in done.err


@pytest.mark.parametrize("text", ["arch: trm\n", "arch: {name: trm, mlp_t: true, pos_encodings: rope}\n"])
def test_a_short_config(run, tmp_path, text):
    torch.save(tensors_of("mixer"), tmp_path / "step_5")
    (tmp_path / CONFIG).write_text(text)
    done = run("info", tmp_path, "--json")
    assert done.code == 2
    assert "for 6 tokens and 4 or 19 cells (of its 20 positions 16 or 1 hold the puzzle's vector)" in done.err
    done = run("info", tmp_path, "--json", "--task", "mini-sudoku")
    assert done.code == 0, done.err
    spec = json.loads(done.out)["spec"]
    assert (spec["puzzle_len"], spec["h_cycles"], spec["l_cycles"]) == (4, 3, 6)
    assert spec["positions"] == "none", "an MLP over positions reads no rotary ones"


# -- averages ---------------------------------------------------------------------------------------------------


def averages(kind: str) -> Tensors:
    """What the published average helper keeps: parameters, no buffers."""
    buffers = ("H_init", "L_init", "puzzle_emb.weights")
    return {k: v + 1 for k, v in tensors_of(kind).items() if not k.endswith(buffers)}


def test_averages_alone_take_the_buffers_of_the_checkpoint(run, folder, kind):
    torch.save(averages(kind), folder / "ema_300.pt")
    model, info, _ = load_model(folder / "ema_300.pt")
    trained = tensors_of(kind, "")
    assert torch.equal(model.H_init, trained["H_init"])
    assert torch.equal(model.lm_head.weight, trained["lm_head.weight"] + 1)
    assert "puzzle table are those of step_300" in str(info.weights)
    (folder / "step_300").unlink()
    done = run("info", folder / "ema_300.pt")
    assert done.code == 2
    assert "it holds averaged parameters (EMA) alone" in done.err
    assert "as step_300" in done.err


@pytest.mark.parametrize("wrapped", ["ema", "ema_state_dict", "shadow"])
def test_averages_beside_the_trained_weights(folder, kind, wrapped):
    content = averages(kind) if wrapped != "ema" else {"mu": 0.999, "shadow": averages(kind)}
    torch.save({"model": tensors_of(kind), wrapped: content, "step": 300}, folder / "step_300")
    model, info, _ = load_model(folder)
    assert torch.equal(model.lm_head.weight, tensors_of(kind, "")["lm_head.weight"] + 1)
    assert torch.equal(model.L_init, tensors_of(kind, "")["L_init"])
    assert "beside the trained ones" in str(info.weights)


# -- the wrong family -------------------------------------------------------------------------------------------


def two_stacks(kind: str) -> Tensors:
    tensors = tensors_of(kind)
    return tensors | {k.replace("L_level", "H_level"): v for k, v in tensors.items() if "L_level" in k}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "is an HRM (a stack of blocks for each level)"),
        ({"hidden_size": 512}, "says hidden_size: 512"),
        ({"name": "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1"}, "arch trm_singlez"),
        ({"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"}, "says that it is of HRM"),
        ({"mlp_t": "other"}, "says mlp_t"),
    ],
)
def test_another_model_than_the_config_says(run, tmp_path, kind, change, what):
    torch.save(tensors_of(kind) if change else two_stacks(kind), tmp_path / "step_1")
    if change.get("mlp_t"):
        change = {"mlp_t": kind != "mixer"}
    write_config(tmp_path, kind, **change)
    done = run("info", tmp_path, "--task", "mini-sudoku")
    assert (done.code, done.out) == (2, "")
    assert what in done.err


@pytest.mark.parametrize("task", [(), ("--task", "mini-sudoku")])
def test_another_number_of_leading_positions(run, tmp_path, kind, task):
    """Rotary positions do not tell how many are the puzzle's; the weights of an MLP over positions do."""
    torch.save(tensors_of(kind), tmp_path / "step_1")
    write_config(tmp_path, kind, puzzle_emb_len=7)
    done = run("info", tmp_path, *task)
    if kind == "attention":
        assert done.code == 0, done.err
        return
    assert (done.code, done.out) == (2, "")
    assert "is for 6 tokens and 13 cells (of its 20 positions 7 hold the puzzle's vector)" in done.err
    assert ("--task mini-sudoku has 6 tokens and 16 cells" in done.err) == bool(task)


def recipe(folder: Path, variant: str, init: Path, **model: Any) -> Path:
    options = {"hidden": 32, "heads": 4, "puzzle_dim": 32, "puzzle_len": 4, "h_cycles": 2, "l_cycles": 3, **model}
    content = {"task": "mini-sudoku", "variant": variant, "init": str(init), "model": options, "data": str(folder)}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**content, "train": {"batch": 4, "steps": 1, "compile": False}}))
    return path


@pytest.mark.parametrize(
    ("variant", "model", "what"),
    [
        ("full", {"h_layers": 2, "l_layers": 2, "puzzle_len": 0}, "is of a TRM (one stack of blocks for both levels)"),
        ("trm", {}, "with an MLP over 20 positions and hidden size 32"),
        ("trm-mixer", {"hidden": 64, "puzzle_dim": 64}, "and hidden size 32, a trm-mixer model"),
        ("trm-mixer", {"puzzle_len": 16}, "an MLP over 32 positions"),
        ("trm-mixer", {"l_layers": 3}, "has no tensor 'L_level.layers.2.mlp_t.gate_up_proj.weight'"),
    ],
)
def test_a_recipe_that_starts_from_another_family(run, tmp_path, trained, variant, model, what):
    (tmp_path / "published").mkdir()
    torch.save(tensors_of("mixer"), tmp_path / "published" / "step_1")
    write_config(tmp_path / "published", "mixer")
    path = recipe(tmp_path, variant, tmp_path / "published", **model)
    data = trained.parent / "data"
    done = run("train", path, "--set", f"data={data}", "--out", tmp_path / "run")
    assert done.code == 2, done.err
    assert what in done.err
