"""Specification of a model as data: sizes, cycles, heads, and the names and shapes of a step's inputs and outputs.

One family covers all variants; a variant is only a preset of :class:`ModelSpec`.

Axis legend, used in every docstring of the project: B batch, S cells of the puzzle, P puzzle tokens in front of the
cells, T = P + S positions, D hidden size, H heads, Dh head size, F inner size of the MLP, V vocabulary, Q halting
outputs, K tensors.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hrm_edge.errors import UserError, nearest

SINUSOIDAL_ROWS = 5000  # the reduced variant's fixed table length
_SWIGLU_MULTIPLE = 256

# Groups of each symbol of a cell: it in the row, the column and the box, and all symbols in the cell.
GROUPS = ("row", "column", "box", "cell")
# What a cell's given shows about a symbol: nothing, it is this symbol, it is another one.
KINDS = ("blank", "this", "other")
FIRST_SYMBOL = 2  # token of a board's first symbol; padding and blank come before it

# A spec may come from another person's file. A larger model is a mistake or an attack, and building it would take all
# memory before the weights are compared.
MOST_PARAMETERS = 1 << 31
_MOST_POSITIONS = 1 << 13
_MOST_WIDTH, _MOST_LAYERS, _MOST_CYCLES, _MOST_STEPS, _MOST_PUZZLES = 1 << 14, 1 << 8, 1 << 8, 1 << 14, 1 << 26

HEAD_VIEWS = ("row", "column", "box", None)  # cells that the heads of grid_heads see, in turn; None: all cells
RMS_EPS = 1e-5  # added to the mean square of every norm
INT8_MAX = 127  # values of INT8 are in [-127, 127]
LEAST_PEAK = 1e-6  # of a row that is rounded by its own peak
HIDDEN_SCORE = -1e4  # added to the scores of cells that a head does not see: exp is 0 in every float type

_TRM: dict[str, Any] = {
    "hidden": 512, "heads": 8, "h_layers": 0, "l_layers": 2, "h_cycles": 3, "l_cycles": 6, "q_outputs": 1,
    "q_unused": 1, "puzzle_dim": 512, "puzzle_len": 16,
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    # HRM, arXiv 2506.21734, as published (sapientinc/HRM)
    "full": {"hidden": 512, "heads": 8, "h_layers": 4, "l_layers": 4, "puzzle_dim": 512},
    # 256 hidden, 7 layers: encoder layers with biases and LayerNorm, explicit connections between the levels
    "reduced": {
        "hidden": 256, "heads": 8, "h_layers": 4, "l_layers": 3, "norm": "layer", "mlp": "gelu", "bias": True,
        "positions": "sinusoidal", "connections": True, "halt_head": "pooled", "q_outputs": 1,
    },
    # our own, small enough for a CPU: cells have embeddings of their row, column and box
    "nano": {
        "hidden": 128, "heads": 4, "h_layers": 2, "l_layers": 2, "expansion": 2.0, "positions": "none",
        "grid_positions": True, "grid_heads": True, "q_outputs": 1,
    },
    # our own: a vector for each symbol of each cell, shared weights for all symbols; one stack of blocks, one state
    "lattice": {
        "symbol_width": 32, "heads": 1, "h_layers": 0, "l_layers": 4, "h_cycles": 4, "l_cycles": 0, "expansion": 2.0,
        "mixing": "groups", "positions": "none", "halt_head": "pooled", "q_outputs": 1,
    },
    # TRM, arXiv 2510.04871, as published for Sudoku (SamsungSAILMontreal/TinyRecursiveModels); mazes, ARC: l_cycles 4
    "trm": _TRM,
    "trm-mixer": {**_TRM, "mixing": "mlp", "positions": "none"},
}  # fmt: skip


_Cells = Annotated[int, Field(ge=1, le=4096)]


class ModelSpec(BaseModel):
    """All that defines the function of a model, apart from its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variant: str
    vocab: int = Field(ge=2, le=256)
    seq_len: int = Field(ge=1, le=4096)
    hidden: int = Field(ge=8, le=_MOST_WIDTH, multiple_of=2)
    heads: int = Field(ge=1, le=_MOST_WIDTH)
    h_layers: int = Field(ge=0, le=_MOST_LAYERS)
    """Blocks of the H level; 0: the L level's blocks serve both levels (TRM)."""
    l_layers: int = Field(ge=1, le=_MOST_LAYERS)
    h_cycles: int = Field(default=2, ge=1, le=_MOST_CYCLES)
    l_cycles: int = Field(default=2, ge=0, le=_MOST_CYCLES)
    expansion: float = Field(default=4.0, gt=0, le=64)
    mixing: Literal["attention", "mlp", "groups"] = "attention"
    """Mixing of positions: attention; an MLP over the T positions of each channel; or sums over the groups of a board
    (row, column, box, cell) of the vectors of each symbol of each cell. ``heads`` is for attention only.
    """
    symbol_width: int = Field(default=0, ge=0, le=_MOST_WIDTH)
    """W, for mixing=groups: size of the vector of each symbol of each cell; D is W times the symbols."""
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    bias: bool = False
    positions: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
    grid_positions: bool = False
    """Whether learned row, column and box embeddings are added; needs ``grid``."""
    grid_heads: bool = False
    """Whether attention heads see, in turn, a cell's row, column, box or all cells; needs ``grid``, heads in fours."""
    grid: tuple[_Cells, _Cells, _Cells, _Cells] | None = None
    """(rows, columns, rows of a box, columns of a box) of the task's board."""
    connections: bool = False
    """Whether linear maps replace plain addition between the levels."""
    halt_head: Literal["first", "pooled"] = "first"
    """Input of the halting head: z_H's first position, or the mean over positions of [z_H, z_L]."""
    q_outputs: Literal[1, 2] = 2
    """Q: halt if the first output is above the second or, with one output, above 0."""
    q_unused: Literal[0, 1] = 0
    """Rows of q_head after the Q used ones, which are not read: TRM publishes two and uses the first."""
    puzzle_dim: int = Field(default=0, ge=0, le=1 << 22)
    """Size of a puzzle's own vector; 0: none, P = 0."""
    puzzle_len: int = Field(default=0, ge=0, le=_MOST_POSITIONS)
    """P: leading positions that hold the puzzle's vector, padded with zeros; 0: as many as the vector fills."""
    puzzles: int = Field(default=1, ge=1, le=_MOST_PUZZLES)
    """Rows of the puzzle table; row 0 is the blank puzzle."""
    max_steps: int = Field(default=16, ge=1, le=_MOST_STEPS)
    rope_theta: float = Field(default=10000.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:  # noqa: C901, PLR0912 - a rule a line
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is not divisible by heads={self.heads}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"rope needs an even head size, hidden/heads is {self.head_dim}")
        if self.puzzle_len and not 0 < self.puzzle_dim <= self.puzzle_len * self.hidden:
            raise ValueError(
                f"puzzle_len={self.puzzle_len} positions of hidden={self.hidden} hold a puzzle vector of 1 to "
                f"{self.puzzle_len * self.hidden}, puzzle_dim is {self.puzzle_dim}"
            )
        if self.mixing == "mlp":
            self._check_mixing()
        if self.mixing == "groups":
            self._check_groups()
        elif self.symbol_width:
            raise ValueError("symbol_width is for mixing=groups only")
        elif not self.l_cycles:
            raise ValueError("l_cycles=0 is for mixing=groups only")
        if self.grid_positions and self.grid is None:
            raise ValueError("grid_positions needs a task with a board (sudoku, mini-sudoku)")
        if self.grid_heads and (self.grid is None or self.heads % len(HEAD_VIEWS) or self.puzzle_dim):
            raise ValueError("grid_heads needs a task with a board, heads in fours and no puzzle vector")
        if self.grid is not None and self.grid[0] * self.grid[1] != self.seq_len:
            raise ValueError(f"grid {self.grid[0]}x{self.grid[1]} does not have seq_len={self.seq_len} cells")
        if self.positions == "sinusoidal" and self.total_len > SINUSOIDAL_ROWS:
            raise ValueError(f"sinusoidal positions end at {SINUSOIDAL_ROWS}, the sequence has {self.total_len}")
        if self.total_len > _MOST_POSITIONS:
            raise ValueError(
                f"puzzle_dim={self.puzzle_dim} gives {self.total_len} positions, {_MOST_POSITIONS} at most"
            )
        count = sum(map(math.prod, [*parameter_shapes(self).values(), *buffer_shapes(self).values()]))
        if count > MOST_PARAMETERS:
            raise ValueError(f"a model of these sizes has {count:,} parameters, {MOST_PARAMETERS:,} are the limit")
        return self

    def _check_mixing(self) -> None:
        if self.positions == "rope" or self.grid_heads:
            raise ValueError("mixing=mlp has no attention: positions=rope and grid_heads need mixing=attention")
        if self.norm != "rms" or self.mlp != "swiglu" or self.bias:
            raise ValueError("mixing=mlp is known with norm=rms, mlp=swiglu and bias=false only")

    def _check_groups(self) -> None:
        rows, columns = (0, 0) if self.grid is None else self.grid[:2]
        if not rows == columns == self.symbols:
            raise ValueError("mixing=groups needs a Sudoku: as many symbols as its board has rows and columns")
        if self.hidden != self.symbols * self.symbol_width:
            raise ValueError(
                f"hidden={self.hidden} is not symbol_width={self.symbol_width} times {self.symbols} symbols"
            )
        fixed = {
            "h_layers": 0, "l_cycles": 0, "norm": "rms", "mlp": "swiglu", "bias": False, "positions": "none",
            "grid_positions": False, "grid_heads": False, "connections": False, "halt_head": "pooled", "q_outputs": 1,
            "q_unused": 0, "puzzle_dim": 0,
        }  # fmt: skip
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"mixing=groups is known with {name}={value} only")

    @property
    def symbols(self) -> int:
        """N: number of symbols that a cell may hold, which is the vocabulary without padding and blank."""
        return self.vocab - FIRST_SYMBOL

    @property
    def head_dim(self) -> int:
        """Dh: size of a head."""
        return self.hidden // self.heads

    @property
    def puzzle_tokens(self) -> int:
        """P: number of leading positions for the puzzle's vector, padded with zeros and reshaped."""
        return self.puzzle_len or math.ceil(self.puzzle_dim / self.hidden)

    @property
    def total_len(self) -> int:
        """T = P + S."""
        return self.puzzle_tokens + self.seq_len

    @property
    def inner(self) -> int:
        """F: inner size of the MLP."""
        if self.mixing == "groups":
            return round(self.expansion * self.symbol_width)
        return round(self.expansion * self.hidden) if self.mlp == "gelu" else self._swiglu_inner(self.hidden)

    @property
    def mixing_inner(self) -> int:
        """Inner size of the MLP over positions for ``mixing=mlp``."""
        return self._swiglu_inner(self.total_len)

    def _swiglu_inner(self, width: int) -> int:
        """Return 2/3 of the expansion of ``width``, rounded up to a multiple of 256."""
        return math.ceil(round(self.expansion * width * 2 / 3) / _SWIGLU_MULTIPLE) * _SWIGLU_MULTIPLE

    @property
    def levels(self) -> dict[str, int]:
        """Stacks of blocks by name, and the number of blocks in each: two, or only L where it serves both levels."""
        return {"H_level": self.h_layers, "L_level": self.l_layers} if self.h_layers else {"L_level": self.l_layers}

    @property
    def h_stack(self) -> tuple[str, int]:
        """Name of the stack that updates z_H, and its number of blocks."""
        return next(iter(self.levels.items()))

    @property
    def block_passes(self) -> tuple[int, int]:
        """Passes through a block in one ACT step, over all layers and cycles: (of H updates, of L updates)."""
        return self.h_cycles * self.h_stack[1], self.h_cycles * self.l_cycles * self.l_layers


def cell_ids(grid: tuple[int, int, int, int]) -> dict[str, list[int]]:
    """Return the row, column and box of each cell, S numbers each, for ``ModelSpec.grid``."""
    rows, columns, box_rows, box_columns = grid
    cells = [divmod(cell, columns) for cell in range(rows * columns)]
    boxes = [(row // box_rows) * (columns // box_columns) + column // box_columns for row, column in cells]
    return {"row": [row for row, _ in cells], "column": [column for _, column in cells], "box": boxes}


def token_kinds(spec: ModelSpec) -> list[list[int]]:
    """Return the index in ``KINDS`` for each token and symbol [V, N]."""
    symbols = range(FIRST_SYMBOL, spec.vocab)
    return [
        [0 if token < FIRST_SYMBOL else 1 if token == symbol else 2 for symbol in symbols]
        for token in range(spec.vocab)
    ]


def rotary_rows(spec: ModelSpec) -> list[int]:
    """Return the order of qkv's rows in the graph [3 D]: first halves of Q's and K's heads, their second halves, V."""
    d, half = spec.hidden, spec.head_dim // 2
    first = [head + i for head in range(0, 2 * d, spec.head_dim) for i in range(half)]
    return [*first, *(row + half for row in first), *range(2 * d, 3 * d)]


def variant_spec(variant: str, *, vocab: int, seq_len: int, **overrides: Any) -> ModelSpec:
    """Return the preset of ``variant`` for a vocabulary and length, with single fields overridden.

    Raises ``UserError`` for an unknown variant.
    """
    if variant not in VARIANTS:
        raise UserError(f"unknown model variant '{variant}'", nearest(variant, VARIANTS))
    fields = {"variant": variant, "vocab": vocab, "seq_len": seq_len, **VARIANTS[variant], **overrides}
    if fields.get("symbol_width"):
        fields.setdefault("hidden", fields["symbol_width"] * (vocab - FIRST_SYMBOL))
    return ModelSpec(**fields)


# -- one step's inputs and outputs ------------------------------------------------------------------------------

STEP_INPUTS = ("tokens", "puzzle", "z_h", "z_l")  # "puzzle" only where P > 0
STEP_OUTPUTS = ("z_h_next", "z_l_next", "logits", "q")


def step_io(spec: ModelSpec) -> dict[str, tuple[str, tuple[str | int, ...]]]:
    """Return name → (dtype, shape) of a step's inputs and outputs.

    ``"B"`` stands for the dynamic batch axis, ``carry`` for the float type of the carry.
    """
    d, t, s, p = spec.hidden, spec.total_len, spec.seq_len, spec.puzzle_tokens
    table: dict[str, tuple[str, tuple[str | int, ...]]] = {"tokens": ("int32", ("B", s))}
    if p:
        table["puzzle"] = ("carry", ("B", p * d))
    table["z_h"] = table["z_l"] = ("carry", ("B", t, d))
    table["z_h_next"] = table["z_l_next"] = ("carry", ("B", t, d))
    table["logits"] = ("float32", ("B", s, spec.vocab))
    table["q"] = ("float32", ("B", spec.q_outputs))
    return table


# -- weights ----------------------------------------------------------------------------------------------------


def block_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one block's trainable tensors by name."""
    d, f = spec.hidden, spec.inner
    if spec.mixing == "groups":
        w = spec.symbol_width
        groups = {f"{name}_proj.weight": (2 * f, w) for name in GROUPS}
        mlp = {"mlp.gate_up_proj.weight": (2 * f, w), "mlp.gate_up_proj.bias": (2 * f,), "mlp.down_proj.weight": (w, f)}
        return {"pool_proj.weight": (w, w), **groups, **mlp}
    if spec.mixing == "mlp":
        t, inner = spec.total_len, spec.mixing_inner
        matrices = {"mlp_t.gate_up_proj": (2 * inner, t), "mlp_t.down_proj": (t, inner)}
    else:
        matrices = {"self_attn.qkv_proj": (3 * d, d), "self_attn.o_proj": (d, d)}
    up_name, up_rows = ("gate_up_proj", 2 * f) if spec.mlp == "swiglu" else ("up_proj", f)
    matrices |= {f"mlp.{up_name}": (up_rows, d), "mlp.down_proj": (d, f)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in matrices.items():
        shapes[f"{name}.weight"] = shape
        if spec.bias:
            shapes[f"{name}.bias"] = shape[:1]
    if spec.norm == "layer":
        for norm in ("attn_norm", "mlp_norm"):
            shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (d,)
    return shapes


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all trainable tensors by name.

    Those of ``full``, ``trm`` and ``trm-mixer`` are the published checkpoints'.
    """
    d, v = spec.hidden, spec.vocab
    if spec.mixing == "groups":
        return _groups_shapes(spec)
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.embedding_weight": (v, d)}
    if spec.positions == "learned":
        shapes["embed_pos.embedding_weight"] = (spec.total_len, d)
    if spec.grid_positions:
        assert spec.grid is not None
        for name, ids in cell_ids(spec.grid).items():
            shapes[f"embed_{name}.embedding_weight"] = (max(ids) + 1, d)
    for level, layers in spec.levels.items():
        for index in range(layers):
            shapes.update({f"{level}.layers.{index}.{k}": s for k, s in block_shapes(spec).items()})
        if spec.norm == "layer":
            shapes[f"{level}.norm.weight"] = shapes[f"{level}.norm.bias"] = (d,)
    if spec.connections:
        for name in ("h_to_l", "l_to_h"):
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (d, d), (d,)
    q_rows = spec.q_outputs + spec.q_unused
    shapes["q_head.weight"] = (q_rows, 2 * d if spec.halt_head == "pooled" else d)
    shapes["q_head.bias"] = (q_rows,)
    shapes["lm_head.weight"] = (v, d)
    if spec.bias:
        shapes["lm_head.bias"] = (v,)
    return shapes


def _groups_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    w = spec.symbol_width
    blocks = {
        f"L_level.layers.{index}.{name}": shape
        for index in range(spec.l_layers)
        for name, shape in block_shapes(spec).items()
    }
    heads = {"q_head.weight": (1, w), "q_head.bias": (1,), "lm_head.weight": (1, w)}
    return {"embed_kinds.embedding_weight": (3, w), **blocks, **heads}


def buffer_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors that are saved but not trained by the main optimizer, such as the puzzle table."""
    shapes: dict[str, tuple[int, ...]] = {}
    if spec.positions == "sinusoidal":
        shapes["embed_pos.table"] = (SINUSOIDAL_ROWS, spec.hidden)
    # The reduced variant starts from zeros, which are not saved.
    else:
        shapes["H_init"] = shapes["L_init"] = (spec.hidden,)
    if spec.puzzle_dim:
        shapes["puzzle_emb.weights"] = (spec.puzzles, spec.puzzle_dim)
    return shapes
