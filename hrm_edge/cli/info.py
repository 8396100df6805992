"""``hrm-edge info``: parameters, FLOPs and bytes of a variant, recipe, checkpoint or artifact; no torch needed."""

from __future__ import annotations

from typing import Any

import click

from hrm_edge.cli.options import JsonCommand, json_option, model_argument, option, put_json, say, task_option
from hrm_edge.terminal import echo, open_console, table_of


@click.command(cls=JsonCommand)
@model_argument
@option("--vocab", type=click.IntRange(2, 256), help="Tokens; for a variant's name only.  [default: 11]")
@option("--seq-len", type=click.IntRange(1, 4096), help="Cells; for a variant's name only.  [default: 81]")
@task_option
@json_option("what is shown")
def info(model: str, vocab: int | None, seq_len: int | None, task: str | None, json_file: str | None) -> None:
    """Show the parameters, FLOPs per ACT step and bytes of MODEL.

    MODEL is a shipped model, a variant (full, trm, nano ...), a recipe, a run or checkpoint folder, an artifact folder,
    or a published state-dict file (.pt, .safetensors), with all_config.yaml beside it or not.

    \b
    hrm-edge info sudoku-nano
    hrm-edge info full --vocab 14 --json
    """
    from hrm_edge.api.describe import describe

    document, following = describe(model, vocab, seq_len, task, say)
    if put_json(json_file, document):
        if "card" in document:
            _show_card(model)
            echo()
        _print(document)
        echo(f"Next: {following}")


def _print(document: dict[str, Any]) -> None:
    spec, parameters = document["spec"], document["parameters"]
    rows = [(row["name"], f"{row['count']:,}") for row in parameters["table"]]
    table = table_of(("part", "parameters"), rows, title=f"{document['name']} ({document['kind']})", box=None)
    table.add_section()
    table.add_row(f"trainable, {parameters['tensors']} tensors", f"{parameters['trainable']:,}", style="bold")
    table.add_row("in the state dict", f"{parameters['state_dict']:,}")
    console = open_console()
    console.print(table)
    console.print(
        f"hidden {spec['hidden']}, heads {spec['heads']}, layers {spec['h_layers']} H + {spec['l_layers']} L, "
        f"cycles {spec['h_cycles']} x {spec['l_cycles']}, vocabulary {spec['vocab']}, cells {spec['seq_len']}"
    )
    console.print(f"{document['flops_per_step'] / 1e9:.3f} GFLOP per ACT step, at most {spec['max_steps']} steps")
    console.print("weights: " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in document["bytes"].items()))
    if "manifest" in document:
        manifest = document["manifest"]
        size = sum(entry["bytes"] for entry in manifest["files"].values())
        gate = "passed" if manifest["gate"]["passed"] else "failed: " + "; ".join(manifest["gate"]["failures"])
        console.print(f"artifact: {manifest['task']}, {manifest['precision']}, {size / 1e6:.2f} MB; export gate {gate}")


def _show_card(name: str) -> None:
    """Print what a model at hand is, how it was made, what it can do and what it fails on."""
    from rich.text import Text

    from hrm_edge import zoo

    console, card = open_console(width=80), zoo.card(name)
    about = f": {card.task}, {card.variant}, {card.precision}, {card.parameters:,} parameters"
    console.print(Text.assemble((name, "bold"), about))
    console.print(f"trained: {card.training}; {card.samples:,} samples of {card.data}; {card.date}")
    console.print(f"fails on: {card.fails_on}")
    rows = [
        (
            row.data,
            f"{row.puzzles:,}",
            str(row.views),
            "{:.1%} ({:.1%} to {:.1%})".format(row.exact_accuracy, *row.interval_95),
            str(row.false_verified),
        )
        for row in card.accuracy
    ]
    columns = ("puzzles of", "count", "views", "exactly right (95 %)", "false")
    console.print(table_of(columns, rows, no_wrap=True, box=None, padding=(0, 2, 0, 0)))
    console.print("false: wrong answers called solved")
