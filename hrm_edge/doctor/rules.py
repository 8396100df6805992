"""From facts to findings: what the default pipeline needs, and what a user of this kind of machine expects to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from hrm_edge.device.matrix import Release, load_matrix, starts_with
from hrm_edge.doctor.facts import Facts
from hrm_edge.doctor.machine import is_missing
from hrm_edge.packages import DISTRIBUTIONS, load_hint
from hrm_edge.records import Record

_NEEDED_BYTES = 256 << 20  # ONNX Runtime, the largest shipped model and Python: 150 MB were measured
_NEEDED_DISK = 1 << 30
_TELL_US = "use ONNX Runtime on the CPU, and tell us the output of 'hrm-edge doctor --json'"


Level = Literal["fail", "warn", "note"]
LEVELS: tuple[Level, ...] = ("fail", "warn", "note")  # worst first
ENGINE_SESSION = "engine-session"
"""Name of the finding that engines cannot run, which is judged beside the default pipeline."""


class Finding(Record):
    """``fail``: the default pipeline does not work, or no engine can run on a Jetson whose TensorRT loads. ``warn``:
    something people expect here does not, or figures will be off. ``note``: good to know."""

    level: Level
    name: str = Field(description="stable, for programs")
    problem: str = Field(alias="what")
    hint: str = Field(alias="mend", description="a command that fixes it where there is one, else what to do")


def fail(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="fail", name=name, problem=problem, hint=hint)


def _warn(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="warn", name=name, problem=problem, hint=hint)


def _note(name: str, problem: str, hint: str) -> Finding:
    return Finding(level="note", name=name, problem=problem, hint=hint)


def rules(facts: Facts) -> list[Finding]:
    """Return every finding about ``facts``, in no order of weight."""
    return [finding for look in _LOOKS for finding in look(facts)]


def _default_pipeline(facts: Facts) -> Iterator[Finding]:
    if tuple(map(int, facts.python.version.split(".")[:2])) < (3, 10):
        yield fail(
            "python-old",
            f"Python {facts.python.version} is too old: 3.10 or newer is needed",
            "python3.10 -m venv .venv",
        )
    if facts.onnxruntime.error:
        missing = is_missing("onnxruntime", facts.onnxruntime.error)
        broken = "is not installed" if missing else "does not load"
        yield fail(
            "onnxruntime",
            f"onnxruntime, which runs the models, {broken} ({facts.onnxruntime.error})",
            load_hint("onnxruntime", facts.onnxruntime.error, facts.python.executable),
        )
    for module, module_import in facts.imports.items():
        if module_import.error:
            yield _warn(
                f"broken-{module}",
                f"{DISTRIBUTIONS.get(module, module)} is installed and does not load ({module_import.error})",
                load_hint(module, module_import.error, facts.python.executable),
            )
    available = facts.resources.memory_available_bytes
    if available is not None and available < _NEEDED_BYTES:
        yield fail("memory", f"only {_mib(available)} of memory are free", "close other programs, or add swap")
    for where, free in (("home", facts.resources.home_free_bytes), ("/tmp", facts.resources.tmp_free_bytes)):
        if free is not None and free < _NEEDED_DISK:
            weight = fail if free < (16 << 20) else _warn
            name = f"disk-{where.strip('/')}"
            yield weight(name, f"only {_mib(free)} are free on the disk of {where}", "df -h; then remove what you can")


def _jetpack(facts: Facts) -> Iterator[Finding]:
    board = facts.board
    if board is None:
        return
    if board.l4t is None:
        read = f"reads {board.release!r}, which we do not understand" if board.release else "is not readable"
        yield _warn(
            "l4t-unknown",
            f"a Jetson's kernel, but /etc/nv_tegra_release {read}: the JetPack is not known, none is assumed",
            "docker run -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro …"
            if facts.container
            else "cat /etc/nv_tegra_release",
        )
    elif board.jetpack is None:
        known = ", ".join(release.jetpack for release in load_matrix().releases)
        yield _warn(
            "jetpack-unknown",
            f"L4T {board.l4t} is in no row of our table (JetPack {known}): nothing is assumed about it",
            _TELL_US,
        )
    if board.soc not in load_matrix().socs and not (facts.container and board.soc is None):
        yield _warn(
            "board-unknown",
            f"unknown board: model {board.model!r}, SoC {board.soc or 'not named'}: nothing is assumed about its GPU",
            _TELL_US,
        )
    release = _release(facts)
    if release is None:
        return
    if facts.tensorrt.apt and not any(starts_with(facts.tensorrt.apt, version) for version in release.tensorrt):
        right = " or ".join(release.tensorrt)
        yield _warn(
            "tensorrt-mismatch",
            f"TensorRT {facts.tensorrt.apt} is not the one of JetPack {release.jetpack} ({right})",
            "sudo apt-get install --reinstall tensorrt",
        )
    if facts.cuda.toolkit and not starts_with(facts.cuda.toolkit, release.cuda):
        yield _warn(
            "cuda-mismatch",
            f"CUDA {facts.cuda.toolkit} is not the one of JetPack {release.jetpack} ({release.cuda})",
            f"sudo apt-get install cuda-toolkit-{release.cuda.replace('.', '-')}",
        )


def _tensorrt(facts: Facts) -> Iterator[Finding]:
    tensorrt = facts.tensorrt
    installed = [(f"{name} {version} (pip)", version) for name, version in tensorrt.pip.items()]
    installed += [(f"{tensorrt.apt} (apt)", tensorrt.apt)] if tensorrt.apt and tensorrt.pip else []
    if len({version for _, version in installed}) > 1:
        imported = tensorrt.imported.version if tensorrt.imported else None
        wins = f"; Python imports {imported}" if imported else ""
        surplus = sorted(tensorrt.pip) if tensorrt.apt else sorted(tensorrt.pip)[1:]
        yield _warn(
            "tensorrt-two",
            f"two versions of TensorRT at once: {', '.join(what for what, _ in installed)}{wins}",
            f"{_pip(facts)} uninstall -y {' '.join(surplus)}",
        )
    elif facts.kind == "jetson" and tensorrt.pip:
        yield _warn(
            "tensorrt-pip",
            f"TensorRT from pip ({', '.join(tensorrt.pip)}) has no libraries for Tegra",
            f"{_pip(facts)} uninstall -y {' '.join(sorted(tensorrt.pip))}",
        )
    if facts.kind != "jetson":
        return
    if tensorrt.apt is None and not facts.container:
        yield _warn(
            "tensorrt-missing", "TensorRT is not installed: engines cannot run", "sudo apt-get install tensorrt"
        )
    elif tensorrt.apt and tensorrt.apt_python is None:
        yield _warn(
            "tensorrt-python",
            f"TensorRT {tensorrt.apt} is installed, its Python part is not",
            "sudo apt-get install python3-libnvinfer",
        )


def _virtualenv(facts: Facts) -> Iterator[Finding]:
    """Check that this Python sees apt's bindings where they exist."""
    tensorrt, python = facts.tensorrt, facts.python
    if tensorrt.apt_python is None or tensorrt.imported is None or tensorrt.imported.error is None:
        return
    own = ".".join(python.version.split(".")[:2])
    if python.system_version and own != python.system_version:
        yield _warn(
            "venv-python",
            f"this is Python {own}; apt's TensorRT {tensorrt.apt_python} is made for {python.system_version}",
            f"python{python.system_version} -m venv --system-site-packages NEW_VENV",
        )
    elif python.system_site_packages is False:
        yield _warn(
            "venv-isolated",
            f"the virtual environment does not see apt's packages, TensorRT {tensorrt.apt_python} among them",
            f"sed -i 's/^include-system-site-packages.*/include-system-site-packages = true/' {python.venv}/pyvenv.cfg",
        )
    else:
        yield _warn(
            "tensorrt-import",
            f"TensorRT {tensorrt.apt_python} is installed, and importing it fails: {tensorrt.imported.error}",
            "sudo apt-get install --reinstall python3-libnvinfer libnvinfer-bin",
        )


def _gpu(facts: Facts) -> Iterator[Finding]:
    if facts.cuda.cards_without_driver and facts.kind in ("pc", "arm"):
        yield _warn(
            "driver-missing",
            "an NVIDIA card is in this machine, its driver is not loaded",
            "sudo apt-get install nvidia-driver; then reboot (Ubuntu: sudo ubuntu-drivers install)",
        )
    if facts.kind == "wsl2" and not facts.gpu_device:
        yield _note(
            "wsl-gpu",
            "WSL2 passes no GPU on (/dev/dxg is missing)",
            "with an NVIDIA card: install its Windows driver, then 'wsl --shutdown' in Windows",
        )
    if facts.kind == "wsl2":
        yield _note(
            "wsl-sensors",
            "WSL2 hides power sensors and USB cameras: reports say 'power: not measured'",
            "usbipd attach --wsl --busid ID (in Windows, for a camera)",
        )
    if facts.gpus and not facts.gpu_device and facts.kind == "pc":
        yield _warn("gpu-device", "the GPU's device nodes are missing", "sudo nvidia-modprobe -u -c=0")
    has_tensorrt = facts.tensorrt.imported is not None or "tensorrt-rtx" in facts.packages
    if facts.gpus and facts.kind in ("pc", "wsl2") and not has_tensorrt:
        yield _note("gpu-engine", "the GPU is idle: no TensorRT for this Python", f"{_pip(facts)} install tensorrt")


def _container(facts: Facts) -> Iterator[Finding]:
    if facts.container is None:
        return
    if facts.kind == "jetson" and not facts.gpu_device:
        yield _warn(
            "container-gpu",
            f"this {facts.container} container was started without the GPU",
            "docker run --runtime nvidia … (see jetson/README.md)",
        )
    if facts.kind == "jetson" and facts.board is not None and facts.board.model is None:
        yield _note(
            "container-board",
            "the container hides the device tree: the board's name is not known here",
            "docker run -v /sys/firmware/devicetree:/sys/firmware/devicetree:ro …",
        )
    if facts.kind == "pc" and facts.cuda.driver and not facts.gpus:
        yield _warn("container-gpu", "the host has an NVIDIA driver, the container no GPU", "docker run --gpus all …")


def _memory(facts: Facts) -> Iterator[Finding]:
    total, swap = facts.resources.memory_bytes, facts.resources.swap_bytes
    if facts.kind == "jetson" and total and total < (9 << 30) and not swap:
        yield _warn(
            "swap",
            f"{_mib(total)} of memory and no swap: building an engine may run out of memory",
            "sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap /swap && sudo swapon /swap",
        )


def _rights(facts: Facts) -> Iterator[Finding]:
    locked = [camera.device for camera in facts.cameras if not camera.usable]
    if locked:
        group = "video" if "video" in facts.known_groups else "the group that 'ls -l' shows"
        yield _warn(
            "camera-rights",
            f"{facts.user} may not open {', '.join(locked)}",
            f"sudo usermod -aG {group} {facts.user}; then log out and in",
        )
    unread = [camera.device for camera in facts.cameras if camera.kind == "csi" and camera.read_by is None]
    if unread:
        yield _warn(
            "camera-csi",
            f"nothing here reads the CSI camera {', '.join(unread)}: GStreamer's tools or NVIDIA's source are missing",
            "sudo apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer",
        )
    if facts.kind == "jetson" and not facts.is_root and facts.container is None:
        missing = [name for name in ("video", "render", "i2c") if facts.known_groups.get(name) is False]
        if missing and not locked:
            yield _note(
                "groups",
                f"{facts.user} is not in {', '.join(missing)} (cameras, GPU, sensors)",
                f"sudo usermod -aG {','.join(missing)} {facts.user}; then log out and in",
            )


def _power(facts: Facts) -> Iterator[Finding]:
    power = facts.power
    fixable = [meter for meter in power.meters if meter.problem and meter.hint]
    if fixable and not any(meter.problem is None for meter in power.meters):  # one that works is enough
        best = fixable[0]
        yield _warn(f"power-{best.name}", f"no power meter works: {best.problem}", best.hint or "")
    if facts.kind != "jetson":
        return
    fastest = next((mode for mode in power.modes if mode.startswith("MAXN")), None)
    if power.mode is None and facts.container is None:
        yield _note("power-mode", "the power mode cannot be read", "sudo nvpmodel -q")
    elif fastest and power.mode and power.mode != fastest:
        yield _note(
            "power-mode",
            f"power mode {power.mode}; the fastest of {', '.join(power.modes)} is {fastest}",
            f"hrm-edge bench sudoku-nano --power-mode {fastest}  (for one run; it stays with "
            f"'sudo nvpmodel -m {power.modes[fastest]}')",
        )
    if power.clocks_locked is False:
        yield _note(
            "clocks",
            "the clocks move with the load: latencies will scatter",
            "hrm-edge bench sudoku-nano --lock-clocks  (for one run; 'sudo jetson_clocks' until the next boot)",
        )


def _jtop(facts: Facts) -> Iterator[Finding]:
    jtop = facts.jtop
    if jtop.package and not jtop.service:
        yield _warn(
            "jtop-service", "jetson-stats is installed, its service does not run", "sudo systemctl restart jtop"
        )
    elif jtop.package and not jtop.in_group:
        yield _warn(
            "jtop-group",
            f"{facts.user} is not in the group jtop",
            f"sudo usermod -aG jtop {facts.user}; then log out and in",
        )


def _torch(facts: Facts) -> Iterator[Finding]:
    torch, bridge = facts.packages.get("torch"), facts.packages.get("torch-tensorrt")
    pip = _pip(facts)
    others = list(_of_another_release(facts))
    if others:
        yield _warn(
            "torch-mismatch",
            f"{'; '.join(others)}; only the Torch-TensorRT backend needs them here",
            f"{pip} uninstall -y {' '.join(name for name in ('torch', 'torch-tensorrt') if name in facts.packages)}",
        )
    elif torch and torch.version.endswith("+cpu") and facts.gpus:
        yield _note(
            "torch-cpu",
            f"torch {torch.version} does not use the GPU; only training and the Torch-TensorRT backend need it",
            f"{pip} uninstall -y torch" if facts.kind == "jetson" else f"{pip} install --force-reinstall torch",
        )
    if not others and bridge and torch and bridge.version.split(".")[:2] != torch.version.split(".")[:2]:
        yield _warn(
            "torch-tensorrt",
            f"torch-tensorrt {bridge.version} and torch {torch.version} do not belong together",
            f"{pip} install torch-tensorrt=={'.'.join(torch.version.split('.')[:2])}.*",
        )


def _of_another_release(facts: Facts) -> Iterator[str]:
    """Return what of torch does not belong to this JetPack, by the matrix."""
    release = _release(facts)
    if release is None or facts.board is None:
        return
    for name, right in release.packages.get(facts.board.soc or "", {}).items():
        package = facts.packages.get(name)
        if package and not starts_with(package.version.partition("+")[0], right):
            where = f" from {release.torch}" if name == "torch" else ""
            yield f"{name} {package.version} is not the one of JetPack {release.jetpack} ({right}{where})"


def _release(facts: Facts) -> Release | None:
    return load_matrix().release_of(facts.board.l4t) if facts.board and facts.board.l4t else None


def _pip(facts: Facts) -> str:
    return f"{facts.python.executable} -m pip"


def _mib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"


def engine_rules(facts: Facts) -> Iterator[Finding]:
    """Judge the session that an engine would get: TensorRT alone is not enough, its data has to reach the GPU.

    A Jetson fails without one: the engine is what its GPU is for.
    """
    session, release = facts.gpu_session, _release(facts)
    if session is None:
        return
    right = release.cuda_python if release else None  # where nothing ties it, any is right
    installed = facts.packages.get("cuda-python") or facts.packages.get("cuda-bindings")
    of_another = installed is not None and right is not None and not starts_with(installed.version, right)
    install = f"{_pip(facts)} install"
    if session.error:
        lacks = installed is None or of_another
        wanted = f"cuda-python=={right}.*" if right else "hrm-edge[gpu]"
        weight = fail if facts.kind == "jetson" else _warn
        hint = f"{install} '{wanted}'" if lacks else session.hint
        yield weight(ENGINE_SESSION, f"engines cannot run here: {session.error}", hint or f"{install} '{wanted}'")
    elif of_another and installed is not None:
        yield _warn(
            "cuda-python",
            f"cuda-python {installed.version} is for another CUDA than this JetPack's (cuda-python {right})",
            f"{install} 'cuda-python=={right}.*'",
        )


_LOOKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _default_pipeline, _jetpack, _tensorrt, _virtualenv, _gpu, _container, _memory, _rights, _power, _jtop, _torch,
)  # fmt: skip
