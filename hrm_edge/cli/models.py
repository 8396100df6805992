"""``hrm-edge models``: the pretrained models that ship with the package."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
def models(as_json: bool) -> None:
    """List the pretrained models: what each solves, how well, how it was made, and what it fails on.

    A name goes wherever MODEL does: hrm-edge eval sudoku-nano --data puzzles.csv
    """
    from rich.console import Console
    from rich.table import Table

    from hrm_edge import zoo
    from hrm_edge.cli.options import print_json

    if as_json:
        print_json({"models": zoo.cards()})
        return
    console = Console(highlight=False)
    for name in zoo.names():
        card = zoo.card(name)
        console.print(f"[bold]{name}[/]: {card.task}, {card.variant}, {card.precision}, {card.parameters:,} parameters")
        console.print(f"  {card.training}; {card.samples:,} samples of {card.data}; {card.date}")
        table = Table()
        table.add_column("puzzles of", no_wrap=True)
        for column in ("count", "views", "exactly right (95 %)", "false"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in card.accuracy:
            low, high = row.interval_95
            exact = f"{row.exact_accuracy:.1%} ({low:.1%} to {high:.1%})"
            table.add_row(row.data, str(row.puzzles), str(row.views), exact, str(row.false_verified))
        console.print(table)
        console.print("  false: wrong answers called solved")
        console.print(f"  fails on: {card.fails_on}")
    click.echo("Next: hrm-edge solve PUZZLE")
