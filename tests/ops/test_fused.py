"""The operator in torch: schema, gradient, compilation, the seam that the model uses, and what it refuses."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.model.hrm import HRM
from hrm_edge.ops.attention import _fused_is_chosen, attention_path, packed_attention, rope_tables
from hrm_edge.ops.reference import _by_blocks, grid_mask, unfused_attention
from hrm_edge.ops.tuning import Config
from hrm_edge.spec import variant_spec

OP = torch.ops.hrm_edge.fused_attention
SMALL = Config(16, 16, 4, 1)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="pip install 'hrm-edge[fused]'")


def inputs(length: int = 9, heads: int = 2, dim: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """(qkv [2, S, 3*H*Dh] with a gradient, cos, sin [S, Dh/2])."""
    torch.manual_seed(length)
    cos, sin = (t[:, : dim // 2] for t in rope_tables(length, dim, 1e4))
    return torch.randn(2, length, 3 * heads * dim).to(dtype).requires_grad_(), cos, sin


@pytest.mark.parametrize("rope", [True, False])
def test_torch_takes_the_operator(rope: bool) -> None:
    """Schema, shapes, registration of the gradient and ahead-of-time dispatch, by torch's own check."""
    qkv, cos, sin = inputs()
    found = torch.library.opcheck(OP, (qkv, 2, cos if rope else None, sin if rope else None))
    assert len(found) == 4
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("rope", [True, False])
def test_gradient_in_float64(rope: bool) -> None:
    qkv, cos, sin = inputs(5, 1)
    tables = (cos.double(), sin.double()) if rope else (None, None)
    assert torch.autograd.gradcheck(lambda x: OP(x, 1, *tables), (qkv.detach().double().requires_grad_(),))


BOARD = (4, 4, 2, 2)


@pytest.mark.parametrize("rope", [True, False])
def test_torch_takes_heads_that_see_parts_of_a_board(rope: bool) -> None:
    qkv, cos, sin = inputs(16, 4)
    if rope:  # torch's check of what it takes costs a second; without tables: test_torch_takes_the_operator
        found = torch.library.opcheck(OP, (qkv, 4, cos, sin, BOARD))
        assert set(found.values()) == {"SUCCESS"}
    wide = qkv.detach().double().requires_grad_()
    tables = (cos.double(), sin.double()) if rope else (None, None)
    rope_of = tuple(torch.cat([t, t], -1) for t in tables) if rope else None
    upstream = torch.randn(2, 16, 128, dtype=torch.float64)
    ours = torch.autograd.grad(OP(wide, 4, *tables, BOARD), wide, upstream)[0]
    masked = unfused_attention(wide, 4, rope_of, grid_mask(BOARD, 4))
    theirs = torch.autograd.grad(masked, wide, upstream)[0]
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("board", [(4, 4, 2, 2), (6, 6, 2, 3), (9, 9, 3, 3)])
def test_block_by_block_is_the_same_as_with_the_mask(board: tuple[int, ...]) -> None:
    cells = board[0] * board[1]
    qkv = torch.randn(2, cells, 3 * 64, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, cells, 64, dtype=torch.float64)
    ways = [_by_blocks(qkv, 8, board), unfused_attention(qkv, 8, None, grid_mask(board, 8))]
    assert torch.allclose(ways[0], ways[1], atol=1e-12)
    ours, theirs = (torch.autograd.grad(way, qkv, upstream)[0] for way in ways)
    assert torch.allclose(ours, theirs, atol=1e-12)
    if cells >= 64:  # smaller boards keep the mask
        assert torch.equal(unfused_attention(qkv, 8, None, grid_mask(board, 8), board), ways[0])


def test_the_views_of_the_heads_are_the_models() -> None:
    """Row, column, box and all, in the order of the model's own mask."""
    for grid in ((9, 9, 3, 3), (6, 4, 3, 2), (2, 6, 2, 3)):
        spec = variant_spec("nano", vocab=8, seq_len=grid[0] * grid[1], grid=grid, hidden=256, heads=8)
        mask = HRM(spec).mask()
        assert mask is not None
        assert ((mask == 0) == (grid_mask(grid, 8) == 0)).all()


@needs_triton
@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_training_through_the_kernel(dtype: torch.dtype, allowed: float) -> None:
    """The kernel forward, its gradient backward: both as the plain formula in float64 has them."""
    qkv, cos, sin = inputs(19, dtype=dtype)
    exact = qkv.detach().double().requires_grad_()
    wide = tuple(torch.cat([t, t], -1).double() for t in (cos, sin))
    expected = unfused_attention(exact, 2, wide)
    from benchmarks.interpreted import interpreted

    with interpreted(SMALL):
        out = OP(qkv, 2, cos, sin)
    upstream = torch.randn(out.shape, dtype=torch.float64)
    out.backward(upstream.to(dtype))
    expected.backward(upstream.to(dtype).double())
    assert qkv.grad is not None
    assert exact.grad is not None
    assert out.dtype == qkv.grad.dtype == dtype
    assert (out.double() - expected).abs().max() < allowed
    assert (qkv.grad.double() - exact.grad).abs().max() < 2 * allowed * exact.grad.abs().max()


@pytest.mark.parametrize("path", ["fused", "unfused"])
def test_compiles_to_one_graph_and_exports(path: str) -> None:
    qkv, cos, sin = inputs()
    rope = tuple(torch.cat([t, t], -1) for t in (cos, sin))

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return packed_attention(x, 2, rope)

    with attention_path(path):
        compiled = torch.compile(Layer(), backend="aot_eager", fullgraph=True)
        compiled(qkv).square().sum().backward()
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(Layer(), (qkv.detach(),), dynamic_shapes=({0: batch},))
        again = program.module()(qkv.detach()[:1])
    assert qkv.grad is not None
    assert torch.allclose(again, unfused_attention(qkv, 2, rope)[:1], atol=1e-5)
    targets = [str(node.target) for node in program.graph.nodes]
    assert ("hrm_edge.fused_attention.default" in targets) == (path == "fused")


def test_the_paths_agree_and_a_cpu_keeps_torchs_kernels() -> None:
    qkv, cos, sin = inputs(82, 4)
    rope = tuple(torch.cat([t, t], -1) for t in (cos, sin))
    assert not _fused_is_chosen(qkv, 4)
    plain = packed_attention(qkv, 4, rope)
    with attention_path("fused"):
        assert _fused_is_chosen(qkv, 4)
        assert torch.allclose(packed_attention(qkv, 4, rope), plain, atol=2e-6)
        assert torch.allclose(packed_attention(qkv, 4, None), unfused_attention(qkv, 4, None), atol=2e-6)
    assert not _fused_is_chosen(qkv, 4)


def test_a_mask_that_is_no_board_has_no_block() -> None:
    qkv = inputs(9, 4)[0].detach()
    mask = torch.zeros(4, 9, 9)
    assert torch.equal(packed_attention(qkv, 4, None, mask), unfused_attention(qkv, 4, None, mask))
    with attention_path("fused"), pytest.raises(UserError, match="blocks for the rows, columns and boxes") as error:
        packed_attention(qkv, 4, None, mask)
    assert "as `grid`" in error.value.hint


@needs_triton
@pytest.mark.parametrize("variant", ["full", "reduced", "nano"])
def test_the_model_computes_the_same_through_the_kernel(variant: str) -> None:
    from benchmarks.interpreted import interpreted

    sizes = {"hidden": 64, "heads": 2, "h_layers": 1, "l_layers": 1, "h_cycles": 1, "l_cycles": 1}
    own = {"full": {"puzzle_dim": 64}, "nano": {"grid": BOARD, "heads": 4, "hidden": 128}}.get(variant, {})
    spec = variant_spec(variant, vocab=6, seq_len=16, **{**sizes, **own})
    torch.manual_seed(0)
    model = HRM(spec).eval()
    tokens = torch.randint(1, 6, (2, 16))
    state = model.initial_state(2, torch.float32)
    puzzle = model.puzzle_vectors(torch.zeros(2, dtype=torch.long))
    with torch.no_grad():
        expected = model(tokens, puzzle, *state)
        with attention_path("fused"), interpreted(SMALL):
            found = model(tokens, puzzle, *state)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "call, what",
    [
        (lambda q, c, s: OP(q.double().half().to(torch.float8_e4m3fn), 2, c, s), "qkv is float8_e4m3fn"),
        (lambda q, c, s: OP(q, 5, c, s), "is not [B, S, 3*heads*Dh] with heads=5"),
        (lambda q, c, s: OP(q, 0, c, s), "with heads=0"),
        (lambda q, c, s: OP(q, 1, c, s), "a rope table is (9, 16)"),
        (lambda q, c, s: OP(q, 4, None, None), "head size 16, the kernels have (32, 64)"),
        (lambda q, c, s: OP(q[0], 2, c, s), "is not [B, S"),
        (lambda q, c, s: OP(q, 2, c, None), "cos without sin"),
        (lambda q, c, s: OP(q, 2, c[:5], s[:5]), "a rope table is (5, 16)"),
        (lambda q, c, s: OP(q, 2, c.half(), s.half()), "a rope table is torch.float16"),
        (lambda q, c, s: OP(q, 2, c, s.contiguous()), "different strides"),
        (lambda q, c, s: OP(q.repeat(1, 120, 1), 2, None, None), "1080 positions"),
        (lambda q, c, s: OP(q, 2, None, None, [3, 3, 1]), "grid [3, 3, 1] is not rows, columns"),
        (lambda q, c, s: OP(q, 2, None, None, [3, 3, 0, 3]), "grid [3, 3, 0, 3] is not rows, columns"),
        (lambda q, c, s: OP(q, 2, None, None, [3, 3, 2, 1]), "boxes of 2x1 do not fill a board of 3x3"),
        (lambda q, c, s: OP(q, 2, None, None, [4, 4, 2, 2]), "has 16 cells, there are 9 positions"),
        (lambda q, c, s: OP(q, 2, None, None, [3, 3, 1, 3]), "2 heads cannot see row, column, box and board"),
    ],
)
def test_what_it_refuses(call: object, what: str) -> None:
    qkv, cos, sin = inputs()
    with pytest.raises(UserError) as error:
        call(qkv.detach(), cos, sin)  # type: ignore[operator]
    assert what in error.value.problem
    assert error.value.hint
