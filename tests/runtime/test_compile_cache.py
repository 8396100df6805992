"""What a runtime makes of a step at load is kept, used, made anew where it is torn, and never needed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from hrm_edge.manifest import STEP_FILE
from hrm_edge.runtime import compile_cache, open_artifact, ort
from hrm_edge.runtime.ort import OrtSession
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import singles_puzzles, write_singles_artifact

MINI = Sudoku(2, 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hrm-edge" / "compiled"


def logits_of(session):
    givens, _ = singles_puzzles(MINI, 3)
    return session.step(givens, np.zeros(3, np.int32), session.initial_carry(3))[1]


def test_onnxruntime_keeps_its_form_of_a_step(tmp_path, cache):
    folder = write_singles_artifact(tmp_path / "a", MINI)
    session, manifest = open_artifact(folder)
    first = logits_of(session)
    (kept,) = (cache / "onnxruntime").iterdir()
    key = ort._cache_key(manifest, None)
    assert key is not None
    assert kept.name.startswith(key)
    (folder / STEP_FILE).rename(tmp_path / "away")  # what follows can only be the kept file
    assert (logits_of(OrtSession(folder, manifest)) == first).all()
    whole = kept.read_bytes()
    (tmp_path / "away").rename(folder / STEP_FILE)
    for damaged in (
        whole[:-100],
        whole.replace(b"MatMul", b"MatMux"),
        whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
    ):
        kept.write_bytes(damaged)
        assert (logits_of(OrtSession(folder, manifest)) == first).all()
        (kept,) = (cache / "onnxruntime").iterdir()
        assert kept.read_bytes() == whole  # made anew
    (folder / STEP_FILE).unlink()
    assert (logits_of(OrtSession(folder, manifest)) == first).all()


def test_another_step_is_another_file(tmp_path, cache):
    for task in (MINI, Sudoku(3, 3)):
        open_artifact(write_singles_artifact(tmp_path / task.name, task))
    assert len(list((cache / "onnxruntime").iterdir())) == 2


def test_no_cache_costs_time_only(tmp_path, cache):
    cache.parent.parent.write_text("a file stands where the user's cache would be")
    session, _ = open_artifact(write_singles_artifact(tmp_path / "a", MINI))
    assert np.isfinite(logits_of(session)).all()


def test_the_least_recently_used_go(tmp_path):
    for index in range(compile_cache.MOST_FILES + 3):
        (tmp_path / str(index)).touch()
        os.utime(tmp_path / str(index), (index, index))
    compile_cache.prune(tmp_path)
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == list(range(3, compile_cache.MOST_FILES + 3))
