"""Recipes: YAML and ``--set a.b=value`` make one frozen, closed configuration; an unknown key is an error."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hrm_edge.catalog import find
from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_yaml
from hrm_edge.spec import VARIANTS, ModelSpec, variant_spec

MOST = 1_000_000_000  # limit of every count: a larger one is a typing error, and may overflow an integer
# Fields of the model that the task or the variant sets, never the recipe.
_DERIVED = {"variant", "vocab", "seq_len", "grid", "puzzles"}


class Section(BaseModel):
    """Part of a recipe: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Kind = TypeVar("_Kind", bound=Section)


_Clues = Annotated[int, Field(ge=0, le=MOST)]


class Augment(Section):
    """Augmentation of a puzzle each time it is drawn."""

    symmetries: bool = False
    """Whether a random symmetry of the task's grid is applied."""
    extra_clues: tuple[_Clues, _Clues] = (0, 0)
    """Range from which the number of solution cells to add to the givens is drawn (a curriculum; Sudoku only)."""
    extra_clues_end: tuple[_Clues, _Clues] | None = None
    """Range at the last step, reached linearly; absent: the range stays the same."""


class Train(Section):
    """Optimizer, loss and schedule of a training run."""

    batch: int = Field(default=384, ge=1, le=MOST)
    steps: int = Field(default=10_000, ge=1, le=MOST, description="optimizer steps; one ACT step of every slot each")
    optimizer: Literal["adam_atan2", "adamw", "muon"] = Field(
        default="adam_atan2", description="muon: for the matrices within the blocks, adam_atan2 for the rest"
    )
    lr: float = Field(default=1e-4, gt=0)
    lr_min_ratio: float = Field(default=1.0, ge=0, le=1, description="cosine decay ends at this share of lr")
    warmup: int = Field(default=2000, ge=0, le=MOST)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=1.0, ge=0)
    grad_clip: float = Field(default=0.0, ge=0, description="0: none")
    puzzle_lr: float = Field(default=1e-4, gt=0, description="sparse SignSGD of the puzzle table")
    puzzle_weight_decay: float = Field(default=1.0, ge=0)
    loss: Literal["stablemax", "softmax"] = "stablemax"
    gradient: Literal["one_step", "last_cycle", "all_cycles"] = Field(
        default="one_step",
        description="through the last L and H update (HRM), the whole last H cycle (TRM), or all H cycles of the step, "
        "with a loss after each",
    )
    halt_exploration: float = Field(default=0.1, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1, description="decay of the weight average; 0: none")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the machine multiplies in it, else fp32; the run records which"
    )
    compile: bool = True


class Evaluate(Section):
    """Evaluation during training, on puzzles spread evenly over the test part, with the averaged weights."""

    every: int = Field(default=500, ge=1, le=MOST, description="optimizer steps")
    puzzles: int = Field(default=256, ge=1, le=MOST)
    halt: Literal["head", "rules", "fixed"] = "fixed"
    views: int = Field(
        default=1, ge=1, le=MOST, description="symmetries tried until an answer obeys the rules; not for arc"
    )
    max_steps: int | None = Field(default=None, ge=1, le=MOST, description="default: the model's max_steps")
    stop_at: float = Field(default=2.0, gt=0, description="stop once this exact accuracy is reached; above 1: never")
    patience: int = Field(
        default=0,
        ge=0,
        le=MOST,
        description="stop after so many evaluations in a row that were worse than the best; 0: never",
    )


class _Checkpoints(Section):
    """_Checkpoints of a training run."""

    every: int = Field(default=500, ge=1, le=MOST, description="optimizer steps")
    keep: int = Field(default=2, ge=1, le=MOST, description="newest ones kept, beside the best")


class Quantization(Section):
    """INT8 settings: symmetric, zero point 0, weights per output channel, activations per tensor."""

    observer: Literal["max", "percentile", "mse", "entropy"] = "mse"
    percentile: float = Field(default=99.99, gt=50, le=100)
    calibration_puzzles: int = Field(default=128, ge=1, le=MOST)
    smooth: float = Field(default=0.8, ge=0, lt=1, description="SmoothQuant strength; 0: off")
    turn: bool = Field(default=True, description="states times a Hadamard matrix (QuaRot), where the model allows it")
    aware: bool = Field(default=False, description="train with INT8 rounding (QAT): fine-tune where export misses")


class Limits(Section):
    """Limits of an export's gate; an export beyond one of them fails (exit code 1)."""

    logits_median_abs_fp32: float = 1e-4
    same_answers_fp32: float = 0.98
    sqnr_db_fp16: float = 30.0
    sqnr_db_int8: float = 20.0
    carry_cosine: float = Field(default=0.995, description="mean over the puzzles, after all steps; not for fp32")
    accuracy_drop_points: float = 0.5
    accuracy_drop_points_fp16: float = 0.1
    puzzles: int = Field(default=256, ge=1, le=MOST, description="puzzles that parity and accuracy are measured on")


class Recipe(Section):
    """Settings of a training run, its export and its quantization."""

    task: str
    variant: str
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    data: str = Field(default="", description="built data folder")
    init: str = Field(
        default="", description="whose weights it starts from: run, checkpoint, published file, float artifact"
    )
    model: dict[str, Any] = {}
    augment: Augment = Augment()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    checkpoints: _Checkpoints = _Checkpoints()
    quantization: Quantization = Quantization()
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _gradient_of_variant(cls, raw: Any) -> Any:
        """Set the default gradient of TRM, which learns through the whole last cycle."""
        if isinstance(raw, dict) and str(raw.get("variant")).startswith("trm"):
            train = raw.get("train", {})
            if isinstance(train, dict):
                return {**raw, "train": {"gradient": "last_cycle", **train}}
        return raw

    def spec(self, *, vocab: int, seq_len: int, grid: tuple[int, int, int, int] | None, puzzles: int = 1) -> ModelSpec:
        """Return the model of this recipe for a task's vocabulary, length and board."""
        try:
            return variant_spec(self.variant, vocab=vocab, seq_len=seq_len, grid=grid, puzzles=puzzles, **self.model)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["model", *map(str, first["loc"])])
            raise UserError(f"recipe key '{key}': {first['msg']}", "change it in the recipe or with --set") from error

    def hash(self) -> str:
        """Return the SHA-256 of the resolved recipe: equal exactly if all options are equal."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def dump(self) -> str:
        """Return the resolved recipe as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def changed_keys(before: dict[str, Any], now: Recipe) -> str:
    """Return the keys in which a recipe differs from one dumped ``before``, with both values; empty if there are none.

    A key missing in the older dump has its default value.
    """
    with contextlib.suppress(ValidationError):
        before = Recipe.model_validate(before).model_dump(mode="json")
    was, is_ = _flat(before), _flat(now.model_dump(mode="json"))
    keys = [key for key in sorted({*was, *is_}) if was.get(key) != is_.get(key)]
    return ", ".join(f"{key} (was {was.get(key)!r}, is {is_.get(key)!r})" for key in keys)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read ``path``, a file or the name of a shipped recipe, and apply ``key.sub=value`` overrides in order.

    Raises ``UserError`` naming the file or flag for an invalid recipe.
    """
    return check_recipe(read_keys(path, overrides))


def check_recipe(keys: Keys) -> Recipe:
    """Validate ``keys``. Raises ``UserError`` naming the file or flag with the error."""
    path = keys.path
    if keys.task == "digits":
        raise UserError(f"{path} is the recipe of the digit network, not of a reasoning model", "only 'train' takes it")
    recipe = keys.validate(Recipe)
    if recipe.variant not in VARIANTS:
        raise UserError(f"{path}: unknown variant '{recipe.variant}'", nearest(recipe.variant, VARIANTS))
    allowed = set(ModelSpec.model_fields) - _DERIVED
    for key in recipe.model:
        if key not in allowed:
            raise UserError(f"{keys.where(f'model.{key}')}: unknown recipe key 'model.{key}'", nearest(key, allowed))
    if recipe.task == "arc":
        _check_arc(recipe, keys)
    return recipe


def _check_arc(recipe: Recipe, keys: Keys) -> None:
    """Refuse symmetries during training on ARC: a row of the puzzle table stands for one symmetry of a task."""
    for key, on in (("augment.symmetries", recipe.augment.symmetries), ("evaluate.views", recipe.evaluate.views > 1)):
        if on:
            raise UserError(
                f"{keys.where(key)}: recipe key '{key}': an ARC puzzle has its symmetry from its identifier",
                "leave it out: 'hrm-edge data build arc --augment N' makes the symmetries, 'hrm-edge eval' votes",
            )


@dataclass(frozen=True)
class Keys:
    """Keys of a recipe file and its overrides, not validated yet."""

    path: Path
    raw: dict[str, Any]
    origin: dict[str, str]
    """Keys set by a flag → the flag."""

    @property
    def task(self) -> Any:
        """Value of the key 'task', which decides the meaning of others; None where it is missing."""
        return self.raw.get("task")

    def where(self, key: str) -> str:
        """Return the flag that set ``key``, else the file."""
        return self.origin.get(key, str(self.path))

    def validate(self, kind: type[_Kind]) -> _Kind:
        """Return the recipe as ``kind``. Raises ``UserError`` naming the first invalid key."""
        try:
            return kind.model_validate(self.raw)
        except ValidationError as error:
            raise _explain(error, self, kind) from error


def read_keys(path: Path | str, overrides: Sequence[str] = (), data: str | None = None) -> Keys:
    """Read ``path``, a file or the name of a shipped recipe, and apply ``key.sub=value`` overrides in order.

    ``data``: value of the key of that name, as ``--data`` gives it. Raises ``UserError``.
    """
    path = find(path)
    raw = read_yaml(path, "a recipe is a YAML file: correct the line that is named")
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds no keys", "a recipe needs at least 'task' and 'variant'")
    origin: dict[str, str] = {}
    for item in overrides:
        key, value = _parse_override(item)
        _put(raw, key, value, item)
        origin[key] = f"--set {item}"
    if data is not None:
        raw["data"], origin["data"] = data, f"--data {data}"
    return Keys(path, raw, origin)


def _parse_override(item: str) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {item}: no '=' found", "write it as --set train.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--set {item}: the value is not valid YAML", "quote it") from error
    # YAML 1.1 reads 1e-4 as text.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    return key.strip(), value


def _put(raw: dict[str, Any], key: str, value: Any, item: str) -> None:
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise UserError(f"--set {item}: '{parent}' is a value, not a section", "check the key")
    place[last] = value


def _explain(error: ValidationError, keys: Keys, kind: type[Section]) -> UserError:
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"]]
    key = ".".join(loc)
    where = keys.where(key)
    if first["type"] == "extra_forbidden":
        section: type[BaseModel] = kind
        for part in loc[:-1]:
            annotation = section.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
        return UserError(f"{where}: unknown recipe key '{key}'", nearest(loc[-1], section.model_fields))
    if first["type"] == "missing":
        return UserError(f"{where}: recipe key '{key}' is missing", "add it to the recipe")
    return UserError(f"{where}: recipe key '{key}': {first['msg']}", f"it is {first['input']!r} now")
