"""What ``eval`` and ``bench`` report: closed, versioned schemas with the unit in every name, and their renderings."""

from hrm_edge.report.figures import decibels, latency_ms, wilson_95
from hrm_edge.report.power import Gap, IdlePower, Power, RailPower
from hrm_edge.report.schema import (
    Answers,
    ArcAtViews,
    ArcVotes,
    AtViews,
    BenchReport,
    ColdStart,
    Data,
    Engine,
    EvalReport,
    Latency,
    Model,
    Pace,
    Reference,
    ReferenceAt,
    Report,
    Sweep,
    WarmUp,
)

__all__ = [
    "Answers", "ArcAtViews", "ArcVotes", "AtViews", "BenchReport", "ColdStart", "Data", "Engine",
    "EvalReport", "Gap", "IdlePower", "Latency", "Model", "Pace", "Power", "RailPower", "Reference",
    "ReferenceAt", "Report", "Sweep", "WarmUp", "decibels", "latency_ms", "wilson_95",
]  # fmt: skip
