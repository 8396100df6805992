"""The doctor on simulated machines: what it reads, what it finds, and that no machine makes it fail."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hrm_edge.device.matrix import load_matrix, starts_with
from hrm_edge.doctor import Diagnosis, diagnose
from hrm_edge.doctor.machine import GpuSession, Import, Interpreter, Package, try_gpu
from hrm_edge.doctor.rules import LEVELS
from hrm_edge.errors import UserError
from tests.doctor import trees
from tests.doctor.trees import ALL, MISSING, VENV, Tree

ROOT = Path(__file__).parents[2]
NO_MODULE = "ModuleNotFoundError: No module named"


def pipeline() -> str:
    return "solved"


def look(tree: Tree, root: Path, walk: Callable[[], str] = pipeline) -> Diagnosis:
    return diagnose(tree.machine(root), walk)


def names(diagnosis: Diagnosis) -> list[str]:
    return [finding.name for finding in diagnosis.findings]


FOUND = {  # machine → (findings, backends that work)
    "orin-nano-jp6.2": (["power-mode", "clocks"], ["onnxruntime (CPU)", "tensorrt"]),
    "agx-orin-jp7.2": ([], ["onnxruntime (CPU)", "tensorrt"]),
    "thor-jp7.1": (["power-mode"], ["onnxruntime (CPU)", "tensorrt"]),
    "rtx-desktop": ([], ["onnxruntime (CPU)", "tensorrt-rtx"]),
    "cpu-laptop": ([], ["onnxruntime (CPU)"]),
    "jetson-container": (["l4t-unknown", "container-gpu", "container-board"], ["onnxruntime (CPU)"]),
    "wsl2": (["wsl-gpu", "wsl-sensors"], ["onnxruntime (CPU)"]),
    "wsl2-rtx": (["wsl-sensors"], ["onnxruntime (CPU)", "tensorrt-rtx"]),
}


@pytest.mark.parametrize("name", ALL)
def test_findings_of_a_machine(name, tmp_path):
    diagnosis = look(ALL[name](), tmp_path)
    found, working = FOUND[name]
    optional = {"power-nvml", "power-jtop"}  # whether their Python packages are here is this machine's matter
    assert [name for name in names(diagnosis) if name not in optional] == found
    assert [backend.name for backend in diagnosis.backends if backend.works] == working
    assert diagnosis.passed
    assert all(finding.hint for finding in diagnosis.findings)


BOARDS = {
    "orin-nano-jp6.2": ("Jetson Orin Nano 8GB (developer kit)", "36.4.3", "6.2", "12.6.68", "10.3.0.30", "8.7", "15W"),
    "agx-orin-jp7.2": ("Jetson AGX Orin 64GB", "39.2.0", "7.2", "13.2.75", "10.16.2.10", "8.7", "MAXN"),
    "thor-jp7.1": ("Jetson T5000", "38.4.0", "7.1", "13.0.48", "10.13.3.9", "11.0", "120W"),
}


@pytest.mark.parametrize("name", BOARDS)
def test_a_jetson_is_recognized(name, tmp_path):
    facts = look(ALL[name](), tmp_path).facts
    assert facts.board is not None
    read = (
        facts.board.module, facts.board.l4t, facts.board.jetpack, facts.cuda.toolkit, facts.tensorrt.apt,
        facts.gpus[0].sm, facts.power.mode,
    )  # fmt: skip
    assert read == BOARDS[name]


def test_torch_that_belongs_to_the_jetpack_is_no_finding(tmp_path):
    for number, (tree, packages) in enumerate((
        (NANO(), torch("2.8.0", "2.8.0")),
        (trees.agx_orin_jp72(), torch("2.13.0", "2.8.0")),
        (trees.thor_jp71(), torch("2.13.0", "2.13.0")),
    )):  # fmt: skip
        found = names(look(replace(tree, packages=packages), tmp_path / str(number)))
        assert not {"torch-mismatch", "torch-cpu"} & {*found}


def test_the_mend_of_a_power_mode_has_the_boards_own_number(tmp_path):
    remedies = {finding.name: finding.hint for finding in look(NANO(), tmp_path).findings}
    assert "--power-mode MAXN_SUPER" in remedies["power-mode"]
    assert "sudo nvpmodel -m 2" in remedies["power-mode"]


def test_our_own_step_needs_a_compiler_and_onnx(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    laptop = trees.cpu_laptop()
    onnx, compiler = {"onnx": Package(version="1.23.0", from_apt=False)}, {"which g++": "/usr/bin/g++\n"}
    for number, (packages, programs, why) in enumerate((
        (onnx, compiler, "compiled by /usr/bin/g++ when first asked for; fp32: lattices, int8: models with attention"),
        ({}, compiler, "onnx not installed"),
        (onnx, {}, "a C++ compiler not installed"),
        ({}, {}, "a C++ compiler and onnx not installed"),
    )):  # fmt: skip
        found = look(replace(laptop, packages=packages, programs=programs), tmp_path / str(number)).backends
        (native,) = [backend for backend in found if backend.name == "native (CPU)"]
        assert (native.works, native.why) == (bool(packages and programs), why)


def test_the_compiler_is_the_one_that_the_native_step_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "clang++-18")
    laptop = replace(trees.cpu_laptop(), programs={"which clang++-18": "/usr/bin/clang++-18\n", "which g++": "/g++\n"})
    assert look(laptop, tmp_path).facts.compiler == "/usr/bin/clang++-18"


def test_how_a_runtime_multiplies_is_said(tmp_path):
    diagnosis = look(trees.cpu_laptop(), tmp_path)
    assert diagnosis.facts.int8 == {"onnxruntime": "exact 8-bit products"}
    assert diagnosis.backends[0].why.endswith("; INT8: exact 8-bit products")


CSI_READERS = {
    "OpenCV of JetPack": ({"cv2": Import(version="4.8.0", providers=["GStreamer"])}, {}, "OpenCV with GStreamer"),
    "OpenCV of pip": ({"cv2": Import(version="4.12.0")}, trees.GSTREAMER, "gst-launch-1.0"),
    "no tools": ({"cv2": Import(version="4.12.0")}, {}, None),
    "tools without NVIDIA's source": ({}, {"gst-launch-1.0 --version": "1.20.3"}, None),
}


@pytest.mark.parametrize("what", CSI_READERS)
def test_what_reads_a_csi_camera(what, tmp_path):
    imports, programs, by = CSI_READERS[what]
    nano = trees.orin_nano_jp62()
    diagnosis = look(replace(nano, imports={**nano.imports, **imports}, programs=programs), tmp_path)
    assert diagnosis.facts.cameras[0].read_by == by
    found = [finding for finding in diagnosis.findings if finding.name == "camera-csi"]
    assert [finding.hint for finding in found] == (
        [] if by else ["sudo apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"]
    )


def test_other_facts(tmp_path):
    desktop = look(trees.rtx_desktop(), tmp_path / "a").facts
    assert (desktop.gpus[0].name, desktop.gpus[0].sm) == ("NVIDIA GeForce RTX 4090", "8.9")
    assert (desktop.cuda.driver, desktop.cuda.of_driver, desktop.cuda.cards_without_driver) == ("580.95.05", "13.0", 0)
    assert [(camera.device, camera.kind) for camera in desktop.cameras] == [("/dev/video0", "usb")]
    nano = look(trees.orin_nano_jp62(), tmp_path / "b").facts
    assert [(camera.device, camera.kind) for camera in nano.cameras] == [("/dev/video0", "csi")]
    assert nano.cameras[0].read_by == "gst-launch-1.0"
    assert [(m.name, m.rails) for m in nano.power.meters if m.problem is None] == [("ina3221", ["VDD_IN"])]
    assert nano.power.clocks_locked is False
    assert nano.python.system_version == "3.10"
    assert look(trees.jetson_container(), tmp_path / "c").facts.container == "docker"


def changed(tree: Tree, files: dict[str, str | None]) -> Tree:
    kept = {**tree.files, **{name: text for name, text in files.items() if text is not None}}
    return replace(tree, files={name: text for name, text in kept.items() if files.get(name, "") is not None})


NANO = trees.orin_nano_jp62
# As try_cuda says them: tests/runtime/test_trt_session.py
NO_BINDING = GpuSession(
    error="nothing to move data to the GPU with: No module named 'cuda'",
    hint="pip install 'hrm-edge[gpu]' (cuda-python), or pycuda",
)
OLD_DRIVER = GpuSession(
    error="cuda-python is for CUDA 13.4, this driver runs CUDA 12.6 (cudaSetDevice failed with …)",
    hint="pip install 'cuda-python==12.*', or a newer driver",
)
NO_DRIVER = GpuSession(error="CUDA: there is no driver", hint="docker run --runtime nvidia")
NO_TENSORRT = {"onnxruntime": trees.ORT, "tensorrt": MISSING}


def binding(version: str) -> dict[str, Package]:
    return {"cuda-python": Package(version=version, from_apt=False)}


def torch(version: str, bridge: str) -> dict[str, Package]:
    return {
        "torch": Package(version=version, from_apt=False),
        "torch-tensorrt": Package(version=bridge, from_apt=False),
    }


CASES = [  # (finding, level, words of the problem, words of the hint, tree)
    ("venv-isolated", "warn", "does not see apt's packages", f"{VENV}/pyvenv.cfg",
     lambda: replace(changed(NANO(), trees.venv(False)), imports=NO_TENSORRT)),
    ("venv-python", "warn", "this is Python 3.12; apt's TensorRT 10.3.0.30 is made for 3.10", "python3.10 -m venv",
     lambda: replace(NANO(), imports=NO_TENSORRT, python=Interpreter(f"{VENV}/bin/python", (3, 12), VENV, "/usr"))),
    ("tensorrt-import", "warn", "importing it fails: OSError: libnvdla", "apt-get install --reinstall",
     lambda: replace(NANO(), imports={"onnxruntime": trees.ORT, "tensorrt": Import(error="OSError: libnvdla")})),
    ("tensorrt-missing", "warn", "TensorRT is not installed", "sudo apt-get install tensorrt",
     lambda: changed(NANO(), {"var/lib/dpkg/status": trees.debs(python3="3.10.6-1")})),
    ("tensorrt-python", "warn", "its Python part is not", "python3-libnvinfer",
     lambda: changed(NANO(), {"var/lib/dpkg/status": trees.debs(libnvinfer10="10.3.0.30-1+cuda12.5")})),
    ("tensorrt-two", "warn", "tensorrt 11.4.0.2 (pip), 10.3.0.30 (apt); Python imports 10.3.0", "uninstall -y tensorrt",
     lambda: replace(NANO(), packages={"tensorrt": Package(version="11.4.0.2", from_apt=False)})),
    ("tensorrt-pip", "warn", "no libraries for Tegra", "pip uninstall -y tensorrt",
     lambda: replace(changed(NANO(), {"var/lib/dpkg/status": None}),
                     packages={"tensorrt": Package(version="10.3.0", from_apt=False)})),
    ("tensorrt-mismatch", "warn", "TensorRT 8.6.2.3 is not the one of JetPack 6.2 (10.3)", "apt-get install",
     lambda: changed(NANO(), {"var/lib/dpkg/status":
                              trees.debs(libnvinfer8="8.6.2.3-1", python3_libnvinfer="8.6.2.3-1")})),
    ("cuda-mismatch", "warn", "CUDA 13.0.48 is not the one of JetPack 6.2 (12.6)", "cuda-toolkit-12-6",
     lambda: changed(NANO(), {"usr/local/cuda/version.json": '{"cuda": {"version": "13.0.48"}}'})),
    ("jetpack-unknown", "warn", "L4T 35.4.1 is in no row of our table", "doctor --json",
     lambda: changed(NANO(), {"etc/nv_tegra_release": trees.l4t(35, "4.1")})),
    ("board-unknown", "warn", "SoC tegra999", "doctor --json",
     lambda: changed(NANO(), {"proc/device-tree/compatible": "nvidia,p9999-0000\0nvidia,tegra999\0"})),
    ("swap", "warn", "no swap", "swapon", lambda: changed(NANO(), {"proc/meminfo": trees.meminfo(7.4)})),
    ("camera-rights", "warn", "ada may not open /dev/video0", "sudo usermod -aG video ada",
     lambda: replace(NANO(), usable=False, groups=frozenset({"ada"}))),
    ("groups", "note", "not in i2c", "sudo usermod -aG i2c ada",
     lambda: replace(NANO(), groups=frozenset({"ada", "video", "render"}))),
    ("power-ina3221", "warn", "no power meter works: rail VDD_IN cannot be read", "dmesg",
     lambda: changed(NANO(), {f"{trees.INA3221}/in1_input": None})),
    ("power-mode", "note", "power mode cannot be read", "sudo nvpmodel -q",
     lambda: changed(NANO(), {"var/lib/nvpmodel/status": None})),
    ("jtop-service", "warn", "its service does not run", "systemctl restart jtop",
     lambda: replace(NANO(), packages={"jetson-stats": Package(version="4.3.2", from_apt=False)})),
    ("jtop-group", "warn", "ada is not in the group jtop", "usermod -aG jtop",
     lambda: replace(changed(NANO(), {"run/jtop.sock": "", "etc/group": trees.GROUPS + "jtop:x:999:\n"}),
                     packages={"jetson-stats": Package(version="4.3.2", from_apt=False)})),
    ("driver-missing", "warn", "its driver is not loaded", "nvidia-driver",
     lambda: replace(changed(trees.rtx_desktop(), {"proc/driver/nvidia/version": None}), programs={})),
    ("gpu-engine", "note", "the GPU is idle", "pip install tensorrt",
     lambda: replace(trees.rtx_desktop(), packages={})),
    ("torch-cpu", "note", "torch 2.13.0+cpu does not use the GPU", "force-reinstall torch",
     lambda: replace(trees.rtx_desktop(), packages={"torch": Package(version="2.13.0+cpu", from_apt=False)})),
    ("torch-tensorrt", "warn", "do not belong together", "torch-tensorrt==2.8.*",
     lambda: replace(trees.rtx_desktop(), packages=torch("2.8.0", "2.13.0"))),
    ("torch-mismatch", "warn", "torch 2.13.0 is not the one of JetPack 6.2 (2.8 from NVIDIA's Jetson index)",
     "pip uninstall -y torch torch-tensorrt", lambda: replace(NANO(), packages=torch("2.13.0", "2.8.0"))),
    ("torch-mismatch", "warn", "torch-tensorrt 2.13.0 is not the one of JetPack 7.2 (2.8);", "pip uninstall -y torch",
     lambda: replace(trees.agx_orin_jp72(), packages=torch("2.13.0", "2.13.0"))),
    ("l4t-unknown", "warn", "reads 'beta 3 of something', which we do not understand", "cat /etc/nv_tegra_release",
     lambda: changed(NANO(), {"etc/nv_tegra_release": "beta 3 of something\n"})),
    ("python-old", "fail", "Python 3.8 is too old", "python3.10",
     lambda: replace(NANO(), python=Interpreter("/usr/bin/python3", (3, 8), "/usr", "/usr"))),
    ("onnxruntime", "fail", "is not installed", "install --force-reinstall onnxruntime",
     lambda: replace(NANO(), imports={"onnxruntime": Import(error=f"{NO_MODULE} 'onnxruntime'")})),
    ("onnxruntime", "fail", "does not load (importing it crashes Python)", "install --force-reinstall onnxruntime",
     lambda: replace(NANO(), imports={"onnxruntime": Import(error="importing it crashes Python")})),
    ("engine-session", "fail", "engines cannot run here: nothing to move data", "pip install 'cuda-python==12.6.*'",
     lambda: replace(NANO(), gpu=NO_BINDING)),
    ("engine-session", "fail", "engines cannot run here: nothing to move data", "pip install 'cuda-python==13.*'",
     lambda: replace(trees.thor_jp71(), gpu=NO_BINDING)),
    ("engine-session", "fail", "is for CUDA 13.4, this driver runs CUDA 12.6", "pip install 'cuda-python==12.6.*'",
     lambda: replace(NANO(), gpu=OLD_DRIVER, packages=binding("13.4.4"))),
    ("engine-session", "fail", "CUDA: there is no driver", "--runtime nvidia",
     lambda: replace(NANO(), gpu=NO_DRIVER, packages=binding("12.6.2.post1"))),
    ("engine-session", "warn", "engines cannot run here: nothing to move data", "pip install 'hrm-edge[gpu]'",
     lambda: replace(trees.rtx_desktop(), gpu=NO_BINDING)),
    ("cuda-python", "warn", "is for another CUDA than this JetPack's (cuda-python 12.6)", "'cuda-python==12.6.*'",
     lambda: replace(NANO(), packages=binding("13.4.4"))),
    ("memory", "fail", "only 71 MiB of memory are free", "swap",
     lambda: changed(NANO(), {"proc/meminfo": trees.meminfo(0.1)})),
    ("disk-home", "fail", "only 2 MiB are free on the disk of home", "df -h", lambda: replace(NANO(), free=2 << 20)),
    ("disk-home", "warn", "only 200 MiB are free", "df -h", lambda: replace(NANO(), free=200 << 20)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "problem", "hint", "make"), CASES, ids=lambda value: str(value)[:20])
def test_a_fault_is_found_and_its_mend_named(name, level, problem, hint, make, tmp_path):
    diagnosis = look(make(), tmp_path)
    (finding,) = [finding for finding in diagnosis.findings if finding.name == name]
    assert finding.level == level
    assert problem in finding.problem
    assert hint in finding.hint
    assert diagnosis.passed is (level != "fail")
    order = [LEVELS.index(finding.level) for finding in diagnosis.findings]
    assert order == sorted(order)
    if name == "engine-session":  # beside the default pipeline, which is walked
        assert diagnosis.pipeline == pipeline()
        assert not any(backend.works for backend in diagnosis.backends if backend.name.startswith("tensorrt"))
    elif level == "fail":
        assert diagnosis.pipeline.startswith("not tried")


def test_a_road_that_fails_is_the_worst_finding(tmp_path):
    def broken() -> str:
        raise UserError("step.onnx: hash mismatch", "install again")

    diagnosis = look(NANO(), tmp_path, broken)
    assert not diagnosis.passed
    assert diagnosis.findings[0].name == "road"
    assert "hash mismatch" in diagnosis.findings[0].problem
    assert diagnosis.findings[0].hint == "install again"


def test_a_bug_on_the_road_is_a_finding_too(tmp_path):
    def bug() -> str:
        raise ZeroDivisionError("oops")

    diagnosis = look(NANO(), tmp_path, bug)
    assert "ZeroDivisionError: oops" in diagnosis.findings[0].problem
    assert not diagnosis.passed


def garble(rng: random.Random, root: Path) -> None:
    """Damage a tree: random bytes, cut, emptied or absent files, folders and dangling links in their place."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if rng.random() < 0.5:
            continue
        content = path.read_bytes()
        path.unlink()
        kind = rng.randrange(8)
        if kind == 0:
            path.write_bytes(rng.randbytes(rng.randrange(200)))
        elif kind == 1:
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        elif kind == 2:
            path.mkdir()
        elif kind == 3:
            path.symlink_to(path)  # a link to itself
        elif kind == 4:
            os.mkfifo(path)
        elif kind == 5:
            path.write_bytes(bytes(rng.choice([byte, byte, byte, rng.randrange(256)]) for byte in content))
        elif kind == 6:
            path.write_text(
                rng.choice(["", "\0", "-1", "nan", "9" * 5000, "٣٤", "[" * 3000, "pmode:99999999999999", "²"])
            )


@pytest.mark.parametrize("seed", range(60))
def test_garbage_never_stops_it(seed, tmp_path):
    rng = random.Random(seed)
    tree = ALL[rng.choice(list(ALL))]()
    tree.machine(tmp_path)
    garble(rng, tmp_path)
    answers = ["", "\0", ",,,", "a,b,c\n,,\n", "CUDA Version: x", "NV Power Mode: ", "x, ², ³"]
    tree.programs = {name: rng.choice([*answers, text]) for name, text in tree.programs.items()}
    diagnosis = diagnose(tree.over(tmp_path), pipeline)
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_an_import_that_crashes_is_told(tmp_path, monkeypatch):
    from hrm_edge.doctor.machine import try_import

    (tmp_path / "crashing.py").write_text("import os; os.abort()")
    (tmp_path / "failing.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert try_import("crashing").error == "importing it crashes Python"
    assert try_import("failing").error == "OSError: libnvinfer.so.10: cannot open shared object file"
    assert "ModuleNotFoundError" in (try_import("absent_package").error or "")


def test_the_matrix_is_the_one_in_jetson():
    assert (ROOT / "jetson/matrix.yaml").resolve() == (ROOT / "hrm_edge/device/jetpack.yaml").resolve()


@pytest.mark.parametrize(
    ("version", "jetpack"),
    [("36.4.3", "6.2"), ("36.4.7", "6.2.1"), ("36.5.0", "6.2.2"), ("38.2.2", "7.0"), ("38.4.0", "7.1"),
     ("39.2.0", "7.2"), ("39.2.1", "7.2.x"), ("35.4.1", None), ("36.4", None), ("380.2", None), ("", None)],
)  # fmt: skip
def test_the_jetpack_of_an_l4t(version, jetpack):
    release = load_matrix().release_of(version)
    assert (release.jetpack if release else None) == jetpack


@pytest.mark.parametrize("name", ["orin-nano-jp6.2", "thor-jp7.1"])
def test_a_jetson_with_the_binding_says_what_runs_its_engines(name, tmp_path):
    diagnosis = look(replace(ALL[name](), packages=binding("12.6.2" if "6.2" in name else "13.0.3")), tmp_path)
    assert "cuda-python" not in names(diagnosis)
    assert "by cuda-python on" in next(one.why for one in diagnosis.backends if one.name == "tensorrt")


def test_every_release_pins_the_cuda_python_of_its_cuda():
    """constraints.txt is what setup.sh and the wheelhouse take: its pin for a JetPack's Python is the matrix's."""
    pins = [
        Requirement(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("cuda-python=")
    ]
    for release in load_matrix().releases:
        where = {"python_full_version": f"{release.python}.0", "platform_machine": "aarch64", "sys_platform": "linux"}
        (pin,) = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(where)]
        assert starts_with(str(pin.specifier).removeprefix("=="), release.cuda_python), release
        assert starts_with(release.cuda, release.cuda_python), release


def test_a_machine_without_a_gpu_says_that_nothing_moves_data():
    found = try_gpu()
    if found.binding:
        pytest.skip("there is a GPU")
    assert found.error is not None
    assert found.hint
    assert "no driver" in found.error or "nothing to move data" in found.error
