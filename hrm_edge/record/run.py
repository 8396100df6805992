"""Measuring a record row by row: each is a file when it is done, so that a killed run goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from hrm_edge import __version__
from hrm_edge.callbacks import OnMessage, OnProgress
from hrm_edge.child import Ended, run_verb
from hrm_edge.device.identity import Device, describe_device
from hrm_edge.doctor import Diagnosis
from hrm_edge.errors import UserError
from hrm_edge.files import os_error, read_json, write_json, write_text
from hrm_edge.record.archive import DOCTOR_FILE, RECORD_FILE, ROWS, TABLE_FILE, MachineRecord, pack, record_of
from hrm_edge.record.plan import ENGINES, Wanted
from hrm_edge.record.schema import RecordInfo, Row, Settings, parse_about
from hrm_edge.record.scrub import Scrubber, publishable_diagnosis, scrubber_of_this_machine
from hrm_edge.record.table import markdown
from hrm_edge.report.read import parse_bench
from hrm_edge.report.schema import BenchReport

_ENGINE_FOLDER, _LOCK, _MEASURING = "engines", ".lock", ".measuring.json"
_ROW_LIMIT_S = 3600.0
# What may differ when a record goes on: a kernel's update moves the memory that it reports.
_MAY_CHANGE = {"kernel", "memory_bytes"}


def archive_of(out: Path) -> Path:
    """Return the path of the archive beside a record's folder."""
    return out.with_name(f"{out.name}.tar.gz")


def make_record(
    out: Path,
    wanted: Wanted,
    diagnosis: Diagnosis,
    *,
    on_message: OnMessage,
    on_progress: OnProgress,
    run: Callable[..., Ended] = run_verb,
) -> MachineRecord:
    """Measure what ``out`` lacks of the rows, and write its table and archive.

    Raises ``UserError`` where ``out`` holds something else, or a record with other settings or of another machine, and
    where no row could be measured. Ctrl-C leaves the finished rows.
    """
    scrubber = scrubber_of_this_machine(out)
    with _locked(out, on_message):
        about = _begin(out, wanted, scrubber)
        write_json(
            out / DOCTOR_FILE,
            publishable_diagnosis(diagnosis.model_dump(mode="json", by_alias=True), scrubber),
        )
        rows: list[Row] = []
        progress = _Progress(wanted, on_progress)
        finished = sum(_finished(out, row) is not None for row in wanted.rows)
        if finished:
            on_message(f"{finished} of {len(wanted.rows)} rows are there already")
        for at, row in enumerate(wanted.rows):
            if _finished(out, row) is None:
                on_message(f"{at + 1} of {len(wanted.rows)}: {row.name}")
                rows.append(_measure(out, row, wanted, scrubber, on_tick=progress.tick, run=run))
                if rows[-1].problem:
                    on_message(f"not measured: {row.name}: {rows[-1].problem}")
            else:
                rows.append(row)
            progress.row_done()
        _write_about(out, about, rows, scrubber)
        record = record_of(out)
        if not record.reports:
            raise UserError(
                f"no row could be measured: {'; '.join(f'{row.name}: {row.problem}' for row in rows)}",
                "hrm-edge doctor; then the same command again",
            )
        write_text(out / TABLE_FILE, markdown(record))
        pack(out, archive_of(out))
        return record


class _Progress:
    """The share that is done, by what a row is expected to take."""

    def __init__(self, wanted: Wanted, on_progress: OnProgress) -> None:
        self._total = len(wanted.rows)
        self._each_s = wanted.expected_s() / max(1, self._total)
        self._on_progress = on_progress
        self._done = 0
        self._began = time.monotonic()

    def tick(self) -> None:
        """Move the bar within a row, never to its end."""
        share = min(0.95, (time.monotonic() - self._began) / self._each_s)
        self._on_progress("recording", self._done + share, self._total)

    def row_done(self) -> None:
        self._done += 1
        self._began = time.monotonic()
        self._on_progress("recording", self._done, self._total)


@contextlib.contextmanager
def _locked(out: Path, on_message: OnMessage) -> Iterator[None]:
    """Hold the record's lock, which a row's process keeps too: where this one is killed, the next waits for that row.

    Two measurements at once would disturb each other.
    """
    try:
        if out.exists() and not (out / RECORD_FILE).is_file() and any(out.iterdir()):
            raise UserError(f"--out: {out} holds something, but no record", "choose another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise os_error(error, out) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_message(f"waiting: another process is measuring for {out}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock, True)
        yield
    finally:
        os.close(lock)


def _begin(out: Path, wanted: Wanted, scrubber: Scrubber) -> RecordInfo:
    """Write the record's file, or check that the one that is there may go on."""
    fresh = RecordInfo(
        hrm_edge=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=wanted.settings,
        device=describe_device(),
        notes=list(wanted.notes),
        rows=list(wanted.rows),
    )
    (out / _MEASURING).unlink(missing_ok=True)
    (out / ROWS).mkdir(exist_ok=True)
    if not (out / RECORD_FILE).is_file():
        _write_about(out, fresh, wanted.rows, scrubber)
        return fresh
    before = parse_about(read_json(out / RECORD_FILE), str(out / RECORD_FILE))
    different = [*_differing(before.settings, fresh.settings), *_differing(before.device, _seen(fresh, scrubber))]
    if before.hrm_edge != __version__:
        different.append(f"hrm-edge ({before.hrm_edge}, now {__version__})")
    if different:
        raise UserError(
            f"{out} holds a record that was begun otherwise: {'; '.join(different)}",
            "choose another folder with --out, or remove that one",
        )
    return fresh.model_copy(update={"created": before.created})


def _seen(about: RecordInfo, scrubber: Scrubber) -> Device:
    """Return this machine as a record describes it."""
    return Device.model_validate(scrubber.value(about.device.model_dump(mode="json")))


def _differing(before: Settings | Device, now: Settings | Device) -> list[str]:
    one, two = before.model_dump(), now.model_dump()
    return [f"{key} ({one[key]}, now {two[key]})" for key in one if key not in _MAY_CHANGE and one[key] != two[key]]


def _write_about(out: Path, about: RecordInfo, rows: Sequence[Row], scrubber: Scrubber) -> None:
    whole = about.model_copy(update={"rows": list(rows)})
    write_json(out / RECORD_FILE, scrubber.value(whole.model_dump(mode="json")))


def _finished(out: Path, row: Row) -> BenchReport | None:
    """Return the row's report where it is there, whole, and of this model."""
    file = out / ROWS / f"{row.name}.json"
    try:
        (report,) = parse_bench(read_json(file), str(file))
    except (UserError, ValueError):
        return None
    return report if report.model.sha256 == row.sha256 else None


def _measure(
    out: Path, row: Row, wanted: Wanted, scrubber: Scrubber, *, on_tick: Callable[[], None], run: Callable[..., Ended]
) -> Row:
    """Measure a row in a process of its own; return it with the problem where there is one."""

    def verb(*words: str) -> str | None:
        ended = run(words, limit_s=_ROW_LIMIT_S, on_tick=on_tick)
        return None if ended.code == 0 else scrubber.text(ended.last_words)

    model = row.model
    if row.backend in ENGINES:
        engine = out / _ENGINE_FOLDER / f"{Path(row.model).name}.{row.backend}"
        # A folder that is there may be of an older TensorRT. hrm-edge's own cache knows what may be used again.
        shutil.rmtree(engine, ignore_errors=True)
        runtime = ["--runtime", "tensorrt_rtx"] if row.backend == "tensorrt-rtx" else []
        target = "tensorrt" if row.backend == "tensorrt-rtx" else row.backend
        problem = verb("export", model, "--out", str(engine), "--backend", target, *runtime)
        if problem is not None:
            return row.model_copy(update={"problem": f"engine: {problem}"})
        model = str(engine)
    report = out / _MEASURING
    settings = wanted.settings
    words = ["--json", str(report), "--duration", f"{settings.duration_s}s", "--idle", f"{settings.idle_s}s"]
    words += [] if row.backend in ENGINES else ["--backend", row.backend]
    words += ["--data", wanted.data] if wanted.data else []
    words += ["--power-mode", row.power_mode] if row.power_mode else []
    words += ["--lock-clocks"] if settings.lock_clocks else []
    problem = verb("bench", model, *words)
    if not report.is_file():
        return row.model_copy(update={"problem": problem or "it ended without a report"})
    raw = scrubber.value(read_json(report))
    report.unlink()
    parse_bench(raw, row.name)  # what the scrubber leaves is still a report
    write_json(out / ROWS / f"{row.name}.json", raw)
    return row
