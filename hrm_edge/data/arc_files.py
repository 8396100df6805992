"""ARC tasks from the repositories' archives or from a folder.

A task is a JSON file ``<part>/<name>.json`` with lists ``train`` and ``test`` of {"input", "output"} grids; tasks of a
part called ``evaluation`` are asked, those of all others are for training.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hrm_edge.errors import UserError
from hrm_edge.files import os_error
from hrm_edge.tasks.arc import Grid, check_grid

Pair = tuple[Grid, "Grid | None"]
"""(input, output); None where the output of a test pair is not known."""

EVALUATION = "evaluation"
_SPLITS = ("training", EVALUATION)


@dataclass(frozen=True)
class ArcTask:
    """One task as it is published."""

    name: str
    asked: bool
    """Its test pairs are questions; else they are for training."""
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Demonstration pairs, then test pairs."""
        return self.train + self.test


def read_tasks(source: Path | str) -> list[ArcTask]:
    """The tasks of a .tar.gz, .tar or .zip archive, or of a folder, those for training first, each part by name.

    Of a repository only ``training`` and ``evaluation``, or ``corpus``, are read, if it has them. Raises ``UserError``
    naming archive, file and pair for whatever is wrong.
    """
    source = Path(source)
    texts = {path: text for path, text in _texts(source) if path.suffix == ".json" and len(path.parts) > 1}
    chosen = _chosen(list(texts))
    if not chosen:
        raise UserError(
            f"{source} holds no ARC tasks",
            "give the archive of ARC-AGI, ARC-AGI-2 or ConceptARC, or a folder with <part>/<task>.json",
        )
    tasks = [_task(f"{source}: {path}", path, texts[path]) for path in chosen]
    return sorted(tasks, key=lambda task: (task.asked, task.name))


def read_all(sources: list[str]) -> list[ArcTask]:
    """The tasks of several sources; ``UserError`` when two hold a task of the same name."""
    tasks: list[ArcTask] = []
    origin: dict[str, str] = {}
    for source in sources:
        for task in read_tasks(source):
            if task.name in origin:
                raise UserError(
                    f"task {task.name} is in {origin[task.name]} and in {source}",
                    "build them apart: ARC-AGI-2 trains on tasks that ARC-AGI-1 asks",
                )
            origin[task.name] = source
            tasks.append(task)
    return tasks


def _chosen(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """The files that hold tasks: beside them a repository may have other JSON files, ConceptARC more simple tasks."""
    split = [path for path in paths if path.parts[-2] in _SPLITS]
    corpus = [path for path in paths if "corpus" in path.parts[:-1]]
    return split or corpus or paths


def _texts(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(path inside, content) of every file, read in memory: nothing of an archive is unpacked to the disk."""
    try:
        if source.is_dir():
            for path in sorted(source.rglob("*.json")):
                yield PurePosixPath(source.resolve().name, path.relative_to(source).as_posix()), path.read_bytes()
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if name.endswith(".json"):
                        yield PurePosixPath(name), archive.read(name)
        else:
            with tarfile.open(source) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.name.endswith(".json") else None
                    if stream is not None:
                        yield PurePosixPath(member.name), stream.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{source} is no whole archive: {error}", "download it again (.tar.gz, .tar or .zip)"
        ) from error
    except OSError as error:
        if error.errno is None:  # of gzip: not what it says it is
            raise UserError(f"{source} is no whole archive: {error}", "download it again") from error
        raise os_error(error, source) from error


def _task(where: str, path: PurePosixPath, text: bytes) -> ArcTask:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is no JSON: {error}", "download it again") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in ("train", "test")):
        raise UserError(f"{where} is no ARC task", "a task has the lists 'train' and 'test'")
    asked = path.parts[-2] == EVALUATION
    train = tuple(_pair(f"{where}, train pair {n}", pair, False) for n, pair in enumerate(value["train"], start=1))
    test = tuple(_pair(f"{where}, test pair {n}", pair, asked) for n, pair in enumerate(value["test"], start=1))
    if not train or not test:
        raise UserError(f"{where} has {len(train)} train and {len(test)} test pairs", "a task needs one of each")
    return ArcTask(path.stem, asked, train, test)


def _pair(where: str, pair: Any, may_lack_output: bool) -> Pair:
    if not isinstance(pair, dict):
        raise UserError(f"{where} is no pair", 'a pair is {"input": grid, "output": grid}')
    grids = []
    for key in ("input", "output"):
        if key == "output" and key not in pair and may_lack_output:
            continue
        try:
            grids.append(check_grid(pair.get(key)))
        except UserError as error:
            raise UserError(f"{where}, {key}: {error.what}", error.mend) from error
    return grids[0], grids[1] if len(grids) > 1 else None
