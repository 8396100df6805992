"""The Triton kernel's numbers, without a GPU: interpreted on the CPU, against float64.

The whole product of sizes is slow (`python -m pytest -m slow tests/ops`); every size, type and configuration of the
table is in the default tier once.
"""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from benchmarks.interpreted import run_interpreted
from hrm_edge.ops.tuning import Config, choose, read_table
from tests.ops.cases import PATTERNS, Case, make, run, worst_error

LENGTHS = (1, 16, 81, 82, 97, 196, 900, 901, 916, 1024)
TYPES = ("float32", "float16", "bfloat16")
LARGE = Config(256, 256, 4, 2)  # fewer, larger tiles than the table has: the interpreter's time goes by tiles


def each_length() -> list[Case]:
    """Every length once, the other axes in turn."""
    turns = zip(LENGTHS, itertools.cycle((32, 64)), itertools.cycle(TYPES), strict=False)
    return [Case(s, d, 1, dtype, rope=bool(i % 3)) for i, (s, d, dtype) in enumerate(turns)]


@pytest.mark.parametrize("case", each_length(), ids=str)
def test_every_length(case: Case) -> None:
    error, allowed = worst_error(case, LARGE if case.length > 200 else Config(32, 32, 4, 1), ("random",))
    assert error <= allowed


@pytest.mark.parametrize("rope", [True, False], ids=["rope", "plain"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("head_dim", [32, 64])
def test_adversarial_inputs(dtype: str, head_dim: int, rope: bool) -> None:
    """All patterns in one batch: each sequence's neighbours in memory are unlike it."""
    case = Case(82, head_dim, 1, dtype, rope)
    error, allowed = worst_error(case, choose(80, dtype, head_dim, 82, 1000))
    assert error <= allowed


def test_heads_are_kept_apart() -> None:
    error, allowed = worst_error(Case(82, 32, 8, "float32", True), Config(64, 64, 4, 1), ("random",))
    assert error <= allowed


BOARDS = [  # 4x4 and 9x9 Sudoku, boards that are not square, boxes of one cell and of the whole board, one line
    (4, 4, 2, 2), (6, 4, 3, 2), (5, 7, 1, 1), (3, 5, 3, 5), (1, 17, 1, 17), (9, 9, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize("grid", BOARDS, ids=str)
def test_heads_see_their_part_of_a_board(grid: tuple[int, ...]) -> None:
    """With tiles of keys that are smaller than a block, larger, and that begin within one; all adversarial inputs."""
    case = Case(grid[0] * grid[1], 32, 4, "float32", grid[0] % 2 == 0, grid)
    error, allowed = worst_error(case, Config(32, 16, 4, 1) if case.length < 81 else Config(64, 32, 4, 1))
    assert error <= allowed


@pytest.mark.parametrize("dtype", TYPES)
def test_boards_in_every_type(dtype: str) -> None:
    error, allowed = worst_error(Case(16, 64, 8, dtype, True, (4, 4, 2, 2)), Config(16, 16, 4, 1))
    assert error <= allowed


def test_what_a_head_does_not_see_does_not_reach_it() -> None:
    """A hidden cell of huge values leaves the others' results as they are: it is not read as a key."""
    case = Case(36, 32, 4, "float32", False, (6, 6, 2, 3))
    qkv = make(case, ("random",))
    config = Config(16, 16, 4, 1)
    before = run(case, qkv, config)
    hidden = qkv.clone()
    hidden[:, 35] = 1e30  # the last cell: not in the first cell's row, column or box
    packed = hidden.new_empty(1, 36, 32 * 4)
    run_interpreted(hidden, 4, None, packed, config, case.grid)
    assert (packed[0, 0, : 3 * 32] == before[0, 0, : 3 * 32]).all()
    assert (packed[0, 0, 3 * 32 :] != before[0, 0, 3 * 32 :]).any()  # the fourth head sees all


@pytest.mark.parametrize(
    "config", sorted({row.config for t in read_table().values() for row in t.rows}, key=str), ids=str
)
def test_every_configuration_of_the_table(config: Config) -> None:
    error, allowed = worst_error(Case(97, 32, 1, "float16", True), config, ("random",))
    assert error <= allowed


def test_patterns_do_what_they_say() -> None:
    """A pattern that is not hard tests nothing: exp overflows without the maximum, and a float16 sum overflows."""
    case = Case(82, 64, 1, "float16", False)
    q, k, _ = make(case).double().view(len(PATTERNS), 82, 3, 64).unbind(2)
    products = dict(zip(PATTERNS, q @ k.transpose(1, 2), strict=True))
    assert products["large logits"].max() / 8 > 89  # log of the largest float32
    assert products["one-hot"].max() > 65504
    assert (products["constant rows"] == products["constant rows"][0, 0]).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rope", [True, False], ids=["rope", "plain"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_whole_product(length: int, head_dim: int, heads: int, dtype: str, rope: bool) -> None:
    case = Case(length, head_dim, heads, dtype, rope)
    config = LARGE if length * heads > 1000 else choose(80, dtype, head_dim, length, heads * len(PATTERNS))
    error, allowed = worst_error(case, config)
    assert error <= allowed
