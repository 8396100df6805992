"""Doctor: findings about this machine, worst first, each with the command that fixes it."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from hrm_edge import __version__
from hrm_edge.doctor.backends import Backend, backends
from hrm_edge.doctor.facts import Facts, read_facts
from hrm_edge.doctor.machine import Machine
from hrm_edge.doctor.rules import ENGINE_SESSION, LEVELS, Finding, engine_rules, fail, rules
from hrm_edge.errors import GateError, HrmEdgeError
from hrm_edge.records import Record

SCHEMA_VERSION = 1


class Diagnosis(Record):
    """``hrm-edge doctor --json``."""

    schema_version: int = SCHEMA_VERSION
    hrm_edge: str = __version__
    passed: bool = Field(description="no finding is a 'fail': the default pipeline works, and on a Jetson engines")
    pipeline: str = Field(alias="road", description="result of solving a puzzle with a shipped model, default backend")
    facts: Facts
    findings: list[Finding]
    backends: list[Backend]

    def check(self, *, engines: bool = True) -> None:
        """Raise ``GateError`` where the default pipeline does not work or, with ``engines``, a Jetson runs none."""
        if self.passed:
            return
        worst = self.findings[0]
        if worst.name != ENGINE_SESSION:
            raise GateError(f"the default pipeline does not work here: {worst.problem}", worst.hint)
        if engines:
            raise GateError(worst.problem, worst.hint)


def diagnose(machine: Machine, try_pipeline: Callable[[], str]) -> Diagnosis:
    """Look at ``machine`` and run the default pipeline once.

    ``try_pipeline`` solves a puzzle and says how it went; what it raises becomes the worst finding. It is not run
    where the facts already say that it cannot work, since a broken library may end the process.
    """
    facts = read_facts(machine)
    findings = rules(facts)
    pipeline = "not tried: see the findings"
    if not any(finding.level == "fail" for finding in findings):
        try:
            pipeline = try_pipeline()
        except HrmEdgeError as error:
            pipeline = f"failed: {error.problem}"
            findings.append(fail("road", f"solving a puzzle with a shipped model fails: {error.problem}", error.hint))
        except Exception as error:  # noqa: BLE001 - a doctor reports what is broken, whatever it is
            pipeline = f"failed: {error}"
            what = f"solving a puzzle with a shipped model fails: {type(error).__name__}: {error}"
            findings.append(fail("road", what, "pip install --force-reinstall hrm-edge"))
    findings = sorted([*findings, *engine_rules(facts)], key=lambda finding: LEVELS.index(finding.level))
    passed = not any(finding.level == "fail" for finding in findings)
    return Diagnosis(passed=passed, pipeline=pipeline, facts=facts, findings=findings, backends=backends(facts))
