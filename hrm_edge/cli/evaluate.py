"""``hrm-edge eval``: exact accuracy of a model on a set of puzzles, ARC Prize's score on ARC."""

from __future__ import annotations

import json
from shlex import quote
from typing import Any

import click

from hrm_edge.cli.options import (
    COUNT,
    STDOUT,
    JsonCommand,
    Output,
    OutputFile,
    complete_models,
    guesses_option,
    halt_option,
    max_steps_option,
    model_argument,
    opening,
    option,
    progress_bars,
    report_options,
    run_options,
    say,
    show,
    task_option,
)


@click.command("eval", cls=JsonCommand)
@model_argument
@option(
    "--data",
    required=True,
    type=click.Path(),
    help="Built data folder, or a file of puzzles, see solve; - is standard input.",
)
@task_option
@option("--limit", type=COUNT, help="Only the first so many puzzles (arc: tasks).")
@option("--views", type=COUNT, help="Symmetries tried per puzzle.  [default: 1; arc: all that the folder has]")
@guesses_option
@halt_option(" (the published way)")
@max_steps_option
@option("--slots", type=COUNT, default=64, help="Puzzles in the batch at most.")
@run_options
@option(
    "--paired",
    "other",
    metavar="MODEL",
    type=click.Path(),
    shell_complete=complete_models,
    help="Let this model answer the same puzzles too, and tell the difference in exact accuracy with its interval.",
)
@option("--submission", type=OutputFile(), help="arc: write the answers in ARC Prize's format.")
@report_options
def evaluate(
    model: str,
    data: str,
    limit: int | None,
    views: int | None,
    other: str | None,
    submission: str | None,
    json_file: str | None,
    markdown_file: str | None,
    **chosen: Any,
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
    hrm-edge eval build/int8 --data puzzles.csv --limit 2000 --paired build/fp32
    hrm-edge eval runs/arc-1_reduced --data data/arc-1 --submission out.json
    """
    from hrm_edge.api.measure import evaluate as run
    from hrm_edge.api.open import open_model
    from hrm_edge.errors import UserError
    from hrm_edge.report.text import markdown, tables
    from hrm_edge.solve import SolveOptions

    how = opening(chosen)
    options = SolveOptions(**chosen)
    opened = open_model(model, slots=options.slots, on_message=say, **how)
    if submission is not None and opened.task.family != "arc":
        raise UserError(f"--submission is for arc, {model} is for {opened.task.name}", "leave it out")
    if submission == STDOUT:
        raise UserError("--submission -: stdout is for reports", "name a file")
    paired = None
    if other is not None:
        paired = open_model(other, slots=options.slots, on_message=say, **{**how, "task": None})
    with progress_bars() as on_progress:
        report, answers = run(
            opened, data, options, limit=limit, views=views, paired=paired, on_message=say, on_progress=on_progress
        )
    following = f"hrm-edge bench {quote(model)} --data {quote(data)}"
    if opened.manifest is None:
        following = f"hrm-edge export {quote(model)} --out ARTIFACT --int8 --calibration {quote(data)}"
    outputs = [
        Output(json_file, report.document),
        Output(markdown_file, lambda: markdown(report)),
        Output(submission, lambda: json.dumps(answers) + "\n", "Submission"),
    ]
    show(tables(report), outputs, following)
