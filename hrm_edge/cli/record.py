"""``hrm-edge record``: the one command for the owner of a board or a card."""

from __future__ import annotations

from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import DURATION, PATH, Parsed, option, progress_bars, say
from hrm_edge.terminal import echo, open_console, table_of

if TYPE_CHECKING:
    from hrm_edge.record.archive import MachineRecord


def _names(text: str) -> tuple[str, ...]:
    """``a,b,c`` to its words."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise ValueError("name at least one, or leave the option out")
    return words


_NAMES = Parsed("a,b,…", _names)


@click.command()
@option("--out", type=PATH, default="hrm-edge-record", help="Folder of the record; its archive is written beside it.")
@option("--quick", is_flag=True, help="About 15 minutes: 20 s a row, the present power mode.")
@option("--models", type=_NAMES, help="Shipped models or artifacts.  [default: all that are at hand]")
@option(
    "--backends",
    type=_NAMES,
    help="Of onnxruntime, openvino, native, tensorrt, tensorrt-rtx, torch-tensorrt.  [default: what works here]",
)
@option(
    "--power-modes", type=_NAMES, help="Jetson: modes to measure in (needs root).  [default: all; --quick: as it is]"
)
@option("--duration", type=DURATION, help="Seconds a row, 64 puzzles at least.  [default: 60s; --quick: 20s]")
@option("--data", type=click.Path(), help="File of puzzles.  [default: 256 of the package, as others have them]")
def record(
    out: Path,
    quick: bool,
    models: tuple[str, ...] | None,
    backends: tuple[str, ...] | None,
    power_modes: tuple[str, ...] | None,
    duration: float | None,
    data: str | None,
) -> None:
    """Measure every model on every backend that works on this machine: speed, accuracy, agreement with float32, energy,
    temperatures. Engines are built where a GPU runs them.

    Leave the machine alone meanwhile. A run that was stopped goes on: give the same command again. The archive holds
    no names of yours, and no paths.

    \b
    hrm-edge record --quick                     # about 15 minutes
    sudo -v && hrm-edge record --out my-board   # a Jetson, in all power modes
    """
    from hrm_edge.api.pipeline import try_pipeline
    from hrm_edge.doctor import Diagnosis, diagnose
    from hrm_edge.doctor.machine import Machine
    from hrm_edge.errors import Interrupted
    from hrm_edge.record.archive import TABLE_FILE
    from hrm_edge.record.plan import plan_record
    from hrm_edge.record.run import archive_of, make_record
    from hrm_edge.record.table import warnings_of

    def look() -> Diagnosis:
        say("Looking at this machine")
        return diagnose(Machine(), try_pipeline)

    wanted, diagnosis = plan_record(
        models or (), backends or (), power_modes, quick=quick, duration_s=duration, data=data, look=look
    )
    minutes = max(1, round(wanted.expected_s() / 60))
    say(f"Rows: {len(wanted.rows)}, about {minutes} min in all. Ctrl-C stops, the same command goes on")
    again = join(click.get_current_context().obj or ["record"])
    try:
        with progress_bars() as on_progress:
            measured = make_record(out, wanted, diagnosis, on_message=say, on_progress=on_progress)
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted", f"finished rows are kept; go on with: hrm-edge {again}") from error
    warnings = f"What the warnings say: {out / TABLE_FILE}" if warnings_of(measured) else ""
    show_record(measured, archive_of(out), warnings)


def show_record(record: MachineRecord, archive: Path, remark: str = "") -> None:
    """Print the table of a record and what is not in it, a remark, and what to do with its ``archive``."""
    from hrm_edge.record.table import COLUMNS, machine_of, problems_of, rows_of

    open_console().print(table_of(COLUMNS, rows_of(record), words=None, title=machine_of(record)))
    for line in (*(f"Not measured: {problem}" for problem in problems_of(record)), remark):
        if line:
            echo(line)
    echo(f"Archive: {archive}, {archive.stat().st_size / 1e3:.0f} kB. To hand it in, attach it to an issue of hrm-edge")
    echo(f"Next: tar -tvf {quote(str(archive))}")
