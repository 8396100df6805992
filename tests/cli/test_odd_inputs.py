"""Inputs that ended in "this is a bug in hrm-edge" (exit code 70): each is a clear error now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hrm_edge import zoo

CHECKPOINT = '{"schema_version": 1, "spec": {}, "files": {}}'


def run_folder(folder: Path, best: str) -> Path:
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "checkpoint.json").write_text(CHECKPOINT)
    (folder / "best.json").write_text(best)
    return folder


@pytest.mark.parametrize("best", ["[]", "null", "{}", '{"checkpoint": 5}', '{"checkpoint": {"a": 1}}'])
def test_a_best_file_that_names_nothing(run, tmp_path, best):
    done = run("info", run_folder(tmp_path / "run", best))
    assert (done.code, done.out) == (2, "")
    assert "best.json names no checkpoint" in done.err


@pytest.mark.parametrize("version", [99, "1", None, [1]])
def test_a_checkpoint_of_another_version(run, tmp_path, version):
    (tmp_path / "checkpoint.json").write_text(json.dumps({"schema_version": version, "spec": {}, "files": {}}))
    done = run("info", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"schema_version is {version}, this hrm-edge reads 1" in done.err


@pytest.mark.parametrize("batch", [0, -5])
def test_a_manifest_with_no_batch(run, tmp_path, batch):
    folder = tmp_path / "model"
    shutil.copytree(zoo.ZOO / "sudoku-nano", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"max_batch": batch}))
    done = run("solve", "0" * 81, "--model", folder)
    assert (done.code, "manifest.json: max_batch: " in done.err) == (2, True)


TEXTS = {"deep": b"[" * 200_000, "bytes": bytes(range(256)), "date": b"about: 2020-13-45\n", "key": b"? [a]\n: b\n"}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "words",
    [("bench", "sudoku-nano", "--protocol"), ("eval", "sudoku-nano", "--limit", "1", "--data"),
     ("bench", "--compare", "other.json"), ("solve",), ("models", "--from")],
    ids=" ".join,
)  # fmt: skip
def test_files_that_hold_something_else(run, tmp_path, text, words):
    (tmp_path / "x").write_bytes(TEXTS[text])
    done = run(*words, tmp_path / "x")
    assert (done.code, done.out) == (2, ""), done.err
    assert "This is a bug" not in done.err
