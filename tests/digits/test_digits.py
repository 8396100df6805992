"""The digit network's training: cells as the reader cuts them, a graph that equals the network, errors in words."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

pytest.importorskip("PIL")
cv2 = pytest.importorskip("cv2")


from hrm_edge.digits.camera import misplaced, photograph, rewritten
from hrm_edge.digits.labels import read_labels
from hrm_edge.digits.network import DigitNet, write_onnx
from hrm_edge.digits.recipe import DigitsRecipe
from hrm_edge.digits.sheet import draw_sheet
from hrm_edge.errors import UserError
from hrm_edge.recipe import read_keys
from hrm_edge.vision.cells import cut_cells
from tests.vision.rendered import drawn_font


def test_a_sheet_holds_what_its_labels_say():
    rng = np.random.default_rng(0)
    sheet = draw_sheet(rng, [drawn_font()], [drawn_font()])
    gray, mesh = photograph(rng, sheet, 40)
    cells = cut_cells(gray, mesh)
    assert cells.shape == (81, 32, 32)
    ink = cells[:, 8:24, 8:24].max(axis=(1, 2))
    assert np.median(ink[sheet.labels > 0]) > 3 * abs(np.median(ink[sheet.labels == 0]))
    assert np.abs(misplaced(rng, mesh, 40) - mesh).max() < 40 * 0.3


def test_the_written_graph_is_the_network(tmp_path):
    torch.manual_seed(0)
    network = DigitNet()
    cells = torch.rand(7, 1, 32, 32)
    for _ in range(3):  # running statistics that are not those of the start
        network(cells)
    network.eval()
    write_onnx(network, tmp_path / "d.onnx", {"task": "digits"})
    session = ort.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    logits, written = session.run(None, {"cells": cells.numpy()})
    for found, expected in zip((logits, written[:, 0]), network(cells), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)


def test_the_shipped_recipe_is_one():
    recipe = read_keys("recipes/digits.yaml", ["train.steps=7"]).validate(DigitsRecipe)
    assert recipe.train.steps == 7


def test_labels(tmp_path):
    path = tmp_path / "a.dat"
    path.write_text("phone x\n640x480:24 JPG\n" + "0 1 2 3 4 5 6 7 10 \n" * 9)
    np.testing.assert_array_equal(read_labels(path), [0, 1, 2, 3, 4, 5, 6, 7, 0] * 9)
    path.write_text("1 2 3\n")
    with pytest.raises(UserError, match="is no label"):
        read_labels(path)


def test_another_hand_writes_the_same_digits():
    rng = np.random.default_rng(0)
    gray, mesh = photograph(rng, draw_sheet(rng, [drawn_font()], [drawn_font()]), 32)
    other = rewritten(rng, gray, 32)
    assert (other.shape, other.dtype) == (gray.shape, np.uint8)
    assert np.abs(other.astype(int) - gray).max() > 5
    assert np.abs(cv2.blur(other, (33, 33)).astype(int) - cv2.blur(gray, (33, 33))).max() < 25  # ink moved, none is new
    assert np.abs(cut_cells(other, mesh) - cut_cells(gray, mesh)).mean() < 0.2
