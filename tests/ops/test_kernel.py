"""The Triton kernel's numbers, without a GPU: interpreted on the CPU, against float64.

The whole product of sizes is slow (`python -m pytest -m slow tests/ops`); every size, type and configuration of the
table is in the default tier once.
"""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from hrm_edge.ops.tuning import Config, choose, read_table
from tests.ops.cases import PATTERNS, Case, make, worst_error

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
