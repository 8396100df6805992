"""``hrm-edge solve``: puzzles in, answers that the rules have checked out."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Any

import click

from hrm_edge.cli.options import (
    COUNT,
    DURATION,
    PATH,
    JsonCommand,
    guesses_option,
    json_option,
    max_steps_option,
    model_option,
    opening,
    option,
    progress_bars,
    put_json,
    run_options,
    say,
    task_option,
    views_option,
)
from hrm_edge.tasks.puzzles import TYPED
from hrm_edge.terminal import echo


@click.command(cls=JsonCommand)
@click.argument("puzzle", type=click.Path())
@model_option("Model folder, published file or shipped model")
@task_option
@views_option(64)
@guesses_option
@option("--budget", "budget_s", type=DURATION, help="Time for a puzzle after which no further view is tried, as 200ms.")
@option(
    "--parallel-views",
    type=COUNT,
    default=1,
    help="Further views of a puzzle that are tried at the same time in one batch: quicker on a GPU.",
)
@max_steps_option
@run_options
@option("--overlay", type=PATH, help="Of a picture: write it here with the answer drawn in; of a folder: a folder.")
@json_option("the answers")
def solve(
    puzzle: str,
    model: str | None,
    overlay: Path | None,
    json_file: str | None,
    **chosen: Any,
) -> None:
    """Solve PUZZLE: its cells row by row, a file of puzzles, a picture, or a folder of pictures.

    A blank is one of 0 . _ ? * - x. A file holds one puzzle a line (a rating may follow), grids of nine lines with or
    without frames (.txt, .sdk, .ss), a CSV with a header (question, quizzes or puzzle), or OpenSudoku's XML. It may be
    gzipped, in UTF-8 or UTF-16; - is standard input. What it was taken for is said.

    An answer counts only when it keeps the givens and obeys the rules; until then the puzzle is tried again under
    another symmetry. Exit code 1: some puzzle stayed unsolved.

    \b
    hrm-edge solve 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
    hrm-edge solve puzzles.sdk
    hrm-edge solve 0030400000020100 --model artifacts/mini
    hrm-edge solve photo.jpg --overlay solved.jpg
    """
    from hrm_edge.api.open import named_or_default, open_model
    from hrm_edge.api.pictures import check_overlay, picture_paths
    from hrm_edge.api.solve import solve_all, unsolved_error
    from hrm_edge.solve import SolveOptions

    paths = picture_paths(puzzle)
    if overlay is not None:
        check_overlay(overlay, puzzle, paths)
    name, folder = named_or_default(model)
    opened = open_model(name, folder=folder, on_message=say, **opening(chosen))
    options = SolveOptions(**chosen)
    with progress_bars() as on_progress:
        results, _ = solve_all(opened, puzzle, options, paths=paths, on_message=say, on_progress=on_progress)
    for_people = put_json(json_file, {"results": [result.document() for result in results]})
    if for_people:
        for result in results:
            echo(result.text(bold=sys.stdout.isatty()))
    if overlay is not None:
        for result in results:
            if result.verified:
                result.save(overlay / Path(result.source).name if Path(puzzle).is_dir() else overlay)
    if not all(result.verified for result in results):
        raise unsolved_error(results, opened, options)
    if for_people:
        data = "PUZZLES" if paths or results[0].source == TYPED else quote(puzzle)
        echo(f"Next: hrm-edge eval {quote(opened.called)} --data {data}")
