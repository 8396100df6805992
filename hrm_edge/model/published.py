"""Published checkpoints: the state-dict file that a user downloads, with our names and the spec it was made with.

Names and shapes tell the sizes; the heads, cycles and steps are in ``all_config.yaml``, which the published training
writes beside the file, and without it are taken as the published models have them.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.files import os_error
from hrm_edge.model.weights import CHECKPOINT, check_tensors, load_tensors
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks import get_task, task_names
from hrm_edge.tasks.base import Task

CONFIG = "all_config.yaml"
HEAD_DIM = 64  # of every published model
_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.|model\.|inner\.)+")  # of torch.compile, DDP and the published classes
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_TOKENS, _Q_HEAD, _POSITIONS, _PUZZLES = (
    "embed_tokens.embedding_weight", "q_head.weight", "embed_pos.embedding_weight", "puzzle_emb.weights",
)  # fmt: skip
_LAYER = "{level}.layers.{index}.mlp.gate_up_proj.weight"


class PublishedInfo(BaseModel):
    """What a published file is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    spec: ModelSpec
    file: str
    step: int | None
    """Of the training, where the file is named ``step_N``."""
    assumed: str | None
    """What was taken as published because no ``all_config.yaml`` tells it."""

    def origin(self) -> dict[str, Any]:
        """What provenance says of the weights."""
        return {"published": self.file, "step": self.step, "assumed": self.assumed}


class _Arch(BaseModel):
    """The section ``arch`` of ``all_config.yaml``; keys of training are let through."""

    H_cycles: int = 2
    L_cycles: int = 2
    num_heads: int | None = None
    expansion: float | None = None
    halt_max_steps: int = 16
    pos_encodings: Literal["rope", "learned"] | None = None
    rope_theta: float = 10000.0


class _Config(BaseModel):
    arch: _Arch = _Arch()
    data_path: str = ""


def find_published(path: Path) -> Path | None:
    """The file that ``path`` is, or that a downloaded folder with ``all_config.yaml`` holds: ``checkpoint``, else the
    latest ``step_N``; None where ``path`` is neither. ``UserError`` for such a folder without the file."""
    if path.is_file():
        return path
    if not (path / CONFIG).is_file():
        return None
    if (path / "checkpoint").is_file():
        return path / "checkpoint"
    steps = [(step, file) for file in path.glob("step_*") if (step := _step_of(file)) is not None]
    if not steps:
        raise UserError(f"{path} has {CONFIG} and no checkpoint", "put the file beside it as 'checkpoint' or 'step_N'")
    return max(steps)[1]


def _step_of(file: Path) -> int | None:
    match = re.fullmatch(r"step_(\d+)", file.stem)
    return int(match[1]) if match else None


def read_published(path: Path, task: str | None = None) -> tuple[PublishedInfo, dict[str, Tensor]]:
    """What the file is, and its tensors in float32 under our names, exactly those that the spec has.

    ``task``: its name, where the file cannot tell. Raises ``UserError`` for a file that is torn, holds pickled objects
    or is no HRM, and for a task that it cannot be of.
    """
    if (path.parent / CHECKPOINT).is_file():
        raise UserError(f"{path} is one file of a checkpoint", f"name the folder: {path.parent}")
    tensors = {_PREFIX.sub("", name): tensor.float() for name, tensor in read_state_dict(path).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    required = [_TOKENS, _Q_HEAD, *(_LAYER.format(level=level, index=0) for level in ("H_level", "L_level"))]
    for name in required:
        if len(shapes.get(name, ())) != 2:
            raise UserError(
                f"{path} is no published HRM: it has no matrix '{name}'",
                f"give a state dict with the published names, such as model.inner.{name}",
            )
    config_file = path.parent / CONFIG
    config = _read_config(config_file) if config_file.is_file() else None
    spec, name = _spec(path, shapes, config, task)
    check_tensors(spec, tensors, path, f"the file is damaged, or not what its {CONFIG} says")
    assumed = f"{spec.heads} heads, cycles {spec.h_cycles} x {spec.l_cycles}, {spec.max_steps} steps"
    info = PublishedInfo(task=name, spec=spec, file=path.name, step=_step_of(path), assumed=None if config else assumed)
    return info, tensors


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of one that ``torch.save`` wrote; nothing else is unpickled."""
    if path.suffix == ".safetensors":
        return load_tensors(path)
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
    for key in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise UserError(f"{path} is no model: it holds no state dict", "write torch.save(model.state_dict(), FILE)")
    _check_bytes(path, tree)
    return {str(name): tensor for name, tensor in tree.items()}


def _check_bytes(path: Path, tensors: dict[str, Tensor]) -> None:
    """``UserError`` where the tensors are not in the file: sparse, expanded from a few numbers, or compressed.

    Converting them would take as much memory as their shapes say, which a file of any size may claim.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise UserError(f"{path}: '{name}' is no plain tensor", "write torch.save(model.state_dict(), FILE)")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > path.stat().st_size:
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


def _read_config(path: Path) -> _Config:
    again = "take the one that was published with the checkpoint, or remove it to take the published sizes"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _Config.model_validate(value)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML", again) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", again) from error
    except OSError as error:
        raise os_error(error, path) from error


def _spec(
    path: Path, shapes: dict[str, tuple[int, ...]], config: _Config | None, task_name: str | None
) -> tuple[ModelSpec, str]:
    """The model of these shapes and the name of its task."""
    arch = config.arch if config else _Arch()
    vocab, hidden = shapes[_TOKENS]
    puzzles, puzzle_dim = shapes.get(_PUZZLES, (1, 0))
    inner = shapes[_LAYER.format(level="H_level", index=0)][0] // 2
    if arch.num_heads is None and hidden % HEAD_DIM:
        raise UserError(
            f"{path}: how many heads a model of {hidden} has cannot be told from its tensors",
            f"put the {CONFIG} beside it that was published with it",
        )
    learned = shapes.get(_POSITIONS)
    seq_len = learned[0] - -(-puzzle_dim // hidden) if learned else None
    task = _task(path, vocab, seq_len, config.data_path if config else "", task_name)
    try:
        spec = variant_spec(
            "full", vocab=vocab, seq_len=task.seq_len, hidden=hidden, heads=arch.num_heads or hidden // HEAD_DIM,
            h_layers=_count(shapes, "H_level"), l_layers=_count(shapes, "L_level"), h_cycles=arch.H_cycles,
            l_cycles=arch.L_cycles, expansion=arch.expansion or 1.5 * inner / hidden, grid=task.grid,
            positions=arch.pos_encodings or ("learned" if learned else "rope"), q_outputs=shapes[_Q_HEAD][0],
            puzzle_dim=puzzle_dim, puzzles=puzzles, max_steps=arch.halt_max_steps, rope_theta=arch.rope_theta,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "sizes"
        raise UserError(f"{path}: {where}: {first['msg']}", f"check the file and its {CONFIG}") from error
    return spec, task.name


def _count(shapes: dict[str, tuple[int, ...]], level: str) -> int:
    """Layers of a level, a gap left by a missing one counted."""
    numbers = [re.match(rf"{level}\.layers\.(\d{{1,9}})\.", name) for name in shapes]
    return 1 + max(int(match[1]) for match in numbers if match)


def _task(path: Path, vocab: int, seq_len: int | None, data_path: str, name: str | None) -> Task:
    """The task that was named, else the only one of the vocabulary, length and training data's name."""

    def fits(task: Task) -> bool:
        return task.vocab == vocab and seq_len in (None, task.seq_len)

    cells = "" if seq_len is None else f" and {seq_len} cells"
    if name is not None:
        task = get_task(name)
        if not fits(task):
            raise UserError(
                f"--task {name} has {task.vocab} tokens and {task.seq_len} cells, {path} is for {vocab} tokens{cells}",
                "name the task that it was trained on",
            )
        return task
    found = [task for task in map(get_task, task_names()) if fits(task)]
    trained_on = Path(data_path).name.lower()
    found = [task for task in found if task.name in trained_on] or found
    if len(found) != 1:
        which = " or of ".join(task.name for task in found) or "no task known by name"
        raise UserError(
            f"{path} is for {vocab} tokens{cells}, which may be of {which}",
            f"say which with --task {found[0].name if found else 'NAME'}",
        )
    return found[0]
