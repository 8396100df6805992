"""A published checkpoint, made from the golden file under its published names, through the real command line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import yaml
from safetensors.torch import save_file

from hrm_edge.api.open import PUBLISHED_CONFIG
from hrm_edge.model.load import load_model
from hrm_edge.model.published import CONFIG
from hrm_edge.model.state_dict import read_state_dict
from hrm_edge.report.schema import BenchReport, EvalReport
from hrm_edge.tasks.samples import sample_file
from tests.published import arrays_of, weights_of

ARCH = {
    "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", "loss": {"loss_type": "stablemax_cross_entropy"},
    "H_cycles": 2, "L_cycles": 2, "H_layers": 2, "L_layers": 1, "hidden_size": 64, "num_heads": 2, "expansion": 4,
    "pos_encodings": "rope", "puzzle_emb_ndim": 64, "halt_max_steps": 3, "halt_exploration_prob": 0.1,
}  # fmt: skip
PUZZLE = "0" * 81
Tensors = dict[str, "torch.Tensor"]


def published(prefix: str = "_orig_mod.model.inner.", rows: int = 3) -> Tensors:
    """The golden weights under published names, with a puzzle table of ``rows`` rows."""
    tensors = weights_of(arrays_of("hrm_v1_rope"))
    tensors["puzzle_emb.weights"] = torch.from_numpy(np.resize(tensors["puzzle_emb.weights"].numpy(), (rows, 64)))
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


def write_config(folder: Path, data_path: str = "data/sudoku-extreme-1k-aug-1000", **arch: Any) -> None:
    config = {"arch": {**ARCH, **arch}, "data_path": data_path, "epochs": 20000, "lr": 7e-5}
    (folder / CONFIG).write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is downloaded: ``step_300`` and ``all_config.yaml``. Read it only."""
    path = tmp_path_factory.mktemp("published")
    torch.save(published(), path / "step_300")
    write_config(path)
    return path


@pytest.mark.parametrize("name", ["", "step_300"])
def test_info_of_the_folder_and_of_the_file(run, folder, name):
    done = run("info", folder / name, "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["kind"] == "published"
    assert document["parameters"]["tensors"] == 16
    assert document["checkpoint"] == {
        "path": str(folder / "step_300"), "task": "sudoku", "published": "step_300", "step": 300, "assumed": None,
    }  # fmt: skip
    spec = document["spec"]
    assert (spec["heads"], spec["h_layers"], spec["l_layers"], spec["max_steps"]) == (2, 2, 1, 3)
    assert (spec["vocab"], spec["seq_len"], spec["puzzles"], spec["q_outputs"], spec["positions"]) == (
        11, 81, 3, 2, "rope",
    )  # fmt: skip


@pytest.fixture(scope="module")
def artifact(folder, tmp_path_factory) -> Path:
    from hrm_edge.cli.main import main

    out = tmp_path_factory.mktemp("artifact") / "out"
    assert main(["export", str(folder), "--out", str(out), "--puzzles", "32"]) == 0
    return out


def test_export_eval_bench_and_solve_take_it(run, folder, artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["task"] == "sudoku"
    assert manifest["gate"]["passed"]
    assert manifest["provenance"]["checkpoint"] == {"published": "step_300", "step": 300, "assumed": None}
    answers = []
    for model, kind in ((folder, "checkpoint"), (artifact, "artifact")):
        done = run("eval", model, "--data", sample_file("sudoku"), "--limit", 8, "--json", "-")
        assert done.code == 0, done.err
        report = EvalReport.model_validate_json(done.out)
        assert (report.count, report.model.kind, report.max_steps) == (8, kind, 3)
        answers.append((report.exact_accuracy, report.mean_steps))
    assert answers[0] == answers[1]
    done = run("bench", folder / "step_300", "--duration", "0.1s", "--limit", 4, "--json", "-")
    assert BenchReport.model_validate_json(done.out).engine.backend == "torch-cpu"
    puzzle = next(line for line in Path(sample_file("sudoku")).read_text().splitlines() if line[0] in "0123456789")
    done = run("solve", puzzle[:81], "--model", folder, "--views", 1)
    assert done.code == 1, "random weights solve nothing, and it says so"
    assert "1 of 1 puzzles not solved" in done.err


@pytest.mark.parametrize("prefix", ["model.inner.", "_orig_mod.model.inner.", "module.model.inner.", ""])
@pytest.mark.parametrize("rows", [1, 5000])
def test_every_prefix_and_any_table_load_to_the_same_model(tmp_path, prefix, rows):
    torch.save(published(prefix, rows), tmp_path / "any name.pt")
    write_config(tmp_path)
    model, info, _ = load_model(tmp_path / "any name.pt")
    assert (info.spec.puzzles, len(model.puzzle_emb.weights)) == (rows, rows)
    for name, tensor in published("").items():
        if name != "puzzle_emb.weights":
            assert torch.equal(model.state_dict()[name], tensor), name


def other_forms(path: Path, form: str) -> Path:
    tensors = published()
    file = path / ("model.safetensors" if form == "safetensors" else "model.pt")
    if form == "safetensors":
        save_file(tensors, file)
    elif form == "bf16":
        torch.save({name: tensor.bfloat16() for name, tensor in tensors.items()}, file)
    else:
        wrapped = {"epoch": 3, "state_dict": tensors} if form == "wrapped" else tensors
        torch.save(wrapped, file, _use_new_zipfile_serialization=form != "legacy")
    return file


@pytest.mark.parametrize("form", ["safetensors", "legacy", "wrapped", "bf16"])
def test_other_forms_of_the_file(tmp_path, form):
    file = other_forms(tmp_path, form)
    write_config(tmp_path)
    model = load_model(file)[0]
    assert model.lm_head.weight.dtype == torch.float32
    tolerance = 1e-2 if form == "bf16" else 0
    torch.testing.assert_close(model.H_init, published("")["H_init"], rtol=tolerance, atol=0)


def test_learned_positions_and_a_folder_named_checkpoint(tmp_path):
    tensors = published() | {"_orig_mod.model.inner.embed_pos.embedding_weight": torch.ones(82, 64)}
    torch.save(tensors, tmp_path / "checkpoint")
    torch.save(published(), tmp_path / "step_9")
    write_config(tmp_path, pos_encodings="learned", L_cycles=8, halt_max_steps=8)
    model, info, file = load_model(tmp_path)
    assert file == tmp_path / "checkpoint"
    assert (info.spec.positions, info.spec.l_cycles, info.spec.max_steps, info.step) == ("learned", 8, 8, None)
    assert model.embed_pos.get_parameter("embedding_weight").shape == (82, 64)


def test_without_a_config_the_sizes_are_the_published_ones_and_it_is_said(run, tmp_path):
    torch.save(published(), tmp_path / "hrm.pt")
    done = run("info", tmp_path / "hrm.pt", "--json")
    assert done.code == 0
    spec = json.loads(done.out)["spec"]
    assert (spec["heads"], spec["h_cycles"], spec["l_cycles"], spec["max_steps"]) == (1, 2, 2, 16)
    assert f"no {CONFIG} beside" in done.err
    assert "taken as published: 1 heads, cycles 2 x 2, 16 steps" in done.err


def with_vocab(vocab: int) -> Tensors:
    tensors = published("model.inner.")
    for name in ("embed_tokens.embedding_weight", "lm_head.weight"):
        tensors[f"model.inner.{name}"] = torch.zeros(vocab, 64)
    return tensors


def test_the_task_is_told_by_vocabulary_or_data_or_flag(run, tmp_path):
    def task_of(*flags: str) -> str:
        done = run("info", tmp_path / "m.pt", "--json", *flags)
        return json.loads(done.out)["checkpoint"]["task"] if done.code == 0 else done.err

    torch.save(with_vocab(12), tmp_path / "m.pt")
    assert task_of() == "arc"
    torch.save(with_vocab(6), tmp_path / "m.pt")
    assert "m.pt is for 6 tokens, which may be of maze or of mini-sudoku" in task_of()
    assert "say which with --task" in task_of()
    assert task_of("--task", "maze") == "maze"
    assert task_of("--task", "mini-sudoku") == "mini-sudoku"
    assert "has 11 tokens and 81 cells" in task_of("--task", "sudoku")
    write_config(tmp_path, "data/maze-30x30-hard-1k")
    assert task_of() == "maze"
    torch.save(with_vocab(7), tmp_path / "m.pt")
    assert "may be of no task known by name" in task_of()
    assert task_of("--task", "sudoku-2x3") != "sudoku-2x3"  # 8 tokens
    assert "unknown task 'mase'" in task_of("--task", "mase")


# -- refusals ---------------------------------------------------------------------------------------------------


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/tmp/hrm-edge-was-here", "w"))


def changed(**shapes: Any) -> Tensors:
    tensors = published("model.inner.")
    for name, value in shapes.items():
        key = "model.inner." + name.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = torch.zeros(value)
    return tensors


DOWN = "H_level__layers__1__mlp__down_proj__weight"
BAD_FILES: list[tuple[Any, str, str]] = [
    ({"model": Hostile()}, "holds pickled objects (", "torch.save(model.state_dict(), FILE)"),
    ({"layer": torch.nn.Linear(2, 2)}, "holds pickled objects (torch.nn.modules.linear.Linear)", "can run code"),
    ([1, 2], "it holds no state dict", "torch.save"),
    ({}, "it holds no state dict", "torch.save"),
    (
        {"weight": torch.zeros(2)},
        "is no published HRM or TRM: it has no matrix 'embed_tokens.embedding_weight'",
        "model.inner",
    ),
    (changed(**{DOWN: None}), "has no tensor 'H_level.layers.1.mlp.down_proj.weight'", "damaged"),
    (changed(**{DOWN: (64, 9)}), "'H_level.layers.1.mlp.down_proj.weight' is [64, 9], a full model needs", CONFIG),
    (changed(spare__weight=(2, 2)), "has tensor 'spare.weight', which a full model does not have", CONFIG),
    (changed(H_init=None), "has no tensor 'H_init'", "damaged"),
]


@pytest.mark.parametrize(("content", "problem", "hint"), BAD_FILES, ids=[problem[:40] for _, problem, _ in BAD_FILES])
def test_bad_files(run, tmp_path, content, problem, hint):
    torch.save(content, tmp_path / "m.pt")
    write_config(tmp_path)
    for verb in (["info"], ["eval", "--data", sample_file("sudoku")], ["export", "--out", tmp_path / "out"]):
        done = run(verb[0], tmp_path / "m.pt", *verb[1:])
        assert (done.code, done.out) == (2, "")
        assert problem in done.err
        assert hint in done.err
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/hrm-edge-was-here").exists()


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "bf16"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(run, tmp_path, form, share):
    file = other_forms(tmp_path, form)
    file.write_bytes(cut(share)(file.read_bytes()))
    done = run("info", file)
    assert (done.code, done.out) == (2, "")
    assert f"{file} " in done.err
    assert "again" in done.err, "download or copy"


@pytest.mark.parametrize("part", ["tensor", "pickle"])
def test_a_flipped_bit_is_noticed(run, tmp_path, part):
    """torch writes a checksum of every part of the file and reads none."""
    tensors = published("")
    torch.save(tensors, tmp_path / "m.pt")
    content = bytearray((tmp_path / "m.pt").read_bytes())
    wanted = tensors["lm_head.weight"].numpy().tobytes()[:32] if part == "tensor" else b"lm_head.weight"
    content[content.index(wanted) + 9] ^= 1
    (tmp_path / "m.pt").write_bytes(content)
    done = run("info", tmp_path / "m.pt")
    assert (done.code, done.out) == (2, "")
    assert "m.pt is damaged: Bad CRC-32 for file" in done.err
    assert "download it again" in done.err


def test_a_file_written_without_checksums_is_read(tmp_path):
    tensors = published()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors, tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state_dict(tmp_path / "m.pt").keys() == tensors.keys()


@pytest.mark.parametrize("content", [b"hello\n", b"\x80\x04K\x01.", pickle.dumps({"a": [1]}), b"PK\x03\x04"])
def test_files_of_other_kinds(run, tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    done = run("info", tmp_path / "m.pt")
    assert (done.code, done.out) == (2, "")
    assert "m.pt is no model" in done.err


BAD_CONFIGS = [
    ("arch: [", "all_config.yaml is not valid YAML"),
    ("arch: {H_cycles: many}", "all_config.yaml: arch.H_cycles: "),
    ("- 1", "all_config.yaml: "),
    ("arch: {num_heads: 3}", "hidden=64 is not divisible by heads=3"),
    ("arch: {num_heads: 2, pos_encodings: learned}", "has no tensor 'embed_pos.embedding_weight'"),
    ("arch: {num_heads: 2, expansion: 8}", "'H_level.layers.0.mlp.gate_up_proj.weight' is [512, 64]"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_CONFIGS, ids=[problem[:40] for _, problem in BAD_CONFIGS])
def test_bad_configs(run, folder, tmp_path, text, problem):
    shutil.copy(folder / "step_300", tmp_path)
    (tmp_path / CONFIG).write_text(text)
    done = run("info", tmp_path / "step_300")
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert CONFIG in done.err


def test_a_folder_without_the_file(run, tmp_path):
    write_config(tmp_path)
    for verb in (["info"], ["eval", "--data", sample_file("sudoku")], ["export", "--out", tmp_path / "out"]):
        done = run(verb[0], tmp_path, *verb[1:])
        assert (done.code, done.out) == (2, "")
        assert f"{tmp_path} has {CONFIG} and no checkpoint" in done.err


def test_heads_that_cannot_be_told(run, tmp_path):
    small = {name: tensor[..., :48] if tensor.shape[-1] == 64 else tensor for name, tensor in published().items()}
    torch.save(small, tmp_path / "m.pt")
    done = run("info", tmp_path / "m.pt")
    assert done.code == 2
    assert "how many heads a model of 48 has cannot be told" in done.err
    assert f"put the {CONFIG} beside it" in done.err


def test_data_of_another_vocabulary_or_length(run, folder, trained):
    data = trained.parent / "data"
    for arguments in (
        ("eval", folder, "--data", data),
        ("bench", folder, "--data", data),
        ("export", folder, "--out", data / "out", "--int8", "--calibration", data),
    ):
        done = run(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "is a data folder of another task: expected sudoku, found mini-sudoku" in done.err
        assert "give the data folder that belongs to the model" in done.err
    assert not (data / "out").exists()


def test_one_file_of_our_own_checkpoint_and_a_task_where_it_is_known(run, trained, mini):
    file = next(trained.glob("checkpoints/*/model.safetensors"))
    done = run("info", file)
    assert done.code == 2
    assert f"name the folder: {file.parent}" in done.err
    for model in (trained, mini / "model", "full"):
        done = run("info", model, "--task", "sudoku")
        assert done.code == 2
        assert f"--task is for a published state-dict file, {model} says its own" in done.err
    for verb in (["eval", "--data", mini / "plain.txt"], ["bench"], ["export", "--out", trained / "out"]):
        done = run(verb[0], trained, "--task", "sudoku", *verb[1:])
        assert done.code == 2
        assert "says its own" in done.err


def test_the_name_of_the_config_is_the_readers():
    assert PUBLISHED_CONFIG == CONFIG
