"""Keep a training run in git while it lasts, and go on with it from there.

    python scripts/keep_run.py save RUN KEPT          # the newest checkpoint of RUN, in half precision, into KEPT
    python scripts/keep_run.py go-on KEPT --data DIR [--out RUN]

RUN is a run folder of 'hrm-edge train', KEPT one outside the package: kept/NAME. Saving again replaces what KEPT holds
of the run. A run goes on by the recipe that is in KEPT, in a folder of its own (default: runs/NAME), on the data it was
trained on or others; the same command again goes on with that run. When a run has ended, its KEPT is removed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from hrm_edge.checkpoint import checkpoints
from hrm_edge.child import python_command
from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.training.checkpoint import RECIPE_FILE
from hrm_edge.training.compact import write_compact


@click.group(help=(__doc__ or "").split("\n")[0])
def main() -> None:
    pass


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("kept", type=click.Path(path_type=Path))
def save(run: Path, kept: Path) -> None:
    """Write the newest checkpoint of RUN to KEPT, small enough for git."""
    folder = write_compact(run, kept)
    size = sum(path.stat().st_size for path in folder.iterdir())
    click.echo(f"{folder}: {size / 1e6:.2f} MB. Go on: python scripts/keep_run.py go-on {kept} --data DIR")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("kept", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DIR", help="Built data folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<name of KEPT>]")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def go_on(kept: Path, data: str, out: Path | None, options: tuple[str, ...]) -> None:
    """Train on from KEPT; OPTIONS are those of 'hrm-edge train', such as --time-limit 1h."""
    run = out or Path("runs") / kept.resolve().name
    if not checkpoints(kept):
        raise UserError(f"{kept} keeps no run", "write it first: python scripts/keep_run.py save RUN KEPT")
    if not run.exists():
        shutil.copytree(kept, run)
    words = ["train", str(run / RECIPE_FILE), "--data", data, "--out", str(run), "--resume", *options]
    command = python_command("-m", "hrm_edge", *words)
    sys.stdout.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except HrmEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
