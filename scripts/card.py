"""Write the card of a shipped model from the reports that ``hrm-edge eval --json`` wrote.

    python scripts/card.py sudoku-nano --recipe recipes/sudoku_nano.yaml --data "…" --training "…" --samples N \
        --fails-on "…" benchmarks/results/MACHINE/eval-sudoku-nano-*.json
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import click

from hrm_edge import zoo
from hrm_edge.files import read_json, write_json
from hrm_edge.manifest import read_manifest
from hrm_edge.recipe import load_recipe
from hrm_edge.spec import parameter_table


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
@click.option("--recipe", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--data", required=True, help="What it was trained on.")
@click.option("--training", required=True, help="Machine and wall time.")
@click.option("--samples", required=True, type=int)
@click.option("--fails-on", required=True)
def main(
    name: str, results: tuple[Path, ...], recipe: Path, data: str, training: str, samples: int, fails_on: str
) -> None:
    manifest = read_manifest(zoo.ZOO / name)
    card = zoo.Card(
        name=name,
        task=manifest.task,
        variant=manifest.spec.variant,
        precision=manifest.precision,
        parameters=parameter_table(manifest.spec)["trainable"],
        recipe=str(recipe),
        data=data,
        seed=load_recipe(recipe).seed,
        samples=samples,
        training=training,
        date=date.today().isoformat(),
        fails_on=fails_on,
        accuracy=[row for path in results for row in measured(path)],
    )
    write_json(zoo.ZOO / f"{name}{zoo.CARD}", card.model_dump(mode="json"))


if __name__ == "__main__":
    main()
