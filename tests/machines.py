"""Pictures of machines: the files below a root and the programs' outputs that a Jetson, a PC or a bare machine has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hrm_edge.device.system import System

GONE = "<gone>"  # a live value of a file that is not there any more

NVPMODEL_CONF = """\
# a comment
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


@dataclass
class Machine:
    """Files are written below ``root`` as they are set; a program's output is looked up by the whole command line."""

    root: Path
    outputs: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] | None = None
    """Once it is a dict, values go here and not to the disk: for simulations with thousands of readings."""

    def write(self, files: Mapping[str, object]) -> Machine:
        for name, text in files.items():
            path = self.root / name.lstrip("/")
            if self.live is not None:
                self.live[str(path)] = str(text)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="utf-8")
        return self

    def _program(self, command: Sequence[str]) -> str | None:
        return self.outputs.get(" ".join(command))

    @property
    def system(self) -> System:
        return Live(self.root, self._program, self)

    def rails(self, watts: Mapping[str, float], volts: float = 5.0) -> Machine:
        """An INA3221 with these rails, in order; writing again changes the reading."""
        folder = "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
        for number, (name, power) in enumerate(watts.items(), 1):
            millivolts = round(1000 * volts)
            self.write({f"{folder}/in{number}_label": name, f"{folder}/in{number}_input": millivolts,
                        f"{folder}/curr{number}_input": round(1e6 * power / millivolts)})  # fmt: skip
        return self

    def vin(self, watts: float) -> Machine:
        """The INA238 of a Thor."""
        return self.write({"/sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon4/power1_input": round(1e6 * watts)})


@dataclass(frozen=True)
class Live(System):
    """Reads what a machine has in memory before what it has on the disk."""

    machine: Machine | None = None

    def read(self, path: str | Path) -> str:
        live = self.machine.live if self.machine is not None else None
        found = None if live is None else live.get(str(path))
        if found == GONE:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return super().read(path) if found is None else found


def bare(root: Path) -> Machine:
    """A virtual machine that shows nothing."""
    return Machine(root).write({"/proc/meminfo": "MemTotal:       24684084 kB\nMemAvailable:   20000000 kB"})


def jetson(
    root: Path, model: str, part: str, *, l4t: str = "R36 (release), REVISION: 4.3", mode: str = "MAXN_SUPER"
) -> Machine:
    """A Jetson with locked clocks and a module of this part number; rails are added by :meth:`Machine.rails`."""
    machine = bare(root).write({
        "/proc/device-tree/model": f"{model}\0",
        "/proc/device-tree/compatible": f"nvidia,p3768-0000+{part}\0nvidia,{part}\0nvidia,tegra234\0",
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)",
        "/etc/nv_tegra_release": f"# {l4t}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: …",
        "/etc/nvpmodel.conf": NVPMODEL_CONF,
        "/sys/class/thermal/thermal_zone0/type": "cpu-thermal", "/sys/class/thermal/thermal_zone0/temp": 49843,
        "/sys/class/thermal/thermal_zone1/type": "cv0-thermal", "/sys/class/thermal/thermal_zone1/temp": -256000,
        "/sys/class/thermal/thermal_zone8/type": "tj-thermal", "/sys/class/thermal/thermal_zone8/temp": 65562,
        "/sys/class/hwmon/hwmon0/name": "soctherm_oc", "/sys/class/hwmon/hwmon0/oc1_event_cnt": 0,
        "/sys/class/hwmon/hwmon0/oc3_event_cnt": 7, "/sys/class/hwmon/hwmon1/name": "ina3221",
    })  # fmt: skip
    machine.outputs["nvpmodel -q"] = f"NV Power Mode: {mode}\n2\n"
    machine.outputs["which tegrastats"] = "/usr/bin/tegrastats\n"
    return lock(machine)


def lock(machine: Machine, *, cpu_min: int = 1_728_000, gpu_min: int = 1_020_000_000) -> Machine:
    """CPU at 1,728 MHz and GPU at 1,020 MHz; lower minima unlock them."""
    cpu, gpu = "/sys/devices/system/cpu/cpufreq/policy0", "/sys/class/devfreq/17000000.gpu"
    return machine.write({
        f"{cpu}/scaling_min_freq": cpu_min, f"{cpu}/scaling_max_freq": 1_728_000, f"{cpu}/scaling_cur_freq": 1_728_000,
        f"{cpu}/cpuinfo_max_freq": 1_728_000, f"{cpu}/scaling_governor": "schedutil",
        f"{gpu}/min_freq": gpu_min, f"{gpu}/max_freq": 1_020_000_000, f"{gpu}/cur_freq": 1_020_000_000,
        f"{gpu}/governor": "nvhost_podgov", f"{gpu}/available_frequencies": "306000000 612000000 1020000000",
    })  # fmt: skip


def orin_nano(root: Path) -> Machine:
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    return jetson(root, model, "p3767-0005").rails({"VDD_IN": 5.0, "VDD_CPU_GPU_CV": 1.5, "VDD_SOC": 1.0})


def orin_nx(root: Path) -> Machine:
    machine = jetson(root, "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "p3767-0000", mode="25W")
    return machine.rails({"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0})


def agx_orin(root: Path) -> Machine:
    machine = jetson(root, "NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005", mode="MAXN")
    return machine.rails({"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 5.0, "NC": 0.0,
                          "VDDQ_VDD2_1V8AO": 1.5, "sum of shunt voltages": 0.0})  # fmt: skip


def thor(root: Path) -> Machine:
    model = "NVIDIA Jetson AGX Thor Developer Kit"
    machine = jetson(root, model, "p3834-0008", l4t="R38 (release), REVISION: 2.1", mode="120W")
    return machine.rails({"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 6.0, "VIN_SYS_5V0": 4.0}).vin(25.0)


def rtx_pc(root: Path) -> Machine:
    machine = bare(root).write({
        "/sys/class/dmi/id/product_name": "Z790",
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27",
    })  # fmt: skip
    machine.outputs["nvidia-smi --query-gpu=name --format=csv,noheader"] = "NVIDIA GeForce RTX 4070\n"
    return machine


def rapl(machine: Machine, microjoules: Mapping[str, int], wrap: int = 262_143_328_850) -> Machine:
    """Energy counters of a PC: ``package-0``, and by sub-zone ``core``, ``dram``."""
    for number, (name, value) in enumerate(microjoules.items()):
        folder = "/sys/class/powercap/intel-rapl:0" + ("" if name.startswith("package") else f":{number}")
        machine.write({f"{folder}/name": name, f"{folder}/energy_uj": value, f"{folder}/max_energy_range_uj": wrap})
    return machine
