"""Manifest of a folder: its files and the hash of each one, written last, verified when it is opened."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hrm_edge.costs import parameter_table
from hrm_edge.errors import UserError
from hrm_edge.files import is_plain_name, sha256
from hrm_edge.records import Record, read_record
from hrm_edge.spec import ModelSpec

MANIFEST = "manifest.json"
STEP_FILE = "step.onnx"  # one ACT step; inputs and outputs as in spec.step_io
STATE_FILE = "state.safetensors"  # z_h_init, z_l_init [D] and, where P > 0, puzzle_table, all float32
SCHEMA_VERSION = 1
MOST_PARAMETERS_A_BYTE = 2  # upper bound for any precision
_AGAIN = "copy it again, or run 'hrm-edge export' again"

Precision = Literal["fp32", "fp16", "int8"]


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError(f"{name!r} is no plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""Name of a file in the folder itself: files listed in a record are copied, sent and hashed by it."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FileEntry(Record):
    """Hash and size of a file."""

    sha256: Sha256
    bytes: int = Field(ge=0)


Over = Literal["all", "both settle", "torch settles", "unsettled"]
"""Subset of the puzzles: all; those on which both torch and the export converge (the answer obeys the rules; for ARC:
the head halts); those on which torch does; and those on which torch does not.
"""


class Parity(Record):
    """Difference between the exported step and its torch model after ``steps`` steps of the recurrence."""

    over: Over = "all"
    steps: int
    puzzles: int
    logits_max_abs: float = Field(description="largest difference over all puzzles")
    logits_median_abs: float = Field(description="median over puzzles of a puzzle's largest difference")
    logits_sqnr_db: float
    carry_cosine: float = Field(description="smallest over the puzzles: the worst one's")
    carry_cosine_mean: float | None = Field(default=None, description="mean over the puzzles")
    same_answers: float = Field(description="share of puzzles whose whole decoded answer is the same")


class Gate(Record):
    """Limits for the export, and whether it meets them."""

    passed: bool
    limits: dict[str, float]
    failures: list[str] = Field(default=[])


class Manifest(Record):
    """Content of an artifact's ``manifest.json``: one model, one precision, for any runtime."""

    kind: Literal["hrm-edge artifact"] = "hrm-edge artifact"
    schema_version: int = SCHEMA_VERSION
    name: str
    task: str
    precision: Precision
    spec: ModelSpec
    opset: int
    max_batch: int = Field(
        ge=1, le=1 << 20, description="largest batch the graph was checked for; the batch axis itself is dynamic"
    )
    parity: list[Parity] = Field(default=[], description="over all puzzles, after 1, 4 and all steps")
    parity_apart: list[Parity] = Field(
        default=[], description="after all steps, over some of the puzzles each; none is empty"
    )
    accuracy_lost_points: float | None = Field(
        default=None, description="exact accuracy of torch minus that of the artifact, on the check set"
    )
    accuracy_lost_interval_95: tuple[float, float] | None = Field(
        default=None, description="of accuracy_lost_points, paired: the same puzzles answered by both"
    )
    gate: Gate
    quantization: dict[str, Any] | None = None
    provenance: dict[str, Any] = Field(default={})
    files: dict[FileName, FileEntry] = Field(default={})

    @property
    def size_bytes(self) -> int:
        """Size of all files, without the manifest."""
        return sum(entry.bytes for entry in self.files.values())


def file_entries(folder: Path, names: list[str]) -> dict[str, FileEntry]:
    """Return the hash and size of each named file in ``folder``."""
    return {n: FileEntry(sha256=sha256(folder / n), bytes=(folder / n).stat().st_size) for n in names}


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, last, with hashes of all other files in the folder; return it as written."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    full = manifest.model_copy(update={"files": file_entries(folder, names)})
    full.write(folder / MANIFEST)
    return full


def verify_files(folder: Path, files: dict[str, FileEntry], *, again: str) -> None:
    """Compare every listed file with its hash. Raises ``UserError``; ``again`` says how to make the folder again."""
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing although the manifest lists it", f"the copy is incomplete: {again}")
        size = path.stat().st_size
        if size != entry.bytes:
            raise UserError(f"{path} has {size} bytes, the manifest says {entry.bytes}", f"the file is torn: {again}")
        digest = sha256(path)
        if digest != entry.sha256:
            raise UserError(
                f"{path}: hash mismatch, sha256 is {digest[:16]}…, the manifest says {entry.sha256[:16]}…",
                f"the file was changed or damaged: {again}",
            )


def parse_manifest(folder: Path | str) -> Manifest:
    """Read an artifact's manifest; the files that it lists may be missing or changed."""
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} is no artifact: {MANIFEST} is missing", f"an export that was cut off has none: {_AGAIN}"
        )
    return read_record(path, Manifest, SCHEMA_VERSION, again=_AGAIN)


def read_manifest(folder: Path | str) -> Manifest:
    """Read and verify an artifact's manifest and all its files. Raises ``UserError``."""
    manifest = parse_manifest(folder)
    verify_files(Path(folder), manifest.files, again=_AGAIN)
    if STEP_FILE in manifest.files:
        _check_step(Path(folder) / STEP_FILE, manifest.spec)
    return manifest


def _check_step(path: Path, spec: ModelSpec) -> None:
    """Refuse a step that lacks its model's weights: fewer bytes than they take, or weights in another file.

    No hash covers a file outside. ONNX names such a file under the key "location", a word that occurs in none of our
    graphs.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        count = parameter_table(spec)["trainable"]
        if not size or count > MOST_PARAMETERS_A_BYTE * size + (1 << 20):
            raise UserError(f"{path} has {size:,} bytes, the manifest's model {count:,} parameters", _AGAIN)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"location") >= 0:
                raise UserError(f"{path} has weights in another file, which no hash covers", "export the model again")
