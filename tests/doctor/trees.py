"""Small root trees of the machines that the doctor knows: the few files it reads, as those systems write them.

Contents after public recordings of such machines (device trees, ``nv_tegra_release``, ``nvpmodel.conf``, dpkg lists).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hrm_edge.device.system import System
from hrm_edge.doctor.machine import GpuSession, Import, Interpreter, Machine, Package

ORT = Import(version="1.23.2", providers=["CPUExecutionProvider"])
MISSING = Import(error="ModuleNotFoundError: No module named 'tensorrt'")
VENV = "/opt/hrm/venv"


@dataclass
class Tree:
    """A machine to be written under a folder: path → text, commands → output, packages, imports."""

    files: dict[str, str]
    programs: dict[str, str] = field(default_factory=dict)
    packages: dict[str, Package] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=lambda: {"onnxruntime": ORT})
    python: Interpreter = field(default_factory=lambda: Interpreter(f"{VENV}/bin/python", (3, 10), VENV, "/usr"))
    architecture: str = "aarch64"
    user: str = "ada"
    groups: frozenset[str] = frozenset({"ada", "video", "render", "i2c"})
    free: int = 50 << 30
    usable: bool = True
    gpu: GpuSession = field(default_factory=lambda: GpuSession(binding="cuda-python", runtime="12.6", driver="13.0"))

    def machine(self, root: Path) -> Machine:
        for name, text in self.files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.over(root)

    def imported(self, name: str) -> Import:
        """As recorded; else what is installed loads."""
        package = self.packages.get(name.replace("_", "-"))
        absent = Import(error=f"ModuleNotFoundError: No module named {name!r}")
        return self.imports.get(name) or (Import(version=package.version) if package else absent)

    def over(self, root: Path) -> Machine:
        """The machine over a folder that was written before."""
        return Machine(
            system=System(root, lambda command: self.programs.get(" ".join(command))),
            package=self.packages.get,
            imports=self.imported,
            gpu=lambda: self.gpu,
            int8={"hrm_edge.runtime.ort": "exact 8-bit products"}.get,
            python=self.python,
            architecture=self.architecture,
            user=self.user,
            groups=self.groups,
            is_root=False,
            home=root,
            free_bytes=lambda path: self.free,
            can_use=lambda path: self.usable,
        )


def debs(**packages: str) -> str:
    """A dpkg status file; ``_`` stands for ``-`` in the names."""
    stanzas = [
        f"Package: {name.replace('_', '-')}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {version}\n"
        for name, version in packages.items()
    ]
    return "\n".join(["Package: bash\nStatus: install ok installed\nVersion: 5.1-6\n", *stanzas])


def l4t(major: int, revision: str) -> str:
    return (
        f"# R{major} (release), REVISION: {revision}, GCID: 42132812, BOARD: generic, EABI: aarch64, "
        "DATE: Thu Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
    )


def modes(*names: str) -> str:
    blocks = [f"< POWER_MODEL ID={i} NAME={name} >\nCPU_ONLINE CORE_0 1\n" for i, name in enumerate(names)]
    return "# /etc/nvpmodel.conf\n" + "\n".join(blocks)


def meminfo(gib: float, swap_gib: float = 0.0) -> str:
    kib = 1 << 20
    return (
        f"MemTotal: {int(gib * kib)} kB\nMemFree: 100 kB\nMemAvailable: {int(0.7 * gib * kib)} kB\n"
        f"SwapTotal: {int(swap_gib * kib)} kB\nSwapFree: {int(swap_gib * kib)} kB\n"
    )


def venv(system_site: bool) -> dict[str, str]:
    flag = str(system_site).lower()
    return {f"{VENV}/pyvenv.cfg": f"home = /usr/bin\ninclude-system-site-packages = {flag}\nversion = 3.10.12\n"}


def rails(*names: str) -> dict[str, str]:
    """An INA3221 whose channels all read 5 V and 1 A."""
    files = {}
    for number, name in enumerate(names, 1):
        files[f"{INA3221}/in{number}_label"] = f"{name}\n"
        files[f"{INA3221}/in{number}_input"] = "5000\n"
        files[f"{INA3221}/curr{number}_input"] = "1000\n"
    return files


GROUPS = "root:x:0:\nvideo:x:44:ada\nrender:x:104:ada\ni2c:x:108:ada\n"
INA3221 = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
CPU_CLOCK = "sys/devices/system/cpu/cpufreq/policy0"


GSTREAMER = {
    "gst-launch-1.0 --version": "gst-launch-1.0 version 1.20.3\n",
    "gst-inspect-1.0 --exists nvarguscamerasrc": "",
}


def orin_nano_jp62() -> Tree:
    """A developer kit as it should be: JetPack 6.2, apt's TensorRT seen from the venv, 15W."""
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "etc/nv_tegra_release": l4t(36, "4.3"),
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        "etc/group": GROUPS,
        "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
        "proc/meminfo": meminfo(7.4, 3.7),
        "etc/nvpmodel.conf": modes("15W", "25W", "MAXN_SUPER"),
        "var/lib/nvpmodel/status": "pmode:0000\n",
        "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
        "var/lib/dpkg/status": debs(
            python3="3.10.6-1~22.04.1", libnvinfer10="10.3.0.30-1+cuda12.5", python3_libnvinfer="10.3.0.30-1+cuda12.5",
            nvidia_l4t_core="36.4.3-20250107174145",
        ),
        "dev/nvhost-gpu": "",
        "dev/video0": "",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
        "sys/class/video4linux/video0/index": "0\n",
        f"{CPU_CLOCK}/scaling_min_freq": "729600\n",
        f"{CPU_CLOCK}/scaling_max_freq": "1510400\n",
        **rails("VDD_IN"),
        **venv(True),
    }  # fmt: skip
    imports = {"onnxruntime": ORT, "tensorrt": Import(version="10.3.0")}
    packages = {"tensorrt": Package(version="10.3.0", from_apt=True)}
    return Tree(files, imports=imports, packages=packages, programs=dict(GSTREAMER))


def agx_orin_jp72() -> Tree:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
        "etc/nv_tegra_release": l4t(39, "2.0"),
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
        "etc/group": GROUPS,
        "proc/sys/kernel/osrelease": "6.8.12-tegra\n",
        "proc/meminfo": meminfo(61.4),
        "etc/nvpmodel.conf": modes("MAXN", "MODE_15W", "MODE_30W", "MODE_50W"),
        "var/lib/nvpmodel/status": "pmode:0000\n",
        "var/lib/dpkg/status": debs(
            python3="3.12.3-0ubuntu2", libnvinfer10="10.16.2.10-1+cuda13.2", python3_libnvinfer="10.16.2.10-1+cuda13.2",
            cuda_cudart_13_2="13.2.75-1",
        ),
        "dev/nvidiactl": "",
        **rails("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        f"{CPU_CLOCK}/scaling_min_freq": "2201600\n",
        f"{CPU_CLOCK}/scaling_max_freq": "2201600\n",
        **venv(True),
    }  # fmt: skip
    imports = {"onnxruntime": ORT, "tensorrt": Import(version="10.16.2")}
    python = Interpreter(f"{VENV}/bin/python", (3, 12), VENV, "/usr")
    return Tree(files, imports=imports, python=python)


def thor_jp71() -> Tree:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
        "etc/nv_tegra_release": l4t(38, "4.0"),
        "etc/group": GROUPS,
        "proc/sys/kernel/osrelease": "6.8.12-1016-tegra\n",
        "proc/meminfo": meminfo(122.9),
        "etc/nvpmodel.conf": modes("MAXN", "120W", "90W", "70W", "40W"),
        "var/lib/nvpmodel/status": "pmode:0001\n",
        "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.0.48"}}',
        "var/lib/dpkg/status": debs(
            python3="3.12.3-0ubuntu2", libnvinfer10="10.13.3.9-1+cuda13.0", python3_libnvinfer="10.13.3.9-1+cuda13.0"
        ),
        "dev/nvidiactl": "",
        "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon4/power1_input": "23125000\n",
        **venv(True),
    }
    imports = {"onnxruntime": ORT, "tensorrt": Import(version="10.13.3.9")}
    programs = {
        "nvidia-smi": "| NVIDIA-SMI 580.00    Driver Version: 580.00     CUDA Version: 13.0     |\n",
        "nvpmodel -q": "NV Power Mode: 120W\n1\n",
    }
    return Tree(files, programs, imports=imports, python=Interpreter(f"{VENV}/bin/python", (3, 12), VENV, "/usr"))


def rtx_desktop() -> Tree:
    files = {
        "proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
        "etc/group": GROUPS,
        "proc/meminfo": meminfo(62.0, 8.0),
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build\n",
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
        "dev/nvidiactl": "",
        "dev/video0": "",
        "sys/class/video4linux/video0/name": "HD Pro Webcam C920\n",
        "sys/class/video4linux/video0/index": "0\n",
        "sys/class/video4linux/video1/name": "HD Pro Webcam C920\n",
        "sys/class/video4linux/video1/index": "1\n",
        **venv(False),
    }
    programs = {
        "nvidia-smi": "| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0 |\n",
        "nvidia-smi --query-gpu=name,compute_cap,memory.total --format=csv,noheader,nounits":
            "NVIDIA GeForce RTX 4090, 8.9, 24564\n",
    }  # fmt: skip
    return Tree(
        files, programs, packages={"tensorrt-rtx": Package(version="1.7.1.116", from_apt=False)}, architecture="x86_64"
    )


def cpu_laptop() -> Tree:
    files = {
        "proc/sys/kernel/osrelease": "6.1.0-25-amd64\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "etc/group": GROUPS,
        "proc/meminfo": meminfo(15.5, 1.0),
        **venv(False),
    }
    return Tree(files, architecture="x86_64", python=Interpreter(f"{VENV}/bin/python", (3, 11), VENV, "/usr"))


def jetson_container() -> Tree:
    """Docker hides the device tree; the kernel's name still says Tegra. Started without the NVIDIA runtime."""
    files = {
        ".dockerenv": "",
        "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        "proc/meminfo": meminfo(7.4, 3.7),
    }
    return Tree(
        files, user="root", groups=frozenset({"root"}), python=Interpreter("/usr/bin/python3", (3, 10), "/usr", "/usr")
    )


def wsl2() -> Tree:
    files = {
        "proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
        "etc/group": GROUPS,
        "proc/meminfo": meminfo(15.5, 4.0),
        **venv(False),
    }
    return Tree(files, architecture="x86_64")


def wsl2_rtx() -> Tree:
    """The card is a paravirtual device; its driver is Windows' own."""
    plain, desktop = wsl2(), rtx_desktop()
    return replace(plain, files={**plain.files, "dev/dxg": ""}, programs=desktop.programs, packages=desktop.packages)


ALL: dict[str, Callable[[], Tree]] = {
    "orin-nano-jp6.2": orin_nano_jp62,
    "agx-orin-jp7.2": agx_orin_jp72,
    "thor-jp7.1": thor_jp71,
    "rtx-desktop": rtx_desktop,
    "cpu-laptop": cpu_laptop,
    "jetson-container": jetson_container,
    "wsl2": wsl2,
    "wsl2-rtx": wsl2_rtx,
}
