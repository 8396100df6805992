"""Training a recipe: in this process, or by processes that are started for it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hrm_edge.errors import UserError
from hrm_edge.packages import explained

if TYPE_CHECKING:
    from hrm_edge.recipe import Recipe
    from hrm_edge.training.loggers import Line
    from hrm_edge.training.loop import Outcome


def train(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    resume: bool = False,
    time_limit_s: float | None = None,
    wandb: str = "",
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Line], None] = lambda line: None,
) -> Outcome:
    """Train ``recipe`` in this process and return what came of it: folder, steps, accuracy, seconds.

    ``recipe``: the name of a shipped one (``hrm-edge recipes`` lists them) or a YAML file. ``data``: the built data
    folder (None: the recipe's). ``out``: the run's folder (None: ``runs/NAME``). ``changes``: keys of the recipe as
    ``"train.lr=1e-4"``. ``resume``: go on from the newest checkpoint in ``out``. The run is saved and ends early after
    ``time_limit_s`` seconds, or when ``stop()`` returns True. ``wandb``: a Weights & Biases project to log to.
    ``on_progress`` gets each line of the log. Several processes or hosts: ``hrm-edge train``.

    It needs the extra ``train``. Raises ``UserError`` for a recipe, a data set or a folder that cannot be used,
    ``GateError`` when the loss is no number any more; the last whole checkpoint is kept.
    """
    from hrm_edge.recipe import check_recipe, read_keys

    keys = read_keys(str(recipe), list(changes), None if data is None else str(data))
    if keys.task == "digits":
        raise UserError(f"{recipe} trains the digit network", f"run it by: hrm-edge train {recipe}")
    with explained("hrm_edge.train"):
        from hrm_edge.training.loop import start

    run = Path("runs") / keys.path.stem if out is None else Path(out)
    trainer = start(check_recipe(keys), run, resume=resume, wandb=wandb, load=load_initial)
    return trainer.run(time_limit=time_limit_s, stop=stop, on_progress=on_progress)


def load_initial(name: str) -> tuple[Any, Any, Path]:
    """Load the model that a recipe's ``init`` names (model, what it is, its folder or file): also an artifact's.

    Raises ``UserError`` where the name is no model, or an INT8 artifact, which has lost its float32 weights.
    """
    from hrm_edge.manifest import MANIFEST
    from hrm_edge.model.load import load_model
    from hrm_edge.zoo import path_of

    path = path_of(name)
    if not (path / MANIFEST).is_file():
        return load_model(path)
    from hrm_edge.export.recover import recover  # it takes the extra 'export', which training alone does not

    return *recover(path), path


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Let SIGINT and SIGTERM put their name into the list, so that the running step ends and its state is saved."""
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


def launch_processes(
    recipe: Recipe,
    words: Sequence[str],
    *,
    nproc: int,
    nnodes: tuple[int, int],
    rdzv_endpoint: str,
    rdzv_id: str,
    max_restarts: int,
    host_timeout: float,
    resume: bool,
    time_limit: float | None,
    wandb: str,
) -> int:
    """Start the processes of this host, see 'hrm-edge train --help', and return their exit code.

    Each of them runs ``hrm-edge`` with ``words`` and the settings of here, and finds its rank in the environment.
    """
    chosen = os.environ.get("TORCH_CPP_LOG_LEVEL")  # read when torch loads
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # a C++ stack for every try to reach the other hosts
    from hrm_edge.training.launch import Hosts, launch
    from hrm_edge.training.loop import check_batch

    os.environ["TORCH_CPP_LOG_LEVEL"] = chosen or "ERROR"  # the processes to be started: no warnings about host names

    if nnodes != (1, 1) and not rdzv_endpoint:
        raise UserError("--nnodes: several hosts have to meet somewhere", "add --rdzv-endpoint HOST:PORT on all hosts")
    if rdzv_endpoint and not rdzv_id:
        raise UserError("--rdzv-endpoint: the job needs a name", "add --rdzv-id NAME, the same on all hosts")
    hosts = Hosts(nproc, nnodes, rdzv_endpoint, rdzv_id, max_restarts, host_timeout)
    for ranks in hosts.rank_counts():
        check_batch(recipe, ranks)
    worker = [*words, "--host-timeout", f"{host_timeout:g}s"]
    worker += ["--resume"] if resume else []
    worker += ["--time-limit", f"{time_limit:g}s"] if time_limit is not None else []
    worker += ["--wandb", wandb] if wandb else []
    return launch(worker, hosts)
