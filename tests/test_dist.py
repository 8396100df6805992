"""A release: built, checked by twine, installed in a fresh environment by the documents' own commands, and run."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from hrm_edge import __version__, catalog

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make dist`` makes."""
    pytest.importorskip("twine", reason="make venv")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, "-t", "sdist", "-t", "wheel", cwd=ROOT)
    assert {path.suffix for path in folder.iterdir()} == {".whl", ".gz"}
    run(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir())
    return folder


def test_the_wheel_has_what_a_user_needs_and_no_tests(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"hrm_edge/recipes/{name}.yaml" for name in catalog.names()} <= set(names)
    assert "hrm_edge/zoo/sudoku-nano/step.onnx" in names
    assert "hrm_edge/calibration/sudoku.csv" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_the_source_release_makes_the_same_wheel(dist, tmp_path):
    (source,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run("tar", "-xf", source, "-C", tmp_path)
    run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path, "-t", "wheel", cwd=next(tmp_path.iterdir()))
    (again,) = tmp_path.glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_a_student_gets_from_the_release_file_to_a_solved_photo(dist, tmp_path):
    """The three lines of docs/how-to/install.md, with the file's name and a photo put in."""
    text = (ROOT / "docs/how-to/install.md").read_text()
    lines = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1].splitlines()
    (from_file,) = re.findall(r"`(pip install 'hrm_edge-[^`]*)`", text)
    assert len(lines) == 3
    assert __version__ in from_file
    (wheel,) = dist.glob("*.whl")
    cv2 = pytest.importorskip("cv2", reason="pip install 'hrm-edge[vision]'")
    from tests.vision.scenes import EASY, paper, scene

    assert cv2.imwrite(str(tmp_path / "photo.jpg"), scene(paper(EASY)))
    constrained = from_file.replace("hrm_edge-", f"{wheel.parent}/hrm_edge-") + f" -c {ROOT / 'constraints.txt'}"
    # Only what a release would not ask for is added: the pins, so that the test is the same tomorrow.
    script = "\n".join(["set -e", lines[0].replace("python3", sys.executable), constrained, lines[2]])
    said = run("bash", "-c", script, cwd=tmp_path)
    assert "solved, verified by the rules" in said
    assert (tmp_path / "solved.jpg").is_file()
    edge = tmp_path / ".venv/bin/hrm-edge"
    assert run(edge, "version", cwd=tmp_path) == f"hrm-edge {__version__}\n"
    run(edge, "recipes", "copy", "mini-sudoku_nano", "mine.yaml", cwd=tmp_path)
    assert (tmp_path / "mine.yaml").read_bytes() == catalog.find("mini-sudoku_nano").read_bytes()


def test_an_extra_is_added_without_fetching_our_name(dist, tmp_path):
    """``pip install 'hrm-edge[hub]'``, as errors advise: pip takes what is installed, and looks for no other."""
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    pip = [tmp_path / "env/bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    run(*pip, "--no-deps", wheel)
    # With no index at all: the packages of the extra are missing then, but hrm-edge itself is not.
    words = [*map(str, pip), "--no-index", "--no-deps", "hrm-edge[hub]"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "already satisfied: hrm-edge" in done.stdout
