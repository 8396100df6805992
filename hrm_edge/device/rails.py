"""Power rails that add up to a board's total, and what that total covers. Rails that are parts of others are not added.

Source: NVIDIA's Jetson Linux developer guide, software-based power monitoring.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_NOT_WALL = "the carrier board and the power supply's losses are outside: it is not wall power"


@dataclass(frozen=True)
class Scope:
    """Rails that are added, and a description of what their sum covers."""

    rails: tuple[str, ...]
    words: str


TOTALS = (  # the first one whose rails are all present is used
    Scope(("VIN",), f"VIN: everything the Thor module draws; {_NOT_WALL}"),
    Scope(("VDD_IN",), f"VDD_IN: everything the module draws (CPU, GPU, memory, I/O); {_NOT_WALL}"),
    Scope(
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0: about what the AGX Orin module draws (VDDQ_VDD2_1V8AO lies under "
        f"VIN_SYS_5V0 and is not added); {_NOT_WALL}",
    ),
)
OF_ONE_RAIL = "{}: this rail only, as asked for; the rest of the machine is outside"


def total_of(rails: Iterable[str]) -> Scope | None:
    """Return the total of a board that has these ``rails``, or None where no known total consists of them."""
    present = set(rails)
    return next((total for total in TOTALS if present.issuperset(total.rails)), None)
