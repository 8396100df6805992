"""The archive of a record, and a reader that trusts nothing in one: it comes from somebody else's machine."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_edge.doctor import Diagnosis
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file, check_input, read_bytes
from hrm_edge.record.schema import MOST_ROWS, ROW_NAME, RecordInfo, parse_about
from hrm_edge.records import parse_record
from hrm_edge.report.read import parse_bench
from hrm_edge.report.schema import BenchReport

RECORD_FILE, DOCTOR_FILE, TABLE_FILE, ROWS = "record.json", "doctor.json", "table.md", "rows"
TOP = "hrm-edge-record"  # the archive's folder, whatever the record's own is called
SUFFIX = ".tar.gz"
_MOST_ARCHIVE_BYTES = 32 << 20
MOST_UNPACKED_BYTES = 128 << 20
MOST_FILE_BYTES = 4 << 20  # a report has about 15 kB
_NAME = re.compile(rf"{TOP}/(record\.json|doctor\.json|table\.md|rows/{ROW_NAME}\.json)")
_AGAIN = "ask its sender for the archive that 'hrm-edge record' wrote"


@dataclass(frozen=True)
class MachineRecord:
    """A record that was read."""

    name: str
    about: RecordInfo
    diagnosis: Diagnosis
    reports: Mapping[str, BenchReport]
    """Row name → its report; rows that could not be measured have none."""


def record_of(folder: Path) -> MachineRecord:
    """Return the record in a folder. Raises ``UserError`` where it is none."""
    names = [RECORD_FILE, DOCTOR_FILE, *(f"{ROWS}/{path.name}" for path in sorted((folder / ROWS).glob("*.json")))]
    return _record({name: read_bytes(folder / name, MOST_FILE_BYTES) for name in names}, str(folder))


def read_archive(path: Path) -> MachineRecord:
    """Return the record in an archive; nothing is unpacked to the disk.

    Raises ``UserError`` for what is no archive of a record of this version, or holds anything but its files: links,
    other names, too many or too large ones.
    """
    check_input(path, _MOST_ARCHIVE_BYTES)
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path, "rb") as unpacked:
            for name, content in _members(unpacked, path):
                if name in files:
                    raise UserError(f"{path}: {name} is in it twice", _AGAIN)
                files[name] = content
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} is no archive that can be read: {error}", _AGAIN) from error
    return _record(files, str(path))


def read_archives(folder: Path) -> tuple[list[MachineRecord], list[UserError]]:
    """Return the records of all archives in a folder, and what is wrong with the others."""
    records, refused = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            records.append(read_archive(path))
        except UserError as error:
            refused.append(error)
    return records, refused


class _Limited(io.RawIOBase):
    """A stream that ends with an error after so many bytes, whatever a header inside it claims."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream, self._left = stream, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes."""
        piece = self._stream.read(min(size if size >= 0 else self._left + 1, self._left + 1))
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {MOST_UNPACKED_BYTES:,} bytes")
        return piece


def _members(unpacked: gzip.GzipFile, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the archive, by the name below its folder."""
    limited: Any = _Limited(unpacked, MOST_UNPACKED_BYTES)
    with tarfile.open(fileobj=limited, mode="r|") as tar:
        for count, member in enumerate(tar):
            if member.isdir() and member.name in (TOP, f"{TOP}/{ROWS}"):
                continue
            if count > MOST_ROWS + 8:
                raise UserError(f"{path} holds more than {MOST_ROWS} rows", _AGAIN)
            if not member.isreg() or member.issparse() or not _NAME.fullmatch(member.name):
                kind = "" if member.isreg() and not member.issparse() else " (a link, a device or no plain file)"
                raise UserError(f"{path} holds {member.name!r}{kind}, which is no part of a record", _AGAIN)
            if member.size > MOST_FILE_BYTES:
                raise UserError(f"{path}: {member.name} has {member.size:,} bytes", _AGAIN)
            stream = tar.extractfile(member)
            assert stream is not None
            yield member.name.removeprefix(f"{TOP}/"), stream.read()


def _record(files: Mapping[str, bytes], name: str) -> MachineRecord:
    """Return the record whose files are given, each checked against its schema."""
    for needed in (RECORD_FILE, DOCTOR_FILE):
        if needed not in files:
            raise UserError(f"{name} has no {needed}: it is no record", "make one with: hrm-edge record")
    about = parse_about(_json(files[RECORD_FILE], f"{name}: {RECORD_FILE}"), name)
    called = f"{name}: {DOCTOR_FILE}"
    diagnosis = parse_record(_json(files[DOCTOR_FILE], called), Diagnosis, called, _AGAIN)
    reports: dict[str, BenchReport] = {}
    for row in about.rows:
        file = f"{ROWS}/{row.name}.json"
        if row.problem is not None or file not in files:
            continue
        of_file = parse_bench(_json(files[file], f"{name}: {file}"), f"{name}: {file}")
        if len(of_file) != 1 or of_file[0].model.sha256 != row.sha256:
            raise UserError(f"{name}: {file} is not of the model that {RECORD_FILE} names", _AGAIN)
        reports[row.name] = of_file[0]
    return MachineRecord(name, about, diagnosis, reports)


def _json(content: bytes, name: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid JSON: {error}", _AGAIN) from error


def pack(folder: Path, archive: Path) -> None:
    """Write the record in ``folder`` as an archive without owners and times of this machine."""
    about = record_of(folder).about
    names = [RECORD_FILE, DOCTOR_FILE, TABLE_FILE, *(f"{ROWS}/{row.name}.json" for row in about.rows)]
    with (
        atomic_file(archive) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            if not (folder / name).is_file():
                continue
            content = read_bytes(folder / name, MOST_FILE_BYTES)
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
