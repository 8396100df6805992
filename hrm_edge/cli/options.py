"""What several verbs share on the command line: parameter types, the JSON destination, progress."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.errors import UserError
from hrm_edge.files import os_error
from hrm_edge.terminal import echo, open_console

if TYPE_CHECKING:
    from hrm_edge.report import Report

STDOUT = "-"
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


task_option = click.option(
    "--task",
    "task_name",
    metavar="NAME",
    help="Of a published file that does not tell it: sudoku, maze, arc.",
)

backend_option = click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "openvino", "openvino-bf16", "native", "tensorrt", "torch-tensorrt", "auto"]),
    help="What runs an artifact; auto: the CPU backend and number of threads that a trial finds fastest; "
    "native: our own INT8 step, compiled here when it is first asked for (needs a C++ compiler and onnx); "
    "torch-tensorrt: an engine that was saved with --module.  "
    "[default: TensorRT where it holds an engine, else onnxruntime]",
)


class Duration(click.ParamType):
    """``90s``, ``30m``, ``2h`` or ``1h30m`` to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"'{value}' is no duration: write 90s, 30m, 2h or 1h30m", param, ctx)
        return float(sum(float(number) * _UNITS_S[unit] for number, unit in parts))


class OutputFile(click.ParamType):
    """A file to be written when the work is done; refused now where it cannot be. ``-`` is stdout."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        flag = param.opts[0] if param is not None else "the output"
        path = Path(value)
        if value == STDOUT:
            return STDOUT
        mend = f"choose another file with {flag}"
        if path.is_dir():
            raise UserError(f"{flag} {path}: it is a folder", mend)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise UserError(f"{flag} {os_error(error, path).what}", mend) from error
        return str(path)


@contextlib.contextmanager
def progress_bar(title: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on stderr while the block runs (nothing where stderr is no terminal); call it with what is done."""
    from rich.progress import Progress

    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def show_report(
    report: Report, json_file: str | None, markdown_file: str | None, following: str, html_file: str | None = None
) -> None:
    """Write the files, print the tables (to stderr where a file has stdout) and the next command last."""
    from hrm_edge.report.text import markdown, tables

    html = None
    if html_file is not None:
        from hrm_edge.report.html import page
        from hrm_edge.report.schema import BenchReport

        assert isinstance(report, BenchReport)
        html = page([report])
    files = {json_file: report.model_dump(mode="json"), markdown_file: markdown(report), html_file: html}
    show(files, tables(report), following)


def show(files: dict[str | None, Any], tables: Sequence[Any], following: str) -> None:
    """Write ``files`` (name or ``-`` → text, or a document for JSON; None: not asked for), then the tables."""

    from hrm_edge.files import write_json, write_text

    on_stderr = STDOUT in files
    for name, content in files.items():
        if name == STDOUT:
            echo(content, nl=False) if isinstance(content, str) else print_json(content)
        elif name is not None:
            write_text(name, content) if isinstance(content, str) else write_json(name, content)
    console = open_console(stderr=on_stderr)
    for table in tables:
        console.print(table)
    for name in files:
        if name not in (None, STDOUT):
            echo(f"Report: {name}", err=on_stderr)
    echo(f"Next: {following}", err=on_stderr)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import json

    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
