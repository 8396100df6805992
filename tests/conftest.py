"""What every test shares: hypothesis settings that fit a busy machine, and skips that say what is missing."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from hypothesis import settings

from hrm_edge.quiet import switch_off
from tests.needs import keeping_compilers
from tests.shared import all_workers, numba_compiles_once

# Two threads of one matrix library on two cores slow each other down; a test that measures threads sets its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# torch's compiler would start a pool of processes that import torch, in every process that compiles.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
switch_off()  # tests import ONNX Runtime and OpenVINO themselves

# A shell that runs the tests in the background lets them ignore Ctrl-C, and nohup a hangup; programs that they start
# would inherit that. A handler is not inherited: it ignores the signal here alone.
for _ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_ignored) is signal.SIG_IGN:
        signal.signal(_ignored, lambda *_: None)

# No deadline: a slow machine is not a bug. Derandomized: the same commit gives the same verdict.
settings.register_profile("hrm-edge", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("hrm-edge")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from, nor left in, the cache of the user who runs the tests; what is compiled is kept a run."""
    with pytest.MonkeyPatch.context() as patch:
        cache = all_workers(tmp_path_factory) / "cache"
        cache.mkdir(exist_ok=True)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        for name, value in keeping_compilers(all_workers(tmp_path_factory) / "compiled").items():
            patch.setenv(name, value)
        with numba_compiles_once(tmp_path_factory) if "PYTEST_XDIST_WORKER" in os.environ else nullcontext():
            yield


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not in what is loaded by now: it was a tenth of what torch's compiler takes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--arm64-root", help="a Debian arm64 root made by scripts/arm64_root.sh")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``rtx`` are in the default tier; where NVIDIA publishes no package for the machine they skip."""
    if item.get_closest_marker("rtx") and importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed: pip install 'hrm-edge[rtx]' (Linux)")
