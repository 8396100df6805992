"""Write the card of a shipped model from the reports that ``hrm-edge eval --json`` wrote.

    python scripts/card.py sudoku-nano --recipe recipes/sudoku_nano.yaml --data "…" --training "…" --samples N \
        --fails-on "…" benchmarks/results/MACHINE/eval-sudoku-nano-*.json
    python scripts/card.py sudoku-nano-int8 --like sudoku-nano benchmarks/results/MACHINE/eval-sudoku-nano-int8.json
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import click

from hrm_edge import zoo
from hrm_edge.costs import parameter_table
from hrm_edge.files import read_json, write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.recipe import load_recipe


def measured(path: Path) -> list[zoo.Measured]:
    """A row for every number of views that the report tells."""
    report: dict[str, Any] = read_json(path)
    return [
        zoo.Measured(
            data=Path(report["data"]["path"]).stem,
            puzzles=report["count"],
            views=row["views"],
            exact_accuracy=row["exact_accuracy"],
            interval_95=row["exact_accuracy_interval_95"],
            false_verified=row["false_verified"],
            results=str(path),
        )
        for row in report["by_views"]
    ]


@click.command()
@click.argument("name")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--like", type=click.Choice(zoo.names()), help="The model of whose weights this is another precision.")
@click.option("--recipe", type=click.Path(path_type=Path, exists=True))
@click.option("--data", help="What it was trained on.")
@click.option("--training", help="Machine and wall time.")
@click.option("--samples", type=int)
@click.option("--fails-on")
def main(name: str, results: tuple[Path, ...], like: str | None, recipe: Path | None, **told: Any) -> None:
    manifest = read_manifest(zoo.ZOO / name)
    if like is not None:
        about = zoo.card(like).model_dump(include={"recipe", "data", "seed", "samples", "training", "fails_on"})
    elif recipe is None or None in told.values():
        raise click.UsageError("give --like, or all of --recipe, --data, --training, --samples and --fails-on")
    else:
        about = {"recipe": str(recipe), "seed": load_recipe(recipe).seed, **told}
    card = zoo.Card(
        name=name,
        task=manifest.task,
        variant=manifest.spec.variant,
        precision=manifest.precision,
        parameters=parameter_table(manifest.spec)["trainable"],
        date=date.today().isoformat(),
        accuracy=[row for path in results for row in measured(path)],
        **about,
    )
    write_json(zoo.ZOO / f"{name}{zoo.CARD}", card.model_dump(mode="json"))


if __name__ == "__main__":
    main()
