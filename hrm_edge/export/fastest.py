"""Both precisions exported, the CPU asked which is faster, the faster one kept with the figures that say why."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hrm_edge.errors import GateError
from hrm_edge.files import atomic_folder
from hrm_edge.manifest import Manifest, Precision, write_manifest
from hrm_edge.runtime.choose import Candidate, candidates

ExportOne = Callable[[Precision, Path], Manifest]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def export_fastest(export_one: ExportOne, out: Path, on_message: Callable[[str], None]) -> Manifest:
    """Export to ``out`` the precision that is faster here, of those that pass their gate.

    The manifest's provenance says what every backend and thread count took for a step of one puzzle. Raises
    ``GateError`` where no precision passes; then nothing is written.
    """
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made: dict[Precision, tuple[Path, Manifest]] = {}
        for precision in PRECISIONS:
            place = Path(scratch) / precision / out.name
            made[precision] = (place, export_one(precision, place))
        on_message("measuring both precisions")
        ways: dict[Precision, list[Candidate]] = {p: candidates(*where) for p, where in made.items()}
        passed = [p for p, (_, manifest) in made.items() if manifest.gate.passed]
        if not passed:
            failures = "; ".join(f"{p}: {f}" for p, (_, m) in made.items() for f in m.gate.failures)
            raise GateError(failures, f"neither precision passes its gate, {out} was not written")
        chosen = min(passed, key=lambda p: ways[p][0].step_ms)
        place, manifest = made[chosen]
        for file in place.iterdir():
            os.replace(file, folder / file.name)
        choice = {"chosen": _why(chosen, ways, passed), "step_ms": {p: _table(found) for p, found in ways.items()}}
        return write_manifest(
            folder, manifest.model_copy(update={"provenance": {**manifest.provenance, "precision_choice": choice}})
        )


def _table(found: list[Candidate]) -> dict[str, float]:
    return {str(way): round(way.step_ms, 3) for way in found}


def _why(chosen: Precision, ways: dict[Precision, list[Candidate]], passed: list[Precision]) -> str:
    """Return the choice as a sentence."""
    best = ways[chosen][0]
    said = f"{chosen}: {best.step_ms:.2f} ms a step by {best}"
    for other in (p for p in ways if p != chosen):
        rival = ways[other][0]
        failed = "" if other in passed else ", which fails its gate"
        said += f"; {other} {rival.step_ms:.2f} ms by {rival}{failed}"
    return said
