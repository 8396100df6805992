"""``hrm-edge eval``: exact accuracy of a model on a set of puzzles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import OutputFile, task_option

if TYPE_CHECKING:
    from hrm_edge.solve import Halt


@click.command("eval")
@click.argument("model")
@click.option("--data", required=True, help="Built data folder, or a CSV or text file of puzzles.")
@task_option
@click.option("--limit", type=click.IntRange(1), help="Only the first so many puzzles.")
@click.option("--views", type=click.IntRange(1), default=1, show_default=True, help="Symmetries tried per puzzle.")
@click.option(
    "--halt",
    type=click.Choice(["rules", "head", "fixed"]),
    default="rules",
    show_default=True,
    help="Stop when the rules are kept, when the model's head says so, or after all steps (the published way).",
)
@click.option("--max-steps", type=click.IntRange(1), help="ACT steps per view.  [default: the model's]")
@click.option("--slots", type=click.IntRange(1), default=64, show_default=True, help="Puzzles in the batch at most.")
@click.option("--threads", type=click.IntRange(1), help="Threads of one step (artifacts).")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the symmetries.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the report as JSON; - is stdout.")
@click.option("--markdown", "markdown_file", type=OutputFile(), help="Write the report as Markdown; - is stdout.")
def evaluate(
    model: str, data: str, task_name: str | None, limit: int | None, views: int, halt: Halt, max_steps: int | None,
    slots: int, threads: int | None, seed: int, json_file: str | None, markdown_file: str | None,
) -> None:  # fmt: skip
    """Measure the exact accuracy of MODEL: an artifact, a checkpoint, or a published state-dict file.

    With --views N a puzzle whose answer breaks the rules is tried again under up to N - 1 random symmetries, and the
    report tells the accuracy after 1, 4, 16, 64 and N views.

    \b
    hrm-edge eval artifacts/nano --data puzzles.csv --views 16
    """
    from hrm_edge.bench.run import evaluate as run
    from hrm_edge.bench.scenarios import Solver
    from hrm_edge.cli.answered import answered_puzzles
    from hrm_edge.cli.options import progress_bar, show_report
    from hrm_edge.cli.resolve import resolve_model

    resolved = resolve_model(model, threads, task_name)
    puzzles = answered_puzzles(data, resolved.task, limit)
    session = resolved.session
    solver = Solver(session, resolved.task, halt, max_steps or session.spec.max_steps, views, slots, seed)
    with progress_bar("solving", len(puzzles.givens)) as progress:
        report = run(
            solver, puzzles.givens, puzzles.labels, model=resolved.model, data=puzzles.data, threads=threads,
            on_progress=lambda done, verified: progress(done),
        )  # fmt: skip
    following = f"hrm-edge bench {model} --data {data}"
    if resolved.manifest is None:
        following = f"hrm-edge export {model} --out ARTIFACT --int8 --calibration {data}"
    show_report(report, json_file, markdown_file, following)
