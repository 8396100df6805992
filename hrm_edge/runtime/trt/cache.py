"""Engines that this machine has built, by everything they depend on. Building takes minutes; copying does not."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder, os_error, writable_cache
from hrm_edge.runtime.trt.identity import (
    MODULE_FILE,
    PLAN_FILE,
    SIDECAR_FILE,
    Engine,
    Identity,
    read_engine,
    verify_module,
)


def _cache_folder() -> Path:
    """Return ``engines`` in the user's cache."""
    return writable_cache("engines")


def find(identity: Identity, *, module: bool = False) -> tuple[Path, Engine] | None:
    """Return (folder, sidecar) of the cached engine with this identity; a torn one is removed and counts as none.

    ``module``: one that was saved as a torch module too; otherwise the sidecar speaks of none.
    """
    folder = _cache_folder() / identity.key()
    if not (folder / PLAN_FILE).is_file():
        return None
    try:
        engine = read_engine(folder)
        if module and engine.module is not None:
            verify_module(folder, engine)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    if engine.identity != identity or (module and engine.module is None):
        return None
    return folder, engine if module else engine.model_copy(update={"module": None})


def keep(folder: Path, engine: Engine) -> None:
    """Put the engine of ``folder`` into the cache; one with a torch module takes the place of one without."""
    place = _cache_folder() / engine.identity.key()
    if place.exists():
        if engine.module is None:
            return
        shutil.rmtree(place, ignore_errors=True)
    with atomic_folder(place) as temporary:
        place_engine(folder, engine, temporary)


def place_engine(source: Path, engine: Engine, folder: Path) -> None:
    """Put the engine's files of ``source``, linked where they can be, and last its sidecar into ``folder``."""
    for name in (PLAN_FILE, MODULE_FILE) if engine.module else (PLAN_FILE,):
        try:
            os.link(source / name, folder / name)
        except OSError:
            try:
                shutil.copyfile(source / name, folder / name)
            except OSError as error:
                raise os_error(error, folder / name) from error
    engine.write(folder / SIDECAR_FILE)


def timing_cache(identity: Identity) -> Path | None:
    """Return where measured kernels of this TensorRT and GPU are kept; None for engines built without a GPU."""
    if identity.device is None:
        return None
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{identity.runtime}-{identity.tensorrt}-{identity.device}")
    return _cache_folder() / f"{name}.timing"
