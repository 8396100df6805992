"""Keep a training run in git while it lasts, and go on with it from there.

    python scripts/keep_run.py save RUN KEPT          # the newest checkpoint of RUN, in half precision, into KEPT
    python scripts/keep_run.py go-on KEPT --data DIR [--out RUN]
    python scripts/keep_run.py save RUN KEPT --weights   # a run that ended: its weights alone, a quarter of the size
    hrm-edge train RECIPE --data DIR init=KEPT

RUN is a run folder of 'hrm-edge train', KEPT one outside the package: kept/NAME. Saving again replaces what KEPT holds
of the run. A run goes on by the recipe that is in KEPT, in a folder of its own (default: runs/NAME), on the data it was
trained on or others; the same command again goes on with that run. Of a run that ended, whose successor begins with a
rate of its own, the weights are enough. When the last run has ended, KEPT is removed.

What KEPT leaves out is cheap to begin anew: the slots take new puzzles, drawn in another order than those before.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click
import torch
from torch import Tensor

from hrm_edge.checkpoint import EMA_FILE, MODEL_FILE, checkpoints, read_checkpoint
from hrm_edge.child import python_command
from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.files import read_json, write_text
from hrm_edge.model.weights import load_tensors
from hrm_edge.recipe import Recipe
from hrm_edge.training.checkpoint import LOOP_FILE, OPTIMIZER_FILE, RECIPE_FILE, Snapshot, prune, save_checkpoint

# Averages of gradients are in bfloat16, since squares of small gradients underflow in float16. What a run gains by the
# rest of its bits is far below what one step changes.
_HALF = {MODEL_FILE: torch.float16, EMA_FILE: torch.float16, OPTIMIZER_FILE: torch.bfloat16}
_GO_ON = "python scripts/keep_run.py go-on"
_OWN = ("data_hash", "feed", "generator", "ranks")  # of the machine and the data that the run was on


def write_compact(run: Path, out: Path, *, weights_only: bool = False) -> Path:
    """Write the newest checkpoint of ``run`` to ``out``, a run folder too, and return the checkpoint's folder.

    ``weights_only`` keeps the averaged weights and leaves out what the run itself would need to go on. What ``out``
    held of the same run before is replaced. Raises ``UserError`` where ``run`` holds no checkpoint, where ``out``
    holds something else, and where a weight is too large for float16.
    """
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint", "give a run folder of 'hrm-edge train'")
    newest = found[-1]
    info, loop = read_checkpoint(newest), read_json(newest / LOOP_FILE)
    older = checkpoints(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not older)):
        raise UserError(f"{out} is something else than a kept run", "choose another folder")
    if any(read_checkpoint(folder).recipe_hash != info.recipe_hash for folder in older):
        raise UserError(f"{out} keeps a run of another recipe", "choose another folder, or remove it first")
    recipe = Recipe.model_validate(loop["recipe"]).model_copy(update={"data": "", "init": ""})  # paths of a machine
    loop = {key: value for key, value in loop.items() if key not in _OWN}
    loop |= {"recipe": recipe.model_dump(mode="json"), "best": None}  # whose checkpoint is not kept
    whole = {name: load_tensors(newest / name) for name in _HALF if (newest / name).is_file()}
    if weights_only:
        whole = {MODEL_FILE: whole[MODEL_FILE] | whole.get(EMA_FILE, {})}
    tensors = {
        name: {key: _halved(key, tensor, _HALF[name]) for key, tensor in stored.items()}
        for name, stored in whole.items()
    }
    folder = save_checkpoint(out, Snapshot(info, tensors, loop, recipe.dump()))
    write_text(out / RECIPE_FILE, recipe.dump())
    prune(out, keep=1)
    return folder


def _halved(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point() or not tensor.dim():  # counters stay exact
        return tensor
    half = tensor.to(dtype)
    if not half.isfinite().all():
        raise UserError(f"'{name}' has a value that is too large for half precision", "keep the whole checkpoint")
    return half


@click.group(help=(__doc__ or "").split("\n")[0])
def main() -> None:
    pass


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("kept", type=click.Path(path_type=Path))
@click.option("--weights", is_flag=True, help="Only the averaged weights, for a run that begins anew from them.")
def save(run: Path, kept: Path, weights: bool) -> None:
    """Write the newest checkpoint of RUN to KEPT, small enough for git."""
    folder = write_compact(run, kept, weights_only=weights)
    size = sum(path.stat().st_size for path in folder.iterdir())
    again = f"hrm-edge train RECIPE --data DIR init={kept}" if weights else f"{_GO_ON} {kept} --data DIR"
    click.echo(f"{folder}: {size / 1e6:.2f} MB. Go on: {again}")


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
    if not (checkpoints(kept)[-1] / OPTIMIZER_FILE).is_file():
        raise UserError(f"{kept} keeps weights alone", f"begin from them: hrm-edge train RECIPE --data DIR init={kept}")
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
