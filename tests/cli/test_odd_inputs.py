"""Inputs that ended in "this is a bug in hrm-edge" (exit code 70): each is a clear error now."""

from __future__ import annotations

import json
import os
import shutil
import socket
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


def odd_file(folder: Path, kind: str, name: str) -> Path:
    """Make something at ``folder/name`` that is no file to read: reading it waits, never ends, or fills memory."""
    path = folder / name
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    return path


KINDS = {
    "device": "is a device, not a file", "pipe": "is a named pipe, not a file", "socket": "is a socket, not a file",
    "folder": "a folder stands where a file is needed", "sparse": "1,099,511,627,776 bytes or more",
}  # fmt: skip
READERS = {
    "recipe": ("x.yaml", ("info", "x.yaml")),
    "training": ("x.yaml", ("train", "x.yaml", "--out", "run")),
    "report": ("x.json", ("bench", "--compare", "x.json", "x.json")),
    "protocol": ("x.yaml", ("bench", "sudoku-nano", "--protocol", "x.yaml")),
    "puzzles": ("x.csv", ("eval", "sudoku-nano", "--data", "x.csv")),
    "picture": ("x.png", ("solve", "x.png")),
    "policy": ("x.yaml", ("export", "sudoku-nano", "--int8", "--policy", "x.yaml", "--out", "out")),
    "arc": ("x.json", ("data", "build", "arc", "--source", "x.json", "--out", "out")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_inputs_that_are_no_file(run, inside, reader, kind):
    name, words = READERS[reader]
    odd_file(inside, kind, name)
    done = run(*words)
    assert (done.code, done.out) == (2, ""), done.err
    assert "This is a bug" not in done.err
    if kind != "folder":  # which some commands take, and find empty
        assert KINDS[kind] in done.err


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_published_file_that_is_none(run, inside, kind):
    odd_file(inside, kind, "x.pt")
    done = run("info", "x.pt")
    assert (done.code, done.out) == (2, "")
    assert "no model 'x.pt'" in done.err


def test_a_file_of_proc_that_says_it_is_empty(run, inside):
    (inside / "x.yaml").symlink_to("/proc/self/pagemap")
    done = run("info", "x.yaml")
    assert (done.code, "bytes or more" in done.err) == (2, True), done.err


ALIASES = {
    "a loop": "task: &a [*a]\n",
    "billions": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
}


@pytest.mark.parametrize("text", ALIASES)
def test_a_recipe_whose_aliases_never_end(run, tmp_path, text):
    (tmp_path / "x.yaml").write_text(ALIASES[text])
    done = run("info", tmp_path / "x.yaml")
    assert (done.code, done.out) == (2, "")
    assert "more than 100,000 values or one that holds itself" in done.err


def test_a_recipe_may_use_aliases(run, tmp_path):
    text = "task: mini-sudoku\nvariant: nano\nmodel: {hidden: &n 64, heads: 4}\ntrain: {batch: *n}\n"
    (tmp_path / "x.yaml").write_text(text)
    assert run("info", tmp_path / "x.yaml").code == 0


@pytest.mark.parametrize("depth", [20, 400, "itself"])
def test_a_published_file_of_nested_dictionaries(run, tmp_path, depth):
    torch = pytest.importorskip("torch")
    tree: dict = {}
    tree = {"state_dict": tree} if depth == "itself" else tree
    if depth == "itself":
        tree["state_dict"] = tree
    else:
        for _ in range(depth):
            tree = {"state_dict": tree}
    torch.save(tree, tmp_path / "x.pt")
    done = run("info", tmp_path / "x.pt")
    assert (done.code, done.out) == (2, "")
    assert "is no model" in done.err
