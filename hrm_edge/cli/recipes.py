"""``hrm-edge recipes``: the training recipes that ship with the package, and copies of them to change."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import PATH, complete_recipes, json_option, put_json
from hrm_edge.terminal import echo, open_console

if TYPE_CHECKING:
    from hrm_edge.catalog import Entry


@click.group(invoke_without_command=True)
@json_option("the list")
@click.pass_context
def recipes(context: click.Context, json_file: str | None) -> None:
    """List the training recipes: what each trains, on which hardware, how long, and the accuracy it reached.

    A name goes wherever RECIPE does; "not run" means that nobody has measured it, and a published figure is called so.

    \b
    hrm-edge recipes
    hrm-edge recipes show mini-sudoku_nano
    hrm-edge recipes copy mini-sudoku_nano mine.yaml
    hrm-edge train mini-sudoku_nano --data data/mini
    """
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from hrm_edge.catalog import entries

    listed = entries()
    if not put_json(json_file, {"recipes": [asdict(entry) for entry in listed]}):
        return
    for entry in listed:
        _print(entry)
    echo("\nNext: hrm-edge recipes show NAME, or hrm-edge train NAME --data DIR")


@recipes.command("show")
@click.argument("name", type=click.Path(), shell_complete=complete_recipes)
def _show(name: str) -> None:
    """Show the recipe NAME: the comment on top, then its keys."""
    from hrm_edge.catalog import find, read_entry

    path = find(name)
    echo(path.read_text(encoding="utf-8"), nl=False)
    echo(f"\nNext: {read_entry(path).command}", err=True)


@recipes.command("copy")
@click.argument("name", type=click.Path(), shell_complete=complete_recipes)
@click.argument("file", required=False, type=PATH)
def _copy(name: str, file: Path | None) -> None:
    """Copy the recipe NAME to FILE, to be changed.  [default: NAME.yaml in the current folder]"""
    from hrm_edge.catalog import find
    from hrm_edge.errors import UserError
    from hrm_edge.files import write_text

    source = find(name)
    target = file or Path(source.name)
    if target.is_dir():
        target /= source.name
    if target.exists():
        raise UserError(f"{target} exists already", "name another file; nothing was copied")
    write_text(target, source.read_text(encoding="utf-8"))
    echo(f"{target}. Next: hrm-edge train {quote(str(target))} --data DIR")


def _print(entry: Entry) -> None:
    """Print the name with the summary, and below it what else is said of the recipe."""
    from rich.table import Table
    from rich.text import Text

    console = open_console(width=80)
    console.print(Text(entry.name, style="bold"))
    table = Table.grid(padding=(0, 1))
    table.add_column(min_width=10, no_wrap=True)
    for field in ("summary", "hardware", "time", "accuracy"):
        if text := getattr(entry, field):
            table.add_row("  what" if field == "summary" else f"  {field}", text)
    console.print(table)
