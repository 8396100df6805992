"""Odd but real environments: no home or name, read-only folders, closed or plain streams, Ctrl-C at the start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from hrm_edge.cli import main as frame
from hrm_edge.demo.guard import is_loopback
from hrm_edge.demo.serve import Address
from hrm_edge.files import private_folder, user_cache, writable_cache
from tests.needs import left_out, missing, quick_compilers

ROOT = Path(__file__).parents[2]
EASY = "002968470000017200090002016783106020021079053540000061015820007000005000074031009"
HRM_EDGE = f"{sys.executable} -m hrm_edge"


def shell(
    script: str, folder: Path, *, unset: tuple[str, ...] = (), own: bool = False, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``folder``; ``own``: in name spaces of its own, where it may mount, else skip."""
    command = ["sh", "-c", script]
    if own:
        own_space = ["unshare", "--user", "--map-root-user", "--mount"]
        probe = [*own_space, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
            missing("this machine lets no one mount in a name space of their own")
        command = [*own_space, *command]
    variables: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    kept = {name: value for name, value in variables.items() if name not in unset}
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=280, check=False, cwd=folder, env=kept
    )


# -- no home, no name, nothing to write to ---------------------------------------------------------------------------

VERBS = {  # every verb, and how it ends
    "doctor": ("doctor", 0),
    "info": ("info full", 0),
    "recipes": ("recipes", 0),
    "completion": ("completion bash", 0),
    "data": ("data build mini-sudoku --out data --count 4 --test-count 2", 0),
    "train": ("train recipe.yaml --out run", 0),
    "eval": ("eval sudoku-nano --data puzzles.txt", 0),
    "export": ("export sudoku-nano --out artifact --fp16 --puzzles 1 --max-steps 1", (0, 1)),
    "bench": ("bench sudoku-nano --data puzzles.txt --duration 0.1s", 0),
    "record": ("record --models nothing", 2),
    "remote": ("remote no-such-host.invalid doctor", 2),
    "models": ("models", 0),
    "solve": (f"solve {EASY}", 0),
    "demo": ("demo --web nowhere", 2),
}
RECIPE = """\
task: mini-sudoku
variant: nano
data: DATA
model: {hidden: 16, heads: 4, max_steps: 2}
train: {batch: 4, steps: 2, precision: fp32, compile: false}
evaluate: {every: 2, puzzles: 2}
"""


@pytest.mark.parametrize("verb", VERBS)
def test_a_user_without_a_name_and_a_home(verb, trained, tmp_path):
    """``docker run --user 12345``: every verb ended in "Could not determine home directory"."""
    assert set(VERBS) == set(frame.VERBS)
    words, codes = VERBS[verb]
    (tmp_path / "puzzles.txt").write_text(f"{EASY}\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("DATA", str(trained.parent / "data")))
    nameless = ["unshare", "--user", "--map-user=12345"]
    if shutil.which("unshare") is None or subprocess.run([*nameless, "true"], check=False).returncode:
        missing("this machine lets no one change to a user without a name")
    unset = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    path = os.pathsep.join([left_out(tmp_path), str(ROOT)] if verb == "doctor" else [str(ROOT)])
    script = f"exec {' '.join(nameless)} sh -c 'exec {HRM_EDGE} {words}'"
    done = shell(script, tmp_path, unset=unset, PYTHONPATH=path, **quick_compilers())
    assert done.returncode in (codes if isinstance(codes, tuple) else (codes,)), done.stderr
    assert "home directory" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "~" not in os.listdir(tmp_path)


IMPORT = "-c 'import hrm_edge.data.sudoku_numba as compiled; print(compiled.solve.stats.cache_path)'"  # fails at once


@pytest.mark.parametrize("words", [IMPORT, f"-m hrm_edge solve {EASY} --model {{}}/model"])
def test_a_read_only_package_and_home(words, tmp_path):
    """Of numba: cannot cache function 'search': no locator available."""
    package, home = tmp_path / "site" / "hrm_edge", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "hrm_edge", package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(package / "zoo" / "sudoku-nano", tmp_path / "model")
    script = (
        f"mount -t tmpfs -o ro tmpfs {home} && mount --bind {package} {package} && mount -o remount,bind,ro {package} "
        f"&& exec {sys.executable} {words.format(tmp_path)}"
    )
    environ = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(home), "TMPDIR": str(tmp_path)}
    done = shell(script, tmp_path, own=True, unset=("XDG_CACHE_HOME",), **environ)
    assert done.returncode == 0, done.stderr
    assert words != IMPORT or done.stdout.startswith(f"{tmp_path}/hrm-edge-")


def test_the_native_step_with_a_cache_that_cannot_be_written(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    script = f"mount -t tmpfs -o ro tmpfs {home} && exec {HRM_EDGE} solve {EASY} --model sudoku-nano-int8 "
    environ = {"HOME": str(home), "TMPDIR": str(tmp_path), **quick_compilers()}
    done = shell(f"{script} --backend native", tmp_path, own=True, unset=("XDG_CACHE_HOME",), **environ)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("hrm-edge-*/native/*.so"))


def test_a_folder_that_is_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours = private_folder()
    assert (ours, ours.stat().st_mode & 0o777) == (tmp_path / f"hrm-edge-{os.getuid()}", 0o700)
    assert private_folder() == ours
    ours.chmod(0o777)  # anybody may have put something there
    assert private_folder() != ours
    ours.rmdir()
    ours.symlink_to(tmp_path)
    assert private_folder() not in (ours, tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert writable_cache("native").is_dir()
    assert user_cache() not in writable_cache("native").parents


def test_shared_memory_that_is_read_only_is_not_the_output_folders_fault(tmp_path):
    words = "data build sudoku --out data --processes 2 --count 4 --test-count 2"
    done = shell(f"mount -t tmpfs -o ro tmpfs /dev/shm && exec {HRM_EDGE} {words}", tmp_path, own=True)
    assert done.returncode == 2, done.stderr
    assert "--processes 2: processes cannot share work here, /dev/shm does not take locks" in done.stderr
    assert "--processes 1, or " in done.stderr
    assert "--out" not in done.stderr
    assert not (tmp_path / "data").exists()


# -- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        *(("ascii", words) for words in ("models", f"solve {EASY}", "doctor", "eval sudoku-nano --data p.txt")),
        *((encoding, "info full") for encoding in ("ascii", "latin-1", "cp437")),  # ASCII is in all of them
    ],
)
def test_a_terminal_that_knows_no_unicode(encoding, words, tmp_path):
    (tmp_path / "p.txt").write_text(f"{EASY}\n")
    path = f"{left_out(tmp_path)}{os.pathsep}{ROOT}"
    done = shell(f"{HRM_EDGE} {words}", tmp_path, PYTHONIOENCODING=encoding, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    """A service starts its program with none; the next file that is opened must not become one."""
    (tmp_path / "p.txt").write_text(f"{EASY}\n")
    done = shell(f"{HRM_EDGE} eval sudoku-nano --data p.txt --json r.json {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert (tmp_path / "r.json").read_text().startswith("{")
    assert "verified" in (done.stdout if ">&-" not in closed.replace("2>&-", "") else "verified")


def test_bytes_that_are_no_text(tmp_path):
    for words in ("info", "solve", "eval --data x", "bench", "train"):
        done = subprocess.run(
            [sys.executable, "-m", "hrm_edge", *words.split(), b"x\xff\n\x1b[2J"], capture_output=True, check=False,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert b"\\xff" in done.stderr or b"\\udcff" in done.stderr
        assert b"\x1b" not in done.stderr


# -- Ctrl-C while modules load ---------------------------------------------------------------------------------------

INTERRUPT = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
AS_C = (  # what libraries with C++ inside make of it
    f"try:\n    {INTERRUPT}except KeyboardInterrupt as error:\n"
    "    raise ImportError('initialization failed') from error\n"
)


@pytest.mark.parametrize("module", ["click", "rich", "numpy", "pydantic", "onnxruntime"])
@pytest.mark.parametrize("text", [INTERRUPT, AS_C], ids=["plain", "inside C"])
def test_ctrl_c_while_a_module_loads(module, text, tmp_path):
    if (module, text) == ("click", AS_C):
        pytest.skip("click is Python alone")
    (tmp_path / f"{module}.py").write_text(text)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = shell(f"exec {HRM_EDGE} solve {EASY}", tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "Interrupted"


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["solve", ""], ["solve", EASY, "--model", ""], ["eval", "", "--data", "x"], ["eval", "x", "--data="],
     ["bench", ""], ["info", ""], ["data", "build", "sudoku", "--out", ""], ["train", ""], ["export", "x", "--out", ""],
     ["remote", "", "doctor"], ["remote", "board", "bench", ""], ["models", "--from", ""], ["demo", "--camera", ""]],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_argument_is_a_variable_that_is_not_set(words, capsys, tmp_path, monkeypatch):
    """``solve ""`` solved every picture of the folder."""
    monkeypatch.chdir(tmp_path)
    assert frame.main(words) == 2
    err = capsys.readouterr().err
    assert "an argument is empty" in err
    assert "is a variable of your shell not set?" in err


def test_an_empty_word_where_it_means_none(capsys, tmp_path):
    assert frame.main(["train", str(tmp_path / "no.yaml"), "--wandb", ""]) == 2
    assert "an argument is empty" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.2", True), ("localhost", True), ("::1", True), ("127.0.0.1.example.org", False), ("127.evil", False),
     ("0.0.0.0", False), ("192.168.1.2", False), ("", False)],
)  # fmt: skip
def test_what_is_this_machine(host, here):
    """``--web 127.0.0.2:8000`` refused its own address, and a name that begins with 127. is somebody's."""
    assert is_loopback(host) == here
    assert Address(host, 8000).is_local == here
