"""A measurement is not lost: outputs are checked before the run, and one that fails afterwards keeps back no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.api import solve as solving
from hrm_edge.bench import roofline as roofline_module
from hrm_edge.bench import run as run_module
from hrm_edge.bench import sweep
from hrm_edge.cli import bench, evaluate, options
from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from tests.artifacts import write_singles_artifact
from tests.cli.conftest import MINI
from tests.needs import missing

QUICK = ("--duration", "0.05s", "--power", "none")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(mini, tmp_path):
    """The words of a verb that writes a report; a comparison reads one that is measured here."""

    def words(verb: str, run) -> list[object]:
        if verb == "compare":
            measured = ["bench", mini / "model", "--data", mini / "plain.txt", *QUICK, "--json", tmp_path / "a.json"]
            assert run(*measured).code == 0
            return ["bench", "--compare", tmp_path / "a.json", tmp_path / "a.json"]
        if verb == "sweep":
            half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
            sweep = ["--sweep", "precision", "--data", mini / "plain.txt", *QUICK]
            return ["bench", mini / "model", half, *sweep]
        return [verb, mini / "model", "--data", mini / "plain.txt", *(QUICK if verb == "bench" else ())]

    return words


# -- before the run -------------------------------------------------------------------------------------------------


def test_html_without_matplotlib_is_refused_before_the_run(run, command, tmp_path, monkeypatch):
    """Every board was like that: the run was made, then neither table nor JSON came."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(run_module, "SCENARIOS", {})  # nothing is measured
    done = run(*command("bench", run), "--html", tmp_path / "p.html", "--json", tmp_path / "r.json")
    assert (done.code, done.out) == (2, "")
    assert "--html needs matplotlib for its plots" in done.err
    assert "pip install 'hrm-edge[report]', or leave --html out" in done.err


def test_boards_install_what_the_page_needs():
    gather, setup = (ROOT / "scripts/wheelhouse.py").read_text(), (ROOT / "jetson" / "setup.sh").read_text()
    assert 'default=["web", "report", "gpu"]' in gather
    assert "extras=web,report " in setup


LONG = ("--json", "--markdown", "--html")


def test_long_names_work(run, command, tmp_path):
    """Of 255 characters, the file system's limit, and of those that a temporary name's ending would have passed it."""
    names = {flag: tmp_path / f"{flag[2]}{'r' * length}" for flag, length in zip(LONG, (249, 254, 254), strict=True)}
    done = run(*command("bench", run), *(word for pair in names.items() for word in pair))
    assert done.code == 0, done.err
    assert min(file.stat().st_size for file in names.values()) > 100


@pytest.mark.parametrize("flag", LONG)
def test_a_name_that_is_too_long_is_refused_before_the_run(run, command, tmp_path, flag):
    name = "r" * 256
    done = run(*command("bench", run), flag, tmp_path / name)
    assert (done.code, done.out) == (2, "")
    assert f"{flag} {tmp_path / name}: File name too long" in done.err


def test_a_disk_without_room_is_refused_before_the_run(tmp_path):
    """A tmpfs of 8 KiB: an empty file fits, a report does not."""
    words = [sys.executable, "-m", "hrm_edge", "bench", "nothing", "--json", f"{tmp_path}/r.json"]
    script = f"mount -t tmpfs -o size=8k tmpfs {tmp_path} && exec {' '.join(words)}"
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, f"mount -t tmpfs tmpfs {tmp_path}"]).returncode:
        missing("this machine lets no one mount a tmpfs of their own")
    done = subprocess.run([*unshare, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json " in done.stderr
    assert "No space left on device" in done.stderr


def test_one_file_for_two_outputs_is_refused(run, command, tmp_path):
    for name in (tmp_path / "r", "-"):
        done = run(*command("bench", run), "--json", name, "--markdown", name)
        assert (done.code, done.out) == (2, "")
        assert f"--markdown {name}: --json is written there too" in done.err


def test_other_outputs_are_looked_at_first_too(run, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.png").write_bytes(b"not looked at")
    overlay = run("solve", tmp_path / "a.png", "--overlay", tmp_path / "file" / "b.png")
    assert (overlay.code, f"--overlay {tmp_path / 'file'}" in overlay.err) == (2, True)
    words = ("export", "sudoku-nano", "--out", tmp_path / "x", "--int8", "--sensitivity", tmp_path / "file" / "s.yaml")
    ranking = run(*words)
    assert (ranking.code, f"--sensitivity {tmp_path / 'file'}" in ranking.err) == (2, True)
    assert not (tmp_path / "x").exists()


# -- after the run --------------------------------------------------------------------------------------------------


@pytest.fixture
def lost_folder(tmp_path, monkeypatch):
    """A folder that takes files before the run and none afterwards, as when its disk has filled up."""
    folder = tmp_path / "reports"
    real = options.show

    def show(tables, outputs, following) -> None:
        if folder.exists():
            shutil.rmtree(folder)
            folder.write_text("a file stands here now")
        real(tables, outputs, following)

    for module in (bench, evaluate):
        monkeypatch.setattr(module, "show", show)
    return folder


@pytest.mark.parametrize("verb", ["bench", "eval", "compare", pytest.param("sweep", marks=pytest.mark.slow)])
def test_an_output_that_fails_keeps_back_no_other(run, command, tmp_path, lost_folder, verb):
    words = command(verb, run)
    done = run(*words, "--json", lost_folder / "r.json", "--markdown", tmp_path / "r.md")
    assert done.code == 2
    assert f"{lost_folder / 'r.json'}: " in done.err
    assert "the table above has it all" in done.err
    assert "exact" in done.out  # the table
    assert f"Report: {tmp_path / 'r.md'}" in done.out
    assert "Next" not in done.out
    assert "exact" in (tmp_path / "r.md").read_text()


def test_a_page_that_cannot_be_drawn_leaves_the_rest(run, command, tmp_path):
    """matplotlib is there and does not load, which shows when the plots are drawn."""
    broken = tmp_path / "site" / "matplotlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libfreetype.so.6: cannot open shared object file')\n")
    words = map(str, command("bench", run))
    files = ("--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md", "--html", tmp_path / "r.html")
    done = subprocess.run(
        [sys.executable, "-m", "hrm_edge", *words, *map(str, files)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"},
    )  # fmt: skip
    assert "exact accuracy" in done.stdout
    assert read_json(tmp_path / "r.json")["count"] > 0
    assert "exact accuracy" in (tmp_path / "r.md").read_text()
    assert (done.returncode, "libfreetype.so.6" in done.stderr) == (2, True)


def test_what_is_measured_beside_the_run_cannot_lose_it(run, command, tmp_path, monkeypatch):
    """A small board has no memory left for the trial of its rates, or for the reference."""

    def no_memory(*arguments) -> None:
        raise MemoryError

    monkeypatch.setattr(roofline_module, "trial_peaks", no_memory)
    monkeypatch.setattr(run_module, "measure_parity", no_memory)
    half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
    model, *rest = command("bench", run)[1:]
    done = run("bench", half, *rest, "--reference", model, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    report = read_json(tmp_path / "r.json")
    assert report["roofline"]["peaks_from"] == "unknown: no memory was left to measure this CPU's rates"
    assert report["reference"] is None
    assert report["reference_reason"].endswith("failed: MemoryError: ")


def test_a_sweep_that_is_stopped_keeps_its_points(run, mini, tmp_path, monkeypatch):
    real, calls = sweep.run_verb, []

    def stopped_at_the_second(arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(arguments)

    monkeypatch.setattr(sweep, "run_verb", stopped_at_the_second)
    half = write_singles_artifact(tmp_path / "half", MINI, precision="fp16")
    words = ("--sweep", "precision", "--data", mini / "plain.txt", *QUICK, "--json", tmp_path / "s.json")
    done = run("bench", mini / "model", half, *words)
    assert (done.code, "1 points were measured before" in done.err) == (130, True)
    assert [point["model"]["precision"] for point in read_json(tmp_path / "s.json")["points"]] == ["fp32"]
    monkeypatch.setattr(sweep, "run_verb", lambda arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("bench", mini / "model", half, *words).code == 130


def test_answers_come_before_the_overlay(run, tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    from tests.vision.rendered import photo

    def full(*arguments) -> None:
        raise UserError("solved.png: No space left on device", "free some space")

    cv2.imwrite(str(tmp_path / "a.png"), np.asarray(photo(9, cell=34).image))
    monkeypatch.setattr(solving, "draw_overlay", full)
    monkeypatch.chdir(tmp_path)
    done = run("solve", "a.png", "--overlay", "solved.png")
    assert (done.code, "No space left on device" in done.err) == (2, True)
    assert "a.png: solved, verified by the rules" in done.out
