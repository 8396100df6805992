"""``hrm-edge record``: its plan on simulated machines, going on after a kill, the archive, and archives of others."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hrm_edge import __version__, zoo
from hrm_edge.child import Ended
from hrm_edge.device.system import System
from hrm_edge.doctor import Diagnosis, diagnose
from hrm_edge.errors import UserError
from hrm_edge.files import read_json, write_json
from hrm_edge.manifest import STEP_FILE, read_manifest
from hrm_edge.record.archive import MOST_FILE_BYTES, MOST_UNPACKED_BYTES, TOP, read_archive
from hrm_edge.record.plan import Wanted, modes_to_hold, plan
from hrm_edge.record.run import archive_of, make_record
from hrm_edge.record.schema import OWN_PUZZLES, Row, Settings
from hrm_edge.record.scrub import Scrubber, publishable_diagnosis
from hrm_edge.record.table import NOTHING, boards_table, markdown
from scripts import boards_table as script
from tests.cli.conftest import mini, run  # noqa: F401
from tests.doctor.trees import Tree, agx_orin_jp72, cpu_laptop, orin_nano_jp62, rtx_desktop
from tests.needs import left_out

ROOT = Path(__file__).parents[2]
SAMPLE = read_json(ROOT / "tests/samples/bench.json")
SETTINGS = Settings(quick=True, duration_s=0.1, idle_s=0.0, puzzles=OWN_PUZZLES, lock_clocks=False)


def seen(tree: Tree, root: Path) -> Diagnosis:
    return diagnose(tree.machine(root), lambda: "solved")


def rows_on(tree: Tree, root: Path, **chosen: Sequence[str]) -> tuple[list[str], list[str]]:
    rows, notes = plan(seen(tree, root), chosen.get("models", ()), chosen.get("backends", ()), [None])
    return [row.name for row in rows], notes


# -- what is measured where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tree", "gpu"), [(orin_nano_jp62, "tensorrt"), (rtx_desktop, "tensorrt-rtx")])
def test_every_model_that_a_gpu_runs_has_a_row_on_it_and_on_the_cpu(tree, gpu, tmp_path):
    rows, notes = plan(seen(tree(), tmp_path), (), (), [None])
    assert {row.model for row in rows} == set(zoo.names())
    assert {row.backend for row in rows} == {"onnxruntime", gpu}
    on_gpu = {(row.model, row.precision) for row in rows if row.backend == gpu}
    assert {precision for _, precision in on_gpu} >= {"fp32", "int8"}
    assert any(note.startswith("openvino: ") for note in notes)
    for row in rows:
        assert row.sha256 == read_manifest(zoo.path_of(row.model)).files[STEP_FILE].sha256


def test_torch_tensorrt_takes_float32_artifacts(tmp_path):
    diagnosis = seen(orin_nano_jp62(), tmp_path)
    works = [
        backend.model_copy(update={"works": True, "precisions": ["fp32", "fp16", "int8"]})
        for backend in diagnosis.backends
    ]
    models = ["sudoku-nano", "sudoku-nano-int8"]
    rows, notes = plan(diagnosis.model_copy(update={"backends": works}), models, ["torch-tensorrt"], [None])
    assert [row.model for row in rows] == ["sudoku-nano"]
    assert notes == [
        "sudoku-nano-int8 on torch-tensorrt: it builds from float32 weights, which this artifact has no more"
    ]


def test_chosen_models_and_backends(tmp_path):
    names, _ = rows_on(orin_nano_jp62(), tmp_path, models=["sudoku-nano"], backends=["tensorrt"])
    assert names == ["sudoku-nano.tensorrt"]


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"models": ["sudoku-nan"]}, "--models: sudoku-nan is no shipped model and no artifact"),
        ({"backends": ["tensort"]}, "--backends: there is no backend 'tensort'"),
        ({"backends": ["tensorrt"]}, "nothing can be measured here: tensorrt: "),
        ({"models": ["sudoku-nano", "hrm_edge/zoo/sudoku-nano"]}, "two of them are called sudoku-nano.onnxruntime"),
    ],
)
def test_choices_that_cannot_be(chosen, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=problem):
        rows_on(cpu_laptop(), tmp_path, **chosen)


def test_power_modes(tmp_path, monkeypatch):
    tree = agx_orin_jp72()
    machine = tree.machine(tmp_path)
    allowed = System(tmp_path, lambda command: "" if command[0] == "sudo" else machine.system.programs(command))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    every, notes = modes_to_hold(allowed, None, quick=False)
    assert (len(every) > 2, None in every, notes) == (True, False, [])
    assert modes_to_hold(allowed, None, quick=True) == ([None], [])
    assert modes_to_hold(allowed, [every[1]], quick=True) == ([every[1]], [])
    present, notes = modes_to_hold(machine.system, None, quick=False)
    assert (present, "needs root; run 'sudo -v'" in notes[0]) == ([None], True)
    with pytest.raises(UserError, match="has no mode '500W'"):
        modes_to_hold(allowed, ["500W"], quick=False)
    with pytest.raises(UserError, match="has no mode 'MAXN'"):
        modes_to_hold(System(tmp_path / "none"), ["MAXN"], quick=False)


# -- measuring, and going on ----------------------------------------------------------------------------------------


class Machine:
    """Runs verbs as a board would: a report for every bench; counts them, and can stop or fail."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.sha256 = {row.model: row.sha256 for row in rows}
        self.asked: list[Sequence[str]] = []
        self.stop_at: int | None = None
        self.fail: dict[str, str] = {}

    def __call__(self, words: Sequence[str], *, limit_s: float, on_tick: Callable[[], None]) -> Ended:
        on_tick()
        self.asked.append(words)
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        verb, model = words[:2]
        if verb in self.fail:
            return Ended(2, self.fail[verb])
        if verb == "export":
            return Ended(0, "")
        name = Path(model).name.partition(".")[0]
        report = {**SAMPLE, "model": {**SAMPLE["model"], "name": name, "sha256": self.sha256[name]}}
        write_json(words[words.index("--json") + 1], report)
        return Ended(0, "")


@pytest.fixture
def orin(tmp_path):
    """A record of two models on a simulated Orin Nano: diagnosis, rows, machine, and what makes it."""
    diagnosis = seen(orin_nano_jp62(), tmp_path / "root")
    rows, notes = plan(diagnosis, ["sudoku-nano", "sudoku-nano-int8"], (), [None])
    machine = Machine(rows)

    def make(settings: Settings = SETTINGS, out: Path = tmp_path / "board") -> Any:
        wanted = Wanted(rows, settings, notes)
        return make_record(
            out, wanted, diagnosis, on_message=print, on_progress=lambda *_: None, run=machine
        )  # fmt: skip

    return rows, machine, make


def test_a_record_of_engines_and_the_cpu(orin, tmp_path):
    rows, machine, make = orin
    found = make()
    assert list(found.reports) == [row.name for row in rows]
    exports = [words for words in machine.asked if words[0] == "export"]
    assert [Path(words[3]).name for words in exports] == ["sudoku-nano.tensorrt", "sudoku-nano-int8.tensorrt"]
    benches = [words for words in machine.asked if words[0] == "bench"]
    assert sum("--backend" in words for words in benches) == 2  # an engine's folder says itself what runs it
    again = read_archive(archive_of(tmp_path / "board"))
    assert again.about == found.about
    assert again.reports == found.reports
    assert "| sudoku-nano fp32 |" in markdown(found)
    assert f"Warnings:\n\n- {rows[0].name}: {SAMPLE['warnings'][0]}" in markdown(found)
    assert (tmp_path / "board/table.md").read_text() == markdown(found)


def test_what_was_finished_is_not_measured_again(orin, capsys):
    rows, machine, make = orin
    machine.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        make()
    machine.stop_at, before = None, len(machine.asked)
    assert len(make().reports) == len(rows)
    assert f"2 of {len(rows)} rows are there already" in capsys.readouterr().out
    assert len(machine.asked) - before == len(rows) - 2 + sum(row.backend == "tensorrt" for row in rows) - 1
    before = len(machine.asked)
    assert len(make().reports) == len(rows)
    assert len(machine.asked) == before


def test_a_row_that_fails_is_told_and_tried_again(orin, tmp_path):
    _, machine, make = orin
    machine.fail = {"export": f"Error: no memory in {tmp_path}/board/engines"}
    found = make()
    assert [row.problem for row in found.about.rows if row.backend == "tensorrt"] == [
        "engine: Error: no memory in RECORD/engines"
    ] * 2
    assert "engine: Error: no memory" in markdown(found)
    machine.fail = {}
    assert all(row.problem is None for row in make().about.rows)
    machine.fail = {"bench": "Error: broken", "export": "Error: broken"}
    with pytest.raises(UserError, match=r"no row could be measured: .*broken"):
        make(out=tmp_path / "other")


def test_a_torn_row_and_one_of_another_model_are_measured_again(orin, tmp_path):
    rows, machine, make = orin
    make()
    (tmp_path / "board/rows/sudoku-nano.onnxruntime.json").write_text("{")
    other = read_json(tmp_path / "board/rows/sudoku-nano-int8.onnxruntime.json")
    write_json(tmp_path / "board/rows/sudoku-nano-int8.onnxruntime.json", {**other, "model": SAMPLE["model"]})
    before = len(machine.asked)
    assert len(make().reports) == len(rows)
    assert len(machine.asked) == before + 2


def test_another_record_is_not_gone_on_with(orin, tmp_path):
    _, _, make = orin
    make()
    with pytest.raises(UserError, match=r"begun otherwise: quick \(True, now False\)"):
        make(SETTINGS.model_copy(update={"quick": False}))
    file = tmp_path / "board/record.json"
    about = read_json(file)
    write_json(file, {**about, "hrm_edge": "0.0.9", "device": {**about["device"], "cpu": "Another"}})
    with pytest.raises(UserError, match=rf"cpu \(Another, now .*hrm-edge \(0.0.9, now {__version__}\)"):
        make()
    write_json(file, {**about, "schema_version": 9})
    with pytest.raises(UserError, match=f"schema_version is 9, of hrm-edge {__version__}"):
        make()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(UserError, match="holds something, but no record"):
        make(out=tmp_path / "full")


TWO_ROWS = """\
import sys
from pathlib import Path
from hrm_edge.doctor import Diagnosis
from hrm_edge.record.plan import Wanted, plan
from hrm_edge.record.run import make_record
from hrm_edge.record.schema import Settings
diagnosis = Diagnosis.model_validate_json(Path("doctor.json").read_text())
rows, notes = plan(diagnosis, ["one", "two"], ["onnxruntime"], [None])
settings = Settings(quick=True, duration_s=0.1, idle_s=0, puzzles="plain.txt", lock_clocks=False)
say = lambda text: print(text, flush=True)
found = make_record(Path("out"), Wanted(rows, settings, notes, "plain.txt"), diagnosis,
                    on_message=say, on_progress=lambda *_: None)
say(f"rows: {len(found.reports)}")
"""


def test_killed_in_the_middle_and_gone_on_with(mini, tmp_path):  # noqa: F811
    """Really killed, with real measurements of a tiny model: the second run waits for the row that is left running."""
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(mini / "model")
    (tmp_path / "plain.txt").symlink_to(mini / "plain.txt")
    diagnosis = seen(cpu_laptop(), tmp_path / "root")
    (tmp_path / "doctor.json").write_text(diagnosis.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", TWO_ROWS]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("2 of 2"):
                first.send_signal(signal.SIGKILL)
    assert [path.name for path in (tmp_path / "out/rows").iterdir()] == ["one.onnxruntime.json"]
    finished = (tmp_path / "out/rows/one.onnxruntime.json").stat().st_mtime_ns
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["2 of 2: two.onnxruntime", "rows: 2"]
    assert (tmp_path / "out/rows/one.onnxruntime.json").stat().st_mtime_ns == finished
    assert len(read_archive(tmp_path / "out.tar.gz").reports) == 2


def test_the_command_here(run, mini, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", left_out(tmp_path))  # of the doctor's processes
    monkeypatch.chdir(tmp_path)
    chosen = ("--models", mini / "model", "--backends", "onnxruntime", "--duration", "0.1s")
    done = run("record", *chosen, "--data", mini / "plain.txt", "--out", "here")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "Next: tar -tvf here.tar.gz"
    found = read_archive(tmp_path / "here.tar.gz")
    (report,) = found.reports.values()
    assert (report.queries >= 64, report.exact_accuracy) == (True, 1.0)
    assert found.about.settings.puzzles == "plain.txt"
    packed = gzip.decompress((tmp_path / "here.tar.gz").read_bytes()).decode()
    for secret in (str(tmp_path), f"{Path.home()}/", str(mini), sys.prefix, socket.gethostname()):
        assert secret == "localhost" or not re.search(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", packed), secret


# -- nobody's name --------------------------------------------------------------------------------------------------

MIRA = Scrubber({"/srv/mira": "~", "/srv/mira/venv": "VENV"}, ["mira", "root", "nvidia"], ["mira-orin", "nano"])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/srv/mira/venv/bin/python", "VENV/bin/python"),
        ("Error: /srv/mira/.cache/x is full", "Error: ~/.cache/x is full"),
        ("/srv/miranda/x", "x"),
        ("usermod -aG video mira", "usermod -aG video USER"),
        ("ssh mira@mira-orin:/data", "ssh USER@HOST:/data"),
        (
            "--json=/home/mira/r.json /media/mira/disk/a.csv",
            "--json=r.json a.csv",
        ),
        ("read /sys/class/hwmon/hwmon1 and /usr/bin/c++", "read /sys/class/hwmon/hwmon1 and /usr/bin/c++"),
        ("sudoku-nano of nvidia-smi by nvidia", "sudoku-nano of nvidia-smi by nvidia"),
        ("https://example.org/mira-like/a", "https://example.org/mira-like/a"),
        ("CPU/GPU, 3 W/K", "CPU/GPU, 3 W/K"),
        ("mira", "mira"),  # a value, such as a kind; the doctor's field "user" is cleaned by name
    ],
)
def test_texts_without_names(text, clean):
    assert MIRA.text(text) == clean


def test_a_diagnosis_without_names(tmp_path):
    raw = seen(orin_nano_jp62(), tmp_path).model_dump(mode="json", by_alias=True)
    assert raw["facts"]["user"] == "ada"
    clean = publishable_diagnosis(raw, Scrubber({}, ["ada"], ["adas-board"]))
    Diagnosis.model_validate(clean)
    assert clean["facts"]["user"] == "USER"
    assert "ada" not in clean["facts"]["groups"]
    assert "video" in clean["facts"]["groups"]


# -- archives of others ---------------------------------------------------------------------------------------------


@pytest.fixture
def archive(orin, tmp_path):
    _, _, make = orin
    make()
    return archive_of(tmp_path / "board")


def members(archive: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(archive) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]


def write(path: Path, content: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in content:
            tar.addfile(member, io.BytesIO(data))
    return path


def entry(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, data


HOSTILE = {
    "a path that leaves": entry("../../etc/cron.d/x"),
    "a path that leaves from inside": entry(f"{TOP}/rows/../../x.json"),
    "an absolute path": entry("/etc/passwd"),
    "another name": entry(f"{TOP}/run.sh"),
    "a link": entry(f"{TOP}/rows/a.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": entry(f"{TOP}/rows/a.json", b"", type=tarfile.LNKTYPE, linkname=f"{TOP}/record.json"),
    "a device": entry(f"{TOP}/rows/a.json", b"", type=tarfile.CHRTYPE),
    "a large file": entry(f"{TOP}/rows/a.json", bytes(MOST_FILE_BYTES + 1)),
    "a file twice": entry(f"{TOP}/record.json"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused(what, archive, tmp_path):
    path = write(tmp_path / "other.tar.gz", [*members(archive), HOSTILE[what]])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        read_archive(path)
    assert str(path) in error.value.problem
    assert error.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_sizes_that_are_claimed_or_packed_small(archive, tmp_path):
    many = [*members(archive), *(entry(f"{TOP}/rows/r{at}.json") for at in range(600))]
    with pytest.raises(UserError, match="more than 500 rows"):
        read_archive(write(tmp_path / "many.tar.gz", many))
    claimed = tarfile.TarInfo(f"{TOP}/rows/a.json")
    claimed.size = 1 << 40
    header = claimed.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "claimed.tar.gz").write_bytes(gzip.compress(header))
    with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
        read_archive(tmp_path / "claimed.tar.gz")
    pax = tarfile.TarInfo("././@PaxHeader")
    pax.size, pax.type = 1 << 40, tarfile.XHDTYPE
    bomb = gzip.compress(pax.tobuf(tarfile.USTAR_FORMAT if pax.size < 8**11 else tarfile.GNU_FORMAT))
    zeros = gzip.compress(bytes(1 << 20), 1)
    (tmp_path / "bomb.tar.gz").write_bytes(bomb + zeros * (MOST_UNPACKED_BYTES // (1 << 20) + 1))
    with pytest.raises(UserError, match="unpacks to more than"):
        read_archive(tmp_path / "bomb.tar.gz")


def changed(archive: Path, path: Path, name: str, change: Callable[[Any], Any]) -> Path:
    content = []
    for member, data in members(archive):
        if member.name == f"{TOP}/{name}":
            data = json.dumps(change(json.loads(data))).encode()
            member.size = len(data)
        content.append((member, data))
    return write(path, content)


ROW_FILE = "rows/sudoku-nano.onnxruntime.json"
OTHERS = {
    "a later record": ("record.json", {"schema_version": 2, "hrm_edge": "3.1"}, "schema_version is 2, of hrm-edge 3.1"),
    "a later report": (ROW_FILE, {"schema_version": 3}, "schema_version is 3, this hrm-edge reads 2"),
    "another kind": ("record.json", {"kind": "hrm-edge bench"}, "is no record but a 'hrm-edge bench'"),
    "an unknown field": ("record.json", {"more": 1}, "more: Extra inputs are not permitted"),
    "a row's report of another model": (ROW_FILE, {"model": SAMPLE["model"]}, "is not of the model"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_an_archive_of_another_version_or_changed_by_hand(what, archive, tmp_path):
    name, change, problem = OTHERS[what]
    path = changed(archive, tmp_path / "other.tar.gz", name, lambda value: {**value, **change})
    with pytest.raises(UserError) as error:
        read_archive(path)
    assert problem in error.value.problem
    assert str(path) in error.value.problem


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar", mtime=0), gzip.compress(b"x" * 2000, mtime=0)[:40]],
    ids=["empty", "text", "no tar", "cut off"],
)
def test_what_is_no_archive(content, tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"is no archive that can be read|it is no record"):
        read_archive(tmp_path / "x.tar.gz")


def test_the_boards_table(archive, tmp_path, capsys):
    empty = tmp_path / "boards"
    empty.mkdir()
    assert script.main([str(empty)]) == 0
    assert capsys.readouterr().out == f"{NOTHING}\n"
    archive.rename(empty / "a.tar.gz")

    def evil(about: Any) -> Any:
        return {**about, "device": {**about["device"], "module": "<img src=x> [a](b) | c\n# d"}}

    changed(empty / "a.tar.gz", empty / "b.tar.gz", "record.json", evil)
    (empty / "c.tar.gz").write_bytes(b"torn")
    assert script.main([str(empty)]) == 2
    out, err = capsys.readouterr()
    assert f"Left out: {empty}/c.tar.gz is no archive" in err
    assert len(out.splitlines()) == 2 + 2 * 4
    assert "<img" not in out
    assert out.startswith(boards_table([]) * 0 + "| machine | model | backend |")
    assert script.main([]) == 2
