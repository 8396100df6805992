"""``hrm-edge eval``: exact accuracy of a model on a set of puzzles, ARC Prize's score on ARC."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import (
    JsonCommand,
    OutputFile,
    backend_option,
    complete_models,
    guesses_option,
    json_option,
    task_option,
)

if TYPE_CHECKING:
    from hrm_edge.backends import Backend
    from hrm_edge.solve import Halt


@click.command("eval", cls=JsonCommand)
@click.argument("model", type=click.Path(), shell_complete=complete_models)
@click.option(
    "--data",
    required=True,
    type=click.Path(),
    help="Built data folder, or a file of puzzles, see solve; - is standard input.",
)
@task_option
@click.option("--limit", type=click.IntRange(1), help="Only the first so many puzzles (arc: tasks).")
@click.option(
    "--views", type=click.IntRange(1), help="Symmetries tried per puzzle.  [default: 1; arc: all that the folder has]"
)
@guesses_option
@click.option(
    "--halt",
    type=click.Choice(["rules", "head", "fixed"]),
    default="rules",
    show_default=True,
    help="Stop when the rules are kept, when the model's head says so, or after all steps (the published way).",
)
@click.option("--max-steps", type=click.IntRange(1), help="ACT steps per view.  [default: the model's]")
@click.option("--slots", type=click.IntRange(1), default=64, show_default=True, help="Puzzles in the batch at most.")
@backend_option
@click.option("--threads", type=click.IntRange(1), help="Threads of one step (ONNX Runtime).")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the symmetries.")
@click.option(
    "--paired",
    "other",
    metavar="MODEL",
    type=click.Path(),
    shell_complete=complete_models,
    help="Let this model answer the same puzzles too, and tell the difference in exact accuracy with its interval.",
)
@click.option("--submission", type=OutputFile(), help="arc: write the answers in ARC Prize's format.")
@json_option("the report")
@click.option("--markdown", "markdown_file", type=OutputFile(), help="Write the report as Markdown; - is stdout.")
def evaluate(
    model: str,
    data: str,
    task_name: str | None,
    limit: int | None,
    views: int | None,
    guesses: int | None,
    halt: Halt,
    max_steps: int | None,
    slots: int,
    backend: Backend | None,
    threads: int | None,
    seed: int,
    other: str | None,
    submission: str | None,
    json_file: str | None,
    markdown_file: str | None,
) -> None:
    """Measure the exact accuracy of MODEL: an artifact, a checkpoint, or a published state-dict file.

    With --views N a puzzle whose answer breaks the rules is tried again under up to N - 1 random symmetries, and the
    report tells the accuracy after 1, 4, 16, 64 and N views. Of mazes it also tells how many answers are a valid and
    shortest path, since the label is one of many.

    ARC answers cannot be checked by rules: each augmentation of a question in the data folder is answered once, the
    answers are turned back and vote, and the two with most votes are the attempts: pass@1, pass@2. Single cells are
    counted too, beside copying the question and filling it with one colour, which take no model.

    \b
    hrm-edge eval artifacts/nano --data puzzles.csv --views 16
    hrm-edge eval artifacts/nano-int8 --data puzzles.csv --limit 2000 --paired artifacts/nano
    hrm-edge eval runs/arc-1_reduced --data data/arc-1 --submission submission.json
    """
    import json

    from hrm_edge.api.measure import EvalOptions
    from hrm_edge.api.measure import evaluate as run
    from hrm_edge.api.open import load
    from hrm_edge.cli.options import STDOUT, progress_bars, report_outputs, say, show_report
    from hrm_edge.errors import UserError

    opened = load(model, threads=threads, task=task_name, backend=backend, slots=slots, on_message=say)
    if submission is not None and opened.task.family != "arc":
        raise UserError(f"--submission is for arc, {model} is for {opened.task.name}", "leave it out")
    if submission == STDOUT:
        raise UserError("--submission -: stdout is for reports", "name a file")
    paired = None
    if other is not None:
        paired = load(other, threads=threads, backend=backend, slots=slots, on_message=say)
    options = EvalOptions(limit, views, halt, max_steps, slots, guesses, seed)
    with progress_bars() as on_progress:
        report, answers = run(opened, data, options, paired, on_message=say, on_progress=on_progress)
    following = f"hrm-edge bench {quote(model)} --data {quote(data)}"
    if opened.manifest is None:
        following = f"hrm-edge export {quote(model)} --out ARTIFACT --int8 --calibration {quote(data)}"
    outputs = report_outputs(report, json_file, markdown_file)
    show_report(report, [*outputs, (submission, lambda: json.dumps(answers) + "\n")], following)
