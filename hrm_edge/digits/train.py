"""Training of the digit network: rendered sheets and photos in, ``digits.onnx`` out. Minutes on one core."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hrm_edge.digits.camera import misplaced, photograph
from hrm_edge.digits.fonts import Font, find_fonts
from hrm_edge.digits.hands import drawn_hand, load_hands
from hrm_edge.digits.network import DigitNet, write_onnx
from hrm_edge.digits.photos import LabelledPhoto, load_photos, retake
from hrm_edge.digits.recipe import DigitsRecipe
from hrm_edge.digits.sheet import draw_sheet
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder, write_json
from hrm_edge.vision.cells import cut_cells
from hrm_edge.vision.images import Floats
from hrm_edge.vision.read import Reader

ONNX_FILE = "digits.onnx"
_REPORT_FILE = "digits.json"
_SMALLEST_CELL, _LARGEST_CELL = 9.0, 40.0  # pixels a cell of a rendered photo
_DRAWN_HANDS = 200
KEPT_HANDS = 100  # of the file of written digits, which are not trained on
_WRITTEN_WEIGHT = 0.3  # of the question whether a digit was written, beside which digit it is
_VISIBLE = 0.2  # darkest place of a cell's middle, below which a digit drowned and is nobody's to read

Labels = NDArray[np.uint8]
Written = NDArray[np.float32]  # 1 written, 0 printed, NaN where nobody knows or nothing is there
Cells = tuple[Floats, Labels, Written]


class _Source:
    """An endless stream of labelled cells."""

    def __init__(self, recipe: DigitsRecipe, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.printed: list[Font] = find_fonts(recipe.fonts.printed)
        self.fonts = self.printed + (by_hand := find_fonts(recipe.fonts.hand))
        # kinds of handwriting, each as frequent as the others: fonts, a pen along control points, people's own
        self.hands: list[list[Font]] = [by_hand, [drawn_hand(self.rng) for _ in range(_DRAWN_HANDS)]]
        if recipe.writing:
            self.hands.append(load_hands(recipe.writing)[KEPT_HANDS:])
        self.photos: list[LabelledPhoto] = load_photos(recipe.photos) if recipe.photos else []
        self.share = recipe.train.photo_share if self.photos else 0.0

    def sheet(self) -> Cells:
        """Return the readable cells of one rendered puzzle."""
        sheet = draw_sheet(self.rng, self.printed, self.hands[self.rng.integers(len(self.hands))])
        cell = float(np.exp(self.rng.uniform(np.log(_SMALLEST_CELL), np.log(_LARGEST_CELL))))
        gray, mesh = photograph(self.rng, sheet, cell)
        written = np.where(sheet.labels > 0, sheet.written, np.nan).astype(np.float32)
        return _readable(cut_cells(gray, misplaced(self.rng, mesh, cell)), sheet.labels, written)

    def photo(self) -> Cells:
        """Return the readable cells of one photo, taken again."""
        photo = self.photos[self.rng.integers(len(self.photos))]
        return _readable(cut_cells(*retake(self.rng, photo)), photo.labels, np.full(81, np.nan, np.float32))

    def batch(self, sheets: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return cells [N, 1, 32, 32], labels [N] and :data:`Written` [N] of ``sheets`` puzzles."""
        parts = [self.photo() if self.rng.random() < self.share else self.sheet() for _ in range(sheets)]
        cells, labels, written = (np.concatenate(part) for part in zip(*parts, strict=True))
        return torch.from_numpy(cells)[:, None], torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(written)


def _readable(cells: Floats, labels: Labels, written: Written) -> Cells:
    visible = (labels == 0) | (cells[:, 6:26, 6:26].max(axis=(1, 2)) > _VISIBLE)
    return cells[visible], labels[visible], written[visible]


def _loss(network: DigitNet, batch: tuple[torch.Tensor, ...], bf16: bool) -> torch.Tensor:
    """Return cross entropy of the digits, and of written against printed where that is known."""
    cells, labels, written = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits, by_hand = network(cells)
    loss = functional.cross_entropy(logits.float(), labels)
    known = ~written.isnan()
    if known.any():
        loss = loss + _WRITTEN_WEIGHT * functional.binary_cross_entropy_with_logits(
            by_hand.float()[known], written[known]
        )
    return loss


def train_digits(
    recipe: DigitsRecipe, out: Path, on_progress: Callable[[int, float], None], time_limit: float | None = None
) -> dict[str, Any]:
    """Train, write ``out`` (an absent or empty folder) and return what ``digits.json`` there says.

    ``on_progress`` is called with (step, mean loss) now and then. After ``time_limit`` seconds the average so far is
    kept and the remaining steps are left out. Raises ``UserError`` for fonts or photos that are missing and for an
    ``out`` that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists", "choose another --out, or remove it first")
    began = time.perf_counter()
    source = _Source(recipe, recipe.seed)
    torch.manual_seed(recipe.seed)
    network, steps = _fit(recipe, source, on_progress, began + (time_limit or float("inf")))
    about: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"photos", "writing"}),
        "fonts": [font.name for font in source.fonts],
        "hands": [len(kind) for kind in source.hands],
        "photos": len(source.photos),
        "steps": steps,
        "parameters": sum(p.numel() for p in network.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "train_s": round(time.perf_counter() - began, 1),
    }
    with atomic_folder(out) as folder:
        write_onnx(network, folder / ONNX_FILE, {"made_by": "hrm-edge train", "task": "digits"})
        about |= _check(recipe, folder / ONNX_FILE)
        about["bytes"] = (folder / ONNX_FILE).stat().st_size
        write_json(folder / _REPORT_FILE, about)
    return about


def _fit(
    recipe: DigitsRecipe, source: _Source, on_progress: Callable[[int, float], None], until: float
) -> tuple[DigitNet, int]:
    """Return the averaged weights after ``train.steps`` or at the time ``until``, and the steps made."""
    options, network = recipe.train, DigitNet()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.steps, pct_start=0.15)
    losses: list[float] = []
    for step in range(1, options.steps + 1):
        loss = _loss(network, source.batch(options.sheets), options.bf16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step < options.steps:
            schedule.step()
        _move(average, network, min(options.ema, step / (step + 10)))
        losses.append(float(loss.detach()))
        if step % 50 == 0 or step == options.steps:
            on_progress(step, float(np.mean(losses[-50:])))
        if time.perf_counter() > until:
            break
    return average, step


def _move(average: DigitNet, network: DigitNet, keep: float) -> None:
    """Move the average a step nearer to the network, running statistics included."""
    for old, new in zip(_floats(average), _floats(network), strict=True):
        old.lerp_(new, 1 - keep)


def _floats(network: DigitNet) -> Iterator[torch.Tensor]:
    return (value.detach() for value in network.state_dict().values() if value.is_floating_point())


def _check(recipe: DigitsRecipe, path: Path) -> dict[str, Any]:
    """Measure how the written file reads rendered puzzles that were not trained on."""
    source, reader = _Source(recipe.model_copy(update={"photos": ""}), recipe.seed + 1), Reader(path)
    right: list[NDArray[np.bool_]] = []
    kinds_right: list[NDArray[np.bool_]] = []
    for _ in range(recipe.check_sheets):
        cells, labels, written = source.sheet()
        scores, by_hand = reader.classify(cells)
        right.append(scores.argmax(axis=1) == labels)
        kinds_right.append(((by_hand > 0.5) == (written > 0.5))[labels > 0])
    digits, hands = np.concatenate(right), np.concatenate(kinds_right)
    return {
        "rendered_cells": len(digits),
        "rendered_cell_accuracy": float(digits.mean()),
        "rendered_digits": len(hands),
        "written_or_printed_accuracy": float(hands.mean()),
    }
