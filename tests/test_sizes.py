"""Numbers that files of others bring: each has a limit, and none is believed before the bytes are there."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import onnx
import pytest
import torch
from pydantic import BaseModel, ValidationError

from hrm_edge import zoo
from hrm_edge.cli.main import main
from hrm_edge.data.layout import Metadata
from hrm_edge.digits.recipe import DigitsRecipe
from hrm_edge.errors import UserError
from hrm_edge.files import write_json
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, file_entries, parse_manifest, read_manifest
from hrm_edge.model import load as loading
from hrm_edge.model.state_dict import read_state_dict
from hrm_edge.recipe import Recipe
from hrm_edge.runtime import open_artifact
from hrm_edge.runtime.trt.identity import BatchRange
from hrm_edge.spec import MOST_PARAMETERS, ModelSpec, variant_spec

SPEC: dict[str, Any] = {
    "variant": "x", "vocab": 6, "seq_len": 16, "hidden": 64, "heads": 4, "h_layers": 1, "l_layers": 1,
    "grid": (4, 4, 2, 2), "grid_positions": True,
}  # fmt: skip


def integers(kind: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """(name, field) of every integer of a record and of the records in it."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from integers(field.annotation)
        elif field.annotation in (int, int | None):
            yield f"{kind.__name__}.{name}", field


# nothing is made of their size
COMPARED_ONLY = {f"Metadata.{n}" for n in ("pad_id", "ignore_label_id", "blank_identifier_id", "total_puzzles")}


@pytest.mark.parametrize("kind", [ModelSpec, Recipe, DigitsRecipe, Metadata, BatchRange])
def test_every_integer_has_an_upper_bound(kind):
    found = list(integers(kind))
    assert found
    without = {name for name, field in found if not any(isinstance(m, annotated_types.Le) for m in field.metadata)}
    assert without <= COMPARED_ONLY


@pytest.mark.parametrize("value", [1 << 31, 1 << 70, -1])
@pytest.mark.parametrize(
    "name", ["hidden", "heads", "h_layers", "l_layers", "h_cycles", "l_cycles", "max_steps", "puzzles"]
)
def test_an_absurd_size_is_refused_at_once(name, value):
    with pytest.raises(ValidationError):
        ModelSpec(**{**SPEC, name: value})


@pytest.mark.parametrize(
    "change",
    [{"grid": (4, 4, 0, 2)}, {"grid": (-4, -4, 2, 2)}, {"expansion": float("inf")}, {"rope_theta": float("nan")},
     {"rope_theta": 0.0}, {"expansion": 1e9}],
)  # fmt: skip
def test_sizes_that_cannot_be_computed_with_are_refused(change):
    with pytest.raises(ValidationError):
        ModelSpec(**{**SPEC, **change})


def test_sizes_that_are_absurd_together_are_refused():
    with pytest.raises(ValidationError, match=f"parameters, {MOST_PARAMETERS:,} are the limit"):
        variant_spec("full", vocab=11, seq_len=81, hidden=16384, heads=256, h_layers=256, l_layers=256)
    with pytest.raises(ValidationError, match="parameters"):
        variant_spec("full", vocab=11, seq_len=81, puzzle_dim=512, puzzles=1 << 26)


@pytest.mark.parametrize("key", ["train.batch=10000000000000", "seed=-1", "train.lr=.inf"])
def test_a_recipe_of_absurd_sizes_is_refused(tmp_path, key, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: mini-sudoku\nvariant: nano\ndata: nowhere\n")
    assert main(["train", str(recipe), "--set", key, "--out", str(tmp_path / "run")]) == 2
    assert key.partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_an_absurd_model_is_refused(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: mini-sudoku\nvariant: nano\nmodel:\n  h_layers: 2147483648\n")
    assert main(["info", str(recipe)]) == 2
    assert "recipe key 'model.h_layers': Input should be less than or equal to 256" in capsys.readouterr().err


# -- artifacts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo.ZOO / "sudoku-nano", tmp_path / "artifact"))


def seal(folder: Path, **update: Any) -> None:
    """Write the manifest anew with the hashes of the files that it lists."""
    raw = json.loads((folder / MANIFEST).read_text())
    raw["spec"].update(update)
    raw["files"] = {n: e.model_dump() for n, e in file_entries(folder, list(raw["files"])).items()}
    write_json(folder / MANIFEST, raw)


def test_a_manifest_of_more_weights_than_the_file_holds_is_refused(artifact):
    seal(artifact, h_layers=128, hidden=1024)
    with pytest.raises(UserError, match=r"step.onnx has 2,828,109 bytes, the manifest's model [\d,]+ parameters"):
        open_artifact(artifact)
    seal(artifact, h_layers=1 << 31)
    with pytest.raises(UserError, match=r"spec.h_layers: .* less than or equal to 256"):
        open_artifact(artifact)


@pytest.mark.parametrize("name", ["../step.onnx", "/etc/passwd", "..", "a/b"])
def test_a_manifest_lists_only_files_of_its_folder(artifact, name):
    """What it lists is copied into an engine's folder and sent to boards under the same name."""
    raw = json.loads((artifact / MANIFEST).read_text())
    raw["files"][name] = raw["files"][STEP_FILE]
    write_json(artifact / MANIFEST, raw)
    with pytest.raises(UserError, match="is no plain file name"):
        parse_manifest(artifact)


@pytest.mark.parametrize("backend", ["onnxruntime", "native", "auto"])
def test_weights_in_a_file_without_a_hash_are_refused(artifact, backend):
    """ONNX keeps them elsewhere on demand; whoever changes that file changes the model, and no hash."""
    model = onnx.load(artifact / STEP_FILE)
    onnx.save(model, artifact / STEP_FILE, save_as_external_data=True, location="more.bin", size_threshold=0)
    seal(artifact)
    assert "more.bin" not in parse_manifest(artifact).files
    with pytest.raises(
        UserError, match=r"step.onnx has (weights in another file, which no hash|[\d,]+ bytes, the man)"
    ):
        open_artifact(artifact, backend=backend)


def test_a_few_weights_in_another_file_are_refused_too(artifact):
    model = onnx.load(artifact / STEP_FILE)
    onnx.save(model, artifact / STEP_FILE, save_as_external_data=True, location="more.bin", size_threshold=200_000)
    seal(artifact)
    with pytest.raises(UserError, match=r"has weights in another file, which no hash covers"):
        read_manifest(artifact)


def test_the_shipped_artifacts_pass():
    for name in zoo.names():
        assert isinstance(read_manifest(zoo.folder_of(name) or ""), Manifest)


# -- checkpoints and published files --------------------------------------------------------------------------------


def test_a_checkpoint_is_compared_before_a_model_of_its_sizes_is_built(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    from hrm_edge.checkpoint import CHECKPOINT, MODEL_FILE, CheckpointInfo

    save_file({"H_init": torch.zeros(8)}, tmp_path / MODEL_FILE)
    spec = variant_spec("full", vocab=11, seq_len=81, h_layers=64, hidden=1024, heads=16)
    info = CheckpointInfo(
        task="sudoku", spec=spec, recipe_hash="", step=1, samples=1, files=file_entries(tmp_path, [MODEL_FILE])
    )
    write_json(tmp_path / CHECKPOINT, info.model_dump(mode="json"))
    monkeypatch.setattr(loading, "HRM", lambda spec: pytest.fail("a model of that size was built"))
    with pytest.raises(UserError, match="has no tensor"):
        loading.load_model(tmp_path)


def expanded(path: Path) -> None:
    torch.save({"embed_tokens.embedding_weight": torch.zeros(1).expand(43_000, 43_000)}, path)  # 7.4 GB in 2 kB


def many_of_one(path: Path) -> None:
    one = torch.zeros(1000)
    torch.save({f"tensor {number}": one for number in range(100)}, path)


def sparse(path: Path) -> None:
    places = torch.zeros(2, 1, dtype=torch.long)
    torch.save({"a": torch.sparse_coo_tensor(places, torch.ones(1), (43_000, 43_000), check_invariants=True)}, path)


def on_no_device(path: Path) -> None:
    torch.save({"a": torch.empty(43_000, 43_000, device="meta")}, path)


def compressed(path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("make", "said"),
    [(expanded, r"has [\d,]+ bytes, its tensors 7,396,000,000"), (many_of_one, "bytes, its tensors 400,000"),
     (sparse, "'a' is no plain tensor|holds pickled objects|is no model"), (on_no_device, "'a' is no plain tensor"),
     (compressed, "is compressed, which torch.save does not do")],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_small_file_with_large_tensors_is_refused(tmp_path, make, said):
    make(tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 50_000
    with pytest.raises(UserError, match=said):
        read_state_dict(tmp_path / "model.pt")
