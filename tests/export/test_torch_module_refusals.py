"""What is refused before a saved torch module is loaded: whatever could do more than run an engine, and what is torn,
from elsewhere or of another engine. Nothing of it needs Torch-TensorRT.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_edge.cli.main import main
from hrm_edge.errors import UserError
from hrm_edge.export import torch_module
from hrm_edge.export.torch_module import _FIELDS, _check_valid, _look_through, _read_module, _Unexpected, open_module
from hrm_edge.files import write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.runtime.trt.identity import MODULE_FILE, SIDECAR_FILE, Engine, Machine, entry_of, read_engine
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import write_singles_artifact
from tests.runtime.simulated import ORIN, Device, add_engine, simulated_api

MINI = Sudoku(2, 2)

# -- what is not loaded ----------------------------------------------------------------------------------------------

PLAN = b"ftrt: a plan"
CALL = b"ctorch_tensorrt.dynamo.runtime._TRTEngine\n_reconstruct_trt_engine\n"
PROGRAM = {
    "graph_module": {"graph": {"nodes": [
        {"target": "torch.ops.tensorrt.execute_engine.default", "inputs": [{"name": "engine"}]},
        {"target": "_operator.getitem", "sizes": [{"expr_str": "Symbol('s30', positive=True, integer=True)"}]},
    ]}, "module_call_graph": [{"in_spec": '[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]'}]},
    "guards_code": ["L['z_h'].size()[0] == L['tokens'].size()[0]", "L['tokens'].size()[0] <= 64"],
    "torch_version": "2.13.0+cpu",
}  # fmt: skip


class Touch:
    """A pickle of it makes a file when it is loaded by anybody else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def fields(metadata: bytes = b"\x80\x02}.", plan: bytes = PLAN) -> list[Any]:
    found = ["9", "engine", "0%8%6%0%Orin", base64.b64encode(plan).decode(), "tokens", "output0", "0"]
    return [*found, base64.b64encode(metadata).decode(), *["0"] * (_FIELDS - 8)]


def record(given: list[Any]) -> bytes:
    """As Torch-TensorRT 2.13 writes an engine: its function called with the list."""
    return b"\x80\x02" + CALL + pickle.dumps(given, 2)[2:-1] + b"\x85R."


def native(given: list[Any]) -> bytes:
    """As its C++ runtime does: an archive with a pickle of the class and its state."""
    pickled = b"\x80\x02c__torch__.torch.classes.tensorrt\nEngine\n)\x81" + pickle.dumps(given, 2)[2:-1] + b"b."
    return zipped({"engine/data.pkl": pickled, "engine/version": b"3"})


def zipped(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return stream.getvalue()


def module_bytes(engine: bytes | None = None, program: Any = PROGRAM, **more: bytes) -> bytes:
    return zipped({
        "step/data/constants/opaque_obj_0": record(fields()) if engine is None else engine,
        "step/models/model.json": json.dumps(program).encode(),
        "step/data/constants/model_constants_config.json": b'{"config": {}}',
        "step/data/sample_inputs/model.pt": b"",
        "step/archive_version": b"0", "step/byteorder": b"little", "step/.data/version": b"3",
        **more,
    })  # fmt: skip


def test_what_torch_tensorrt_writes_is_accepted() -> None:
    expected = hashlib.sha256(PLAN).hexdigest()
    for data in (module_bytes(), module_bytes(native(fields()))):
        plan, anew = _look_through(data)
        assert plan == expected
        assert by_torch(anew) == by_torch(data)


def by_torch(data: bytes) -> dict[str, bytes]:
    """The records that torch's own reader finds."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    return {name: reader.get_record(name) for name in reader.get_all_records()}


def two_archives(seen: bytes, hidden: bytes) -> bytes:
    """One file of which Python's reader takes the archive ``seen`` and torch's takes ``hidden``.

    Python takes what stands before the last archive for something else and corrects all places by its length, torch
    takes the places as they are written. Both archives have the same layout.
    """
    assert len(seen) == len(hidden)
    return hidden[:-22] + seen


@pytest.mark.parametrize("where", ["the module", "the native engine"])
def test_an_archive_that_only_torch_sees_is_not_loaded(where: str, tmp_path: Path) -> None:
    form = record if where == "the module" else native
    metadata = pickle.dumps(Touch(tmp_path / "touched"), 2)
    harmless = b"\x80\x02U" + bytes([len(metadata) - 5]) + b"a" * (len(metadata) - 5) + b"."  # a text as long
    seen, hidden = form(fields(harmless)), form(fields(metadata))
    if where == "the module":
        crafted = two_archives(module_bytes(seen), module_bytes(hidden))
        assert by_torch(crafted)["data/constants/opaque_obj_0"] == hidden, "so that this test can fail"
        found = by_torch(_look_through(crafted)[1])["data/constants/opaque_obj_0"]
        assert found == seen
    else:
        crafted = two_archives(seen, hidden)
        assert by_torch(crafted) == by_torch(hidden), "so that this test can fail"
        found = by_torch(_look_through(module_bytes(crafted))[1])["data/constants/opaque_obj_0"]
        assert by_torch(found) == by_torch(seen)


def with_memo(path: Path) -> bytes:
    """Innocent names come last in the file; those that are called come from the memo."""
    harmless = b"\x8c\x05torch\x8c\x07float32\x93"
    return (
        b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x94" + harmless + b"0h\x00h\x01\x93"
        + pickle.dumps((str(path),), 2)[2:-1] + b"R."
    )  # fmt: skip


def changed(**update: Any) -> bytes:
    return module_bytes(program={**PROGRAM, **update})


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "the engine's pickle": (lambda p: module_bytes(pickle.dumps(Touch(p))), r"a pickle that names posix\.mkdir"),
    "inside its list": (lambda p: module_bytes(record([Touch(p), *fields()[1:]])), r"names posix\.mkdir"),
    "its metadata": (lambda p: module_bytes(record(fields(pickle.dumps(Touch(p))))), r"names posix\.mkdir"),
    "metadata of the native form": (
        lambda p: module_bytes(native(fields(pickle.dumps(Touch(p), 2)))), r"names posix\.mkdir"
    ),
    "names from the memo": (lambda p: module_bytes(record(fields(with_memo(p)))), r"names os\.mkdir"),
    "a dotted name": (
        lambda p: module_bytes(record(fields(b"\x80\x04\x8c\x05torch\x8c\x0fdevice.__init__\x93."))),
        r"names torch\.device\.__init__",
    ),
    "an operator": (lambda p: changed(graph_module={"nodes": [{"target": "os.mkdir"}]}), r"'os\.mkdir' as target"),
    "an expression": (
        lambda p: changed(range_constraints={"expr_str": f"__import__('os').mkdir('{p}')"}), "as expr_str"
    ),
    "a guard": (lambda p: changed(guards_code=[f"__import__('os').mkdir('{p}')"]), "as guards_code"),
    "a name that is code": (lambda p: changed(name=f"x: __import__('os').mkdir('{p}')"), "as name"),
    "a key that is code": (lambda p: changed(**{f"__import__('os').mkdir('{p}')": 1}), "as a name"),
    "sample inputs": (
        lambda p: module_bytes(**{"step/data/sample_inputs/model.pt": pickle.dumps(Touch(p))}), "sample inputs"
    ),
    "a weight": (
        lambda p: module_bytes(**{"step/data/weights/weight_0": pickle.dumps(Touch(p))}), "a record step/data/weights"
    ),
    "old constants": (
        lambda p: module_bytes(**{"step/data/constants/model.pt": pickle.dumps(Touch(p))}), "a record step/data/const"
    ),
    "another model": (lambda p: module_bytes(**{"step/models/other.json": b"{}"}), "a record step/models/other"),
    "two engines": (lambda p: module_bytes(**{"step/data/constants/opaque_obj_1": record(fields())}), "2 engines"),
    "no list": (lambda p: module_bytes(record(["a"])), "no engine where one should be"),
    "no pickle": (lambda p: module_bytes(b"garbage"), "a pickle that cannot be read"),
    "an archive behind the pickle": (
        lambda p: module_bytes(record(fields()) + native(fields(pickle.dumps(Touch(p), 2)))), "that something follows"
    ),
    "two records of one name": (
        lambda p: module_bytes(**{"step/data/constants/opaque_obj_1": record(fields())}).replace(b"obj_1", b"obj_0"),
        "two records step/data/constants/opaque_obj_0",
    ),
    "a compressed record": (lambda p: zipped({"step/archive_version": b"0" * 99}, zipfile.ZIP_DEFLATED), "compressed"),
    "no archive": (lambda p: b"garbage", "what cannot be read"),
    "no JSON": (lambda p: module_bytes(**{"step/models/model.json": b"{"}), "what cannot be read"),
    "JSON without end": (lambda p: module_bytes(**{"step/models/model.json": b"[" * 100_000}), "what cannot be read"),
    "a native engine without a pickle": (lambda p: module_bytes(zipped({"a": b""})), "what cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_module_that_could_do_more_is_not_loaded(case: str, tmp_path: Path) -> None:
    make, said = HOSTILE[case]
    with pytest.raises(_Unexpected, match=said):
        _look_through(make(tmp_path / "touched"))
    assert not (tmp_path / "touched").exists()


def test_the_hostile_pickles_would_have_worked(tmp_path: Path) -> None:
    """So that the test above can fail."""
    for number, pickled in enumerate((pickle.dumps(Touch(tmp_path / "0")), with_memo(tmp_path / "1"))):
        pickle.loads(pickled)
        assert (tmp_path / str(number)).is_dir()


# -- refusals of a whole folder --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact with an engine of an Orin, and a module that holds the engine's bytes."""
    path = write_singles_artifact(tmp_path / "a", MINI)
    engine = add_engine(path, simulated_api(Device()))
    (path / MODULE_FILE).write_bytes(module_bytes(record(fields(plan=(path / "engine.plan").read_bytes()))))
    vouch(path, engine)
    return path


def vouch(folder: Path, engine: Engine | None = None) -> Engine:
    """Write the sidecar for the module as it is."""
    engine = engine or read_engine(folder)
    build = engine.build.model_copy(update={"packages": {"torch": "2.8.0", "torch_tensorrt": "2.8.0"}})
    engine = engine.model_copy(update={"module": entry_of(folder / MODULE_FILE), "build": build})
    write_json(folder / SIDECAR_FILE, engine.model_dump(mode="json"))
    return engine


AGAIN = "--backend torch-tensorrt --module"


def test_a_whole_module_is_read(folder: Path) -> None:
    assert by_torch(_read_module(folder, read_engine(folder)).getvalue()) == by_torch(
        (folder / MODULE_FILE).read_bytes()
    )


def no_module(folder: Path) -> None:
    raw = json.loads((folder / SIDECAR_FILE).read_text())
    write_json(folder / SIDECAR_FILE, {**raw, "module": None})


def flip(folder: Path) -> None:
    data = bytearray((folder / MODULE_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / MODULE_FILE).write_bytes(data)


def hostile(folder: Path) -> None:
    (folder / MODULE_FILE).write_bytes(module_bytes(pickle.dumps(Touch(folder / "touched"))))
    vouch(folder)


def other_plan(folder: Path) -> None:
    (folder / MODULE_FILE).write_bytes(module_bytes())
    vouch(folder)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "none was asked for": (no_module, "holds no torch module: its engine was built without --module"),
    "missing": (lambda f: (f / MODULE_FILE).unlink(), r"step\.pt2 is missing"),
    "bit": (flip, r"step\.pt2: hash mismatch"),
    "torn": (lambda f: (f / MODULE_FILE).write_bytes(b"PK"), r"step\.pt2 has 2 bytes, the manifest says \d+"),
    "vouched for, but hostile": (
        hostile, r"step\.pt2 is not loaded: it holds a pickle that names posix\.mkdir, which Torch-TensorRT does not"
    ),
    "another engine": (other_plan, r"step\.pt2 holds another engine than the sidecar names"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(FOLDERS))
def test_a_damaged_module_is_refused(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the library and on the command line, before torch or a GPU is asked for anything."""
    damage, said = FOLDERS[case]
    damage(folder)
    monkeypatch.setattr(torch_module, "_load", lambda data: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=said) as error:
        open_module(folder, read_manifest(folder))
    assert AGAIN in error.value.hint
    assert not (folder / "touched").exists()
    assert main(["solve", "0030400000020100", "--model", str(folder), "--backend", "torch-tensorrt"]) == 2
    assert AGAIN in capsys.readouterr().err


def test_a_module_from_elsewhere_names_the_field(folder: Path) -> None:
    engine, manifest = read_engine(folder), read_manifest(folder)
    packages = engine.build.packages
    machine = Machine(simulated_api(Device()), ORIN)
    _check_valid(folder, engine, machine, manifest, packages)
    for other, here, said in (
        (dataclasses.replace(ORIN, sm_count=4), packages, "sm_count: built for 8, here is 4"),
        (ORIN, {**packages, "torch_tensorrt": "2.13.0"}, "torch_tensorrt: built for 2.8.0, here is 2.13.0"),
        (ORIN, {**packages, "torch": "2.9.0"}, "torch: built for 2.8.0, here is 2.9.0"),
    ):
        with pytest.raises(UserError, match=rf"step\.pt2 is not valid here: {said}") as error:
            _check_valid(folder, engine, Machine(machine.api, other), manifest, here)
        assert error.value.hint == f"build it here: hrm-edge export {folder} --out {folder}-here {AGAIN}"


def test_threads_are_not_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["solve", "0030400000020100", "--model", str(folder), "--backend", "torch-tensorrt", "--threads", "2"]
    assert main(command) == 2
    assert "--threads is for the CPU's backends" in capsys.readouterr().err
