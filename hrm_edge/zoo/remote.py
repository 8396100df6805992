"""Models that are too large to ship: looked up in a location's index, copied, and checked by their hashes.

A location is a shelf (see ``hrm_edge.zoo``) with an ``index.json`` that names the models and the hash of each one's
manifest; the manifest has the hashes of all other files. Locations: a folder, ``https://…``, or ``hf:OWNER/REPO``.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hrm_edge import zoo
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import atomic_file, atomic_folder, os_error, read_json, sha256, write_json
from hrm_edge.manifest import MANIFEST, read_manifest

INDEX = "index.json"
HUB = "hf:"
TIMEOUT_S = 30.0
_PIECE = 1 << 20
_MEND = "a location is a folder, an https:// address or hf:OWNER/REPO; 'hrm-edge models --index FOLDER' makes one"

Tell = Callable[[str, int], None]
"""Takes (file, bytes so far)."""


class Entry(BaseModel):
    """One model of an index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_sha256: str
    bytes: int
    about: str


class Index(BaseModel):
    """``index.json`` of a location."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Entry]


def write_index(shelf: Path) -> Index:
    """Make a folder of artifacts and cards a location: verify every model, write ``index.json``."""
    found = sorted(path.parent for path in shelf.glob(f"*/{MANIFEST}"))
    if not found:
        raise UserError(f"{shelf} holds no artifact folder", f"put NAME/ and NAME{zoo.CARD} there first")
    models = {}
    for folder in found:
        manifest, card = read_manifest(folder), zoo.read_card(folder.with_name(f"{folder.name}{zoo.CARD}"))
        models[folder.name] = Entry(
            manifest_sha256=sha256(folder / MANIFEST),
            bytes=sum(entry.bytes for entry in manifest.files.values()),
            about=f"{card.task}, {card.variant}, {card.precision}, {card.parameters:,} parameters",
        )
    index = Index(models=models)
    write_json(shelf / INDEX, index.model_dump(mode="json"))
    return index


def read_index(location: str) -> Index:
    """What a location has; ``UserError`` where it has no index or cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / INDEX
        _copy(location, INDEX, file, lambda name, done: None)
        try:
            return Index.model_validate(read_json(file))
        except ValidationError as error:
            raise UserError(f"{location}/{INDEX} is no index of models: {error.errors()[0]['msg']}", _MEND) from error


def pull(name: str, location: str, tell: Tell = lambda file, done: None) -> Path:
    """Copy a model into the user's shelf and return its artifact folder; nothing is left of a copy that fails.

    Raises ``UserError`` for an unknown name, an unreachable location, or any file whose hash is not the index's.
    """
    index = read_index(location)
    if name not in index.models:
        raise UserError(f"{location} has no model '{name}'", nearest(name, index.models))
    if (zoo.ZOO / name).is_dir():
        raise UserError(f"'{name}' ships with the package", "use it by its name; a pulled one would never be taken")
    target = zoo.pulled() / name
    if target.is_dir():
        if sha256(target / MANIFEST) == index.models[name].manifest_sha256:
            read_manifest(target)
            return target
        shutil.rmtree(target)
    with atomic_folder(target) as folder:
        _copy(location, f"{name}/{MANIFEST}", folder / MANIFEST, tell)
        found = sha256(folder / MANIFEST)
        if found != index.models[name].manifest_sha256:
            raise UserError(
                f"{location}/{name}/{MANIFEST}: sha256 is {found[:16]}…, {INDEX} says "
                f"{index.models[name].manifest_sha256[:16]}…",
                "the location is half updated or damaged: try again later, or tell who keeps it",
            )
        for file in _listed_files(folder):
            _copy(location, f"{name}/{file}", folder / file, tell)
        read_manifest(folder)
        with atomic_file(target.with_name(f"{name}{zoo.CARD}")) as card:
            _copy(location, f"{name}{zoo.CARD}", card, tell)
            zoo.read_card(card)
    return target


def _listed_files(folder: Path) -> list[str]:
    """Names in a manifest that was just copied; a name that leaves the folder is refused before anything is written."""
    names = list(read_json(folder / MANIFEST).get("files", {}))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"the manifest lists '{name}', which is no plain file name", "do not use that location")
    return names


def _copy(location: str, name: str, target: Path, tell: Tell) -> None:
    """One file of a location to ``target``."""
    if location.startswith(HUB):
        _copy_from_hub(location.removeprefix(HUB), name, target)
    elif location.startswith(("http://", "https://")):
        _download(f"{location.rstrip('/')}/{name}", target, tell)
    else:
        source = Path(location) / name
        if not source.is_file():
            raise UserError(f"{location} has no {name}", _MEND)
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise os_error(error, source) from error


def _download(url: str, target: Path, tell: Tell) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, open(target, "wb") as stream:
            announced, done = answer.headers.get("Content-Length"), 0
            while piece := answer.read(_PIECE):
                stream.write(piece)
                done += len(piece)
                tell(url.rsplit("/", 1)[1], done)
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"{url}: the server answers {error.code} {error.reason}", _MEND) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise UserError(f"{url}: {getattr(error, 'reason', error)}", "check the address and the network") from error
    if announced is not None and done != int(announced):
        raise UserError(f"{url}: the connection ended after {done} of {announced} bytes", "run the command again")


def _copy_from_hub(repository: str, name: str, target: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise UserError("hf: needs the package huggingface_hub", "pip install 'hrm-edge[hub]'") from error
    try:
        shutil.copyfile(hf_hub_download(repository, name), target)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"hf:{repository}: {name}: {first}", "check the repository's name and the network") from error
