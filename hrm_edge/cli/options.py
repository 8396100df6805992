"""Parts of the command line that several verbs share: parameter types, the JSON destination, progress."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hrm_edge.backends import NAMES
from hrm_edge.callbacks import OnProgress
from hrm_edge.errors import UserError
from hrm_edge.files import check_writable
from hrm_edge.packages import check_installed
from hrm_edge.terminal import echo, open_console

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


STDOUT = "-"
_UNITS_S = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class Parsed(click.ParamType):
    """Type of an option whose text ``parse`` turns into a value; a ``ValueError`` of it says what is wrong."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):  # a default that is converted already
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"'{text}' is no duration: write 200ms, 90s, 30m, 2h or 1h30m")
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in parts))


DURATION = Parsed("duration", _seconds)
"""``200ms``, ``90s``, ``30m``, ``2h`` or ``1h30m`` to seconds."""
COUNT = click.IntRange(1)
PATH = click.Path(path_type=Path)
Decorator = Callable[[Any], Any]


def option(*names: str, **settings: Any) -> Decorator:
    """Return ``click.option``, whose help shows the default where there is one."""
    return click.option(*names, show_default=settings.get("default", "") != "", **settings)


def option_group(*options: Decorator) -> Decorator:
    """Return a decorator that adds all of ``options``, in their order."""

    def add(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return add


task_option = option("--task", metavar="NAME", help="Of a published file that does not tell it: sudoku, maze, arc.")
limit_option = option("--limit", type=COUNT, help="Only the first so many puzzles.")
max_steps_option = option("--max-steps", type=COUNT, help="ACT steps per view.  [default: the model's]")
guesses_option = option(
    "--guesses",
    type=click.IntRange(0),
    help="Cells guessed, by what the model believes, in each view after the first; the answer is checked without them."
    "  [default: 2 for a model whose answer moves with the board, else 0]",
)
backend_option = option(
    "--backend",
    type=click.Choice(NAMES),
    metavar="NAME",  # click would put all of them into one long line
    help=f"What runs an artifact: {', '.join(NAMES[:-1])} or {NAMES[-1]}. auto: the CPU backend and number of threads "
    "that a trial finds fastest; native: our own step (INT8, or a lattice in float32), compiled here when it is first "
    "asked for (needs a C++ compiler and onnx); torch-tensorrt: an engine that was saved with --module.  "
    "[default: TensorRT where it holds an engine, else onnxruntime]",
)
run_options = option_group(
    backend_option,
    option("--threads", type=COUNT, help="Threads of one step (ONNX Runtime)."),
    option("--seed", type=int, default=0, help="Chooses the symmetries."),
)
"""``--backend``, ``--threads`` and ``--seed``."""


def opening(chosen: dict[str, Any]) -> dict[str, Any]:
    """Take out of a verb's parameters what :func:`hrm_edge.api.open.open_model` is to know of the model."""
    return {name: chosen.pop(name) for name in ("task", "backend", "threads")}


def views_option(default: int) -> Decorator:
    """Return the option ``--views``."""
    return option("--views", type=COUNT, default=default, help="Symmetries tried per puzzle.")


def halt_option(fixed: str = "") -> Decorator:
    """Return the option ``--halt``; ``fixed``: a remark on the last of its ways."""
    ways = f"Stop when the rules are kept, when the model's head says so, or after all steps{fixed}."
    return option("--halt", type=click.Choice(["rules", "head", "fixed"]), default="rules", help=ways)


class JsonCommand(click.Command):
    """A command with :func:`json_option`, whose file may be left out: then it is stdout.

    The word after ``--json`` is the file, unless the command would then lack an argument: ``info --json MODEL``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--json" in args:
            values, _, _ = self.make_parser(ctx).parse_args(list(args))
            needed = [p.name or "" for p in self.params if isinstance(p, click.Argument) and p.required]
            given = [isinstance(values.get(name), str | tuple) and bool(values[name]) for name in needed]
            if not all(given):
                args = [f"--json={STDOUT}" if word == "--json" else word for word in args]
        return super().parse_args(ctx, args)


def json_option(what: str) -> Decorator:
    """Return the option ``--json [FILE]`` of a ``JsonCommand``; ``what`` it writes, in words for its help."""
    return option(
        "--json",
        "json_file",
        metavar="[FILE]",
        is_flag=False,
        flag_value=STDOUT,
        type=OutputFile(),
        help=f"Write {what} as JSON, to stdout where no FILE is named.",
    )


def put_json(json_file: str | None, document: Any) -> bool:
    """Write ``document`` where ``--json`` says (None: nowhere); return whether stdout is free for people."""
    if json_file == STDOUT:
        _print_json(document)
    elif json_file is not None:
        from hrm_edge.files import write_json

        write_json(json_file, document)
        echo(f"Report: {json_file}", err=True)
    return json_file != STDOUT


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what a shell offers for MODEL: the models at hand, and files and folders."""
    from hrm_edge import zoo

    return _names_and_files(zoo.names(), incomplete)


model_argument = click.argument("model", type=click.Path(), shell_complete=complete_models)


def model_option(what: str) -> Decorator:
    """Return the option ``--model``; ``what`` may be named, in words for its help."""
    help_text = f"{what}.  [default: one for 9x9 Sudoku]"
    return option("--model", type=click.Path(), shell_complete=complete_models, help=help_text)


def complete_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what a shell offers for RECIPE: the shipped ones, and files."""
    from hrm_edge.catalog import names

    return _names_and_files(names(), incomplete)


def _names_and_files(names: Sequence[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    # Files first: click's script for bash drops what came before them.
    matching = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *matching]


class OutputFile(click.ParamType):
    """A file to be written when the work is done; refused now where it cannot be. ``-`` is stdout.

    ``needs``: a package without which it cannot be made, and what that is for.
    """

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _names_and_files((), incomplete)

    def __init__(self, needs: tuple[str, str] | None = None) -> None:
        self.needs = needs

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        flag = param.opts[0] if param is not None else "the output"
        if self.needs is not None:
            check_installed(self.needs[0], flag, self.needs[1])
        if ctx is not None:
            other = ctx.meta.setdefault(f"{__name__}.files", {}).setdefault(value, flag)
            if other != flag:
                raise UserError(f"{flag} {value}: {other} is written there too", "give each a file of its own")
        return STDOUT if value == STDOUT else str(check_writable(flag, Path(value)))


report_options = option_group(
    json_option("the report"),
    option("--markdown", "markdown_file", type=OutputFile(), help="Write the report as Markdown; - is stdout."),
)
"""``--json`` and ``--markdown``."""


@contextlib.contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Show on a terminal a bar for each thing being done; call the result with what, how much, of how much."""
    from rich.progress import Progress, TaskID

    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        rows: dict[str, TaskID] = {}

        def show(what: str, done: float, total: float) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what)
            bars.update(rows[what], completed=done, total=total, visible=done < total)

        yield show


def say(message: str) -> None:
    """Print a note on stderr."""
    echo(message, err=True)


Document = str | dict[str, Any]
"""Text, or what is written as JSON."""


class Output(NamedTuple):
    """What a command may write: a file (``-``: stdout; None: not asked for), what makes its content, and its title."""

    name: str | None
    content: Callable[[], Document]
    title: str = "Report"


def show(tables: Sequence[Any], outputs: Sequence[Output], following: str) -> None:
    """Print the tables (to stderr where an output has stdout), write every output, print the next command.

    The tables come first and an output that cannot be written keeps back no other: what was measured is not lost.
    Raises ``UserError`` at the end that names each output which failed.
    """
    from hrm_edge.files import write_json, write_text

    on_stderr = any(output.name == STDOUT for output in outputs)
    console = open_console(stderr=on_stderr)
    for table in tables:
        console.print(table)
    failed: list[UserError] = []
    for name, content, title in outputs:
        if name is None:
            continue
        try:
            document = content()
            if name == STDOUT:
                echo(document, nl=False) if isinstance(document, str) else _print_json(document)
                continue
            write_text(name, document) if isinstance(document, str) else write_json(name, document)
            echo(f"{title}: {name}", err=on_stderr)
        except UserError as error:
            failed.append(error)
    if failed:
        raise UserError("; ".join(error.problem for error in failed), f"the table above has it all; {failed[0].hint}")
    echo(f"Next: {following}", err=on_stderr)


def _print_json(document: Any) -> None:
    """Print a JSON document on stdout."""
    import json

    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
