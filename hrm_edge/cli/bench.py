"""``hrm-edge bench``: latency, throughput and accuracy in one report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import Duration, OutputFile, backend_option, task_option

if TYPE_CHECKING:
    from hrm_edge.bench.run import PowerChoice
    from hrm_edge.bench.scenarios import Scenario
    from hrm_edge.runtime import Backend
    from hrm_edge.solve import Halt


@click.command()
@click.argument("model")
@click.option("--data", help="Built data folder, or a CSV or text file.  [default: 256 puzzles of the package]")
@task_option
@click.option("--limit", type=click.IntRange(1), help="Only the first so many puzzles.")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline"]),
    default="single-stream",
    show_default=True,
    help="One puzzle after another, or all at hand at once.",
)
@click.option("--duration", type=Duration(), default="10s", show_default=True, help="At least so long; 600s to cite.")
@click.option("--views", type=click.IntRange(1), default=1, show_default=True, help="Symmetries tried per puzzle.")
@click.option(
    "--halt",
    type=click.Choice(["rules", "head", "fixed"]),
    default="rules",
    show_default=True,
    help="Stop when the rules are kept, when the model's head says so, or after all steps.",
)
@click.option("--max-steps", type=click.IntRange(1), help="ACT steps per view.  [default: the model's]")
@click.option("--slots", type=click.IntRange(1), help="Offline: puzzles in the batch at most.  [default: 64]")
@backend_option
@click.option("--threads", type=click.IntRange(1), help="Threads of one step (ONNX Runtime).")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the symmetries.")
@click.option(
    "--power", type=click.Choice(["auto", "none"]), default="auto", show_default=True, help="Power meter to read."
)
@click.option("--json", "json_file", type=OutputFile(), help="Write the report as JSON; - is stdout.")
@click.option("--markdown", "markdown_file", type=OutputFile(), help="Write the report as Markdown; - is stdout.")
def bench(
    model: str, data: str | None, task_name: str | None, limit: int | None, scenario: Scenario, duration: float,
    views: int, halt: Halt, max_steps: int | None, slots: int | None, backend: Backend | None,
    threads: int | None, seed: int, power: PowerChoice, json_file: str | None, markdown_file: str | None,
) -> None:  # fmt: skip
    """Measure MODEL, an artifact, a checkpoint or a published state-dict file, on this machine: latency, throughput,
    accuracy of the same answers.

    Single-stream asks at least 64 puzzles (MLPerf's least) and its headline is the p90 latency.

    \b
    hrm-edge bench artifacts/nano --data puzzles.csv --duration 60s --json bench.json
    """
    from hrm_edge.bench.run import bench as run
    from hrm_edge.bench.scenarios import Solver
    from hrm_edge.cli.answered import answered_puzzles, sample_of
    from hrm_edge.cli.options import progress_bar, show_report
    from hrm_edge.cli.resolve import resolve_model
    from hrm_edge.errors import UserError

    if scenario == "single-stream" and slots is not None:
        raise UserError("--slots is for --scenario offline", "single-stream has one puzzle at a time: leave it out")
    resolved = resolve_model(model, threads, task_name, backend)
    puzzles = answered_puzzles(data or sample_of(resolved.task), resolved.task, limit)
    session = resolved.session
    batch = 1 if scenario == "single-stream" else slots or 64
    solver = Solver(session, resolved.task, halt, max_steps or session.spec.max_steps, views, batch, seed)
    with progress_bar(scenario, 1.0) as progress:
        report = run(
            solver, puzzles.givens, puzzles.labels, model=resolved.model, data=puzzles.data, threads=threads,
            scenario=scenario, duration_s=duration, power=power, parity=resolved.parity, progress=progress,
            puzzle_ids=puzzles.puzzle_ids,
        )  # fmt: skip
    example = resolved.task.format(puzzles.givens[0])
    show_report(report, json_file, markdown_file, f"hrm-edge solve {example} --model {model}")
