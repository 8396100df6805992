"""Engines that this machine has built, by everything they depend on. Building takes minutes; copying does not."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder, os_error, user_cache, write_json
from hrm_edge.runtime.trt.identity import PLAN_FILE, SIDECAR_FILE, Engine, Identity, read_engine


def cache_folder() -> Path:
    """``engines`` in the user's cache."""
    return user_cache() / "engines"


def find(identity: Identity) -> tuple[Path, Engine] | None:
    """(folder, sidecar) of the cached engine with this identity; one that is torn is removed and counts as none."""
    folder = cache_folder() / identity.key()
    if not (folder / PLAN_FILE).is_file():
        return None
    try:
        engine = read_engine(folder)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return (folder, engine) if engine.identity == identity else None


def keep(folder: Path, engine: Engine) -> None:
    """Put the engine of ``folder`` into the cache."""
    place = cache_folder() / engine.identity.key()
    if place.exists():
        return
    with atomic_folder(place) as temporary:
        place_engine(folder / PLAN_FILE, engine, temporary)


def place_engine(plan: Path, engine: Engine, folder: Path) -> None:
    """A plan and its sidecar, written last, into ``folder``; a hard link where the file system has them."""
    try:
        os.link(plan, folder / PLAN_FILE)
    except OSError:
        try:
            shutil.copyfile(plan, folder / PLAN_FILE)
        except OSError as error:
            raise os_error(error, folder / PLAN_FILE) from error
    write_json(folder / SIDECAR_FILE, engine.model_dump(mode="json"))


def timing_cache(identity: Identity) -> Path | None:
    """Where measured kernels of this TensorRT and GPU are kept; None for engines that are built without a GPU."""
    if identity.device is None:
        return None
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{identity.runtime}-{identity.tensorrt}-{identity.device}")
    return cache_folder() / f"{name}.timing"
