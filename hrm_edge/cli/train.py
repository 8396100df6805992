"""``hrm-edge train``: a recipe becomes a run folder with checkpoints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import COUNT, DURATION, PATH, Parsed, complete_recipes, option, progress_bars
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.recipe import Keys, Recipe
    from hrm_edge.training.distributed import World


# Flags that mean nothing to the digit network, minutes of work on one core, and their value where they are not given.
_NOT_FOR_DIGITS = {"resume": False, "wandb": "", "nproc": 1, "nnodes": (1, 1), "rdzv_endpoint": ""}


def _node_range(text: str) -> tuple[int, int]:
    """``2`` or ``1:4`` to (fewest, most)."""
    low, _, high = text.partition(":")
    if not low.isdigit() or not (high or low).isdigit() or not 1 <= int(low) <= int(high or low):
        raise ValueError(f"'{text}' is no number of hosts: write 2, or 1:4 for one to four")
    return int(low), int(high or low)


@click.command()
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipes)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@option(
    "--data",
    type=click.Path(),
    metavar="DIR",
    help="Built data folder, see 'hrm-edge data build'.  [default: the recipe's]",
)
@option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a recipe key, as KEY=VALUE behind RECIPE does.",
)
@option("--out", type=PATH, help="Run folder  [default: runs/<recipe>]")
@option("--resume", is_flag=True, help="Go on from the newest checkpoint in the run folder.")
@option("--time-limit", type=DURATION, help="Save and stop after this time: 90s, 30m, 2h.")
@option("--wandb", metavar="PROJECT", default="", help="Log to this Weights & Biases project too.")
@option("--nproc", type=COUNT, default=1, help="Processes on this host; one a GPU.")
@option("--nnodes", type=Parsed("MIN[:MAX]", _node_range), default="1", help="Hosts, or fewest and most of them.")
@option("--rdzv-endpoint", default="", metavar="HOST[:PORT]", help="The host where several hosts meet.")
@option("--rdzv-id", default="", metavar="NAME", help="Name of the job, the same on all its hosts.")
@option("--max-restarts", type=click.IntRange(0), default=3, help="How often lost processes are started again.")
@option("--host-timeout", type=DURATION, default="10m", help="How long to wait for another process or host.")
def train(
    recipe: str,
    changes: tuple[str, ...],
    data: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    nproc: int,
    **flags: Any,
) -> None:
    """Train RECIPE: the name of a shipped one ('hrm-edge recipes' lists them), or a YAML file.

    KEY=VALUE changes a key of it for this run: train.lr=1e-4, model.hidden=64.

    The run folder gets full checkpoints (weights, average, optimizer, carry, random state), the best one by exact
    accuracy on unseen puzzles, and a log: metrics.jsonl, metrics.csv and, where it is installed, TensorBoard.
    Ctrl-C and SIGTERM save and stop; --resume goes on from there, bit for bit on as many processes as before. On
    another number of processes it sees the same puzzles, but sums round differently. Under nohup a run outlives its
    terminal.

    \b
    hrm-edge train mini-sudoku_nano --data data/mini --out runs/mini
    hrm-edge train mini-sudoku_nano train.steps=500 --data data/mini --nproc 8
    hrm-edge train sudoku_nano_more init=sudoku-nano --data data/sudoku

    init starts from the weights of a run, a checkpoint, a published file, or a float artifact, also a shipped one.

    The recipe's batch is shared out over all processes. A lost process is started again, with all others, from the
    last checkpoint. Several hosts share the run folder and the data (the same paths) and each run one of:

    \b
    hrm-edge train RECIPE --nproc 8 --nnodes 2 \\
        --rdzv-endpoint FIRST:29400 --rdzv-id NAME

    \b
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nproc-per-node 8 --nnodes 2 --rdzv-backend c10d \\
        --rdzv-endpoint FIRST:29400 --rdzv-id NAME --max-restarts 3 \\
        -m hrm_edge train RECIPE

    With --nnodes 1:2 training goes on while one of two hosts is away. Those that reach FIRST go on; one that does not
    looks for it for --host-timeout, at least 60 s, and comes back by itself, or ends with an error. OMP_NUM_THREADS
    is set to cores / processes unless you set it (torchrun sets 1). Without the variable above, workers that torchrun
    starts again look for lost ones.
    """
    from hrm_edge.errors import UserError
    from hrm_edge.packages import check_installed
    from hrm_edge.recipe import check_recipe, read_keys

    if surplus := [change for change in changes if "=" not in change]:
        raise UserError(
            f"'{surplus[0]}': after the recipe come changes of it, KEY=VALUE",
            "write one as train.steps=500; a run trains one recipe",
        )
    if flags["wandb"]:
        check_installed("wandb", "--wandb")
    keys = read_keys(recipe, [*overrides, *changes], data)
    run = out or Path("runs") / keys.path.stem
    if keys.task == "digits":
        _train_digits(keys, run, {"nproc": nproc, **flags})
        return
    options = check_recipe(keys)
    own = ["train", recipe, *changes, *(word for o in overrides for word in ("--set", o)), "--out", str(run)]
    own += [] if data is None else ["--data", data]
    if "RANK" not in os.environ and (nproc > 1 or flags["nnodes"] != (1, 1) or flags["rdzv_endpoint"]):
        from hrm_edge.api.train import launch_processes

        raise click.exceptions.Exit(launch_processes(options, own, nproc=nproc, **flags))
    _work(options, run, own, flags)


def _train_digits(keys: Keys, run: Path, flags: dict[str, Any]) -> None:
    """Train the network that reads digits, and say what came of it."""
    from hrm_edge.errors import UserError

    given = [name.replace("_", "-") for name, value in _NOT_FOR_DIGITS.items() if flags[name] != value]
    if given:
        raise UserError(
            f"--{given[0]}: the digit network is trained in one go by one process", f"leave --{given[0]} out"
        )
    try:
        from hrm_edge.digits.recipe import DigitsRecipe
        from hrm_edge.digits.train import ONNX_FILE, train_digits
    except ModuleNotFoundError as error:
        if error.name not in ("PIL", "cv2", "torch", "onnx"):
            raise
        raise UserError(f"training the digit network needs {error.name}", "pip install 'hrm-edge[digits]'") from error
    recipe = keys.validate(DigitsRecipe)
    steps = recipe.train.steps
    with progress_bars() as show:
        about = train_digits(
            recipe, run, lambda step, loss: show(f"training {steps} steps", step, steps), flags["time_limit"]
        )
    echo(
        f"{about['steps']} steps in {about['train_s']:.0f} s on {len(about['fonts'])} fonts and {about['photos']} "
        f"photos; {about['rendered_cell_accuracy']:.2%} of {about['rendered_cells']} rendered cells read rightly"
    )
    echo(f"Next: python benchmarks/photos.py PHOTOS --digits {shlex.quote(str(run / ONNX_FILE))}")


def _work(options: Recipe, run: Path, own: list[str], flags: dict[str, Any]) -> None:
    """Train in this process: alone, or as the rank that the environment names."""
    from hrm_edge.training.memory import keep_memory

    keep_memory()
    from hrm_edge.api.train import stop_signals
    from hrm_edge.errors import GateError, Interrupted, UserError
    from hrm_edge.training.distributed import OtherRankFailed, joined

    with stop_signals() as stopped, joined(flags["host_timeout"]) as world:
        try:
            _train(options, run, own, flags, world, stopped)
        except (OtherRankFailed, GateError, Interrupted) as error:
            if world.rank == 0 and not isinstance(error, OtherRankFailed):
                raise
            raise click.exceptions.Exit(error.exit_code) from error  # another rank says it
        except UserError as error:
            if world.size > 1:
                error.problem = f"rank {world.rank}: {error.problem}"
            raise


def _train(options: Recipe, run: Path, own: list[str], flags: dict[str, Any], world: World, stopped: list[str]) -> None:
    from hrm_edge.api.train import load_initial
    from hrm_edge.errors import Interrupted
    from hrm_edge.training.loop import start
    from hrm_edge.training.progress import Progress

    trainer = start(options, run, resume=flags["resume"], world=world, wandb=flags["wandb"], load=load_initial)
    with Progress(trainer) as progress:
        outcome = trainer.run(time_limit=flags["time_limit"], stop=lambda: bool(stopped), on_progress=progress.show)
    progress.table(outcome)
    again = f"hrm-edge {' '.join(map(shlex.quote, own))} --resume"
    if world.size > 1:
        again += f" --nproc {os.environ.get('LOCAL_WORLD_SIZE', world.size)}"
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        again += " on every host, with the --nnodes and --rdzv options of before"
    if outcome.interrupted:
        by = stopped[0] if stopped else "another process was interrupted"
        raise Interrupted(f"{by} at step {outcome.step}, all saved", f"go on with: {again}")
    if world.rank:
        return
    if not outcome.finished:
        echo(f"The time limit ended the run at step {outcome.step}. Go on: {again}")
        return
    words = ["hrm-edge", "export", str(run), "--out", f"{run}-int8", "--int8", "--calibration", options.data]
    echo(f"Next: {shlex.join(words)}")
