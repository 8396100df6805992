"""``hrm-edge train recipes/digits.yaml``: fonts and photos in, a network that the reader takes out."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import ImageFont

from hrm_edge.digits import fonts
from hrm_edge.vision.read import Reader
from tests.vision.rendered import photo


@pytest.fixture
def one_font(tmp_path, monkeypatch):
    """A machine with a single font: the one that Pillow carries."""
    data = ImageFont.load_default(20).path
    assert isinstance(data, io.BytesIO)
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "Own-Regular.ttf").write_bytes(data.getvalue())
    monkeypatch.setattr(fonts, "FOLDERS", (tmp_path / "fonts",))


def write_recipe(folder, printed="Own-*", more=""):
    path = folder / "digits.yaml"
    path.write_text(
        f"task: digits\nfonts: {{printed: [{printed}], hand: [Own-*]}}\ncheck_sheets: 2\n"
        f"train: {{steps: 3, sheets: 2}}\n{more}"
    )
    return path


def test_train_writes_a_network_that_the_reader_takes(run, tmp_path, one_font):
    truth = photo(9)
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), truth.image)
    (folder / "a.txt").write_text("\n".join(" ".join(map(str, row)) for row in truth.labels.reshape(9, 9)))
    size = np.array(truth.image.shape[1::-1])
    places = (truth.mesh[[0, 0, 9, 9], [0, 9, 9, 0]] / size).ravel()
    names = [f"{axis}_{corner}" for corner in ("topleft", "topright", "bottomright", "bottomleft") for axis in "xy"]
    (folder / "metadata.csv").write_text(f"Name,{','.join(names)}\na.jpg,{','.join(map(str, places))}\n")
    recipe = write_recipe(tmp_path)
    done = run(
        "train",
        recipe,
        "--set",
        f"photos={folder}",
        "--set",
        "train.photo_share=0.5",
        "--set",
        "train.bf16=true",
        "--out",
        tmp_path / "run",
    )
    assert done.code == 0, done.err
    assert "3 steps in" in done.out
    assert "on 2 fonts and 1 photos" in done.out
    scores, written = Reader(tmp_path / "run" / "digits.onnx").classify(np.zeros((5, 32, 32), np.float32))
    assert (scores.shape, written.shape) == ((5, 10), (5,))
    done = run("train", recipe, "--out", tmp_path / "run")
    assert (done.code, "already exists" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "arguments", "what"),
    [
        ({"printed": "Nowhere*"}, [], "no installed font matches Nowhere*"),
        ({"more": "colour: red\n"}, [], "unknown recipe key 'colour'"),
        ({}, ["--set", "photos=/nowhere"], "/nowhere holds no metadata.csv"),
        ({}, ["--resume"], "--resume: the digit network is trained in one go"),
    ],
)
def test_what_is_missing_is_named(run, tmp_path, one_font, change, arguments, what):
    done = run("train", write_recipe(tmp_path, **change), "--out", tmp_path / "run", *arguments)
    assert done.code == 2
    assert what in done.err
    assert not (tmp_path / "run").exists()
