"""A diagnosis for people, on a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hrm_edge.doctor import Diagnosis
from hrm_edge.doctor.facts import Camera, Facts
from hrm_edge.terminal import open_console, table_of

_STYLES = {"fail": "bold red", "warn": "yellow", "note": "cyan"}


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the findings, the machine in a few lines, and the backends."""
    console = open_console(width=120)
    about = Table.grid(padding=(0, 2))
    for key, value in _about(diagnosis.facts):
        about.add_row(Text(key, style="dim"), Text(value))
    about.add_row(Text("default pipeline", style="dim"), Text(diagnosis.pipeline))
    table = Table.grid(padding=(0, 2))
    for finding in diagnosis.findings:
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.problem))
        table.add_row("", Text(finding.hint, style="green"))
    if diagnosis.findings:
        console.print(table)
        console.print()
    console.print(about)
    console.print(_backend_table(diagnosis))
    counts = {level: sum(f.level == level for f in diagnosis.findings) for level in _STYLES}
    words = ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "nothing to fix"
    console.print(Text(f"{'Ready' if diagnosis.passed else 'Not ready'}: {words}"))


def _backend_table(diagnosis: Diagnosis) -> Table:
    works = Text("works", style="green")
    rows = [
        (backend.name, works if backend.works else "no", ", ".join(backend.precisions) or "–", backend.why)
        for backend in diagnosis.backends
    ]
    return table_of(("backend", "here", "precisions", "why"), rows, words=None)


def _about(facts: Facts) -> list[tuple[str, str]]:
    """Return the machine in a few lines."""
    board, power, memory = facts.board, facts.power, facts.resources
    kinds = {"jetson": "Jetson", "pc": "PC", "wsl2": "WSL2", "arm": "ARM machine"}
    inside = f", inside {facts.container}" if facts.container else ""
    rows = [("machine", f"{kinds[facts.kind]} ({facts.architecture}){inside}; {facts.os or 'system not named'}")]
    if board:
        known = f"JetPack {board.jetpack}" if board.jetpack else "JetPack not known"
        rows.append(("board", f"{board.module or board.model or 'not named'}; L4T {board.l4t or 'not known'}, {known}"))
    gpus = "; ".join(f"{gpu.name}, SM {gpu.sm or '?'}" for gpu in facts.gpus) or "none that we know"
    driver = f"; driver {facts.cuda.driver}" if facts.cuda.driver else ""
    rows.append(("GPU", f"{gpus}{driver}; CUDA {facts.cuda.toolkit or facts.cuda.of_driver or 'not found'}"))
    python = facts.python
    shared = {True: ", sees apt's packages", False: ", apart from apt's packages", None: ""}[
        python.system_site_packages
    ]
    where = f"virtual environment {python.venv}{shared}" if python.in_venv else "no virtual environment"
    rows.append(("Python", f"{python.version}, {where}"))
    rows.append(("TensorRT", _tensorrt(facts)))
    runtime = facts.onnxruntime
    runs_on = ", ".join(name.removesuffix("ExecutionProvider") for name in runtime.providers)
    versions = [f"onnxruntime {runtime.version} ({runs_on})" if runtime.version else "onnxruntime missing"]
    versions += [f"{name} {package.version}" for name, package in facts.packages.items()]
    rows.append(("packages", ", ".join(versions)))
    if power.mode or power.modes:
        locked = {True: "locked", False: "free", None: "not shown"}[power.clocks_locked]
        rows.append(("power mode", f"{power.mode or 'not readable'} of {', '.join(power.modes)}; clocks {locked}"))
    meters = [f"{meter.name} ({', '.join(meter.rails)})" for meter in power.meters if meter.problem is None]
    rows.append(("power meters", "; ".join(meters) or "none that works: reports say 'not measured'"))
    parts = (
        ("memory", memory.memory_bytes),
        ("free", memory.memory_available_bytes),
        ("swap", memory.swap_bytes),
        ("disk free at home", memory.home_free_bytes),
    )
    rows.append(("room", ", ".join(f"{name} {_gib(size)}" for name, size in parts)))
    rows.append(("cameras", "; ".join(map(_camera, facts.cameras)) or "none"))
    return rows


def _camera(camera: Camera) -> str:
    by = f", by {camera.read_by}" if camera.read_by else ""
    return f"{camera.device} {camera.name} ({camera.kind}{by})"


def _tensorrt(facts: Facts) -> str:
    """Origin of a package, and whether this Python can import it."""
    tensorrt = facts.tensorrt
    parts = [f"{tensorrt.apt} from apt"] if tensorrt.apt else []
    parts += [f"{name} {version} from pip" for name, version in tensorrt.pip.items()]
    if tensorrt.imported is None:
        return ", ".join(parts) + ", its Python part is not installed" if parts else "not installed"
    seen = f"imported here as {tensorrt.imported.version}" if tensorrt.imported.version else "not importable here"
    return ", ".join([*parts, seen])


def _gib(size: int | None) -> str:
    return "not shown" if size is None else f"{size / (1 << 30):.1f} GiB"
