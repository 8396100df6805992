"""Both precisions exported, the CPU asked which is faster, the faster one kept with the figures that say why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hrm_edge.errors import GateError
from hrm_edge.files import atomic_folder
from hrm_edge.manifest import Manifest, Precision, read_manifest, write_manifest
from hrm_edge.runtime.choose import Candidate, candidates

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def keep_fastest(made: Mapping[Precision, Path], out: Path) -> Manifest:
    """Move to ``out`` the artifact that is faster here, of those that pass their gate; ``made``: precision → folder.

    The manifest's provenance says what every backend and thread count took for a step of one puzzle. Raises
    ``GateError`` where no precision passes; then nothing is written.
    """
    manifests = {precision: read_manifest(folder) for precision, folder in made.items()}
    ways = {precision: candidates(folder, manifests[precision]) for precision, folder in made.items()}
    passed = [precision for precision, manifest in manifests.items() if manifest.gate.passed]
    if not passed:
        failures = "; ".join(f"{p}: {failure}" for p, m in manifests.items() for failure in m.gate.failures)
        raise GateError(failures, f"neither precision passes its gate, {out} was not written")
    chosen = min(passed, key=lambda precision: ways[precision][0].step_ms)
    choice = {"chosen": _why(chosen, ways, passed), "step_ms": {p: _table(tried) for p, tried in ways.items()}}
    provenance = {**manifests[chosen].provenance, "precision_choice": choice}
    with atomic_folder(out) as folder:
        for file in made[chosen].iterdir():
            os.replace(file, folder / file.name)
        return write_manifest(folder, manifests[chosen].model_copy(update={"provenance": provenance}))


def _table(candidates: list[Candidate]) -> dict[str, float]:
    return {str(way): round(way.step_ms, 3) for way in candidates}


def _why(chosen: Precision, ways: dict[Precision, list[Candidate]], passed: list[Precision]) -> str:
    """Return the choice as a sentence."""
    best = ways[chosen][0]
    said = f"{chosen}: {best.step_ms:.2f} ms a step by {best}"
    for other in (p for p in ways if p != chosen):
        rival = ways[other][0]
        failed = "" if other in passed else ", which fails its gate"
        said += f"; {other} {rival.step_ms:.2f} ms by {rival}{failed}"
    return said
