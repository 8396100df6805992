"""``jetson/setup.sh``: what it says, what it refuses, and that running it again completes what was cut off."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from hrm_edge.cli.demo import demo
from tests.doctor.trees import l4t
from tests.needs import installed

ROOT = Path(__file__).parents[2]
JETSON = ROOT / "jetson"
SETUP = JETSON / "setup.sh"
TAG = f"{sys.version_info[0]}{sys.version_info[1]}"


@pytest.mark.parametrize("path", [SETUP, *sorted((ROOT / "scripts").glob("*.sh"))], ids=lambda path: path.name)
def test_scripts_are_clean(path):
    done = subprocess.run([installed("shellcheck"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(JETSON.glob("Dockerfile.*")), ids=lambda path: path.name)
def test_dockerfiles_are_clean(path):
    done = subprocess.run([installed("hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_kiosks_unit_is_valid(tmp_path):
    analyze = installed("systemd-analyze", "systemd")
    unit = tmp_path / "hrm-edge-kiosk.service"
    text = (JETSON / "hrm-edge-kiosk.service").read_text()
    unit.write_text(text.replace("/opt/hrm-edge/venv/bin/hrm-edge", "/bin/true"))
    verified = subprocess.run([analyze, "--user", "verify", str(unit)], capture_output=True, text=True, check=False,
                              env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    assert "hrm-edge-kiosk" not in verified.stderr
    (command,) = re.findall("^ExecStart=.*/hrm-edge (demo .*)$", text, re.MULTILINE)
    words = command.replace("${HRM_EDGE_CAMERA}", "0").split()
    assert demo.make_context("demo", words[1:]).params["kiosk"]


def test_the_service_is_valid_and_confined(tmp_path):
    analyze = installed("systemd-analyze", "systemd")
    unit = tmp_path / "hrm-edge-demo.service"
    text = (JETSON / "hrm-edge-demo.service").read_text()
    unit.write_text(
        text.replace("/opt/hrm-edge/venv/bin/hrm-edge", "/bin/true")
    )  # verify wants a program that is there
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    assert "hrm-edge-demo" not in verified.stderr
    # 0 is wholly confined, 10 not at all; what remains is the network and the devices, which the demo is for.
    command = [analyze, "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-300:]


def setup(*arguments: object, home: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script for a user whose home is ``home``; programs in ``path`` come before the system's."""
    environ = {"HOME": str(home), "PATH": os.pathsep.join(map(str, filter(None, [path, *PATH])))}
    command = ["bash", str(SETUP), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


PATH = [Path(sys.executable).resolve().parent, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"]
# A stand-in for hrm-edge: what is tested here is the script.
PROGRAM = """
import sys
def main():
    print("hrm-edge 9.9.9" if "--version" in sys.argv else f"doctor of {sys.prefix}")
"""


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory) -> Path:
    return make_wheelhouse(tmp_path_factory.mktemp("wheelhouse"))


def make_wheelhouse(folder: Path, ballast_mb: int = 0) -> Path:
    """The stand-in's wheel, with so many megabytes that do not shrink, and its hash."""
    wheel = folder / "hrm_edge-9.9.9-py3-none-any.whl"
    about = "hrm_edge-9.9.9.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hrm_edge_program.py", PROGRAM)
        archive.writestr("ballast", random.Random(9).randbytes(ballast_mb << 20))
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: hrm-edge\nVersion: 9.9.9\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/entry_points.txt", "[console_scripts]\nhrm-edge = hrm_edge_program:main\n")
        archive.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / f"requirements-cp{TAG}.txt").write_text(f"hrm-edge==9.9.9 --hash=sha256:{digest}\n")
    return folder


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder


def test_a_dry_run_says_everything_and_does_nothing(wheelhouse, tmp_path):
    done = setup("--offline", wheelhouse, "--dry-run", "--link", home=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^  \$ (.*)$", done.stdout, re.MULTILINE)
    venv_python = f"{tmp_path}/.local/share/hrm-edge/venv/bin/python"
    assert [command.split()[0] for command in commands] == ["mkdir", "python3", venv_python, "mkdir", "ln"]
    assert "--no-index" in commands[2]
    assert "--require-hashes" in commands[2]
    assert "Outside the prefix (--link):" in done.stdout
    assert "Nothing was done" in done.stdout
    assert everything(tmp_path) == []


def test_it_installs_once_and_links_when_asked(wheelhouse, tmp_path):
    first = setup("--offline", wheelhouse, "--link", home=tmp_path)
    assert first.returncode == 0, first.stderr
    prefix = tmp_path / ".local/share/hrm-edge"
    assert f"doctor of {prefix}/venv" in first.stdout
    assert "include-system-site-packages = false" in (prefix / "venv/pyvenv.cfg").read_text()
    outside = [path for path in everything(tmp_path) if not path.startswith(".local/share/hrm-edge/")]
    assert outside == [".local", ".local/bin", ".local/bin/hrm-edge", ".local/share", ".local/share/hrm-edge"]
    assert not (prefix / "tmp").exists()
    (prefix / "venv/marker").touch()
    again = setup("--offline", wheelhouse, home=tmp_path)
    assert again.returncode == 0
    assert "Already installed" in again.stdout
    assert (prefix / "venv/marker").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_damaged_environment_is_made_anew(wheelhouse, tmp_path):
    """As after a disk that filled up."""
    assert setup("--offline", wheelhouse, home=tmp_path).returncode == 0
    prefix = tmp_path / ".local/share/hrm-edge"
    (prefix / "venv/marker").touch()
    (prefix / ".installed").unlink()
    shutil.rmtree(prefix / "venv/lib")
    repaired = setup("--offline", wheelhouse, home=tmp_path)
    assert repaired.returncode == 0, repaired.stderr
    assert not (prefix / "venv/marker").exists()
    assert "hrm-edge 9.9.9" in repaired.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_changed_wheel_is_refused_and_the_right_one_completes(wheelhouse, tmp_path):
    copy = tmp_path / "wheelhouse"
    shutil.copytree(wheelhouse, copy)
    (wheel,) = copy.glob("*.whl")
    content = wheel.read_bytes()
    wheel.write_bytes(content + b"x")
    torn = setup("--offline", copy, home=tmp_path)
    assert torn.returncode == 2
    assert "DO NOT MATCH THE HASHES" in torn.stderr
    assert "Error: pip failed" in torn.stderr
    assert not (tmp_path / ".local/share/hrm-edge/.installed").exists()
    wheel.write_bytes(content)
    assert setup("--offline", copy, home=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--dry-run"], id="dry run"),
        pytest.param([], id="real", marks=[pytest.mark.slow, pytest.mark.ci]),  # makes an environment
    ],
)
def test_folders_of_the_user_are_left_alone(wheelhouse, tmp_path, monkeypatch, flags):
    """--prefix may be a folder in use, such as a home: its tmp, and its venv, are not the script's. Modules of the
    current folder do not run."""
    monkeypatch.chdir(tmp_path)
    for name in ("importlib", "ensurepip", "venv", "pip", "json", "tempfile"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran.txt')!r}, 'a').write('{name} ')\n")
    prefix = tmp_path / "mine"
    for name in ("tmp/notes.txt", "venv/bin/python", "venv/pyvenv.cfg", "venv/bin/hrm-edge"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("mine\n")
    before = everything(prefix)
    done = setup("--offline", wheelhouse, "--prefix", prefix, *flags, home=tmp_path)
    assert done.returncode == 2
    assert f"{prefix}/venv is there already and is not one that this script made" in done.stderr
    assert everything(prefix) == before
    shutil.rmtree(prefix / "venv")
    done = setup("--offline", wheelhouse, "--prefix", prefix, *flags, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran.txt").exists(), (tmp_path / "ran.txt").read_text()
    assert (prefix / "tmp/notes.txt").read_text() == "mine\n"
    assert not (prefix / "venv/.unpacked").exists()
    if flags:
        assert "Nothing was done" in done.stdout
        assert everything(prefix) == ["tmp", "tmp/notes.txt"]


JETSONS = {"Orin Nano, JetPack 6.2": (36, "4.3"), "Thor, JetPack 7.1": (38, "4.0")}


def jetson(folder: Path, board: str) -> Path:
    """``head``, which reads /etc/nv_tegra_release in the script, as it answers on that board."""
    return program(folder, "head", f"echo '{l4t(*JETSONS[board]).splitlines()[0]}'")


@pytest.mark.parametrize("board", JETSONS)
def test_a_jetson_gets_the_binding_that_moves_an_engines_data(board, wheelhouse, tmp_path):
    bin_ = jetson(tmp_path / "bin", board)
    online = setup("--dry-run", home=tmp_path, path=bin_)
    assert online.returncode == 0, online.stderr
    assert "Jetson, L4T {}.{}".format(*JETSONS[board]) in online.stdout
    assert "(with cuda-python of constraints.txt, which moves an engine's data to the GPU)" in online.stdout
    assert "Then this system's OpenCV takes the place of pip's, where" in online.stdout
    (pip,) = [line for line in online.stdout.splitlines() if " -m pip " in line]
    assert pip.endswith("web\\,report\\,gpu\\]")
    without = setup("--offline", wheelhouse, "--dry-run", home=tmp_path, path=bin_)
    assert without.returncode == 2
    assert "is without cuda-python, which moves an engine's data to the GPU" in without.stderr
    assert "make wheelhouse" in without.stderr
    full = tmp_path / "full"
    shutil.copytree(wheelhouse, full)
    with (full / f"requirements-cp{TAG}.txt").open("a") as wanted:
        wanted.write("cuda-python==12.6.2.post1 --hash=sha256:0\n")
    offline = setup("--offline", full, "--dry-run", home=tmp_path, path=bin_)
    assert offline.returncode == 0, offline.stderr
    assert "(with cuda-python==12.6.2.post1, which moves" in offline.stdout


# A stand-in for OpenCV; {version} and the parts that it was built with.
OPENCV = """
import numpy
__version__ = "{version}"
def getBuildInformation():
    return "  Video I/O:\\n    FFMPEG:   {ffmpeg}\\n    GStreamer:   {gstreamer} (1.20.3)\\n"
"""
USABLE = {"version": "4.10.0", "ffmpeg": "YES", "gstreamer": "YES"}
OPENCVS = {  # the system's OpenCV (None: there is none) → whether it takes the place of pip's
    "with GStreamer": (OPENCV.format(**USABLE), True),
    "without GStreamer": (OPENCV.format(**{**USABLE, "gstreamer": "NO"}), False),
    "without video files": (OPENCV.format(**{**USABLE, "ffmpeg": "NO"}), False),
    "too old": (OPENCV.format(**{**USABLE, "version": "4.8.0"}), False),
    "built for another NumPy": ("raise ImportError('numpy.core.multiarray failed to import')", False),
    "none": (None, False),
}


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """A wheel of version 9 with these files; the line of a requirements file that names it."""
    wheel = folder / f"{name}-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{name}-9.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n")
        archive.writestr(f"{name}-9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}-9.dist-info/RECORD", "")
    return f"{name.replace('_', '-')}==9 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", OPENCVS)
def test_a_jetsons_own_opencv_takes_the_place_of_pips(case, wheelhouse, tmp_path):
    """Where it loads and serves every camera; gone later, pip's comes back."""
    text, is_taken = OPENCVS[case]
    python = subprocess.check_output(["/usr/bin/python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])"])
    full, system = tmp_path / "full", tmp_path / "dist-packages"
    shutil.copytree(wheelhouse, full)
    (system / "cv2").mkdir(parents=True)
    if text is not None:
        (system / "cv2/__init__.py").write_text(text)
    wanted = [
        (full / f"requirements-cp{TAG}.txt").read_text(),
        make_wheel(full, "opencv_python_headless", {"cv2/__init__.py": OPENCV.format(**{**USABLE, "gstreamer": "NO"})}),
        make_wheel(full, "numpy", {"numpy.py": ""}),
        # with the environment's path to apt's packages, which are not for a test to change
        make_wheel(full, "cuda_python", {"of-apt.pth": f"{system}\n"}),
    ]
    (full / f"requirements-cp{python.decode().strip()}.txt").write_text("".join(wanted))
    bin_ = jetson(tmp_path / "bin", "Orin Nano, JetPack 6.2")
    done = setup("--offline", full, home=tmp_path, path=bin_)
    assert done.returncode == 0, done.stderr
    assert ("takes the place of pip's" in done.stdout) == is_taken
    venv = tmp_path / ".local/share/hrm-edge/venv"

    def imported() -> str:
        return subprocess.check_output([venv / "bin/python", "-c", "import cv2; print(cv2.__file__)"], text=True)

    assert imported().startswith(str(system if is_taken else venv))
    if is_taken:
        assert "Already installed" in setup("--offline", full, home=tmp_path, path=bin_).stdout
        shutil.rmtree(system)
        assert setup("--offline", full, home=tmp_path, path=bin_).returncode == 0
        assert imported().startswith(str(venv))


def test_a_machine_without_tensorrt_gets_no_binding(tmp_path):
    done = setup("--dry-run", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cuda-python" not in done.stdout
    assert "web\\,report\\]" in done.stdout


REFUSED = [  # (arguments, what stderr says)
    (["--nonsense"], "unknown argument --nonsense"),
    (["--offline"], "--offline needs a folder"),
    (["--offline", "/no/such/folder"], "/no/such/folder: no such folder"),
    (["--offline", JETSON], f"has no wheels for Python {TAG[0]}.{TAG[1:]}"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_is_refused(arguments, words, tmp_path):
    done = setup(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2  # the problem, and how to fix it
    assert everything(tmp_path) == []


def test_a_full_disk_is_told_before_anything_is_written(wheelhouse, tmp_path):
    df = program(tmp_path / "bin", "df", "printf 'Filesystem 1M Used Available Use Mounted\\nx 9 9 12 99%% /\\n'")
    done = setup("--offline", wheelhouse, home=tmp_path / "home", path=df)
    assert done.returncode == 2
    assert "12 MB free, 800 MB are needed" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("room_mb", "words"), [(8, "no virtual environment was made"), (60, "pip failed")])
def test_a_disk_that_fills_up_meanwhile_is_told_and_a_rerun_completes(tmp_path, room_mb, words):
    """A disk of so many megabytes, whose df says otherwise: full while the environment is made, or while pip works."""
    if os.geteuid():
        pytest.skip("needs root, to mount a small disk")
    disk, df = tmp_path / "disk", program(tmp_path / "bin", "df", "printf 'x\\nx 9 9 9999 0%% /\\n'")
    disk.mkdir()
    (tmp_path / "wheelhouse").mkdir()
    wheelhouse = make_wheelhouse(tmp_path / "wheelhouse", ballast_mb=60)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room_mb}m", "tmpfs", str(disk)], check=True)
    try:
        done = setup("--offline", wheelhouse, home=disk, path=df)
        assert done.returncode == 2
        assert f"Error: {words}: see the message above\n  df -h" in done.stderr
        assert not (disk / ".local/share/hrm-edge/.installed").exists()
        assert not (disk / ".local/share/hrm-edge/tmp").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert setup("--offline", wheelhouse, home=disk, path=df).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sudo_refused_leaves_the_installation(wheelhouse, tmp_path):
    """Root runs these tests, so the script is told that the user is another one."""
    names = "case $1 in -u) echo 1000 ;; -un) echo ada ;; *) echo ada ;; esac"
    bin_ = program(tmp_path / "bin", "id", names)
    program(bin_, "sudo", "echo 'ada is not in the sudoers file' >&2; exit 1")
    program(bin_, "getent", "exit 0")
    done = setup("--offline", wheelhouse, "--groups", home=tmp_path / "home", path=bin_)
    assert done.returncode == 2
    assert "sudo usermod -aG video\\,render\\,i2c ada" in done.stdout
    assert "Error: sudo was refused; hrm-edge itself is installed" in done.stderr
    assert (tmp_path / "home/.local/share/hrm-edge/.installed").exists()


def test_a_service_that_could_not_read_its_program_is_refused(wheelhouse, tmp_path):
    done = setup("--offline", wheelhouse, "--service", "--prefix", "/home/ada/hrm", "--dry-run", home=tmp_path)
    assert done.returncode == 2
    assert "--prefix /opt/hrm-edge" in done.stderr
    assert done.stdout.count("\n") == 1  # before anything is done


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0, 3.0, 4.0])
def test_an_interrupted_setup_is_completed_by_running_it_again(wheelhouse, tmp_path, after_s):
    environ = {"HOME": str(tmp_path), "PATH": os.pathsep.join(map(str, PATH))}
    command = ["bash", str(SETUP), "--offline", str(wheelhouse)]
    with subprocess.Popen(command, env=environ, start_new_session=True, stdout=-3, stderr=-3) as running:
        time.sleep(after_s)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    done = setup("--offline", wheelhouse, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"doctor of {tmp_path}" in done.stdout
