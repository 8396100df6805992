"""Every way in which an engine is not valid here, by its message; nothing of it needs a GPU."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hrm_edge.cli.main import main
from hrm_edge.device.identity import l4t_release
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.files import write_json
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, read_manifest, write_manifest
from hrm_edge.plugin import load as loading
from hrm_edge.plugin.load import LIBRARY
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.trt import build, cache, device
from hrm_edge.runtime.trt import open as opening
from hrm_edge.runtime.trt.api import Api, find_api
from hrm_edge.runtime.trt.build import BuildOptions, _workspace_mib, plan_identity
from hrm_edge.runtime.trt.cuda import _CudaPython
from hrm_edge.runtime.trt.device import Gpu, find_gpu, memory_available
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE, entry_of
from hrm_edge.runtime.trt.open import open_engine
from hrm_edge.runtime.trt.plugins import plugin_identity
from hrm_edge.runtime.trt.targets import _table, check_targets
from hrm_edge.tasks.sudoku import Sudoku
from tests.artifacts import write_singles_artifact
from tests.runtime.simulated import ORIN, Device, add_engine, cuda_runtime, simulated_api

MINI = Sudoku(2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact with an engine built by TensorRT 10.3.0.30 on an Orin."""
    path = write_singles_artifact(tmp_path / "a", MINI)
    add_engine(path, simulated_api(Device()))
    return path


def open_on(folder: Path, gpu: Gpu = ORIN, version: str = "10.3.0.30") -> Any:
    simulated = Device()
    api = simulated_api(simulated, version)
    cuda = _CudaPython(cuda_runtime(simulated))
    return open_engine(folder, read_manifest(folder), api=api, gpu=gpu, cuda=cuda)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / SIDECAR_FILE).read_text())
    change(raw)
    write_json(folder / SIDECAR_FILE, raw)


def test_where_it_was_built_it_opens(folder: Path) -> None:
    assert open_on(folder).max_batch == 64


MOVED: dict[str, tuple[dict[str, Any], str]] = {
    "tensorrt": ({"version": "11.4.1.2"}, "tensorrt: built for 10.3.0.30, here is 11.4.1.2"),
    "build number": ({"version": "10.3.0.26"}, "tensorrt: built for 10.3.0.30, here is 10.3.0.26"),
    "gpu": (
        {"gpu": Gpu("RTX 4090", 89, 128, "12.6", 24 << 30)},
        "device: built for Orin, here is RTX 4090; sm_count: built for 8, here is 128; sm: built for [87], here is 89",
    ),
    "same chip, fewer cores": (
        {"gpu": dataclasses.replace(ORIN, sm_count=4)},
        "sm_count: built for 8, here is 4",
    ),
    "cuda": ({"gpu": dataclasses.replace(ORIN, cuda="13.2")}, "cuda: built for 12.6, here is 13.2"),
}


@pytest.mark.parametrize("case", list(MOVED))
def test_an_engine_from_elsewhere_names_the_field(folder: Path, case: str) -> None:
    here, said = MOVED[case]
    with pytest.raises(UserError) as error:
        open_on(folder, **here)
    assert error.value.problem == f"{folder / PLAN_FILE} is not valid here: {said}"
    assert error.value.hint == f"build it here: hrm-edge export {folder} --out {folder}-here --backend tensorrt"


def test_another_jetson_release(folder: Path) -> None:
    edit(folder, lambda raw: raw["identity"].update(l4t="36.4.3"))
    with pytest.raises(UserError, match=r"l4t: built for 36\.4\.3, here is None"):
        open_on(folder)


def test_another_platform_or_runtime(folder: Path) -> None:
    edit(folder, lambda raw: raw["identity"].update(platform="linux-aarch64", runtime="tensorrt_rtx"))
    with pytest.raises(
        UserError, match="runtime: built for tensorrt_rtx, here is tensorrt; platform: built for linux-aarch64"
    ):
        open_on(folder)


def test_another_model_or_calibration(folder: Path) -> None:
    """The artifact was exported again, its engine was not."""
    changed = {**read_manifest(folder).model_dump(), "quantization": {"input_scales": {"x": 0.5}}}
    with (folder / STEP_FILE).open("ab") as stream:
        stream.write(b"\xba\x01\x00")  # an empty field of ModelProto: another file, the same model
    plan, sidecar = ((folder / name).read_bytes() for name in (PLAN_FILE, SIDECAR_FILE))
    for name in (PLAN_FILE, SIDECAR_FILE, MANIFEST):
        (folder / name).unlink()
    write_manifest(folder, Manifest.model_validate({**changed, "files": {}}))
    (folder / PLAN_FILE).write_bytes(plan)
    (folder / SIDECAR_FILE).write_bytes(sidecar)
    with pytest.raises(
        UserError, match=r"model_sha256: built for \w+, here is \w+; calibration_sha256: built for None"
    ):
        open_on(folder)


def test_targets_instead_of_a_gpu(tmp_path: Path) -> None:
    """An engine for several architectures opens on any GPU of these, with any driver."""
    path = write_singles_artifact(tmp_path / "a", MINI)
    add_engine(path, simulated_api(Device()), sms=(86, 89))
    open_on(path, Gpu("RTX 4090", 89, 128, "13.1", 1))
    open_on(path, Gpu("RTX 3050", 86, 20, "12.4", 1))
    with pytest.raises(UserError, match=r"sm: built for \[86, 89\], here is 120"):
        open_on(path, Gpu("RTX 5090", 120, 170, "13.1", 1))


def flip(folder: Path) -> None:
    data = bytearray((folder / PLAN_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / PLAN_FILE).write_bytes(data)


def garbage(folder: Path) -> None:
    """A plan that was never one, with a sidecar that vouches for it."""
    (folder / PLAN_FILE).write_bytes(b"not a plan")
    edit(folder, lambda raw: raw.update(plan=entry_of(folder / PLAN_FILE).model_dump()))


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "bit": (flip, r"engine\.plan: hash mismatch, sha256 is \w{16}…, the manifest says \w{16}…"),
    "torn": (lambda f: (f / PLAN_FILE).write_bytes(b"x" * 10), r"engine\.plan has 10 bytes, the manifest says \d+"),
    "no plan": (lambda f: (f / PLAN_FILE).unlink(), r"holds no engine: engine\.plan is missing"),
    "no sidecar": (
        lambda f: (f / SIDECAR_FILE).unlink(),
        r"engine\.json is missing: what engine\.plan was built for cannot be known",
    ),
    "torn sidecar": (lambda f: (f / SIDECAR_FILE).write_text("{"), r"engine\.json is not valid JSON"),
    "future sidecar": (
        lambda f: edit(f, lambda raw: raw.update(schema_version=9)),
        "schema_version is 9, this hrm-edge reads 1",
    ),
    "strange sidecar": (
        lambda f: edit(f, lambda raw: raw["identity"].pop("sm")),
        r"engine\.json: identity\.sm: Field required",
    ),
    "garbage": (garbage, r"tensorrt 10\.3\.0\.30 cannot read .*engine\.plan: Serialization assertion failed"),
}


@pytest.mark.parametrize("case", list(DAMAGED))
def test_a_damaged_engine_is_refused(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    damage, said = DAMAGED[case]
    monkeypatch.setattr(opening, "_built_before", lambda path, manifest: path)
    damage(folder)
    with pytest.raises(UserError, match=said) as error:
        open_on(folder)
    assert "hrm-edge export" in error.value.hint or "torn" in error.value.hint


def test_an_engine_of_another_step(folder: Path) -> None:
    """Its sidecar vouches for it, its tensors are another model's."""
    other = write_singles_artifact(folder.parent / "b", MINI, puzzle_dim=8)
    (folder / PLAN_FILE).write_bytes((other / STEP_FILE).read_bytes())
    edit(folder, lambda raw: raw.update(plan=entry_of(folder / PLAN_FILE).model_dump()))
    with pytest.raises(UserError, match=r"has tensors \[.*'puzzle'.*\], the model has \["):
        open_on(folder)
    half = write_singles_artifact(folder.parent / "c", MINI, precision="fp16")
    (folder / PLAN_FILE).write_bytes((half / STEP_FILE).read_bytes())
    edit(folder, lambda raw: raw.update(plan=entry_of(folder / PLAN_FILE).model_dump()))
    with pytest.raises(UserError, match=r"'z_h' is .*float16.* \[16, 8\], the model has carry \[16, 8\]"):
        open_on(folder)


def test_an_architecture_that_is_too_old() -> None:
    """The whole table, precision by precision: tests/cli/test_bad_input.py."""
    with pytest.raises(UserError, match="tensorrt has no support for SM37"):
        check_targets(Api("tensorrt", SimpleNamespace(), "1"), (37,), "fp32")


def test_the_table_covers_what_is_sold() -> None:
    for runtime in ("tensorrt", "tensorrt_rtx"):
        for row in _table()[runtime].values():
            assert set(row["precisions"]) <= {"fp32", "fp16", "int8"}
    for sm in (87, 89, 90, 110, 120):
        check_targets(Api("tensorrt", SimpleNamespace(), "10.3"), (sm,), "int8")
    check_targets(Api("tensorrt", SimpleNamespace(), "12.0"), (140,), "int8")  # newer than the table: TensorRT decides


def test_a_build_that_cannot_be_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(folder)
    monkeypatch.setattr(build, "find_api", lambda name: simulated_api(Device()))
    monkeypatch.setattr(build, "find_gpu", lambda: ORIN)
    assert plan_identity(manifest, BuildOptions()).device == "Orin"
    for options, said in (
        (BuildOptions(sms=(86,)), "--sm: tensorrt builds for the GPU of this machine only"),
        (BuildOptions(max_batch=65), "--max-batch 65: the artifact was checked up to 64"),
        (BuildOptions(max_batch=4, opt_batch=8), "--opt-batch 8 is above --max-batch 4"),
        (BuildOptions(workspace_mib=1 << 30), r"--workspace 1073741824 MiB is more than half of the \d+ MiB of memory"),
    ):
        with pytest.raises(UserError, match=said):
            plan_identity(manifest, options)


@pytest.mark.parametrize(
    ("available_mib", "workspace"), [(23000, 4096), (8192, 4096), (8191, 2048), (3000, 1024), (200, 64), (10, 64)]
)
def test_the_workspace_follows_the_free_memory(available_mib: int, workspace: int) -> None:
    assert _workspace_mib(None, available_mib << 20) == workspace


def test_memory_available(tmp_path: Path) -> None:
    assert 1 << 20 < memory_available() < 1 << 44
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:    1234 kB\n")
    assert memory_available(System(tmp_path)) == 1234 * 1024
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8 kB\n")
    with pytest.raises(UserError, match="has no MemAvailable"):
        memory_available(System(tmp_path))


def test_the_jetson_release(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "nv_tegra_release"
    assert l4t_release(System(tmp_path)) is None
    path.parent.mkdir()
    path.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n")
    assert l4t_release(System(tmp_path)) == "36.4.3"


class Cuda:
    """libcuda as ctypes shows it, of an Orin Nano."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.attributes = {16: 8, 75: 8, 76: 7}

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDeviceGet(self, device: Any, index: int) -> int:
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12060
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        ctypes.memmove(name, b"Orin\0", 5)
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 8 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self.attributes[attribute]
        return 0


def test_the_gpu_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_gpu(Cuda()) == ORIN
    with pytest.raises(UserError, match="no usable GPU: the CUDA driver's cuInit failed with error 100"):
        find_gpu(Cuda(code=100))

    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    with pytest.raises(UserError, match=r"no GPU: libcuda\.so\.1: cannot open") as error:
        find_gpu()
    assert "--backend onnxruntime" in error.value.hint


def test_an_engine_built_before_is_found_by_its_identity(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain artifact with --backend tensorrt takes the engine that this machine has built for it, if it is whole."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find_api", lambda name: simulated_api(Device()))
    monkeypatch.setattr(build, "find_gpu", lambda: ORIN)
    plain = write_singles_artifact(tmp_path / "plain", MINI)
    identity = plan_identity(read_manifest(plain), BuildOptions())
    with pytest.raises(UserError, match="holds no engine"):
        open_on(plain)
    sidecar = add_engine(folder, simulated_api(Device())).model_copy(update={"identity": identity})
    cache.keep(folder, sidecar)
    assert open_on(plain).max_batch == 64
    (place,) = (tmp_path / "cache" / "hrm-edge" / "engines").iterdir()
    flip(place)
    with pytest.raises(UserError, match="holds no engine"):
        open_on(plain)
    assert not place.exists()  # a torn one is thrown away


def test_backends_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with an engine goes to TensorRT; without TensorRT or a GPU it says so, and names the way round."""
    puzzle = "0030400000020100"
    code = main(["solve", puzzle, "--model", str(folder)])
    said = capsys.readouterr().err
    assert code == 2
    assert "TensorRT is not installed" in said or "no GPU" in said or "is not valid here" in said
    code = main(["solve", puzzle, "--model", str(folder), "--backend", "onnxruntime"])
    assert code == 0
    assert main(["solve", puzzle, "--model", str(folder), "--backend", "tensorrt", "--threads", "2"]) == 2
    assert "--threads is for the CPU's backends" in capsys.readouterr().err
    session, _ = open_artifact(folder, backend="onnxruntime")
    assert session.backend == "onnxruntime-cpu"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from hrm_edge.runtime.trt import api

    def load(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(api, "importlib", SimpleNamespace(import_module=load))
    with pytest.raises(UserError, match="TensorRT is not installed") as error:
        find_api()
    assert "python3-libnvinfer" in error.value.hint
    assert "hrm-edge[rtx]" in error.value.hint
    assert all(name in error.value.problem for name in api.RUNTIMES)


@pytest.mark.parametrize("where", ["beside the engine", "./build"])
def test_a_library_that_came_with_a_model_is_not_loaded(
    folder: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar says that the engine needs the plugin; whoever wrote the sidecar can put a library there too."""
    source, trace = tmp_path / "evil.c", tmp_path / "ran"
    source.write_text(f'#include <stdio.h>\n__attribute__((constructor)) void run(void) {{ fopen("{trace}", "w"); }}\n')
    place = folder if where == "beside the engine" else tmp_path / "build"
    place.mkdir(exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(place / LIBRARY), str(source)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "FOLDERS", (tmp_path / "not installed",))
    edit(folder, lambda raw: raw["identity"].update(plugin=plugin_identity()))
    with pytest.raises(UserError, match=f"{LIBRARY} is in none of {tmp_path}/not installed"):
        open_on(folder)
    assert not trace.exists()
    ctypes.CDLL(str(place / LIBRARY))
    assert trace.exists(), "so that this test can fail"
