"""How far a model in float32 ends from itself when its start is slightly off: what any rounding grows into.

    python benchmarks/settling.py --model sudoku-nano --data data/sudoku --machine MACHINE

Noise of a millionth, a thousandth and a hundredth of a state's size is added to the initial states; nothing else
differs. The states after 4 and all steps are compared apart by whether the puzzle is solved; see docs/explain/int8.md.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.device.identity import describe_device
from hrm_edge.errors import UserError
from hrm_edge.files import write_json
from hrm_edge.parity import measure
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.host import HostCarry, HostSession
from hrm_edge.tasks import get_task
from hrm_edge.zoo import folder_of

NOISE = (1e-6, 1e-3, 1e-2)


class Off:
    """A session whose initial states are off by normal noise of ``size``, the same for the same batch size."""

    def __init__(self, session: HostSession, size: float) -> None:
        self._of, self._size = session, size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def initial_carry(self, batch: int) -> HostCarry:
        rng, start = np.random.default_rng(0), self._of.initial_carry(batch)
        z_h, z_l = ((z + self._size * rng.standard_normal(z.shape)).astype(z.dtype) for z in start)
        return z_h, z_l


@click.command()
@click.option("--model", default="sudoku-nano", show_default=True, help="Shipped name or artifact folder, fp32.")
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--puzzles", default=256, show_default=True, type=click.IntRange(16))
@click.option("--machine", required=True, help="Folder of benchmarks/results.")
def main(model: str, data: Path, puzzles: int, machine: str) -> None:
    session, manifest = open_artifact(folder_of(model) or model)
    if manifest.precision != "fp32":
        raise UserError(f"{model} is {manifest.precision}", "name an fp32 artifact")
    check = load_puzzles(data, get_task(manifest.task), puzzles)
    rows = {}
    for size in NOISE:
        measured = measure(session, Off(session, size), check, session.spec.max_steps)
        rows[f"{size:g}"] = [row.model_dump(mode="json") for row in [*measured.everywhere, *measured.apart]]
        for row in measured.apart:
            click.echo(f"off by {size:g}: {row.puzzles} {row.over}: cosine {row.carry_cosine_mean}", err=True)
    report = {
        "kind": "settling",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": manifest.name,
        "sha256": manifest.files["step.onnx"].sha256,
        "data": data.name,
        "puzzles": len(check),
        "device": describe_device().model_dump(mode="json"),
        "off_by": rows,
    }
    out = Path(__file__).parent / "results" / machine / f"settling-{manifest.name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, report)
    click.echo(f"Report: {out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out}")


if __name__ == "__main__":
    main()
