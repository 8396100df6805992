"""Models from elsewhere: pulled by name over a real server, checked by hash, never half there."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hrm_edge import zoo
from hrm_edge.cli.models import models
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

    def copyfile(self, source, outputfile) -> None:
        """A file called cut.bin-like ends after half its bytes."""
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.path in self.server.cut else data)


@pytest.fixture
def server(shelf: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    handler = functools.partial(_Server, directory=str(shelf))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.cut = set()
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
    with pytest.raises(UserError, match=r"lists '../step.onnx', which is no plain file name"):
        remote.pull(NAME, str(shelf))


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
    assert message in str(result.exception) + result.exception.mend
    assert left_over() == []
