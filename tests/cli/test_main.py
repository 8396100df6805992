"""The command line's frame: help without imports, nearest verbs, and one clear message for every failure."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from hrm_edge import __version__
from hrm_edge.cli import main as frame
from hrm_edge.errors import GateError, Interrupted, UserError
from hrm_edge.files import write_text

HRM_EDGE = [sys.executable, "-m", "hrm_edge"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HRM_EDGE, *arguments], capture_output=True, text=True, timeout=60, check=False)


def program(verb_body: str) -> str:
    """A Python program with one verb ``work`` whose body is given, run through the real ``main``."""
    return (
        "import sys, types, time, click\n"
        "from hrm_edge.cli import main as frame\n"
        f"def work():\n    {verb_body}\n"
        "sys.modules['probe'] = types.SimpleNamespace(work=click.command()(work))\n"
        "frame.VERBS['work'] = frame.Verb('probe:work', 'Work.')\n"
        "sys.exit(frame.main(['work']))\n"
    )


@pytest.fixture
def failing(monkeypatch):
    """Run ``hrm-edge work`` with a verb that raises the given exception; returns the exit code."""

    def invoke(error: BaseException) -> int:
        @click.command()
        def work() -> None:
            raise error

        monkeypatch.setitem(sys.modules, "probe", types.SimpleNamespace(work=work))
        monkeypatch.setitem(frame.VERBS, "work", frame.Verb("probe:work", "Work."))
        return frame.main(["work"])

    return invoke


def test_help_lists_every_verb_with_its_summary():
    done = run("--help")
    assert done.returncode == 0
    for name, verb in frame.VERBS.items():
        assert f"  {name} " in done.stdout
        assert verb.summary in done.stdout


def test_help_imports_nothing_heavy_so_that_it_answers_at_once():
    """Python's own modules and click are about 140; each of the heavy ones would bring hundreds."""
    code = (
        "import sys\n"
        "from hrm_edge.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'numba', 'pydantic', 'yaml', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert len(sys.modules) < 220, sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", frame.VERBS)
def test_each_verb_resolves_and_has_help(name, capsys):
    module, attribute = frame.VERBS[name].target.split(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
    assert frame.main([name, "--help"]) == 0
    assert f"Usage: hrm-edge {name}" in capsys.readouterr().out


def test_every_command_of_the_folder_is_in_the_table():
    """A verb that was written but not entered in the table would be unreachable."""
    files = Path(frame.__file__).parent.glob("*.py")
    marks = ("@click.command(", "@click.group(")
    written = {path.stem for path in files if path.stem != "main" and any(m in path.read_text() for m in marks)}
    assert written == {verb.target.partition(":")[0].rpartition(".")[2] for verb in frame.VERBS.values()}


def test_version(capsys):
    assert frame.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hrm-edge {__version__}\n"


def test_misspelt_verb_names_the_nearest(capsys, monkeypatch):
    monkeypatch.setitem(frame.VERBS, "train", frame.Verb("probe:train", "Train."))
    assert frame.main(["trian", "recipes/x.yaml"]) == 2
    assert "No such command 'trian': did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--nonsense"], ["work", "--nonsense"], ["work", "surplus"], []])
def test_usage_errors_exit_2_with_usage(arguments, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "probe", types.SimpleNamespace(work=click.command()(lambda: None)))
    monkeypatch.setitem(frame.VERBS, "work", frame.Verb("probe:work", "Work."))
    assert frame.main(arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: hrm-edge" in captured.err
    assert captured.out == ""


def test_success_and_a_verb_that_chooses_its_exit_code(monkeypatch):
    @click.command()
    @click.argument("code", type=int)
    @click.pass_context
    def work(context: click.Context, code: int) -> None:
        context.exit(code)

    monkeypatch.setitem(sys.modules, "probe", types.SimpleNamespace(work=work))
    monkeypatch.setitem(frame.VERBS, "work", frame.Verb("probe:work", "Work."))
    assert frame.main(["work", "0"]) == 0
    assert frame.main(["work", "1"]) == 1


FAILURES = [
    (UserError("no such recipe", "did you mean 'x'?"), 2, "Error: no such recipe\n  did you mean 'x'?\n"),
    (UserError("only what"), 2, "Error: only what\n"),
    (UserError("[bold]a[/bold] b"), 2, "Error: [bold]a[/bold] b\n"),
    (GateError("parity missed", "retrain"), 1, "Failed: parity missed\n  retrain\n"),
    (Interrupted("Interrupted", "go on with --resume"), 130, "Interrupted: go on with --resume\n"),
    (KeyboardInterrupt(), 130, "Interrupted\n"),
    (click.Abort(), 130, "Interrupted\n"),
    (OSError(errno.ENOSPC, "x", "out/a.bin"), 2, "Error: out/a.bin: No space left on device\n  free some space"),
    (OSError(errno.ENOSPC, "x"), 2, "Error: output: No space left on device\n"),
    (OSError(errno.EACCES, "x", "out"), 2, "Error: out: Permission denied\n  choose a folder you may write to"),
    (OSError(errno.EROFS, "x", "out"), 2, "Error: out: Read-only file system\n  that file system is read-only"),
    (MemoryError("Unable to allocate 9 GiB"), 2, "Error: not enough memory: Unable to allocate 9 GiB\n  use a smaller"),
    (MemoryError(), 2, "Error: not enough memory\n"),
    (RuntimeError("CUDA out of memory. Tried 2 GiB\nmore"), 2, "Error: not enough memory: CUDA out of memory. Tried"),
    (ModuleNotFoundError("x", name="torch"), 2, "Error: this command needs torch\n  pip install 'hrm-edge[train]'\n"),
    (ModuleNotFoundError("x", name="onnx.helper"), 2, "Error: this command needs onnx\n"),
]


@pytest.mark.parametrize(("error", "code", "text"), FAILURES, ids=lambda value: repr(value)[:40])
def test_failures_are_messages(error, code, text, failing, capsys):
    assert failing(error) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(text)
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), ModuleNotFoundError("x", name="left_pad"), OSError("x")])
def test_a_bug_shows_its_traceback_and_asks_for_a_report(error, failing, capsys):
    assert failing(error) == frame.EXIT_BUG
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "in work" in err
    assert err.endswith(f"This is a bug in hrm-edge {__version__}: please report it with the text above.\n")


def test_the_errors_are_coloured_on_a_terminal_only(failing, monkeypatch, capsys):
    failing(UserError("red?", "cyan?"))
    assert "\x1b[" not in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    failing(UserError("red?", "cyan?"))
    assert "\x1b[1;31mError: " in capsys.readouterr().err


def test_ctrl_c_ends_with_one_line_and_130():
    code = program("print('ready', flush=True); time.sleep(200)")  # which ends with 0 where Ctrl-C is not taken
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert running.stderr.read() == "Interrupted\n"


def test_a_reader_that_leaves_early_is_no_error():
    code = program("[print('x' * 1000) for _ in range(10000)]")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait() == 0
        assert running.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_reported():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program("print('answer')")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: output: No space left on device\n")


def test_an_unwritable_folder_is_the_users_to_fix(tmp_path, monkeypatch, capsys):
    """The real error of the atomic writer, not a made one: a file stands where a folder is needed."""
    (tmp_path / "file").write_text("")

    @click.command()
    def work() -> None:
        write_text(tmp_path / "file" / "x.json", "{}")

    monkeypatch.setitem(sys.modules, "probe", types.SimpleNamespace(work=work))
    monkeypatch.setitem(frame.VERBS, "work", frame.Verb("probe:work", "Work."))
    assert frame.main(["work"]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["file"]


def test_the_console_script_is_this_main(monkeypatch):
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    target = re.search(r'^hrm-edge = "([\w.]+):(\w+)"$', text, re.MULTILINE)
    assert target is not None
    monkeypatch.setattr(frame, "main", lambda: 7)
    assert getattr(importlib.import_module(target[1]), target[2])() == 7
