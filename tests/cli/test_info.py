"""``hrm-edge info``: the published parameter tables, every kind of MODEL, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from hrm_edge.checkpoint import CHECKPOINT, CHECKPOINTS
from hrm_edge.costs import weight_bytes
from hrm_edge.spec import parameter_shapes, variant_spec

FULL = {"hidden": 512, "heads": 8, "variant": "full"}


def table_of(document: dict) -> dict[str, int]:
    return {row["name"]: row["count"] for row in document["parameters"]["table"]}


def test_full_has_the_published_count(run):
    done = run("info", "full", "--vocab", 14, "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["parameters"]["trainable"] == 27_278_338
    assert document["parameters"]["tensors"] == 36
    assert document["kind"] == "variant"
    assert document["flops_per_step"] == pytest.approx(13.7e9, rel=0.01)
    assert {key: document["spec"][key] for key in FULL} == FULL
    eleven = json.loads(run("info", "full", "--json").out)
    assert eleven["parameters"]["trainable"] == 27_275_266
    assert (eleven["spec"]["vocab"], eleven["spec"]["seq_len"]) == (11, 81)


def test_reduced_has_the_published_table_line_by_line(run):
    document = json.loads(run("info", "reduced", "--vocab", 12, "--json").out)
    assert (document["parameters"]["trainable"], document["parameters"]["state_dict"]) == (5_667_597, 6_947_597)
    assert list(table_of(document).values()) == [
        3_072, 3_159_040, 2_369_280, 131_584, 513, 3_084, 1_024, 1_280_000,
    ]  # fmt: skip


def test_nano_is_under_a_million(run):
    assert json.loads(run("info", "nano", "--json").out)["parameters"]["trainable"] < 1_000_000


def test_bytes_per_precision_add_up():
    spec = variant_spec("reduced", vocab=12, seq_len=81)
    shapes = parameter_shapes(spec)
    count = sum(map(math.prod, shapes.values()))
    assert count == 5_667_597
    matrices = [
        s for n, s in shapes.items() if n[:7] in ("H_level", "L_level") and n.endswith("weight") and len(s) == 2
    ]
    assert len(matrices) == 7 * 4
    expected = sum(rows * columns + 4 * rows for rows, columns in matrices)
    expected += 4 * (count - sum(rows * columns for rows, columns in matrices))
    assert weight_bytes(spec) == {"fp32": 4 * count, "fp16": 2 * count, "int8": expected}


def test_the_table_for_people(run):
    done = run("info", "reduced", "--vocab", 12)
    assert done.code == 0
    for words in ("H<->L connections", "131,584", "5,667,597", "6,947,597", "GFLOP per ACT step", "int8 6.22 MB"):
        assert words in done.out
    assert done.out.splitlines()[-1].startswith("Next: hrm-edge train ")


def test_a_recipe(run, tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text("task: mini-sudoku\nvariant: nano\nmodel: {hidden: 64}\n")
    document = json.loads(run("info", path, "--json").out)
    assert document["kind"] == "recipe"
    assert (document["spec"]["hidden"], document["spec"]["seq_len"], document["spec"]["vocab"]) == (64, 16, 6)
    path.write_text("task: mini-sudoku\nvariant: nano\nmodle: {hidden: 64}\n")
    done = run("info", path)
    assert done.code == 2
    assert "unknown recipe key 'modle'" in done.err


def test_an_artifact(run, mini):
    document = json.loads(run("info", mini / "model", "--json").out)
    assert document["kind"] == "artifact"
    assert document["manifest"]["task"] == "mini-sudoku"
    assert set(document["manifest"]["files"]) == {"step.onnx", "state.safetensors"}
    done = run("info", mini / "model")
    assert "export gate passed" in done.out
    assert done.out.splitlines()[-1] == f"Next: hrm-edge bench {mini / 'model'} --data DATA"


def test_a_run_and_its_checkpoints(run, trained):
    document = json.loads(run("info", trained, "--json").out)
    assert document["kind"] == "checkpoint"
    assert document["spec"]["hidden"] == 16
    assert document["checkpoint"]["step"] in (1, 2)
    folder = document["checkpoint"]["path"]
    assert json.loads(run("info", folder, "--json").out)["checkpoint"] == document["checkpoint"]
    assert "hrm-edge export" in run("info", trained).out.splitlines()[-1]


def test_it_needs_no_torch_and_answers_at_once(trained):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from hrm_edge.cli.main import main\n"
        f"for model in ('full', {str(trained)!r}):\n    assert main(['info', model]) == 0\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


REFUSALS = [
    (["ful"], "no model 'ful': there is no such folder or file", "did you mean 'full'?"),
    (["nano", "--seq-len", "80"], "nano: Value error, grid_positions needs a task with a board", "--seq-len 81"),
    (["nano", "--vocab", "1"], "Invalid value for '--vocab': 1 is not in the range 2<=x<=256", ""),
    (["x.yaml"], "x.yaml: No such file or directory", ""),
    (["x.yaml", "--vocab", "11"], "--vocab and --seq-len are for a variant's name", "x.yaml has its own"),
]


@pytest.mark.parametrize(("arguments", "problem", "hint"), REFUSALS, ids=lambda value: str(value)[:30])
def test_refusals(run, inside, arguments, problem, hint):
    done = run("info", *arguments)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert hint in done.err


def test_a_damaged_checkpoint_description(run, tmp_path):
    foreign, empty = "was not written by hrm-edge: it has no schema_version", '{"schema_version": 1}'
    for text, words in (("{", "is not valid JSON"), ("{}", foreign), ("[]", foreign), (empty, "task: Field required")):
        (tmp_path / CHECKPOINT).write_text(text)
        done = run("info", tmp_path)
        assert done.code == 2
        assert words in done.err
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / CHECKPOINTS).mkdir()
    assert "holds no checkpoint" in run("info", tmp_path).err
