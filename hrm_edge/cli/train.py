"""``hrm-edge train``: a recipe becomes a run folder with checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from hrm_edge.cli.options import Duration


@contextmanager
def _stop_flag() -> Iterator[list[str]]:
    """SIGINT and SIGTERM put their name into the list, so that the running step ends and its state is saved."""
    seen: list[str] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if seen:  # the second one means now
            raise KeyboardInterrupt
        seen.append(signal.Signals(number).name)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a recipe key: train.lr=1e-4.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder  [default: runs/<recipe>]")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the run folder.")
@click.option("--time-limit", type=Duration(), help="Save and stop after this time: 90s, 30m, 2h.")
def train(recipe: Path, overrides: tuple[str, ...], out: Path | None, resume: bool, time_limit: float | None) -> None:
    """Train RECIPE (a YAML file of recipes/).

    The run folder gets full checkpoints (weights, average, optimizer, carry, random state), the best one by exact
    accuracy on unseen puzzles, and a log in JSON lines. Ctrl-C saves and stops; --resume goes on from there.

    \b
    hrm-edge train recipes/mini-sudoku_nano.yaml --set data=data/mini --out runs/mini
    """
    from hrm_edge.errors import Interrupted
    from hrm_edge.recipe import load_recipe
    from hrm_edge.train.loop import start
    from hrm_edge.train.progress import Progress

    options = load_recipe(recipe, overrides)
    run = out or Path("runs") / recipe.stem
    again = f"hrm-edge train {recipe} {''.join(f'--set {o} ' for o in overrides)}--out {run} --resume"
    with _stop_flag() as stopped:
        trainer = start(options, run, resume=resume)
        with Progress(options, trainer) as progress:
            trainer.report = progress.show
            outcome = trainer.run(time_limit=time_limit, stop=lambda: bool(stopped))
    progress.table(outcome)
    if stopped:
        raise Interrupted(f"{stopped[0]} at step {outcome.step}, all saved", f"go on with: {again}")
    if not outcome.finished:
        click.echo(f"The time limit ended the run at step {outcome.step}. Go on: {again}")
        return
    data = options.data
    click.echo(f"Next: hrm-edge export {run} --out {run}-int8 --int8 --calibration {data}")
