"""Published checkpoints of HRM and TRM: the state-dict file that a user downloads, and the spec it was made with.

Names and shapes tell the sizes; the heads, cycles and steps are in ``all_config.yaml``, which the published training
writes beside the file, and without it are taken as the published models have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_validator
from torch import Tensor

from hrm_edge.checkpoint import CHECKPOINT
from hrm_edge.errors import UserError
from hrm_edge.files import read_yaml
from hrm_edge.model.state_dict import read_parts, read_state_dict
from hrm_edge.model.weights import check_tensors, family
from hrm_edge.records import Record, invalid, parse_record
from hrm_edge.spec import ModelSpec, variant_spec
from hrm_edge.tasks import get_task, task_names
from hrm_edge.tasks.base import Task

CONFIG = "all_config.yaml"
_HEAD_DIM = 64  # of every published model
_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.|model\.|inner\.)+")  # of torch.compile, DDP and the published classes
_TOKENS, _Q_HEAD, _POSITIONS, _PUZZLES = (
    "embed_tokens.embedding_weight",
    "q_head.weight",
    "embed_pos.embedding_weight",
    "puzzle_emb.weights",
)
_GATE_UP, _MIXER = "L_level.layers.0.mlp.gate_up_proj.weight", "L_level.layers.0.mlp_t.down_proj.weight"
_BUFFERS = ("H_init", "L_init", _PUZZLES)  # what an average of the parameters alone does not have
_TRM_PUZZLE_LEN = 16


class PublishedInfo(Record):
    """Description of a published file."""

    task: str
    spec: ModelSpec
    file: str
    step: int | None
    """Training step, where the file is named ``step_N``."""
    assumed: str | None
    """Settings assumed to be the published ones, since no ``all_config.yaml`` states them."""
    weights: str | None = None
    """Weights in use, where the file or the config says that they are averages (EMA)."""

    def origin(self) -> dict[str, Any]:
        """Return what provenance records about the weights."""
        averaged = {"weights": self.weights} if self.weights else {}
        return {"published": self.file, "step": self.step, "assumed": self.assumed, **averaged}


class _Arch(BaseModel):
    """The section ``arch`` of ``all_config.yaml``; keys of training are let through."""

    name: str = ""
    H_cycles: int | None = None
    L_cycles: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    expansion: float | None = None
    halt_max_steps: int | None = None
    pos_encodings: Literal["rope", "learned", "none"] | None = None
    rope_theta: float = 10000.0
    # TRM's
    mlp_t: bool | None = None
    puzzle_emb_len: int | None = None
    no_ACT_continue: bool = True


class _Config(BaseModel):
    arch: _Arch = _Arch()
    data_path: str = ""
    data_paths: list[str] = []
    """TRM's name of it."""
    ema: bool = False

    @field_validator("arch", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value  # arch: trm, as on the command line


def find_published(path: Path) -> Path | None:
    """Return the file that ``path`` is, or that a folder with ``all_config.yaml`` holds: ``checkpoint``, else the
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
    """Read a file: what it is, and its tensors in float32 under our names, exactly those that the spec has.

    ``task``: its name, where the file cannot tell. Raises ``UserError`` for a file that is torn, holds pickled objects
    or is no HRM, and for a task that it cannot be of.
    """
    if (path.parent / CHECKPOINT).is_file():
        raise UserError(f"{path} is one file of a checkpoint", f"name the folder: {path.parent}")
    tensors, weights = _read_tensors(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in (_TOKENS, _Q_HEAD, _GATE_UP, *(name for name in (_POSITIONS, _PUZZLES) if name in shapes)):
        if len(shapes.get(name, ())) != 2 or 0 in shapes[name]:
            raise UserError(
                f"{path} is no published HRM or TRM: it has no matrix '{name}'",
                f"give a state dict with the published names, such as model.inner.{name}",
            )
    config_file = path.parent / CONFIG
    config = _read_config(config_file) if config_file.is_file() else _Config()
    _check_family(path, shapes, config.arch)
    spec, name = _spec(path, shapes, config, task)
    check_tensors(spec, tensors, path, f"the file is damaged, or not what its {CONFIG} says")
    if config.ema and weights is None:
        weights = f"averaged ones: {CONFIG} says ema, with which the published training saves the averages"
    assumed = _assumed(spec, config.arch, _MIXER in shapes)
    info = PublishedInfo(
        task=name, spec=spec, file=path.name, step=_step_of(path), assumed=assumed or None, weights=weights
    )
    return info, tensors


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read tensors under our names in float32, and which weights they are where the file has averages (EMA).

    A file of averages alone has no buffers: they are those of the checkpoint beside it.
    """
    trained, averages = (_renamed(part) for part in read_parts(path))
    if averages and trained:
        return {**trained, **averages}, "averaged ones (EMA), which the file has beside the trained ones"
    weights = averages or trained
    if _TOKENS not in weights or any(name in weights for name in _BUFFERS):
        return weights, None
    step = re.search(r"\d+", path.name)
    beside = [path.with_name(name) for name in ([f"step_{step[0]}"] if step else []) + ["checkpoint"]]
    other = next((file for file in beside if file.is_file() and file != path), None)
    if other is None:
        raise UserError(
            f"{path} has no tensor 'H_init' nor any other buffer: it holds averaged parameters (EMA) alone",
            f"put the checkpoint of the same training step beside it, as {beside[0].name}",
        )
    buffers = {name: tensor for name, tensor in _renamed(read_state_dict(other)).items() if name in _BUFFERS}
    return {**weights, **buffers}, f"averaged ones (EMA); initial states and puzzle table are those of {other.name}"


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_PREFIX.sub("", name): tensor.float() for name, tensor in tensors.items()}


def _check_family(path: Path, shapes: dict[str, tuple[int, ...]], arch: _Arch) -> None:
    """Raise ``UserError`` where the config is of another kind of model than the tensors."""
    hint = f"take the {CONFIG} that was published with the file"
    module = arch.name.split("@")[0].split(".")[-1].lower()
    stated = "TRM" if module == "trm" else "HRM" if module.startswith("hrm") else None
    two_stacks = any(name.startswith("H_level.") for name in shapes)
    if stated is None and module.startswith(("trm_", "transformers_baseline")):
        raise UserError(f"{path}: {CONFIG} says arch {module}, which is neither HRM nor TRM", "give one of these")
    if stated is not None and (stated == "HRM") != two_stacks:
        raise UserError(f"{path} is {family(shapes)}, its {CONFIG} says that it is of {stated} (arch {module})", hint)
    for key, says, has in (
        ("hidden_size", arch.hidden_size, shapes[_TOKENS][1]),
        ("mlp_t", arch.mlp_t, _MIXER in shapes),
    ):
        if says is not None and says != has:
            raise UserError(f"{path} is {family(shapes)}, its {CONFIG} says {key}: {says}", hint)


def _assumed(spec: ModelSpec, arch: _Arch, mixes_by_mlp: bool) -> str:
    """Return what neither the tensors nor the config say and had to be assumed."""
    parts = []
    if arch.num_heads is None and not mixes_by_mlp:
        parts.append(f"{spec.heads} heads")
    if arch.H_cycles is None or arch.L_cycles is None:
        parts.append(f"cycles {spec.h_cycles} x {spec.l_cycles}")
    if arch.halt_max_steps is None:
        parts.append(f"{spec.max_steps} steps")
    if spec.puzzle_len and arch.puzzle_emb_len is None and not mixes_by_mlp:
        parts.append(f"{spec.puzzle_len} leading positions")
    return ", ".join(parts)


def _read_config(path: Path) -> _Config:
    again = "take the one that was published with the checkpoint, or remove it to take the published sizes"
    return parse_record(read_yaml(path, again), _Config, path, again)


def _spec(
    path: Path, shapes: dict[str, tuple[int, ...]], config: _Config, task_name: str | None
) -> tuple[ModelSpec, str]:
    """Return the model of these shapes and the name of its task."""
    arch = config.arch
    vocab, hidden = shapes[_TOKENS]
    puzzles, puzzle_dim = shapes.get(_PUZZLES, (1, 0))
    if arch.num_heads is None and hidden % _HEAD_DIM and _MIXER not in shapes:
        raise UserError(
            f"{path}: how many heads a model of {hidden} has cannot be told from its tensors",
            f"put the {CONFIG} beside it that was published with it",
        )
    layers = _count(shapes, "H_level"), _count(shapes, "L_level")
    positions = (shapes.get(_MIXER) or shapes.get(_POSITIONS) or (None,))[0]
    leading = _leading_positions(arch, -(-puzzle_dim // hidden), is_trm=not layers[0])
    if task_name and positions and len(leading) > 1:  # the task tells
        leading.append(max(positions - get_task(task_name).seq_len, leading[-1]))
    lengths = None if positions is None else {positions - count: count for count in leading}
    trained_on = config.data_path or next(iter(config.data_paths), "")
    task = _task(path, vocab, lengths, trained_on, task_name)
    puzzle_len = leading[0] if lengths is None else lengths[task.seq_len]
    sizes = {
        "hidden": hidden, "heads": arch.num_heads or max(1, hidden // _HEAD_DIM), "h_layers": layers[0],
        "l_layers": layers[1], "expansion": arch.expansion or _expansion(shapes[_GATE_UP][0] // 2, hidden),
        "puzzle_dim": puzzle_dim, "puzzles": puzzles, "max_steps": _stated(arch.halt_max_steps, 16), "grid": task.grid,
        "positions": arch.pos_encodings or ("learned" if _POSITIONS in shapes else "rope"),
        "rope_theta": arch.rope_theta,
    }  # fmt: skip
    if not layers[0]:
        used = 1 if arch.no_ACT_continue else 2
        sizes |= {"puzzle_len": puzzle_len, "q_outputs": used, "q_unused": shapes[_Q_HEAD][0] - used}
        cycles = 3, 6 if task.family == "sudoku" else 4
    else:
        sizes |= {"q_outputs": shapes[_Q_HEAD][0]}
        cycles = 2, 2
    if _MIXER in shapes:  # rotary positions are attention's: the published code sets them up and reads none
        sizes |= {"mixing": "mlp", "positions": "none" if sizes["positions"] == "rope" else sizes["positions"]}
    sizes |= {"h_cycles": _stated(arch.H_cycles, cycles[0]), "l_cycles": _stated(arch.L_cycles, cycles[1])}
    variant = "full" if layers[0] else "trm-mixer" if _MIXER in shapes else "trm"
    try:
        spec = variant_spec(variant, vocab=vocab, seq_len=task.seq_len, **sizes)
    except ValidationError as error:
        raise invalid(error, path, f"check the file and its {CONFIG}") from error
    return spec, task.name


def _stated(value: int | None, published: int) -> int:
    return published if value is None else value


def _expansion(inner: int, hidden: int) -> float:
    """Return the published 4 where it gives ``inner``; an MLP over positions has its size from it too."""
    spec = ModelSpec.model_construct(variant="full", vocab=2, seq_len=1, hidden=hidden, heads=1, h_layers=1, l_layers=1)
    return spec.expansion if spec.inner == inner else 1.5 * inner / hidden


def _leading_positions(arch: _Arch, filled: int, *, is_trm: bool) -> list[int]:
    """Return how many positions the puzzle vector may take, which fills ``filled``; the published number first."""
    if not is_trm or not filled:
        return [filled]
    if arch.puzzle_emb_len is not None:
        return [arch.puzzle_emb_len or filled]
    return list(dict.fromkeys((_TRM_PUZZLE_LEN, filled)))


def _count(shapes: dict[str, tuple[int, ...]], level: str) -> int:
    """Count the layers of a level, a missing one between others included; 0: the model has no such level."""
    numbers = [re.match(rf"{level}\.layers\.(\d{{1,9}})\.", name) for name in shapes]
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def _task(path: Path, vocab: int, lengths: dict[int, int] | None, data_path: str, name: str | None) -> Task:
    """Return the task that was named, else the only one with this vocabulary, length and name of training data.

    ``lengths``: how many cells it may have, and the leading positions that each leaves to the puzzle's vector.
    """

    def fits(task: Task) -> bool:
        return task.vocab == vocab and (lengths is None or task.seq_len in lengths)

    cells = ""
    if lengths is not None:
        cells = f" and {' or '.join(map(str, sorted(lengths)))} cells"
        if any(lengths.values()):
            leading = " or ".join(str(lengths[length]) for length in sorted(lengths))
            total = next(length + count for length, count in lengths.items())
            cells += f" (of its {total} positions {leading} hold the puzzle's vector)"
    if name is not None:
        task = get_task(name)
        if not fits(task):
            raise UserError(
                f"--task {name} has {task.vocab} tokens and {task.seq_len} cells, {path} is for {vocab} tokens{cells}",
                "name the task that it was trained on",
            )
        return task
    fitting = [task for task in map(get_task, task_names()) if fits(task)]
    trained_on = Path(data_path).name.lower()
    fitting = [task for task in fitting if task.name in trained_on] or fitting
    if len(fitting) != 1:
        which = " or of ".join(task.name for task in fitting) or "no task known by name"
        raise UserError(
            f"{path} is for {vocab} tokens{cells}, which may be of {which}",
            f"say which with --task {fitting[0].name if fitting else 'NAME'}",
        )
    return fitting[0]
