"""What the tests of the native step share: boards, a run of some steps, the library compiled for other processors."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from hrm_edge.manifest import STEP_FILE, read_manifest, write_manifest
from hrm_edge.runtime.compile_cache import processor
from hrm_edge.runtime.native import compile as compiling
from hrm_edge.spec import ModelSpec

MARCHES = (  # with VNNI, AVX2, SSE alone
    "-march=native", "-march=x86-64-v3", pytest.param("-march=x86-64-v2", marks=[pytest.mark.slow, pytest.mark.ci]),
)  # fmt: skip


def boards(spec: ModelSpec, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [N, S] and puzzle ids [N]."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, spec.vocab, (count, spec.seq_len)).astype(np.uint8)
    return tokens, rng.integers(0, spec.puzzles, count).astype(np.int32)


def run(session, tokens, ids, steps):
    """What the last of some steps gave: z_h, z_l, logits, q."""
    carry = session.initial_carry(len(tokens))
    for _ in range(steps):
        carry, logits, q = session.step(tokens, ids, carry)
    return [*carry, logits, q]


def compiled_for(march: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile for ``march`` from here on; others unoptimized, in a third of the time."""
    changed = {} if march == "-march=native" else {"-march=native": march, "-O3": "-O0"}
    flags = tuple(changed.get(flag, flag) for flag in compiling.FLAGS)
    monkeypatch.setattr(compiling, "FLAGS", flags)


def processor_runs(march: str) -> bool:
    needed = {"-march=x86-64-v3": "avx2", "-march=x86-64-v2": "sse4_2"}.get(march)
    return needed is None or (platform.machine() == "x86_64" and needed in processor())


def changed(folder: Path, to: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    """Copy an artifact with its graph changed, under a manifest that has the new hashes."""
    shutil.copytree(folder, to)
    manifest, graph = read_manifest(to), onnx.load(to / STEP_FILE)
    change(graph.graph)
    onnx.save(graph, to / STEP_FILE)
    write_manifest(to, manifest)
    return to


def negate_the_logits(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if "logits" in node.output)
    node.output[0] = "before"
    graph.node.append(onnx.helper.make_node("Neg", ["before"], ["logits"], name="negated"))
