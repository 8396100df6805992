"""``hrm-edge eval``: exact accuracy of a model on a set of puzzles, ARC Prize's score on ARC."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import OutputFile, backend_option, guesses_option, task_option

if TYPE_CHECKING:
    from hrm_edge.bench.scenarios import Solver
    from hrm_edge.cli.resolve import Resolved
    from hrm_edge.report import EvalReport
    from hrm_edge.runtime import Backend
    from hrm_edge.solve import Halt


@click.command("eval")
@click.argument("model")
@click.option("--data", required=True, help="Built data folder, or a file of puzzles, see solve; - is standard input.")
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
    help="Let this model answer the same puzzles too, and tell the difference in exact accuracy with its interval.",
)
@click.option("--submission", type=OutputFile(), help="arc: write the answers in ARC Prize's format.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the report as JSON; - is stdout.")
@click.option("--markdown", "markdown_file", type=OutputFile(), help="Write the report as Markdown; - is stdout.")
def evaluate(
    model: str, data: str, task_name: str | None, limit: int | None, views: int | None, guesses: int | None, halt: Halt,
    max_steps: int | None, slots: int, backend: Backend | None, threads: int | None, seed: int, other: str | None,
    submission: str | None, json_file: str | None, markdown_file: str | None,
) -> None:  # fmt: skip
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

    from hrm_edge.bench.scenarios import Solver
    from hrm_edge.cli.options import STDOUT, report_outputs, show_report
    from hrm_edge.cli.resolve import resolve_model
    from hrm_edge.errors import UserError

    resolved = resolve_model(model, threads, task_name, backend, slots=slots)
    task, session = resolved.task, resolved.session
    is_arc = task.family == "arc"
    if submission is not None and not is_arc:
        raise UserError(f"--submission is for arc, {model} is for {task.name}", "leave it out")
    if other is not None and is_arc:
        raise UserError("--paired is not for arc, whose answers vote", "leave it out: compare the two pass@2")
    if submission == STDOUT:
        raise UserError("--submission -: stdout is for reports", "name a file")
    steps = max_steps or session.spec.max_steps
    answers: dict[str, Any] = {}
    if is_arc:
        solver = Solver(session, task, "fixed" if halt == "rules" else halt, steps, 1, slots, seed)
        report, answers = _arc(resolved, solver, data, limit, views, threads)
    else:
        beside = None if other is None else resolve_model(other, threads, None, backend, slots=slots)
        solver = Solver(session, task, halt, steps, views or 1, slots, seed, guesses)
        report = _rules(resolved, solver, data, limit, threads, beside)
    following = f"hrm-edge bench {quote(model)} --data {quote(data)}"
    if resolved.manifest is None:
        following = f"hrm-edge export {quote(model)} --out ARTIFACT --int8 --calibration {quote(data)}"
    outputs = report_outputs(report, json_file, markdown_file)
    show_report(report, [*outputs, (submission, lambda: json.dumps(answers) + "\n")], following)


def _rules(
    resolved: Resolved, solver: Solver, data: str, limit: int | None, threads: int | None, beside: Resolved | None
) -> EvalReport:
    """Of tasks whose rules can check an answer."""
    from hrm_edge.bench.run import evaluate as run
    from hrm_edge.cli.answered import answered_puzzles
    from hrm_edge.cli.options import progress_bar

    puzzles, about = answered_puzzles(data, resolved.task, limit)
    assert puzzles.labels is not None
    with progress_bar("solving", len(puzzles)) as progress:
        return run(
            solver, puzzles.givens, puzzles.labels, model=resolved.model, data=about, threads=threads,
            puzzle_ids=puzzles.ids, on_progress=lambda done, verified: progress(done),
            other=None if beside is None else (beside.session, beside.model),
        )  # fmt: skip


def _arc(
    resolved: Resolved, solver: Solver, data: str, limit: int | None, views: int | None, threads: int | None,
) -> tuple[EvalReport, dict[str, Any]]:  # fmt: skip
    """Score ARC by votes; the answers are in ARC Prize's format."""
    from hrm_edge.bench.arc import evaluate_arc
    from hrm_edge.cli.options import progress_bar
    from hrm_edge.data.arc import read_questions
    from hrm_edge.data.layout import identifiers_hash, is_data_folder
    from hrm_edge.errors import UserError
    from hrm_edge.report import Data

    if not is_data_folder(data):
        raise UserError(
            f"{data} is no built data folder: a model of arc answers the tasks of the folder that it was trained on",
            f"build one with: hrm-edge data build arc --out DATA --source {quote(data)}",
        )
    questions = read_questions(data, limit)
    trained_on = resolved.origin.get("identifiers")
    if trained_on is not None and trained_on != identifiers_hash(data):
        raise UserError(
            f"{data} is not the data folder that {resolved.model.path} was trained on: its identifiers.json differs, "
            "and a row of the model's puzzle table stands for another task there",
            "give that folder, or one built with the same sources, options and seed",
        )
    most = int(questions.view.max()) + 1
    chosen = min(views or most, most)
    total = int((questions.view < chosen).sum())
    about = Data(path=data, task=resolved.task.name, puzzles=total, answers="data")
    with progress_bar("answering", total) as progress:
        report, answers = evaluate_arc(
            solver, questions, chosen, model=resolved.model, data=about, threads=threads,
            on_progress=lambda done, verified: progress(done),
        )  # fmt: skip
    return report, answers
