"""Every shape of line that releases print, and lines that nobody printed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.device.system import System
from hrm_edge.power.tegrastats import TegrastatsMeter, parse_tegrastats

ORIN = (
    "11-25-2026 03:15:32 RAM 4722/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) "
    "CPU [97%@1984,off,3%@1984,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 84%@[713] NVDEC off "
    "cpu@49.843C/49.843C soc2@48.1C cv0@-256C tj@65.562C "
    "VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW VDD_SOC 3923mW/3515mW NC 0mW/0mW"
)


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (ORIN, {"VDD_IN": 17.946, "VDD_CPU_GPU_CV": 8.896, "VDD_SOC": 3.923}),
        (ORIN.partition("RAM")[2], {"VDD_IN": 17.946, "VDD_CPU_GPU_CV": 8.896, "VDD_SOC": 3.923}),
        ("VDD_IN 4548mW/4548mW/4548mW VDD_SOC 1mW/2mW/3mW", {"VDD_IN": 4.548, "VDD_SOC": 0.001}),
        ("RAM 1/2MB VDD_IN 3902/3611 VDD_SOC 10/10\n", {"VDD_IN": 3.902, "VDD_SOC": 0.01}),
        ("VDD_GPU -392mW/-390mW/0mW VIN 25000mW/24000mW", {"VDD_GPU": -0.392, "VIN": 25.0}),
        ("GPU 0/0 CPU 216/216 SYS5V 1840/1840", {"GPU": 0.0, "CPU": 0.216, "SYS5V": 1.84}),
        ("RAM 4722/7620MB SWAP 0/3810MB IRAM 0/252kB", {}),
        ("", {}),
    ],
)
def test_rails(line, rails):
    assert parse_tegrastats(line).rails_w == pytest.approx(rails)


@pytest.mark.parametrize(
    ("text", "share", "mhz"),
    [("GR3D_FREQ 12%", 0.12, ()), ("GR3D_FREQ 84%@[713]", 0.84, (713,)), ("GR3D_FREQ 3%@624", 0.03, (624,)),
     ("GR3D_FREQ 12%@[1300,1300]", 0.12, (1300, 1300)), ("GR3D_FREQ 0%@[314,314,314]", 0.0, (314, 314, 314)),
     ("GR3D_FREQ @[1574,1574,1574]", 0.0, (1574, 1574, 1574)), ("GR3D_FREQ @[300,off,600]", 0.0, (300, None, 600)),
     ("GR3D_FREQ 20%@[0, 300, 400]", 0.2, (0, 300, 400)), ("EMC_FREQ 0%", None, ()), ("GR3D_FREQ off", None, ())],
)  # fmt: skip
def test_the_gpu(text, share, mhz):
    found = parse_tegrastats(f"RAM 1/2MB {text} VDD_IN 1mW/1mW")
    assert (found.gpu_share, found.gpu_mhz) == (share, mhz)


def test_a_thor_at_rest_counts_in_the_mean_load():
    """Its lines name no share then; leaving them out made 87% of one busy line in ten."""
    idle = "GR3D_FREQ @[1574,1574,1574] gpu@51.218C/51.218C VIN 28906mW/14453mW/28906mW"
    busy = "GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 gpu@56.937C/66.625C VIN 124486mW/36487mW/124486mW"
    ended = threading.Event()

    def lines() -> Iterator[str]:
        yield from [*[idle] * 9, busy]
        ended.wait()

    meter = TegrastatsMeter(System(), lambda: 0.0, start=lambda command: (lines(), ended.set))
    meter.close()
    assert "tegrastats: mean GPU load 9%" in meter.notes()


def test_the_rest_of_a_line():
    found = parse_tegrastats(ORIN)
    assert found.temperatures_c == {"cpu": 49.843, "soc2": 48.1, "tj": 65.562}  # a zone that is off is none
    assert found.cpu_share == (0.97, None, 0.03, 0.0)
    assert parse_tegrastats("VDD_IN 1mW/1mW").cpu_share == ()


pieces = st.sampled_from([*ORIN.split(" "), "CPU [", "VDD_IN", "9" * 40 + "mW/1mW", "-mW/", "@C", "GR3D_FREQ 999%@[,]"])


@given(st.one_of(st.text(), st.lists(pieces).map(" ".join), st.tuples(st.integers(0, len(ORIN)), st.text(max_size=5))))
def test_no_line_crashes_it_and_what_it_finds_is_a_number(line):
    text = ORIN[: line[0]] + line[1] + ORIN[line[0] :] if isinstance(line, tuple) else line
    found = parse_tegrastats(text)
    assert all(math.isfinite(value) for value in [*found.rails_w.values(), *found.temperatures_c.values()])
    assert all(share is None or share >= 0 for share in (*found.cpu_share, found.gpu_share))
