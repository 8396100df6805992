"""``hrm-edge models``: pretrained models by name, and where more are had from."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from hrm_edge.cli.options import JsonCommand, json_option, option, put_json
from hrm_edge.terminal import echo, open_console, status, table_of


@click.command(cls=JsonCommand)
@json_option("the cards")
@option("--from", "location", metavar="LOCATION", help="List what a folder, https://… or hf:OWNER/REPO has.")
@option("--pull", "pulled", metavar="NAME", help="Copy this model from LOCATION; its name then works everywhere.")
@option(
    "--index",
    "shelf",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Make a FOLDER of artifacts (NAME/) and cards (NAME.card.json) a location that others can pull from.",
)
def models(json_file: str | None, location: str | None, pulled: str | None, shelf: Path | None) -> None:
    """List the pretrained models: what each solves, how well, and its size.

    A name goes wherever MODEL does; 'hrm-edge info NAME' says how that model was made and what it fails on. Models that
    are too large for the package are pulled once from a location; every file is checked against its hash.

    \b
    hrm-edge info sudoku-lattice
    hrm-edge eval sudoku-nano --data puzzles.csv
    hrm-edge models --from https://example.org/hrm-edge
    hrm-edge models --from hf:someone/hrm-edge-models --pull sudoku-full
    """
    from hrm_edge import zoo
    from hrm_edge.errors import UserError
    from hrm_edge.zoo.remote import INDEX, pull, read_index, write_index

    if shelf is not None:
        echo(f"{shelf / INDEX}: {', '.join(write_index(shelf).models)}")
    elif pulled is not None:
        if location is None:
            raise UserError("--pull needs a place to pull from", "add --from FOLDER, https://… or hf:OWNER/REPO")
        with status(f"pulling {pulled}") as say:
            folder = pull(pulled, location, lambda file, done: say(f"pulling {pulled}: {file} {done / 1e6:.1f} MB"))
        if put_json(json_file, {"name": pulled, "folder": str(folder)}):
            echo(f"{pulled} is in {folder}, every hash right. Next: hrm-edge info {pulled}")
    elif location is not None:
        index = read_index(location)
        if put_json(json_file, index.document()):
            for model, entry in index.models.items():
                echo(f"{model}: {entry.about}, {entry.bytes / 1e6:.1f} MB")
            echo(f"Next: hrm-edge models --from {quote(location)} --pull NAME")
    elif put_json(json_file, {"models": [zoo.card(name).document() for name in zoo.names()]}):
        _show(zoo.names())
        echo("Next: hrm-edge solve PUZZLE")


def _show(names: list[str]) -> None:
    """Print a table with a row for every set that a model was measured on."""
    from rich.text import Text

    from hrm_edge import zoo
    from hrm_edge.manifest import read_manifest

    lines: list[list[Text | str]] = []
    for name in names:
        folder = zoo.folder_of(name)
        if folder is None:  # removed since it was listed
            continue
        card, size = zoo.read_card(zoo.card_of(folder)), read_manifest(folder).size_bytes
        star = " *" if zoo.default_for(card.task) == name else ""
        head: list[Text | str] = [Text.assemble((name, "bold"), star), card.precision, f"{size / 1e6:.2f}"]
        for data in dict.fromkeys(row.data for row in card.accuracy):
            rows = [row for row in card.accuracy if row.data == data]
            first, last = rows[0], rows[-1]
            more = f"{last.exact_accuracy:.1%} ({last.views})" if len(rows) > 1 else ""
            false = str(max(row.false_verified for row in rows))
            lines.append([*head, data, f"{first.puzzles:,}", f"{first.exact_accuracy:.1%}", more, false])
            head = ["", "", ""]
    columns = ("model", "precision", "MB", "puzzles of", "count", "right, 1 view", "more views", "false")
    table = table_of(columns, lines, words=(0, 1, 3), no_wrap=True, box=None, padding=(0, 2, 0, 0))
    open_console(width=120).print(table)
    echo("*: answers where no model is named. false: wrong answers called solved. 'hrm-edge info NAME' says more.")
