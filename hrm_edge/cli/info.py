"""``hrm-edge info``: parameters, FLOPs and bytes of a variant, recipe, checkpoint or artifact; no torch needed."""

from __future__ import annotations

import math
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hrm_edge.cli.options import JsonCommand, complete_models, json_option, put_json, say, task_option
from hrm_edge.terminal import echo, open_console

if TYPE_CHECKING:
    from hrm_edge.spec import ModelSpec

SUDOKU_VOCAB, SUDOKU_CELLS = 11, 81


@click.command(cls=JsonCommand)
@click.argument("model", type=click.Path(), shell_complete=complete_models)
@click.option("--vocab", type=click.IntRange(2, 256), help="Tokens; for a variant's name only.  [default: 11]")
@click.option("--seq-len", type=click.IntRange(1, 4096), help="Cells; for a variant's name only.  [default: 81]")
@task_option
@json_option("what is shown")
def info(model: str, vocab: int | None, seq_len: int | None, task_name: str | None, json_file: str | None) -> None:
    """Show the parameters, FLOPs per ACT step and bytes of MODEL.

    MODEL is a shipped model, a variant (full, trm, nano ...), a recipe, a run or checkpoint folder, an artifact folder,
    or a published state-dict file (.pt, .safetensors), with all_config.yaml beside it or not.

    \b
    hrm-edge info sudoku-nano
    hrm-edge info full --vocab 14 --json
    """
    from hrm_edge.costs import flops_per_step, parameter_table, weight_bytes
    from hrm_edge.errors import UserError
    from hrm_edge.spec import VARIANTS

    if model not in VARIANTS and (vocab is not None or seq_len is not None):
        raise UserError("--vocab and --seq-len are for a variant's name", f"leave them out: {model} has its own")
    kind, spec, about, following = _find(model, vocab or SUDOKU_VOCAB, seq_len or SUDOKU_CELLS, task_name)
    document = {
        "name": model,
        "kind": kind,
        "parameters": parameter_table(spec),
        "flops_per_step": flops_per_step(spec),
        "bytes": weight_bytes(spec),
        "spec": spec.model_dump(mode="json"),
        **about,
    }
    if put_json(json_file, document):
        if "card" in document:
            from hrm_edge.cli.models import show_card

            show_card(model)
            echo()
        _print(document)
        echo(f"Next: {following}")


def _find(model: str, vocab: int, seq_len: int, task: str | None) -> tuple[str, ModelSpec, dict[str, Any], str]:
    """Kind of thing, its spec, what else the JSON says about it, the next command."""
    from hrm_edge import catalog, zoo
    from hrm_edge.api.open import (
        checkpoint_spec,
        is_published,
        note_assumed,
        published_spec,
        refuse_task,
        unknown_model,
    )
    from hrm_edge.checkpoint import is_checkpoint
    from hrm_edge.manifest import MANIFEST, read_manifest
    from hrm_edge.spec import VARIANTS

    path = Path(model) if model in VARIANTS else zoo.path_of(model)
    is_recipe = path.suffix in catalog.SUFFIXES or (model in catalog.names() and not path.exists())
    if model not in VARIANTS and not is_recipe and is_published(path):
        spec, published = published_spec(path, task)
        note_assumed(model, published, say)
        return "published", spec, {"checkpoint": published}, f"hrm-edge eval {quote(model)} --data DATA"
    refuse_task(model, task)
    if model in VARIANTS:
        spec = _variant(model, vocab, seq_len)
        return "variant", spec, {}, "hrm-edge train RECIPE, with a name that 'hrm-edge recipes' lists"
    if is_recipe:
        return "recipe", _recipe(model), {}, f"hrm-edge train {quote(model)} --data DATA"
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        about = {"manifest": manifest.document()}
        if path == zoo.folder_of(model):
            about["card"] = zoo.card(model).document()
        return "artifact", manifest.spec, about, f"hrm-edge bench {quote(model)} --data DATA"
    if is_checkpoint(path):
        spec, checkpoint = checkpoint_spec(path)
        following = f"hrm-edge export {quote(model)} --out ARTIFACT --int8 --calibration DATA"
        return "checkpoint", spec, {"checkpoint": checkpoint}, following
    raise unknown_model(model, ", a recipe, or a variant", [*VARIANTS, *catalog.names()])


def _variant(name: str, vocab: int, seq_len: int) -> ModelSpec:
    from pydantic import ValidationError

    from hrm_edge.errors import UserError
    from hrm_edge.spec import variant_spec

    try:
        return variant_spec(name, vocab=vocab, seq_len=seq_len, grid=_board(seq_len))
    except ValidationError as error:
        hint = "use a square board, e.g. --seq-len 81"
        raise UserError(f"{name}: {error.errors()[0]['msg']}", hint) from error


def _board(seq_len: int) -> tuple[int, int, int, int] | None:
    """A square board with the squarest boxes; None where the cells do not make one."""
    side = math.isqrt(seq_len)
    if side * side != seq_len:
        return None
    box_rows = max(rows for rows in range(1, math.isqrt(side) + 1) if side % rows == 0)
    return side, side, box_rows, side // box_rows


def _recipe(name: str) -> ModelSpec:
    from hrm_edge.recipe import load_recipe
    from hrm_edge.tasks import get_task

    recipe = load_recipe(name)
    task = get_task(recipe.task)
    return recipe.spec(vocab=task.vocab, seq_len=task.seq_len, grid=task.grid)


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    spec, parameters = document["spec"], document["parameters"]
    table = Table(
        "part", "parameters", title=f"{document['name']} ({document['kind']})", title_justify="left", box=None
    )
    table.columns[1].justify = "right"
    for row in parameters["table"]:
        table.add_row(row["name"], f"{row['count']:,}")
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
