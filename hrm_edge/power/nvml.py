"""NVML: an NVIDIA GPU's own energy counter and power, through nvidia-ml-py."""

from __future__ import annotations

import importlib.util
from typing import Any

from hrm_edge.device.identity import is_jetson
from hrm_edge.device.system import System
from hrm_edge.errors import UserError, nearest
from hrm_edge.power.meter import Clock, Meter, Reading, Scope, SensorError, Source


class NvmlMeter(Meter):
    """Meter of one GPU: its counter gives the energy, its integrated power checks it."""

    name = "nvml"
    sensor = "nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetPowerUsage"
    of_gpu = True

    def __init__(self, system: System, clock: Clock, rail: str | None = None) -> None:
        """Open NVML; ``rail`` is ``GPU0``, ``GPU1`` … (default: the first).

        Raises ``SensorError`` where the library, the driver or the reading is missing.
        """
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise SensorError("pynvml is not installed: pip install 'hrm-edge[power]'") from error
        self._clock = clock
        try:
            self._nvml.nvmlInit()
            names = [f"GPU{number}" for number in range(self._nvml.nvmlDeviceGetCount())]
            if rail is not None and rail not in names:
                raise UserError(f"--power nvml: there is no '{rail}'", nearest(rail, names))
            self._rail = rail or "GPU0"
            self._handle = self._nvml.nvmlDeviceGetHandleByIndex(int(self._rail[3:]))
            self._counts = self._has_counter()
            self.read()
        except self._nvml.NVMLError as error:
            raise SensorError(f"NVML: {error}") from error
        self.scope = Scope((self._rail,), f"{self._rail}: the graphics card; CPU, memory and the rest are outside")

    @classmethod
    def find(cls, system: System) -> Source:
        """Look for a driver and for the library; see :meth:`Meter.find`."""
        if is_jetson(system):
            return cls._unusable("NVML has no power reading on a Jetson")
        if system.line("/proc/driver/nvidia/version") is None:
            return cls._unusable("no NVIDIA driver on this machine")
        if importlib.util.find_spec("pynvml") is None:
            return cls._unusable("pynvml is not installed", "pip install 'hrm-edge[power]'")
        return cls._found()

    def _has_counter(self) -> bool:
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError:
            # GPUs before Volta have no energy counter.
            return False
        return True

    def read(self) -> Reading:
        """Read power and, where the GPU has it, the energy counter. Raises ``SensorError``."""
        before = self._clock()
        try:
            watts = self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
            joules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3 if self._counts else None
        except self._nvml.NVMLError as error:
            raise SensorError(f"NVML: {error}") from error
        return Reading((before + self._clock()) / 2, {self._rail: watts}, joules)

    def close(self) -> None:
        """Close NVML."""
        self._nvml.nvmlShutdown()
