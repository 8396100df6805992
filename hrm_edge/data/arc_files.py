"""ARC tasks from the repositories' archives, from a folder, or from Kaggle's combined files.

A task is a JSON file ``<part>/<name>.json`` with lists ``train`` and ``test`` of {"input", "output"} grids. The test
pairs of tasks in a part called ``evaluation`` are questions; all other tasks are for training. Kaggle has all tasks of
a part in one file ``*_<part>_challenges.json``, and the outputs of their test pairs in ``*_<part>_solutions.json``; its
part ``test`` has questions too.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hrm_edge.errors import UserError
from hrm_edge.files import MOST_JSON_BYTES, check_input, os_error, read_bytes
from hrm_edge.tasks.arc import Grid, check_grid

Pair = tuple[Grid, "Grid | None"]
"""(input, output); None where the output of a test pair is not known."""

_EVALUATION = "evaluation"
_SPLITS = ("training", _EVALUATION)
_CHALLENGES, _SOLUTIONS = "challenges", "solutions"


@dataclass(frozen=True)
class ArcTask:
    """Task as published."""

    name: str
    asked: bool
    """Whether its test pairs are questions; otherwise they are for training."""
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Demonstration pairs, then test pairs."""
        return self.train + self.test


def _read_tasks(source: Path | str) -> list[ArcTask]:
    """Read the tasks of a .tar.gz, .tar or .zip archive, a folder or a .json file: training tasks first, each by name.

    From a repository that has folders ``training`` and ``evaluation``, or ``corpus``, only these are read. Files that
    macOS adds to archives are skipped. Raises ``UserError`` naming archive, file and pair of an error.
    """
    source = Path(source)
    texts = {path: text for path, text in _texts(source) if not _is_of_macos(path)}
    combined = [path for path in texts if _CHALLENGES in path.stem]
    chosen = _chosen([path for path in texts if len(path.parts) > 1])
    if not combined and not chosen:
        raise UserError(
            f"{source} holds no ARC tasks",
            "give the archive of ARC-AGI, ARC-AGI-2 or ConceptARC, a folder with <part>/<task>.json, or Kaggle's "
            "*_challenges.json",
        )
    if combined:
        of_a_part = [path for path in combined if any(part in path.stem for part in _SPLITS)]
        tasks = [task for path in of_a_part or combined for task in _combined(source, path, texts)]
    else:
        tasks = [
            _task(
                f"{source}: {path}", path.stem, path.parts[-2] == _EVALUATION, _json(f"{source}: {path}", texts[path])
            )
            for path in chosen
        ]
    return sorted(tasks, key=lambda task: (task.asked, task.name))


def read_all(sources: list[str]) -> list[ArcTask]:
    """Return the tasks of several sources. Raises ``UserError`` if two of them have a task of the same name."""
    tasks: list[ArcTask] = []
    origin: dict[str, str] = {}
    for source in sources:
        for task in _read_tasks(source):
            if task.name in origin:
                raise UserError(
                    f"task {task.name} is in {origin[task.name]} and in {source}",
                    "build them apart: ARC-AGI-2 trains on tasks that ARC-AGI-1 asks",
                )
            origin[task.name] = source
            tasks.append(task)
    return tasks


def _chosen(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """Return the files that hold tasks: a repository may have other JSON files, too, and ConceptARC simpler tasks."""
    split = [path for path in paths if path.parts[-2] in _SPLITS]
    corpus = [path for path in paths if "corpus" in path.parts[:-1]]
    return split or corpus or paths


def _texts(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:  # noqa: C901, PLR0912 - one step a kind of source
    """Yield (path inside, content) of every file, read in memory: no file of an archive is written to the disk."""
    if not source.is_dir():
        check_input(source)
    try:
        if source.is_dir():
            for path in sorted(source.rglob("*.json")):
                yield (
                    PurePosixPath(source.resolve().name, path.relative_to(source).as_posix()),
                    read_bytes(path, MOST_JSON_BYTES),
                )
        elif source.suffix == ".json":
            names = dict.fromkeys((source.name, source.name.replace(_CHALLENGES, _SOLUTIONS)))
            for path in map(source.with_name, names):
                if path == source or path.is_file():
                    yield PurePosixPath(path.resolve().parent.name, path.name), read_bytes(path, MOST_JSON_BYTES)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if name.endswith(".json"):
                        with archive.open(name) as unpacked:
                            yield PurePosixPath(name), _member(source, name, unpacked)
        else:
            with tarfile.open(source) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.name.endswith(".json") else None
                    if stream is not None:
                        yield PurePosixPath(member.name), _member(source, member.name, stream)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{source} is no whole archive: {error}", "download it again (.tar.gz, .tar or .zip)"
        ) from error
    except OSError as error:
        # An error by gzip, not by the system: the file is damaged or not gzipped.
        if error.errno is None:
            raise UserError(f"{source} is no whole archive: {error}", "download it again") from error
        raise os_error(error, source) from error


def _member(source: Path, name: str, stream: IO[bytes]) -> bytes:
    """Return a file of an archive. Raises ``UserError`` if it unpacks to more bytes than any file of tasks."""
    content = stream.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        raise UserError(f"{source}: {name} has more than {MOST_JSON_BYTES:,} bytes", "check that it holds ARC tasks")
    return content


def _is_of_macos(path: PurePosixPath) -> bool:
    """Return whether a file holds macOS's metadata of another file (a resource fork), by its name."""
    return "__MACOSX" in path.parts or path.name.startswith("._")


def _combined(source: Path, path: PurePosixPath, texts: dict[PurePosixPath, bytes]) -> list[ArcTask]:
    """Return the tasks of one of Kaggle's files, with the answers from its solutions file if there is one."""
    where = f"{source}: {path}"
    challenges = _json(where, texts[path])
    answers_path = path.with_name(path.name.replace(_CHALLENGES, _SOLUTIONS))
    has_answers = answers_path in texts
    solutions = _json(f"{source}: {answers_path}", texts[answers_path]) if has_answers else {}
    if not isinstance(challenges, dict) or not isinstance(solutions, dict):
        raise UserError(f"{where} is no combined file of ARC tasks", "download it and its solutions again from Kaggle")
    asked = "training" not in path.stem
    if not has_answers and not asked:
        raise UserError(f"{where}: {answers_path.name} is missing", "put it beside: training needs the answers")
    tasks = []
    for name, value in challenges.items():
        tests = value.get("test") if isinstance(value, dict) else None
        if has_answers and isinstance(tests, list):
            outputs = solutions.get(name)
            if not isinstance(outputs, list) or len(outputs) != len(tests):
                raise UserError(
                    f"{source}: {answers_path}: task {name} has {len(tests)} test pairs, but not so many answers",
                    "take both files from one download",
                )
            value["test"] = [{**pair, "output": output} for pair, output in zip(tests, outputs, strict=True)]
        tasks.append(_task(f"{where}, task {name}", name, asked, value))
    return tasks


def _json(where: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON: {error}", "download it again") from error


def _task(where: str, name: str, asked: bool, value: Any) -> ArcTask:
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in ("train", "test")):
        raise UserError(f"{where} is no ARC task", "a task has the lists 'train' and 'test'")
    train = tuple(_pair(f"{where}, train pair {n}", pair, False) for n, pair in enumerate(value["train"], start=1))
    test = tuple(_pair(f"{where}, test pair {n}", pair, asked) for n, pair in enumerate(value["test"], start=1))
    if not train or not test:
        raise UserError(f"{where} has {len(train)} train and {len(test)} test pairs", "a task needs one of each")
    return ArcTask(name, asked, train, test)


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
            raise UserError(f"{where}, {key}: {error.problem}", error.hint) from error
    return grids[0], grids[1] if len(grids) > 1 else None
