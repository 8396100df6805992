"""Power meter of jtop (jetson-stats, AGPL-3.0): imported only on request, and only by its documented interface."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from typing import Any

from hrm_edge.device.identity import is_jetson
from hrm_edge.device.system import System
from hrm_edge.power.meter import Clock, FollowedMeter, Reading, SensorError, Source

_JTOP_SOCKET = "/run/jtop.sock"
PERIOD_S = 0.5
_FIRST_READING_S = 6.0


def rails_of(power: Mapping[str, Any]) -> dict[str, float]:
    """Return the power of each rail of ``jetson.power``, in W.

    ``tot`` is a rail only where its ``name`` is one; otherwise jtop adds all rails, even those that are parts of
    another, so it is no total. ``avg`` is not used: it lies halfway between its last value and the new one. Raises
    ``SensorError`` for another shape.
    """
    try:
        rails = {str(name): float(values["power"]) / 1e3 for name, values in power["rail"].items()}
        total = power.get("tot") or {}
        if "name" in total:
            rails[str(total["name"])] = float(total["power"]) / 1e3
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SensorError(f"jtop's power has an unknown form: {type(error).__name__} {error}") from error
    return rails


def explain(error: BaseException) -> str:
    """Return what a failed connection means, with the command that fixes it."""
    text = " ".join(str(error).split())
    for words, hint in (
        ("not active", "start it: sudo systemctl restart jtop.service"),
        ("ismatch", "make both one version: sudo pip install --upgrade jetson-stats && sudo systemctl restart jtop"),
        ("can't access", "join its group and log in again: sudo usermod -aG jtop $USER"),
        ("ermission", "join its group and log in again: sudo usermod -aG jtop $USER"),
    ):
        if words in text:
            return f"{text} ({hint})"
    return text or type(error).__name__


class JtopMeter(FollowedMeter):
    """Readings of the jtop service, followed by a thread."""

    name = "jtop"
    sensor = "jetson.power"
    period_s = PERIOD_S

    def __init__(self, system: System, clock: Clock, rail: str | None = None) -> None:
        """Connect and wait for the first reading; with ``rail``, measure only that rail.

        Raises ``SensorError`` where the service cannot be reached or has no known total.
        """
        super().__init__(clock)
        self._stop = threading.Event()
        try:
            module = importlib.import_module("jtop")
        except ImportError as error:
            raise SensorError("jtop is not installed: sudo pip install jetson-stats") from error
        self._client = module.jtop(interval=PERIOD_S)
        try:
            self._client.start()
        except Exception as error:
            raise SensorError(explain(error)) from error
        self._begin(_FIRST_READING_S, rail)

    @classmethod
    def find(cls, system: System) -> Source:
        """Look for the package and its running service; see :meth:`Meter.find`."""
        if not is_jetson(system):
            return cls._unusable("jtop is for a Jetson, this machine is none")
        if importlib.util.find_spec("jtop") is None:
            return cls._unusable("jtop is not installed", "sudo pip install jetson-stats && reboot")
        socket = system.path(_JTOP_SOCKET)
        if not socket.exists():
            hint = "sudo systemctl restart jtop.service (and see 'systemctl status jtop')"
            return cls._unusable("the jtop service is not running", hint)
        return cls._found()

    def _follow(self) -> None:
        try:
            while not self._stop.is_set() and self._client.ok():
                self._put(Reading(self._clock(), rails_of(self._client.power)))
            self._end("the jtop service ended the connection")
        except Exception as error:  # noqa: BLE001 - a broken service must end in the report, not in this thread
            self._end(explain(error))

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._stop.set()
        self._client.close()
        self._thread.join(2 * PERIOD_S)
