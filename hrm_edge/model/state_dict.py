"""Tensors of a state-dict file of somebody else: nothing of it runs, and it takes no more memory than its bytes."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.files import check_input, os_error
from hrm_edge.model.weights import load_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MOST_WRAPPED = 8  # dictionaries around the tensors
_AVERAGES = ("ema", "ema_state_dict", "ema_model", "shadow")  # keys of averaged weights beside the trained ones


_MOST_TIES = 8  # names that the weights of a file may have on average


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or of a ``torch.save`` file; nothing else is unpickled."""
    trained, averages = read_parts(path)
    return trained or averages


def read_parts(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a file's trained tensors, and the averages (EMA) that it holds in a dictionary of their own."""
    if path.suffix == ".safetensors":
        return load_tensors(path), {}
    check_input(path)
    if zipfile.is_zipfile(path):
        _check_sums(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch did not write itself
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if (match := re.search(r"GLOBAL ([\w.]+\w)", str(error))) is None:
            raise _not_a_state_dict(path) from error
        raise UserError(
            f"{path} holds pickled objects ({match[1]}), which can run code when they are loaded",
            "where you trust it, write its tensors alone: torch.save(model.state_dict(), FILE)",
        ) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise os_error(error, path) from error
        raise _not_a_state_dict(path) from error
    except Exception as error:  # a torn file raises whatever its bytes lead to
        raise _not_a_state_dict(path) from error
    averages = _inside(tree, _AVERAGES)
    trained = _inside(tree, _WRAPPERS) or ({} if averages else tree)
    parts = [part for part in (trained, averages) if part]
    if not parts or not all(isinstance(value, Tensor) for part in parts for value in _values(part)):
        raise UserError(f"{path} is no model: it holds no state dict", "write torch.save(model.state_dict(), FILE)")
    for part in parts:
        _check_bytes(path, part)
    return {str(name): tensor for name, tensor in trained.items()}, dict(averages)


def _inside(tree: Any, keys: Collection[str]) -> dict[str, Any]:
    """Return the innermost dictionary that ``tree`` has under ``keys``; empty where it has none.

    Training programs wrap a state dict twice at most; a file that never stops, or holds itself, is no model.
    """
    inner: dict[str, Any] = {}
    for _ in range(_MOST_WRAPPED):
        part = next((tree[key] for key in keys if isinstance(tree, dict) and isinstance(tree.get(key), dict)), None)
        if part is None:
            break
        tree = inner = part
        keys = (*keys, *_WRAPPERS)
    return inner


def _values(part: Any) -> Collection[Any]:
    """Return the values of a dictionary; for anything else the thing itself, which is no tensor of a state dict."""
    return part.values() if isinstance(part, dict) else [None]


def _check_bytes(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise ``UserError`` where tensors are not stored whole: sparse, expanded from few numbers, or compressed.

    Converting them would take as much memory as their shapes say, which a file of any size may claim.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise UserError(f"{path}: '{name}' is no plain tensor", "write torch.save(model.state_dict(), FILE)")
    # tied weights are in the file once, under several names
    held = {
        (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()): tensor.numel() * tensor.element_size()
        for tensor in tensors.values()
    }
    claimed, size = sum(held.values()), path.stat().st_size
    every = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > size or every > _MOST_TIES * size:
        claimed = max(claimed, every)
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes, its tensors {claimed:,}",
            "do not use it: it was made to fill memory",
        )


def _check_sums(path: Path) -> None:
    """Compare every part of an archive with its CRC-32, which torch writes but does not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:  # a small file may then hold any amount
                    raise UserError(
                        f"{path} is compressed, which torch.save does not do", "take the file as torch wrote it"
                    )
                with archive.open(entry) as part:
                    if entry.CRC:  # 0: written under torch.serialization.set_crc32_options(False)
                        while part.read(1 << 20):
                            pass
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{path} is damaged: {error}", "download it again; its bytes are not those that were written"
        ) from error
    except OSError as error:
        raise os_error(error, path) from error


def _not_a_state_dict(path: Path) -> UserError:
    return UserError(
        f"{path} is no model: it is a file that is no whole state dict",
        "download it again, or give a file that torch.save or safetensors wrote",
    )
