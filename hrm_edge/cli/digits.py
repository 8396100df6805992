"""``hrm-edge train`` for a recipe of the digit network."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hrm_edge.cli.options import progress_bars
from hrm_edge.errors import UserError
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.recipe import Keys

# flags of 'train' that mean nothing for minutes of work on one core, and their value where they were not given
_OTHERS = {"resume": False, "wandb": "", "nproc": 1, "nnodes": (1, 1), "rdzv_endpoint": ""}


def train_digits(keys: Keys, run: Path, flags: dict[str, Any]) -> None:
    """Train and say what came of it."""
    given = [name for name, value in _OTHERS.items() if flags[name] != value]
    if given:
        flag = given[0].replace("_", "-")
        raise UserError(f"--{flag}: the digit network is trained in one go by one process", f"leave --{flag} out")
    try:
        from hrm_edge.digits.recipe import DigitsRecipe
        from hrm_edge.digits.train import ONNX_FILE
        from hrm_edge.digits.train import train_digits as run_training
    except ModuleNotFoundError as error:
        if error.name not in ("PIL", "cv2", "torch", "onnx"):
            raise
        raise UserError(f"training the digit network needs {error.name}", "pip install 'hrm-edge[digits]'") from error
    recipe = keys.validate(DigitsRecipe)
    steps = recipe.train.steps
    with progress_bars() as show:
        about = run_training(
            recipe, run, lambda step, loss: show(f"training {steps} steps", step, steps), flags["time_limit"]
        )
    echo(
        f"{about['steps']} steps in {about['train_s']:.0f} s on {len(about['fonts'])} fonts and {about['photos']} "
        f"photos; {about['rendered_cell_accuracy']:.2%} of {about['rendered_cells']} rendered cells read rightly"
    )
    echo(f"Next: python benchmarks/photos.py PHOTOS --digits {quote(str(run / ONNX_FILE))}")
