"""Models from elsewhere: pulled by name over a real server, checked by hash, never half there."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hrm_edge import zoo
from hrm_edge.api.pipeline import try_pipeline
from hrm_edge.cli.models import models
from hrm_edge.cli.solve import solve
from hrm_edge.errors import UserError
from hrm_edge.runtime import open_artifact
from hrm_edge.zoo import remote

NAME = "sudoku-elsewhere"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A location with one model; the user's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "shelf"
    shutil.copytree(zoo.folder_of("sudoku-nano") or "", folder / NAME)
    shutil.copyfile(zoo.ZOO / f"sudoku-nano{zoo.CARD}", folder / f"{NAME}{zoo.CARD}")
    remote.write_index(folder)
    return folder


class _Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.path not in {*self.server.endless, *self.server.announced}:
            super().do_GET()
            return
        self.send_response(200)
        if self.path in self.server.announced:
            self.send_header("Content-Length", str(self.server.announced[self.path]))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            while True:
                self.wfile.write(bytes(1 << 20))

    def copyfile(self, source, outputfile) -> None:
        """A file called cut.bin-like ends after half its bytes."""
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.path in self.server.cut else data)


@pytest.fixture
def server(shelf: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    handler = functools.partial(_Server, directory=str(shelf))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.cut, running.endless, running.announced = set(), set(), {}
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def left_over() -> list[str]:
    return sorted(path.name for path in zoo.pulled().glob("*")) if zoo.pulled().is_dir() else []


def test_a_pulled_model_is_found_by_name_and_opens(shelf, server):
    assert NAME not in zoo.names()
    result = CliRunner().invoke(models, ["--from", address(server), "--pull", NAME, "--json"])
    assert result.exit_code == 0, result.output
    assert zoo.folder_of(NAME) == Path(json.loads(result.stdout)["folder"])
    assert NAME in zoo.names()
    assert open_artifact(zoo.folder_of(NAME) or "")[1].task == "sudoku"
    assert zoo.card(NAME).task == "sudoku"


def test_a_folder_is_a_location_and_pulling_again_takes_what_changed(shelf):
    first = remote.pull(NAME, str(shelf))
    stamp = (first / "manifest.json").stat().st_mtime_ns
    remote.pull(NAME, str(shelf))
    assert (first / "manifest.json").stat().st_mtime_ns == stamp, "an unchanged model is not copied again"
    manifest = shelf / NAME / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "sudoku-nano"', '"name": "newer"'))
    remote.write_index(shelf)
    assert open_artifact(remote.pull(NAME, str(shelf)))[1].name == "newer"


def test_the_index_lists_what_is_there(shelf, server):
    result = CliRunner().invoke(models, ["--from", address(server)])
    assert result.exit_code == 0
    assert f"{NAME}: sudoku, nano, fp32" in result.output


def test_a_connection_that_ends_early_leaves_nothing(shelf, server):
    server.cut = {f"/{NAME}/step.onnx"}
    with pytest.raises(UserError, match=r"step.onnx: the connection ended after \d+ of \d+ bytes"):
        remote.pull(NAME, address(server))
    assert left_over() == []


def test_a_changed_file_is_named_and_leaves_nothing(shelf):
    file = shelf / NAME / "step.onnx"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"step.onnx: hash mismatch"):
        remote.pull(NAME, str(shelf))
    assert left_over() == []


def test_a_manifest_that_the_index_does_not_know_is_refused(shelf):
    manifest = shelf / NAME / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match=r"manifest.json: sha256 is .* index.json says"):
        remote.pull(NAME, str(shelf))
    assert left_over() == []


def test_a_manifest_cannot_write_outside_its_folder(shelf):
    manifest = shelf / NAME / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step.onnx"', '"../step.onnx"'))
    index = json.loads((shelf / "index.json").read_text())
    index["models"][NAME]["manifest_sha256"] = remote.sha256(manifest)
    (shelf / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"'../step.onnx' is no plain file name"):
        remote.pull(NAME, str(shelf))
    assert left_over() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pull", NAME], "--pull needs a place to pull from"),
        (["--from", "{shelf}", "--pull", "sudoku-elsewere"], f"did you mean '{NAME}'"),
        (["--from", "{shelf}/nowhere"], "has no index.json"),
        (["--from", "http://127.0.0.1:9/x"], "http://127.0.0.1:9/x/index.json: "),
        (["--from", "{server}/deeper"], "the server answers 404"),
        (["--index", "{shelf}/sudoku-elsewhere"], "holds no artifact folder"),
    ],
)
def test_what_goes_wrong_is_told(shelf, server, arguments, message):
    filled = [a.format(shelf=shelf, server=address(server)) for a in arguments]
    result = CliRunner().invoke(models, filled)
    assert isinstance(result.exception, UserError), result.output
    assert message in str(result.exception) + result.exception.hint
    assert left_over() == []


# -- hostile locations ----------------------------------------------------------------------------------------------


def change_index(shelf: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((shelf / "index.json").read_text())
    change(index["models"])
    (shelf / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../../../mine", "/tmp/mine", "..", "", ".hidden", "a/b", "a\\b", "a\nb", "x" * 300])
def test_a_name_that_is_no_plain_name_is_refused_and_removes_nothing(shelf, tmp_path, name):
    mine = tmp_path / "mine"
    shutil.copytree(zoo.ZOO / "sudoku-nano", mine)
    change_index(shelf, lambda found: found.update({name: found[NAME]}))
    result = CliRunner().invoke(models, ["--from", str(shelf), "--pull", name])
    assert isinstance(result.exception, UserError)
    assert "is no name of a model" in str(result.exception)
    assert (mine / "manifest.json").is_file()
    assert left_over() == []


def test_an_index_without_end_is_not_read_into_memory(server):
    server.endless = {"/index.json"}
    with pytest.raises(UserError, match=r"index.json is longer than the 4,194,304 bytes"):
        remote.read_index(address(server))
    server.endless, server.announced = set(), {"/index.json": 3 << 30}
    with pytest.raises(UserError, match=r"index.json is longer than"):
        remote.read_index(address(server))


def test_a_file_may_not_be_longer_than_announced(shelf, server):
    """An endless answer would fill the disk."""
    server.endless = {f"/{NAME}/step.onnx"}
    with pytest.raises(UserError, match=r"step.onnx is longer than the [\d,]+ bytes that it may have"):
        remote.pull(NAME, address(server))
    with open(shelf / NAME / "step.onnx", "ab") as stream:
        stream.write(b"more")
    with pytest.raises(UserError, match=r"step.onnx is longer than"):
        remote.pull(NAME, str(shelf))
    assert left_over() == []


def test_the_index_announces_what_the_manifest_lists(shelf):
    change_index(shelf, lambda found: found[NAME].update(bytes=17))
    with pytest.raises(UserError, match=r"announces 17 bytes, the manifest [\d,]+"):
        remote.pull(NAME, str(shelf))
    change_index(shelf, lambda found: found[NAME].update(bytes=1 << 60))
    with pytest.raises(UserError, match=r"has 1,152,921,504,607 MB, .* MB free"):
        remote.pull(NAME, str(shelf))
    assert left_over() == []


def test_a_failed_update_keeps_the_older_model(shelf, server):
    first = remote.pull(NAME, address(server))
    manifest = shelf / NAME / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "sudoku-nano"', '"name": "newer"'))
    remote.write_index(shelf)
    server.cut = {f"/{NAME}/step.onnx"}
    with pytest.raises(UserError, match="the connection ended"):
        remote.pull(NAME, address(server))
    assert open_artifact(first)[1].name == "sudoku-nano"
    assert left_over() == [NAME, f"{NAME}.card.json"]


def test_a_killed_pull_is_no_model_and_is_cleared_away(shelf, monkeypatch):
    killed = zoo.pulled() / f".{NAME}.abcdef.tmp"
    shutil.copytree(shelf / NAME, killed)
    os.utime(killed)  # the copy is as old as what was copied, and so would count as left
    shutil.copytree(shelf / NAME, zoo.pulled() / "without-its-card")
    assert all(not name.startswith(".") for name in zoo.names())
    assert "without-its-card" not in zoo.names()
    assert CliRunner().invoke(models, []).exit_code == 0
    remote.pull(NAME, str(shelf))
    assert killed.is_dir(), "it may be running"
    monkeypatch.setattr(remote, "LEFTOVER_S", -1.0)
    shutil.rmtree(zoo.pulled() / NAME)
    remote.pull(NAME, str(shelf))
    assert left_over() == [NAME, f"{NAME}.card.json", "without-its-card"]


def test_a_damaged_copy_is_pulled_again(shelf):
    folder = remote.pull(NAME, str(shelf))
    (folder / "step.onnx").write_bytes(b"torn")
    assert open_artifact(remote.pull(NAME, str(shelf)))[1].task == "sudoku"


def test_a_pulled_model_does_not_become_the_default(shelf):
    first = "a-first-by-name"
    shutil.copytree(shelf / NAME, shelf / first)
    shutil.copyfile(zoo.card_of(shelf / NAME), zoo.card_of(shelf / first))
    remote.write_index(shelf)
    remote.pull(first, str(shelf))
    assert zoo.names()[0] == first
    assert zoo.default_for("sudoku") == "sudoku-lattice"


PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"


@pytest.mark.parametrize("kind", ["empty", "hostile"])
def test_the_default_model_is_not_taken_from_the_current_folder(tmp_path, monkeypatch, kind):
    """What stands in the current folder under its name is used only where the user names it."""
    monkeypatch.chdir(tmp_path)
    default = zoo.default_for("sudoku") or ""
    Path(default).mkdir()
    if kind == "hostile":
        (tmp_path / default / "manifest.json").write_text("{}")
    assert CliRunner().invoke(solve, [PUZZLE]).exit_code == 0
    assert "solved a puzzle" in try_pipeline()
    named = CliRunner().invoke(solve, [PUZZLE, "--model", default])
    assert (named.exit_code == 0) == (kind == "empty")
