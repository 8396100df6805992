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
    """List the pretrained models: what each solves, how well, how it was made, and what it fails on.

    A name goes wherever MODEL does. Models that are too large for the package are pulled once from a location; every
    file is checked against its hash.

    \b
    hrm-edge eval sudoku-nano --data puzzles.csv
    hrm-edge models --from https://example.org/hrm-edge
    hrm-edge models --from hf:someone/hrm-edge-models --pull sudoku-full
    """
    if shelf is not None:
        from hrm_edge.zoo.remote import INDEX, write_index

        index = write_index(shelf)
        echo(f"{shelf / INDEX}: {', '.join(index.models)}")
        return
    if pulled is not None or location is not None:
        _elsewhere(location, pulled, json_file)
        return
    from hrm_edge import zoo

    if put_json(json_file, {"models": zoo.cards()}):
        for name in zoo.names():
            show_card(name)
            echo()
        echo("Next: hrm-edge solve PUZZLE")


def _elsewhere(location: str | None, name: str | None, json_file: str | None) -> None:
    from hrm_edge.errors import UserError
    from hrm_edge.zoo.remote import pull, read_index

    if location is None:
        raise UserError("--pull needs a place to pull from", "add --from FOLDER, https://… or hf:OWNER/REPO")
    if name is None:
        index = read_index(location)
        if put_json(json_file, index.document()):
            for model, entry in index.models.items():
                echo(f"{model}: {entry.about}, {entry.bytes / 1e6:.1f} MB")
            echo(f"Next: hrm-edge models --from {quote(location)} --pull NAME")
        return
    with status(f"pulling {name}") as say:
        folder = pull(name, location, lambda file, done: say(f"pulling {name}: {file} {done / 1e6:.1f} MB"))
    if put_json(json_file, {"name": name, "folder": str(folder)}):
        echo(f"{name} is in {folder}, every hash right. Next: hrm-edge info {name}")


def show_card(name: str) -> None:
    """Print what a model at hand is, how it was made, what it can do and what it fails on."""
    from rich.text import Text

    from hrm_edge import zoo

    console, card = open_console(width=80), zoo.card(name)
    about = f": {card.task}, {card.variant}, {card.precision}, {card.parameters:,} parameters"
    console.print(Text.assemble((name, "bold"), about))
    console.print(f"trained: {card.training}; {card.samples:,} samples of {card.data}; {card.date}")
    console.print(f"fails on: {card.fails_on}")
    rows = [
        (
            row.data,
            f"{row.puzzles:,}",
            str(row.views),
            "{:.1%} ({:.1%} to {:.1%})".format(row.exact_accuracy, *row.interval_95),
            str(row.false_verified),
        )
        for row in card.accuracy
    ]
    columns = ("puzzles of", "count", "views", "exactly right (95 %)", "false")
    console.print(table_of(columns, rows, no_wrap=True, box=None, padding=(0, 2, 0, 0)))
    console.print("false: wrong answers called solved")
