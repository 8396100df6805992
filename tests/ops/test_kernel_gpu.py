"""The compiled kernel on a GPU, by its operator: numbers against float64, gradient, and the model through it.

``scripts/gpu_day.py --dry-run`` runs these on a CPU, at tiny sizes, in Triton's interpreter (HRM_EDGE_GPU_DRY_RUN=1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from benchmarks.interpreted import interpreted
from hrm_edge.model.hrm import HRM
from hrm_edge.ops.attention import attention_path
from hrm_edge.ops.tuning import Config
from hrm_edge.spec import variant_spec
from tests.ops.cases import DTYPES, PATTERNS, Case, exact, make, tables, tolerance

pytestmark = pytest.mark.gpu
OP = torch.ops.hrm_edge.fused_attention
DRY = os.environ.get("HRM_EDGE_GPU_DRY_RUN") == "1"
CASES = [
    *(Case(length, dim, heads, dtype, rope)
      for length, heads in ((82, 8), (901, 4), (1, 1), (1024, 2)) for dim in (32, 64) for dtype in DTYPES
      for rope in (True, False)),
    *(Case(grid[0] * grid[1], dim, 8, dtype, False, grid)
      for grid in ((9, 9, 3, 3), (6, 6, 2, 3), (4, 4, 2, 2), (30, 30, 5, 6)) for dim in (32, 64) for dtype in DTYPES),
]  # fmt: skip
TINY = [Case(9, 32, 1, "float32", True), Case(16, 32, 4, "float16", False, (4, 4, 2, 2))]


@pytest.fixture
def device() -> Iterator[str]:
    if torch.cuda.is_available():
        yield "cuda"
    elif DRY:
        with interpreted(Config(16, 16, 4, 1)):
            yield "cpu"
    else:
        pytest.skip("needs an NVIDIA GPU")


@pytest.mark.parametrize("case", TINY if DRY else CASES, ids=str)
def test_the_compiled_kernel(case: Case, device: str) -> None:
    qkv = make(case, PATTERNS[:2] if DRY else PATTERNS)
    cos, sin = (table.to(device) for table in tables(case)) if case.rope else (None, None)
    found = OP(qkv.to(device), case.heads, cos, sin, case.grid).cpu()
    expected = exact(case, qkv)
    assert np.abs(found.double().numpy() - expected).max() <= tolerance(case, qkv, expected)


@pytest.mark.parametrize("variant", ["full", "nano"])
def test_the_model_through_the_kernel(variant: str, device: str) -> None:
    """Forward and gradient in float32, as torch's own kernels have them."""
    sizes = {"hidden": 128, "heads": 4, "h_layers": 1, "l_layers": 1, "h_cycles": 1, "l_cycles": 1}
    own = {"full": {"puzzle_dim": 128}, "nano": {"grid": (4, 4, 2, 2)}}[variant]
    spec = variant_spec(variant, vocab=6, seq_len=16, **sizes, **own)
    torch.manual_seed(0)
    model = HRM(spec).to(device)
    tokens = torch.randint(1, 6, (2, 16), device=device)
    puzzle = model.puzzle_vectors(torch.zeros(2, dtype=torch.long, device=device)) if spec.puzzle_dim else None
    state = [x.to(device) for x in model.initial_state(2, torch.float32)]
    logits, gradients = {}, {}
    for path in ("unfused", "fused"):
        with attention_path(path):
            model.zero_grad()
            out = model(tokens, puzzle, *state)[2]
            out.square().mean().backward()
        logits[path], gradients[path] = out.detach(), model.get_parameter("lm_head.weight").grad
    assert torch.allclose(logits["fused"], logits["unfused"], atol=1e-3)
    assert torch.allclose(gradients["fused"], gradients["unfused"], atol=1e-3)
