"""Binaries for every architecture, compiled here without a GPU, and the folder that the plugins read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="pip install 'hrm-edge[fused]'")

from hrm_edge.errors import UserError
from hrm_edge.ops import aot, tuning
from hrm_edge.ops.aot import _compile_variant, _Variant, _variants, build, main
from hrm_edge.ops.tuning import BASE_SM, SMS, Config, choose, read_table
from hrm_edge.plugin.kernels import KernelFolder
from tests.shared import small_kernels


@pytest.fixture(autouse=True)
def _nothing_cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


def cubin_sm(cubin: bytes) -> int:
    """The architecture in the ELF header of a cubin: machine 190 (EM_CUDA), SM in e_flags, by version of the ABI."""
    assert cubin[:4] == b"\x7fELF"
    assert int.from_bytes(cubin[18:20], "little") == 190
    flags, abi = int.from_bytes(cubin[48:52], "little"), cubin[8]
    return flags >> 8 & 0xFF if abi >= 8 else flags & 0xFF


@pytest.mark.parametrize("sm", SMS)
def test_a_cubin_for_every_architecture(sm: int) -> None:
    """With the configuration that the table gives Sudoku's sequences there."""
    kernel = _compile_variant(sm, _Variant("float16", 64, True, choose(sm, "float16", 64, 82, 8)))
    assert cubin_sm(kernel.asm["cubin"]) == sm
    assert re.search(rf"^\.target sm_{sm}a?$", kernel.asm["ptx"], re.MULTILINE)
    assert ".file" not in kernel.asm["ptx"]  # would carry paths of the machine that compiled it


def test_the_base_is_ptx_that_old_drivers_translate() -> None:
    ptx = _compile_variant(BASE_SM, _Variant("bfloat16", 32, True, Config(16, 32, 2, 2))).asm["ptx"]
    assert ".version 8.0\n" in ptx
    assert ".target sm_80\n" in ptx  # without "a": runs on every later architecture


def test_products_of_16_bit_types_use_tensor_cores_and_float32_is_not_cut_to_tf32() -> None:
    half = _compile_variant(87, _Variant("float16", 32, False, Config(16, 32, 2, 2))).asm["ptx"]
    full = _compile_variant(87, _Variant("float32", 32, False, Config(32, 32, 4, 1))).asm["ptx"]
    assert "mma.sync" in half
    assert "mma" not in full
    assert "tf32" not in full


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_kernels(tmp_path_factory)


def test_the_folder_serves_what_the_table_asks_for(folder: Path) -> None:
    kernels = KernelFolder(folder)
    assert kernels.sms == (87,)
    for length, sequences in ((82, 8), (82, 8192), (901, 8)):
        own, fallback = kernels.candidates(87, "float16", 32, True, False, length, sequences)
        config = choose(87, "float16", 32, length, sequences)
        assert (own.block_m, own.threads) == (config.block_m, 32 * config.warps)
        assert cubin_sm(kernels.read(own)) == 87
        assert fallback.sm == BASE_SM
        assert kernels.read(fallback).endswith(b"\0")
        (only,) = kernels.candidates(86, "float16", 32, True, False, length, sequences)
        assert only == fallback
    listed = json.loads((folder / "kernels.json").read_text())
    assert (folder / "kernels.inc").read_text().count("HRM_KERNEL(") == len(listed["kernels"]) == 24


def test_a_triton_with_another_launch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "PARAMETERS", aot.PARAMETERS[:-1])
    with pytest.raises(UserError, match="install the pinned Triton"):
        _compile_variant(87, _Variant("float16", 32, False, Config(16, 32, 2, 2)))


def test_an_existing_folder_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(folder), "--sm", "87", "--dtype", "float16", "--head-dim", "32"]) == 2
    assert str(folder) in capsys.readouterr().err


def test_the_table_is_whole_and_says_what_is_measured() -> None:
    table = read_table()
    assert set(table) == {BASE_SM, *SMS}
    for sm, rows in table.items():
        assert rows.measured or "not measured" in rows.source
        for dtype in ("float16", "bfloat16", "float32"):
            for head_dim in (32, 64):
                for length, sequences in ((1, 1), (82, 8), (82, 8192), (901, 8), (1024, 10**6)):
                    config = choose(sm, dtype, head_dim, length, sequences)
                    assert config.block_m in (16, 32, 64, 128)
    assert choose(86, "float16", 64, 82, 8) == choose(BASE_SM, "float16", 64, 82, 8)


def test_rows_are_tried_in_order_and_dead_ones_are_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "dtype": None,
        "head_dim": None,
        "max_length": None,
        "max_sequences": None,
        "block_n": 32,
        "warps": 4,
        "stages": 2,
    }
    rows = [{**row, "max_length": 128, "block_m": 16}, {**row, "head_dim": 64, "block_m": 32}, {**row, "block_m": 64}]
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"sm": {"80": {"measured": True, "source": "a test", "rows": rows}}}))
    found = [choose(90, "float16", d, s, 1, path).block_m for d, s in ((64, 128), (64, 129), (32, 129))]
    assert found == [16, 32, 64]
    monkeypatch.setattr(aot, "read_table", lambda: tuning.read_table(path))
    compiled = [
        (v.head_dim, v.config.block_m) for v, _ in _variants(80, ("float16",), (32, 64)) if v.rope and not v.grid
    ]
    assert compiled == [(32, 16), (64, 16), (64, 32), (32, 64)]


@pytest.mark.parametrize("text", ["", "{}", '{"sm": {"80": {"rows": [{}]}}}'])
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match="not a tuning table"):
        read_table(path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_binary_compiles(tmp_path: Path) -> None:
    done = build(tmp_path / "kernels", SMS, ("float16", "bfloat16", "float32"), (32, 64))
    assert {row["sm"] for row in done["kernels"]} == {BASE_SM, *SMS}
    for row in done["kernels"]:
        image = (tmp_path / "kernels" / row["file"]).read_bytes()
        assert row["sm"] == BASE_SM or cubin_sm(image) == row["sm"]
        assert row["shared"] <= 99 * 1024  # what a program may have on the smallest of them (sm_89, sm_120)
