"""What a name or path stands for, without opening it: its kind, its specification, what is recorded about it."""

from __future__ import annotations

import math
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from hrm_edge import catalog, zoo
from hrm_edge.api.open import is_published, note_assumed, published_spec, refuse_task, unknown_model
from hrm_edge.callbacks import OnMessage
from hrm_edge.checkpoint import find_checkpoint, is_checkpoint, read_checkpoint
from hrm_edge.costs import flops_per_step, parameter_table, weight_bytes
from hrm_edge.errors import UserError
from hrm_edge.manifest import MANIFEST, read_manifest
from hrm_edge.recipe import load_recipe
from hrm_edge.spec import VARIANTS, ModelSpec, variant_spec
from hrm_edge.tasks import get_task

_SUDOKU_VOCAB, _SUDOKU_CELLS = 11, 81


def describe(
    model: str, vocab: int | None, seq_len: int | None, task: str | None, on_message: OnMessage
) -> tuple[dict[str, Any], str]:
    """Return the document of ``hrm-edge info`` about ``model``, and the next command.

    ``model``: a shipped model, a variant, a recipe, a run or checkpoint, an artifact, or a published file; no torch is
    needed but for the last. ``vocab``, ``seq_len``: of a variant (None: Sudoku's). ``task``: of a published file.
    """
    if model not in VARIANTS and (vocab is not None or seq_len is not None):
        raise UserError("--vocab and --seq-len are for a variant's name", f"leave them out: {model} has its own")
    kind, spec, about, following = _find(model, vocab or _SUDOKU_VOCAB, seq_len or _SUDOKU_CELLS, task, on_message)
    document = {
        "name": model,
        "kind": kind,
        "parameters": parameter_table(spec),
        "flops_per_step": flops_per_step(spec),
        "bytes": weight_bytes(spec),
        "spec": spec.model_dump(mode="json"),
        **about,
    }
    return document, following


def _find(
    model: str, vocab: int, seq_len: int, task: str | None, on_message: OnMessage
) -> tuple[str, ModelSpec, dict[str, Any], str]:
    """Return the kind of thing, its spec, what else the document says about it, the next command."""
    path = Path(model) if model in VARIANTS else zoo.path_of(model)
    is_recipe = path.suffix in catalog.SUFFIXES or (model in catalog.names() and not path.exists())
    if model not in VARIANTS and not is_recipe and is_published(path):
        spec, published = published_spec(path, task)
        note_assumed(model, published, on_message)
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
        folder = find_checkpoint(path)
        info = read_checkpoint(folder)
        checkpoint = {"path": str(folder), **info.model_dump(mode="json", exclude={"spec", "files"})}
        following = f"hrm-edge export {quote(model)} --out ARTIFACT --int8 --calibration DATA"
        return "checkpoint", info.spec, {"checkpoint": checkpoint}, following
    raise unknown_model(model, ", a recipe, or a variant", [*VARIANTS, *catalog.names()])


def _variant(name: str, vocab: int, seq_len: int) -> ModelSpec:
    try:
        return variant_spec(name, vocab=vocab, seq_len=seq_len, grid=_board(seq_len))
    except ValidationError as error:
        hint = "use a square board, e.g. --seq-len 81"
        raise UserError(f"{name}: {error.errors()[0]['msg']}", hint) from error


def _board(seq_len: int) -> tuple[int, int, int, int] | None:
    """Return a square board with the squarest boxes; None where the cells do not make one."""
    side = math.isqrt(seq_len)
    if side * side != seq_len:
        return None
    box_rows = max(rows for rows in range(1, math.isqrt(side) + 1) if side % rows == 0)
    return side, side, box_rows, side // box_rows


def _recipe(name: str) -> ModelSpec:
    recipe = load_recipe(name)
    task = get_task(recipe.task)
    return recipe.spec(vocab=task.vocab, seq_len=task.seq_len, grid=task.grid)
