"""The probe tells exact 8-bit products from cut-off ones, and a session is built by what it found."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.files import writable_cache
from hrm_edge.manifest import read_manifest
from hrm_edge.runtime import arithmetic, compile_cache, open_artifact, open_step, openvino, ort
from hrm_edge.runtime.arithmetic import Arithmetic, _int8_is_exact, extreme_weights, is_exact, weight_scales
from hrm_edge.runtime.choose import candidates
from hrm_edge.runtime.native.session import available
from hrm_edge.spec import variant_spec
from tests.artifacts import write_random_artifact
from tests.needs import installed

ROOT = Path(__file__).resolve().parents[2]
SPEC = variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3))
INEXACT = "the 8-bit products of onnxruntime .* are not exact on this processor"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that knows no processor yet; the native step in it is compiled once for all tests."""
    compiled = writable_cache("native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = tmp_path / "cache" / "hrm-edge"
    own.mkdir(parents=True)
    (own / "native").symlink_to(compiled)
    return own


def test_the_probe_is_what_its_script_writes():
    script = ROOT / "scripts" / "probe_graph.py"
    assert runpy.run_path(str(script))["probe_graph"]() == arithmetic.PROBE.read_bytes()


def products(x: np.ndarray, limit: int | None) -> np.ndarray:
    """The probe as exact arithmetic has it, or with each sum of two products of unsigned with signed bytes cut off."""
    inputs, weights = np.rint(x / arithmetic.INPUT_SCALE).astype(np.int64), extreme_weights().astype(np.int64)
    pairs = (inputs[..., None] + 128) * weights
    pairs = pairs[..., ::2, :] + pairs[..., 1::2, :]
    if limit is not None:
        pairs = np.clip(pairs, -limit - 1, limit)
    sums = pairs.sum(-2) - 128 * weights.sum(0)
    return (sums * (arithmetic.INPUT_SCALE * weight_scales())).astype(np.float32)


def test_exact_and_cut_off_products():
    assert is_exact(lambda x: products(x, None))
    assert not is_exact(lambda x: products(x, 32767))  # VPMADDUBSW
    assert not is_exact(lambda x: products(x, None)[..., :1])
    assert not is_exact(lambda x: products(x, None) * np.float32(np.nan))


def decide(*found: bool | Exception) -> tuple[Arithmetic | None, int]:
    """What is decided by the probe's results, with and without 8-bit kernels, and how often it was asked."""
    asked = []

    def probe(int8_kernels: bool) -> bool:
        asked.append(int8_kernels)
        result = found[not int8_kernels]
        if isinstance(result, Exception):
            raise result
        return result

    try:
        return arithmetic.arithmetic("runtime", "1.2", "", probe), len(asked)
    except UserError:
        return None, len(asked)


def test_the_decision_and_its_cache(cache, monkeypatch):
    assert decide(False, False) == (None, 2)
    assert decide(True, True) == (None, 0)  # known by now
    monkeypatch.setenv("ONEDNN_ANOTHER", "1")  # may choose other instructions
    inexact = Arithmetic("float32", "the 8-bit products of runtime 1.2 are not exact on this processor")
    assert decide(False, True) == (inexact, 2)
    assert str(inexact) == f"products in float32, for {inexact.why}"
    assert decide(False, False) == (inexact, 0)
    monkeypatch.setattr(compile_cache, "_by_kernel", lambda: "another processor")
    monkeypatch.setattr(arithmetic, "processor", compile_cache.processor)
    assert decide(True, False) == (Arithmetic("int8"), 1)
    assert str(Arithmetic("int8")) == "exact 8-bit products"


def test_a_probe_that_fails_is_asked_again(cache):
    assert decide(RuntimeError("no memory"), RuntimeError("no memory")) == (None, 2)
    assert decide(True, True) == (Arithmetic("int8"), 1)


def test_a_torn_or_missing_cache_costs_time_only(cache):
    assert not _int8_is_exact("runtime", "1", "", lambda: False)
    (kept,) = (cache / "arithmetic").iterdir()
    for damage in ('{"exact": tr', "[1]", '{"exact": "yes"}', "{}"):
        kept.write_text(damage)
        assert _int8_is_exact("runtime", "1", "", lambda: True)
        assert json.loads(kept.read_text())["exact"] is True
    kept.unlink()
    (cache / "arithmetic").rmdir()
    (cache / "arithmetic").write_text("a file stands where a folder would be")
    assert _int8_is_exact("runtime", "1", "", lambda: True)


def step(session):
    tokens = np.random.default_rng(0).integers(1, 11, (2, 81)).astype(np.uint8)
    return session.step(tokens, np.zeros(2, np.int32), session.initial_carry(2))[1]


def inexact_onnxruntime(monkeypatch) -> None:
    """Let the probe of the 8-bit kernels fail, as on a processor without VNNI; the one of float32 is real."""
    real = ort._probe
    monkeypatch.setattr(ort, "_probe", lambda int8_kernels: not int8_kernels and real(False))


def test_where_onnxruntime_is_not_exact_it_multiplies_in_float32(cache, tmp_path, monkeypatch):
    folder = write_random_artifact(tmp_path / "a", SPEC, "int8")
    manifest = read_manifest(folder)
    exact_here = ort.int8_arithmetic().products == "int8"
    exact = open_step(folder, manifest, 1, "onnxruntime" if exact_here else "native")
    monkeypatch.setenv("ORT_ANOTHER", "1")
    inexact_onnxruntime(monkeypatch)
    sessions = [open_step(folder, manifest, 1, "onnxruntime") for _ in range(2)]  # the second by the kept graph
    for session in sessions:
        assert session.arithmetic is not None
        assert session.arithmetic.products == "float32"
        found, wanted = step(session), step(exact)
        assert not (found == wanted).all()  # it is another way to compute
        assert 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(found - wanted)) > 22
    assert len(list((cache / "compiled" / "onnxruntime").iterdir())) == 1 + exact_here


def test_the_default_is_then_our_own_step(cache, tmp_path, monkeypatch):
    import hrm_edge

    folder = write_random_artifact(tmp_path / "a", SPEC, "int8")
    if not available(read_manifest(folder)):
        pytest.skip("no C++ compiler")
    inexact_onnxruntime(monkeypatch)
    said: list[str] = []
    session = hrm_edge.load(str(folder), on_message=said.append).session
    assert session.backend == "native-cpu"
    monkeypatch.setattr("hrm_edge.runtime.available", lambda manifest: False)
    assert hrm_edge.load(str(folder), on_message=said.append).session.backend == "onnxruntime-cpu"
    first, second = said
    assert first.startswith("Note: native-cpu, exact 8-bit products, for the 8-bit products of onnxruntime")
    assert second.startswith("Note: onnxruntime-cpu, products in float32, for the 8-bit products of onnxruntime")


def test_float_artifacts_are_not_concerned(cache, tmp_path, monkeypatch):
    folder = write_random_artifact(tmp_path / "a", SPEC, "fp32")
    inexact_onnxruntime(monkeypatch)
    session, _ = open_artifact(folder)
    assert (session.backend, session.arithmetic) == ("onnxruntime-cpu", None)  # type: ignore[attr-defined]
    assert not (cache / "arithmetic").exists()


def test_auto_chooses_among_exact_ways(cache, tmp_path, monkeypatch):
    folder = write_random_artifact(tmp_path / "a", SPEC, "int8")
    inexact_onnxruntime(monkeypatch)
    ways = candidates(folder, read_manifest(folder), threads=1)
    (onnxruntime,) = [way for way in ways if way.backend == "onnxruntime"]
    assert onnxruntime.session.arithmetic is not None
    assert onnxruntime.session.arithmetic.products == "float32"
    monkeypatch.setenv("OV_ANOTHER", "1")
    monkeypatch.setattr(openvino, "_probe", lambda config, int8_kernels: False)
    ways = candidates(folder, read_manifest(folder), threads=1)
    assert "openvino" not in {way.backend for way in ways}


def test_no_exact_way(cache, tmp_path, monkeypatch):
    folder = write_random_artifact(tmp_path / "a", SPEC, "int8")
    monkeypatch.setattr(ort, "_probe", lambda int8_kernels: False)
    with pytest.raises(UserError, match=r"onnxruntime .* computes other products .*\n.*--backend native"):
        open_artifact(folder, backend="onnxruntime")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_sessions_here_are_exact(tmp_path, backend):
    """Whatever this processor is: the probe passes the way that sessions are built."""
    pytest.importorskip(backend)
    folder = write_random_artifact(tmp_path / "a", SPEC, "int8")
    session = open_step(folder, read_manifest(folder), 1, backend)
    assert session.arithmetic is not None
    module = {"onnxruntime": "ort", "openvino": "openvino"}[backend]
    assert str(session.arithmetic) == str(__import__(f"hrm_edge.runtime.{module}", fromlist=["_"]).int8_arithmetic())


CPUINFO = Path("/proc/cpuinfo")
HELD = """
import numpy
from hrm_edge.runtime import ort
print(numpy._core._multiarray_umath.__cpu_features__["AVX512F"], ort._probe(True), ort._probe(False))
"""


@pytest.mark.skipif(
    not CPUINFO.exists() or "cpuid_fault" not in CPUINFO.read_text(), reason="this processor lets no CPUID fault"
)
def test_held_to_avx2_onnxruntime_is_not_exact():
    installed("cc", "gcc")
    command = [ROOT / "scripts" / "held_to_avx2.sh", sys.executable, "-c", HELD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
