"""ONNX Runtime and OpenVINO, imported so that they report to nobody.

ONNX Runtime 1.32 keeps a device's identity and a queue of events in the user's cache and looks up Microsoft's host.
OpenVINO keeps an identity in ``~/intel`` and sends an event to Google Analytics as soon as it is imported. This package
needs no network to run a model, so both are told to stop before they load.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def switch_off() -> None:
    """Switch telemetry off for this process and those that it starts; a variable that the user has set stays."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # OpenVINO goes without this package where it cannot be imported; it has no variable to switch it off
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def import_onnxruntime() -> Any:
    """Return the module ``onnxruntime``; raises ``ImportError``."""
    switch_off()
    import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """Return the module ``openvino``; raises ``ImportError``."""
    switch_off()
    import openvino

    return openvino
