"""Heads that see parts of the board: what a hidden cell says changes nothing, in the mask and in attention."""

from __future__ import annotations

import torch

from hrm_edge.model.hrm import HRM
from hrm_edge.ops.attention import packed_attention
from hrm_edge.spec import variant_spec


def test_a_head_answers_to_the_cells_it_sees_alone() -> None:
    spec = variant_spec("nano", vocab=8, seq_len=36, grid=(6, 6, 2, 3), hidden=64, heads=4, h_layers=1, l_layers=1)
    mask = HRM(spec).mask()
    assert mask is not None
    qkv = torch.randn(1, 36, 3 * 64, generator=torch.Generator().manual_seed(0))
    before = packed_attention(qkv, 4, None, mask)
    cell = 8  # row 1, column 2, box 0
    changed = qkv.clone()
    changed[:, cell] += 1.0
    moved = (packed_attention(changed, 4, None, mask) - before).abs().unflatten(-1, (4, 16)).amax(-1)[0] > 0  # [T, H]
    row, column = torch.arange(36) // 6, torch.arange(36) % 6
    box = row // 2 * 2 + column // 3
    seen = [row == 1, column == 2, box == 0, torch.ones(36, dtype=torch.bool)]
    assert torch.equal(moved, torch.stack(seen, dim=1))
