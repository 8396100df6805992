"""Identity, state, rails and power sources of machines as their files show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.bench.roofline import roofline
from hrm_edge.device.boards import board_of, boards
from hrm_edge.device.clocks import power_mode, power_modes
from hrm_edge.device.identity import describe_device, is_jetson, package_version
from hrm_edge.device.matrix import jetpack_of
from hrm_edge.device.state import read_state, warnings_after, warnings_before
from hrm_edge.device.system import System
from hrm_edge.doctor.facts import read_facts
from hrm_edge.doctor.machine import Import, Machine
from hrm_edge.doctor.rules import rules
from hrm_edge.power import power_sources
from hrm_edge.power.ina import HWMON_HINT, Ina3221
from hrm_edge.power.meter import total_of
from hrm_edge.power.rapl import RAPL_HINT, rapl_zones
from hrm_edge.spec import variant_spec
from tests import machines


@dataclass(frozen=True)
class Closed(System):
    """Some files may not be read, as when udev has not opened them."""

    closed: str = ""

    def read(self, path):
        if self.closed in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return super().read(path)


def test_a_jetson_says_what_it_is(tmp_path):
    found = describe_device(machines.orin_nano(tmp_path).system)
    assert (found.board, found.l4t, found.jetpack) == ("orin-nano-super", "36.4.3", "6.2")
    assert found.machine == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert found.cpu == "ARMv8 Processor rev 1 (v8l)"
    assert found.memory_bytes == 24684084 * 1024
    assert found.gpus == []


def test_a_pc_and_a_bare_machine(tmp_path):
    pc = describe_device(machines.rtx_pc(tmp_path / "pc").system)
    assert (pc.machine, pc.gpus, pc.driver, pc.board) == ("Z790", ["NVIDIA GeForce RTX 4070"], "580.65.06", None)
    nothing = describe_device(machines.Machine(tmp_path / "nothing").system)
    assert (nothing.machine, nothing.l4t, nothing.jetpack, nothing.memory_bytes) == (None, None, None, 0)
    assert nothing.cpu != ""
    here = describe_device()
    assert here.memory_bytes > 10**8
    assert here.versions["numpy"] == np.__version__ == package_version("numpy")
    assert package_version("no-such-package-here") is None


@pytest.mark.parametrize(
    ("machine", "key"),
    [("NVIDIA Jetson Orin Nano Developer Kit", "orin-nano-8gb"),
     ("NVIDIA Jetson AGX Orin Developer Kit", "agx-orin-64gb"), ("NVIDIA Jetson Orin NX", None),
     ("NVIDIA Jetson AGX Thor Developer Kit", "thor-t5000"), ("NVIDIA H200", "h200"), ("Z790", None), (None, None)],
)  # fmt: skip
def test_boards_by_name(machine, key):
    assert board_of(machine) == key


MODULES = {  # part number → name, key, dense INT8 TOPS; the Super of the same model line
    "p3767-0000": ("Jetson Orin NX 16GB", "orin-nx-16gb", 30, "orin-nx-super"),
    "p3767-0001": ("Jetson Orin NX 8GB", "orin-nx-8gb", 25, "orin-nx-8gb-super"),
    "p3767-0003": ("Jetson Orin Nano 8GB", "orin-nano-8gb", 20, "orin-nano-super"),
    "p3767-0004": ("Jetson Orin Nano 4GB", "orin-nano-4gb", 10, "orin-nano-4gb-super"),
    "p3701-0004": ("Jetson AGX Orin 32GB", "agx-orin-32gb", 54, "agx-orin-32gb"),
    "p3701-0005": ("Jetson AGX Orin 64GB", "agx-orin-64gb", 85, "agx-orin-64gb"),
    "p3701-0008": ("Jetson AGX Orin Industrial", None, None, None),
    "p3767-9999": (None, None, None, None),
}


@pytest.mark.parametrize("part", MODULES)
def test_report_and_doctor_tell_a_module_by_its_part_number(part, tmp_path):
    """The model line is the carrier board's and the same for several modules."""
    name, key, tops, of_super = MODULES[part]
    model = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    machine = machines.jetson(tmp_path / "plain", model, part)
    found = describe_device(machine.system)
    assert (found.module, found.board) == (name, key)
    board = read_facts(Machine(system=machine.system, imports=lambda name: Import(), int8=lambda module: None)).board
    assert board is not None
    assert board.module == name
    assert describe_device(machines.jetson(tmp_path / "super", f"{model} Super", part).system).board == of_super
    if key is not None:
        line = roofline(
            variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3)), "int8", 1.0, 0.01, found.board, on_cpu=False
        )
        assert line.peak_flop_per_s == tops * 1e12
        assert line.peaks_from.startswith(boards()[key].name)


@pytest.mark.parametrize(
    ("kernel", "nodes", "is_one"),
    [("6.6.52-l4t-r36.4.3-1012.12", ("/dev/nvhost-gpu",), True), ("6.6.52-l4t-r36.4.3-1012.12", (), False),
     ("5.15.148-tegra", (), True), ("6.8.0-60-generic", ("/dev/nvhost-gpu",), False)],
)  # fmt: skip
def test_a_container_without_a_device_tree_is_known_by_its_kernel(kernel, nodes, is_one, tmp_path):
    system = machines.bare(tmp_path).write({"/proc/sys/kernel/osrelease": kernel, **dict.fromkeys(nodes, "")}).system
    assert is_jetson(system) == is_one
    facts = read_facts(Machine(system=system, imports=lambda name: Import(), int8=lambda module: None))
    assert (facts.kind == "jetson") == is_one
    assert not is_one or {"l4t-unknown"} <= {finding.name for finding in rules(facts)}


def test_the_boards_table_is_in_order():
    for board in boards().values():
        assert board.peak_ops("int8") > board.peak_ops("fp16") > board.peak_ops("fp32") > 1e12
    assert [jetpack_of(x) for x in ("36.4.4", "38.2.1", "36.4.99", None)] == ["6.2.1", "7.0", None, None]


def test_power_mode_by_name_even_where_the_program_may_not_run(tmp_path):
    machine = machines.orin_nano(tmp_path)
    assert power_mode(machine.system) == "MAXN_SUPER"
    assert power_modes(machine.system) == {0: "15W", 1: "25W", 2: "MAXN_SUPER"}
    machine.outputs.clear()
    assert power_mode(machine.system) is None
    machine.write({"/var/lib/nvpmodel/status": "pmode:0001 fmode:cool"})
    assert power_mode(machine.system) == "25W"


def test_state_of_a_jetson_and_of_a_bare_machine(tmp_path):
    state = read_state(machines.orin_nano(tmp_path / "nano").system)
    assert state.clocks_locked
    assert {clock.name: clock.now_mhz for clock in state.clocks} == {"cpu0": 1728, "gpu": 1020}
    assert state.temperatures_c == {"cpu": 49.843, "tj": 65.562}
    assert state.over_current == {"oc1": 0, "oc3": 7}
    bare = read_state(machines.bare(tmp_path / "bare").system)
    assert (bare.clocks, bare.clocks_locked, bare.power_mode, bare.load_1m) == ([], None, None, None)
    assert bare.memory_available_bytes == 20_000_000 * 1024


def test_unlocked_clocks_heat_and_load_are_said_before(tmp_path):
    machine = machines.orin_nano(tmp_path)
    assert warnings_before(read_state(machine.system), machine.system) == []
    machines.lock(machine, gpu_min=306_000_000).write({
        "/sys/class/thermal/thermal_zone8/temp": 95000, "/proc/loadavg": "64.0 1 1 1/1 1",
    })  # fmt: skip
    machine.outputs.clear()
    unlocked, mode, hot, busy = warnings_before(read_state(machine.system), machine.system)
    assert "not locked (gpu): run 'sudo jetson_clocks'" in unlocked
    assert "nvpmodel -q" in mode
    assert "tj is at 95 °C" in hot
    assert "load 64.00" in busy


def test_throttling_is_said_after(tmp_path):
    machine = machines.orin_nano(tmp_path)
    before = read_state(machine.system)
    assert warnings_after(before, before) == []
    machine.write({
        "/sys/class/hwmon/hwmon0/oc3_event_cnt": 9, "/sys/class/thermal/thermal_zone8/temp": 99000,
        "/sys/class/devfreq/17000000.gpu/max_freq": 612_000_000,
    })  # fmt: skip
    machine.outputs["nvpmodel -q"] = "NV Power Mode: 15W\n0\n"
    after = read_state(machine.system)
    found = "\n".join(warnings_after(before, after))
    for words in (
        "2 over-current events of oc3",
        "MAXN_SUPER to 15W",
        "tj reached 99",
        "from 1020 to 612 MHz",
        "unlock",
    ):
        assert words in found
    slept = before.model_copy(update={"boot_s": before.boot_s + 30, "wall_s": before.wall_s + 30})
    assert "slept for 30.0 s" in "\n".join(warnings_after(before, slept))
    jumped = before.model_copy(update={"wall_s": before.wall_s - 3600})
    assert "wall clock jumped by -3600.0 s" in "\n".join(warnings_after(before, jumped))


@pytest.mark.parametrize(
    ("rails", "total"),
    [(["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"], ("VDD_IN",)), (["VIN", "VDD_GPU", "VIN_SYS_5V0"], ("VIN",)),
     (["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"], ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
     (["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"], None), ([], None)],
)  # fmt: skip
def test_totals_never_add_what_lies_under_another_rail(rails, total):
    found = total_of(rails)
    assert (found and found.rails) == total


def sources(system):
    return {source.name: source for source in power_sources(system)}


@pytest.mark.parametrize(
    ("make", "usable"),
    [(machines.orin_nano, {"ina3221", "tegrastats"}), (machines.orin_nx, {"ina3221", "tegrastats"}),
     (machines.agx_orin, {"ina3221", "tegrastats"}), (machines.thor, {"ina238", "tegrastats"}), (machines.bare, set())],
)  # fmt: skip
def test_power_sources_by_board(tmp_path, make, usable):
    found = sources(make(tmp_path).system)
    assert {name for name, source in found.items() if source.problem is None} == usable
    assert "no total is known for the rails VDD_GPU" in (found["ina3221"].problem or "") or make is not machines.thor


def test_channels_that_are_not_connected_are_no_rails(tmp_path):
    names = [rail.name for rail in Ina3221.rails_of(machines.agx_orin(tmp_path).system)]
    assert names == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]


def test_what_cannot_be_read_comes_with_the_line_that_fixes_it(tmp_path):
    nano = machines.orin_nano(tmp_path / "nano")
    found = sources(Closed(nano.root, nano.system.programs, closed="curr1_input"))["ina3221"]
    assert "curr1_input is not readable" in (found.problem or "")
    assert found.hint == HWMON_HINT
    pc = machines.rapl(machines.rtx_pc(tmp_path / "pc"), {"package-0": 5, "core": 3, "dram": 2})
    assert [zone.name for zone in rapl_zones(pc.system)] == ["package-0", "dram-0"]
    assert sources(pc.system)["rapl"].rails == ["package-0", "dram-0"]
    found = sources(Closed(pc.root, pc.system.programs, closed="energy_uj"))["rapl"]
    assert "energy_uj is not readable" in (found.problem or "")
    assert found.hint == RAPL_HINT
    torn = machines.orin_nx(tmp_path / "nx").write({"/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in2_input": "?"})
    assert "rail VDD_CPU_GPU_CV cannot be read" in (sources(torn.system)["ina3221"].problem or "")


def test_files_in_order_and_programs_that_fail(tmp_path):
    machine = machines.bare(tmp_path).write({f"/sys/x/cpu{n}/y": n for n in (10, 9, 2)})
    assert [machine.system.integer(path) for path in machine.system.glob("/sys/x/cpu*/y")] == [2, 9, 10]
    assert System().run("true") == ""
    assert System().run("false") is None
    assert System().run("no-such-program-here") is None
    assert machine.system.integer("/proc/meminfo") is None
    assert machine.system.line(Path("/no/such/file")) is None
