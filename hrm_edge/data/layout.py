"""Published layout of a data folder: ``{train,test}/all__*.npy`` with ``dataset.json``, and ``identifiers.json``.

A group holds puzzles, a puzzle holds examples. ``group_indices`` [G + 1] are offsets into the puzzles,
``puzzle_indices`` [P + 1] offsets into the examples, ``puzzle_identifiers`` [P] rows of the puzzle table, ``inputs``
and ``labels`` [N, S] tokens. We add the key ``task`` to ``dataset.json``; folders without it can be read too.

Axes: N examples, S cells, P puzzles, G groups.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from hrm_edge.errors import UserError
from hrm_edge.files import check_input, os_error, read_json, sha256, write_json
from hrm_edge.records import Record, read_record
from hrm_edge.tasks import get_task, task_names
from hrm_edge.tasks.base import Task, Tokens

_SPLITS = ("train", "test")
_ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
_METADATA = "dataset.json"
_IDENTIFIERS = "identifiers.json"
_MOST_IDENTIFIERS_BYTES = 256 << 20  # a million puzzles of ARC are 40 MB
_BLANK_IDENTIFIER = "<blank>"
_REBUILD = "build the folder again with 'hrm-edge data build', or give another --data"
_SCAN_ROWS = 1 << 16  # rows checked at a time


class Metadata(Record):
    """Content of ``dataset.json``; keys of other toolkits are allowed."""

    model_config = ConfigDict(extra="allow")

    pad_id: int = 0
    ignore_label_id: int | None = 0
    blank_identifier_id: int = 0
    vocab_size: int = Field(ge=2, le=256)
    seq_len: int = Field(ge=1, le=4096)
    num_puzzle_identifiers: int = Field(ge=1, le=1 << 26)
    total_groups: int = Field(ge=0, le=1 << 40)
    mean_puzzle_examples: float = Field(ge=0)
    sets: list[str] = Field(default=["all"])
    total_puzzles: int | None = None
    task: str | None = None


@dataclass(frozen=True)
class Part:
    """Train or test part of a data folder; its arrays stay on the disk until they are read."""

    metadata: Metadata
    inputs: Tokens
    labels: Tokens
    puzzle_identifiers: NDArray[np.int32]
    puzzle_indices: NDArray[np.int32]
    group_indices: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.inputs)

    def identifiers(self) -> NDArray[np.int32]:
        """Return the puzzle identifier of every example, int32 [N]."""
        return self.puzzle_identifiers.repeat(np.diff(self.puzzle_indices)).astype(np.int32)


def task_of(metadata: Metadata) -> str | None:
    """Return the name of a folder's task: the key ``task``, else the task with these sizes, else None."""
    if metadata.task is not None:
        return metadata.task
    for name in task_names():
        task = get_task(name)
        if (task.vocab, task.seq_len) == (metadata.vocab_size, metadata.seq_len):
            return name
    return None


def is_data_folder(path: Path | str) -> bool:
    """Return whether ``path`` is a built data folder (not a hub's folder of CSV files)."""
    return any((Path(path) / split / _METADATA).exists() for split in _SPLITS)


def read_part(folder: Path | str, split: str, task: Task | None = None, *, scan: int | None = None) -> Part:
    """Open ``folder/split``, memory-mapped and checked.

    ``scan``: number of examples whose tokens are checked (None: all). Raises ``UserError`` for a missing or truncated
    file, arrays that contradict each other, tokens outside the vocabulary, and a folder of another task than ``task``.
    """
    root = Path(folder) / split
    if not root.is_dir():
        raise UserError(f"{folder} has no part '{split}'", _REBUILD)
    metadata = read_record(root / _METADATA, Metadata, again=_REBUILD)
    if task is not None:
        _check_task(root, metadata, task)
    arrays = {name: _open(root / f"all__{name}.npy") for name in _ARRAYS}
    _check_shapes(root, metadata, arrays)
    for name in ("inputs", "labels"):
        _check_tokens(root / f"all__{name}.npy", arrays[name][:scan], metadata.vocab_size)
    return Part(metadata, **arrays)


def _check_task(root: Path, metadata: Metadata, task: Task) -> None:
    built_for = task_of(metadata)
    sizes = (metadata.vocab_size, metadata.seq_len)
    if (built_for or task.name) != task.name or sizes != (task.vocab, task.seq_len):
        what = built_for or f"vocabulary {sizes[0]}, {sizes[1]} cells"
        raise UserError(
            f"{root.parent} is a data folder of another task: expected {task.name}, found {what}",
            "give the data folder that belongs to the model, or build one with 'hrm-edge data build'",
        )


def _open(path: Path) -> NDArray[Any]:
    check_input(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no whole .npy file: {error}", _REBUILD) from error
    if array.dtype.kind not in "iu":
        raise UserError(f"{path} holds {array.dtype}, not integers", _REBUILD)
    if array.ndim == 0:
        raise UserError(f"{path} holds a single number, not a list of them", _REBUILD)
    return array


def _check_shapes(root: Path, metadata: Metadata, arrays: dict[str, NDArray[Any]]) -> None:
    examples, cells = len(arrays["inputs"]), metadata.seq_len
    puzzles, groups = len(arrays["puzzle_indices"]) - 1, len(arrays["group_indices"]) - 1
    wanted = {
        "inputs": (examples, cells),
        "labels": (examples, cells),
        "puzzle_identifiers": (puzzles,),
        "puzzle_indices": (puzzles + 1,),
        "group_indices": (metadata.total_groups + 1,),
    }
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise UserError(f"{root}/all__{name}.npy has shape {arrays[name].shape}, expected {shape}", _REBUILD)
    for name, end, things in (("puzzle_indices", examples, "examples"), ("group_indices", puzzles, "puzzles")):
        offsets = arrays[name]
        if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] <= offsets[:-1]).any():
            raise UserError(f"{root}/all__{name}.npy are no offsets from 0 to the {end} {things}", _REBUILD)
    identifiers = arrays["puzzle_identifiers"]
    if groups and not 0 <= identifiers.min() <= identifiers.max() < metadata.num_puzzle_identifiers:
        raise UserError(
            f"{root}/all__puzzle_identifiers.npy goes beyond {metadata.num_puzzle_identifiers} identifiers",
            _REBUILD,
        )


def _check_tokens(path: Path, array: NDArray[Any], vocab: int) -> None:
    for start in range(0, len(array), _SCAN_ROWS):
        rows = array[start : start + _SCAN_ROWS]
        if rows.min() < 0 or rows.max() >= vocab:
            row = start + int(((rows < 0) | (rows >= vocab)).any(axis=1).argmax())
            raise UserError(f"{path}: example {row} has a token outside the vocabulary of {vocab}", _REBUILD)


class PartWriter:
    """Writer of ``folder/split``, group by group; their number need not be known in advance.

    The arrays are streamed, not memory-mapped: they may be larger than the memory, and a full disk raises an
    ``OSError`` instead of a signal.
    """

    def __init__(self, folder: Path, split: str, task: Task) -> None:
        self.root, self.task = Path(folder) / split, task
        self.identifiers = 1
        """Number of rows of the puzzle table, with the blank one; to be set before the end where there are more."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.examples = 0
        self.streams: list[BinaryIO] = []
        self.ids, self.puzzles, self.groups = (np.zeros(0, np.int32) for _ in range(3))

    def __enter__(self) -> PartWriter:
        for name in ("inputs", "labels"):
            stream = open(self.root / f"all__{name}.npy", "wb")
            self.streams.append(stream)
        self._write_headers()
        return self

    def _write_headers(self) -> None:
        """Write the arrays' headers, first and last; numpy pads them, so that their length stays the same."""
        for stream in self.streams:
            stream.seek(0)
            shape = (self.examples, self.task.seq_len)
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def add(
        self,
        inputs: Tokens,
        labels: Tokens,
        *,
        groups: NDArray[np.int32],
        puzzles: NDArray[np.int32] | None = None,
        identifiers: NDArray[np.int32] | None = None,
    ) -> None:
        """Append whole groups: tokens uint8 [n, S] of their examples in order.

        ``groups``: puzzles in each group; ``puzzles``: examples in each puzzle (default: one); ``identifiers``: one for
        each puzzle (default: the blank one).
        """
        for stream, array in zip(self.streams, (inputs, labels), strict=True):
            stream.write(np.ascontiguousarray(array, dtype=np.uint8).data)
        count = int(groups.sum())
        puzzles = np.ones(count, np.int32) if puzzles is None else puzzles
        identifiers = np.zeros(count, np.int32) if identifiers is None else identifiers
        assert len(inputs) == len(labels) == puzzles.sum() and len(puzzles) == len(identifiers) == count  # noqa: PT018
        self.examples += len(inputs)
        self.groups = np.append(self.groups, groups)
        self.puzzles = np.append(self.puzzles, puzzles)
        self.ids = np.append(self.ids, identifiers)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._write_headers()
        for stream in self.streams:
            stream.close()
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        np.save(self.root / "all__puzzle_identifiers.npy", self.ids.astype(np.int32))
        for name, sizes in (("puzzle", self.puzzles), ("group", self.groups)):
            np.save(self.root / f"all__{name}_indices.npy", np.append(0, np.cumsum(sizes)).astype(np.int32))
        metadata = Metadata(
            vocab_size=self.task.vocab,
            seq_len=self.task.seq_len,
            num_puzzle_identifiers=self.identifiers,
            total_groups=len(self.groups),
            mean_puzzle_examples=self.examples / max(1, len(self.puzzles)),
            total_puzzles=len(self.puzzles),
            task=self.task.name,
        )
        write_json(self.root / _METADATA, metadata.model_dump())


def write_identifiers(folder: Path, names: list[str] | None = None) -> None:
    """Write ``identifiers.json``, the name of every row of the puzzle table: the blank one's, then ``names``."""
    write_json(folder / _IDENTIFIERS, [_BLANK_IDENTIFIER, *(names or [])])


def read_identifiers(folder: Path | str, metadata: Metadata) -> list[str]:
    """Read ``identifiers.json`` of a data folder. Raises ``UserError`` unless it names all rows of the puzzle table."""
    path = Path(folder) / _IDENTIFIERS
    names = read_json(path, _MOST_IDENTIFIERS_BYTES)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no list of names", _REBUILD)
    if len(names) != metadata.num_puzzle_identifiers:
        raise UserError(f"{path} has {len(names)} names, not {metadata.num_puzzle_identifiers}", _REBUILD)
    return names


def identifiers_hash(folder: Path | str) -> str | None:
    """Return the SHA-256 of ``identifiers.json``, which names the rows of a puzzle table; None where there is none."""
    path = Path(folder) / _IDENTIFIERS
    return sha256(path) if path.is_file() else None


def folder_hash(folder: Path | str) -> str:
    """Return a SHA-256 over all files of both parts of a data folder and ``identifiers.json``: equal for equal data."""
    digest = hashlib.sha256()
    names = [
        f"{split}/{name}" for split in _SPLITS for name in (_METADATA, *(f"all__{array}.npy" for array in _ARRAYS))
    ]
    for name in [_IDENTIFIERS, *names]:
        path = Path(folder) / name
        digest.update(f"{name} {sha256(path) if path.is_file() else 'missing'}\n".encode())
    return digest.hexdigest()
