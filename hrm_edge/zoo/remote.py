"""Models that are too large to ship: found in a location's index, copied, and verified by their hashes.

A location is a shelf (see ``hrm_edge.zoo``) with an ``index.json`` that has the models' names and their manifests'
hashes; a manifest has the hashes of all other files. Locations: a folder, ``https://…``, or ``hf:OWNER/REPO``.
"""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from hrm_edge import zoo
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import os_error, read_json, sha256
from hrm_edge.manifest import MANIFEST, Sha256, parse_manifest, read_manifest
from hrm_edge.records import Record, parse_record

INDEX = "index.json"
HUB = "hf:"
_TIMEOUT_S = 30.0
_PIECE = 1 << 20
_RECORD_BYTES = 4 << 20  # limit of an index, a manifest or a card, which are read as a whole
LEFTOVER_S = 3600.0
_HINT = "a location is a folder, an https:// address or hf:OWNER/REPO; 'hrm-edge models --index FOLDER' makes one"

OnProgress = Callable[[str, int], None]
"""Callback that gets (file, bytes so far)."""


def _silent(file: str, done: int) -> None:
    """Report nothing."""


def _name(name: str) -> str:
    if not zoo.is_name(name):
        raise ValueError(f"{name!r} is no name of a model")
    return name


class _Entry(Record):
    """Model in an index."""

    manifest_sha256: Sha256
    bytes: int = Field(ge=0, description="of all files that the manifest lists")
    about: str


class _Index(Record):
    """Content of a location's ``index.json``."""

    models: dict[Annotated[str, AfterValidator(_name)], _Entry]


def write_index(shelf: Path) -> _Index:
    """Make a folder of artifacts and cards a location: verify every model, then write ``index.json``."""
    folders = sorted(path.parent for path in shelf.glob(f"*/{MANIFEST}"))
    if not folders:
        raise UserError(f"{shelf} holds no artifact folder", f"put NAME/ and NAME{zoo.CARD} there first")
    models = {}
    for folder in folders:
        if not zoo.is_name(folder.name):
            raise UserError(f"{folder}: '{folder.name}' is no name of a model", "use letters, digits, '.', '-' and '_'")
        manifest, card = read_manifest(folder), zoo.read_card(zoo.card_of(folder))
        models[folder.name] = _Entry(
            manifest_sha256=sha256(folder / MANIFEST),
            bytes=manifest.size_bytes,
            about=f"{card.task}, {card.variant}, {card.precision}, {card.parameters:,} parameters",
        )
    index = _Index(models=models)
    index.write(shelf / INDEX)
    return index


def read_index(location: str) -> _Index:
    """Return the index of a location. Raises ``UserError`` where it has none or cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / INDEX
        _copy(location, INDEX, file, _RECORD_BYTES, _silent)
        return parse_record(read_json(file), _Index, f"{location}/{INDEX} is no index of models", _HINT)


def pull(name: str, location: str, on_progress: OnProgress = _silent) -> Path:
    """Copy a model to the user's shelf and return its artifact folder.

    A copy that fails or is killed changes nothing: an older model of that name stays until the new one is complete.
    Raises ``UserError`` for an unknown name, an unreachable location, more bytes than the index announces, or any file
    whose hash differs from the index's.
    """
    index = read_index(location)
    if name not in index.models:
        raise UserError(f"{location} has no model '{name}'", nearest(name, index.models))
    if (zoo.ZOO / name).is_dir():
        raise UserError(f"'{name}' ships with the package", "use it by its name; a pulled one would never be taken")
    entry, target = index.models[name], zoo.pulled() / name
    if _is_whole(target, entry):
        return target
    try:
        zoo.pulled().mkdir(parents=True, exist_ok=True)
        _remove_leftovers(name)
        _check_space(entry, name)
        # On the shelf's own disk the last step is a rename; no model's name starts with a dot.
        with tempfile.TemporaryDirectory(dir=zoo.pulled(), prefix=f".{name}.", suffix=".tmp") as scratch:
            fresh = Path(scratch) / name
            fresh.mkdir()
            _fetch(fresh, entry, location, on_progress)
            _place(fresh, target)
    except OSError as error:
        raise os_error(error, target) from error
    return target


def _fetch(folder: Path, entry: _Entry, location: str, on_progress: OnProgress) -> None:
    """Copy a model's files to ``folder`` and its card to the folder's parent, and verify them."""
    name = folder.name
    _copy(location, f"{name}/{MANIFEST}", folder / MANIFEST, _RECORD_BYTES, on_progress)
    digest = sha256(folder / MANIFEST)
    if digest != entry.manifest_sha256:
        raise UserError(
            f"{location}/{name}/{MANIFEST}: sha256 is {digest[:16]}…, {INDEX} says {entry.manifest_sha256[:16]}…",
            "the location is half updated or damaged: try again later, or tell who keeps it",
        )
    files = parse_manifest(folder).files
    total = sum(file.bytes for file in files.values())
    if total != entry.bytes:
        raise UserError(
            f"{location}/{name}: {INDEX} announces {entry.bytes:,} bytes, the manifest {total:,}",
            "use another location",
        )
    for file, about in files.items():
        _copy(location, f"{name}/{file}", folder / file, about.bytes, on_progress)
    read_manifest(folder)
    _copy(location, f"{name}{zoo.CARD}", zoo.card_of(folder), _RECORD_BYTES, on_progress)
    zoo.read_card(zoo.card_of(folder))


def _place(fresh: Path, target: Path) -> None:
    """Replace an older model by a complete one and its card; the older one is removed last."""
    os.replace(zoo.card_of(fresh), zoo.card_of(target))
    old = fresh.with_name("old")
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        os.replace(target, old)
    try:
        os.replace(fresh, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise


def _is_whole(folder: Path, entry: _Entry) -> bool:
    """Return whether the model is already there, complete and unchanged."""
    if not (folder / MANIFEST).is_file() or not zoo.card_of(folder).is_file():
        return False
    try:
        return sha256(folder / MANIFEST) == entry.manifest_sha256 and bool(read_manifest(folder))
    # It was damaged after the pull.
    except UserError:
        return False


def _remove_leftovers(name: str) -> None:
    """Remove the folders that killed pulls of ``name`` left; a running pull writes to its folder all the time."""
    for folder in zoo.pulled().glob(f".{name}.*.tmp"):
        newest = max((path.stat().st_mtime for path in [folder, *folder.rglob("*")]), default=0.0)
        if time.time() - newest > LEFTOVER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _check_space(entry: _Entry, name: str) -> None:
    free = shutil.disk_usage(zoo.pulled()).free
    if entry.bytes > free:
        raise UserError(
            f"'{name}' has {entry.bytes / 1e6:,.0f} MB, {zoo.pulled()} has {free / 1e6:,.0f} MB free",
            "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )


def _too_long(what: str, limit: int) -> UserError:
    return UserError(f"{what} is longer than the {limit:,} bytes that it may have", "do not use that location")


def _copy(location: str, name: str, target: Path, limit: int, on_progress: OnProgress) -> None:
    """Copy one file of a location to ``target``. Raises ``UserError`` if it has more than ``limit`` bytes."""
    if location.startswith(HUB):
        _copy_from_hub(location.removeprefix(HUB), name, target, limit)
    elif location.startswith(("http://", "https://")):
        _download(f"{location.rstrip('/')}/{name}", target, limit, on_progress)
    else:
        source = Path(location) / name
        if not source.is_file():
            raise UserError(f"{location} has no {name}", _HINT)
        if source.stat().st_size > limit:
            raise _too_long(str(source), limit)
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise os_error(error, source) from error


def _download(url: str, target: Path, limit: int, on_progress: OnProgress) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, open(target, "wb") as stream:
            length, done = answer.headers.get("Content-Length", ""), 0
            announced = int(length) if length.isdecimal() else None
            while (announced or 0) <= limit and (piece := answer.read(_PIECE)):
                done += len(piece)
                if done > limit:
                    break
                stream.write(piece)
                on_progress(url.rsplit("/", 1)[1], done)
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"{url}: the server answers {error.code} {error.reason}", _HINT) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise UserError(f"{url}: {getattr(error, 'reason', error)}", "check the address and the network") from error
    if max(done, announced or 0) > limit:
        raise _too_long(url, limit)
    if announced is not None and done != announced:
        raise UserError(f"{url}: the connection ended after {done} of {announced} bytes", "run the command again")


def _copy_from_hub(repository: str, name: str, target: Path, limit: int) -> None:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise UserError("hf: needs the package huggingface_hub", "pip install 'hrm-edge[hub]'") from error
    try:
        if (get_hf_file_metadata(hf_hub_url(repository, name)).size or 0) > limit:
            raise _too_long(f"hf:{repository}: {name}", limit)
        shutil.copyfile(hf_hub_download(repository, name), target)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"hf:{repository}: {name}: {first}", "check the repository's name and the network") from error
