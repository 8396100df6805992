"""``hrm-edge doctor``: what this machine has and lacks, with the command that fixes it."""

from __future__ import annotations

import click

from hrm_edge.cli.options import JsonCommand, json_option, put_json
from hrm_edge.terminal import echo


@click.command(cls=JsonCommand)
@json_option("everything that was found")
def doctor(json_file: str | None) -> None:
    """Look at this machine: board, JetPack, CUDA, TensorRT, Python, memory, cameras, sensors, rights.

    The worst comes first, each finding with the command that fixes it. A puzzle is solved on the way: exit code 1 says
    that the default pipeline (a shipped model on ONNX Runtime, on the CPU) does not work here, or on a Jetson that no
    engine can run.

    \b
    hrm-edge doctor --json > doctor.json     # to send with a bug report
    """
    from hrm_edge.doctor import diagnose
    from hrm_edge.doctor.machine import Machine

    diagnosis = diagnose(Machine(), _try_pipeline)
    for_people = put_json(json_file, diagnosis.document())
    if for_people:
        from hrm_edge.doctor.text import print_diagnosis

        print_diagnosis(diagnosis)
    diagnosis.check()
    if for_people:
        echo("Next: hrm-edge bench sudoku-nano --duration 10s")


def _try_pipeline() -> str:
    from hrm_edge.api.pipeline import try_pipeline  # it needs NumPy, which may be what is broken

    return try_pipeline()
