"""Our own step behind the ``Session`` protocol.

Axes: B slots, T positions, D hidden.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm_edge.errors import UserError
from hrm_edge.manifest import STEP_FILE, Manifest
from hrm_edge.runtime.arithmetic import Arithmetic
from hrm_edge.runtime.host import HostSession, Outputs, usable_cores
from hrm_edge.runtime.native.compile import compiler, library
from hrm_edge.runtime.native.lattice import Lattice, lattice_of
from hrm_edge.runtime.native.model import Model, model_of
from hrm_edge.runtime.native.structure import OTHERWISE
from hrm_edge.runtime.native.tensors import read_graph
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, step_io

# Fields of a model that the C++ code follows; one that is not here has to have its default.
_FOLLOWED = {
    "variant", "vocab", "seq_len", "hidden", "heads", "h_layers", "l_layers", "h_cycles", "l_cycles", "expansion",
    "mixing", "symbol_width", "norm", "mlp", "bias", "positions", "grid_positions", "grid_heads", "grid", "connections",
    "halt_head", "q_outputs", "q_unused", "puzzle_dim", "puzzle_len", "puzzles", "max_steps", "rope_theta",
}  # fmt: skip
_VALUES = {  # of the fields that choose a function; with mixing=groups the spec leaves no other choice
    "mixing": {"attention", "groups"}, "norm": {"rms", "layer"}, "mlp": {"swiglu", "gelu"},
    "positions": {"rope", "learned", "sinusoidal", "none"}, "halt_head": {"first", "pooled"},
}  # fmt: skip


def why_unsupported(manifest: Manifest) -> str | None:
    """Return why our own code does not run the artifact, or None."""
    spec = manifest.spec
    fields = type(spec).model_fields
    chosen = {name: getattr(spec, name) for name in fields if name not in _FOLLOWED or name in _VALUES}
    lattice = spec.mixing == "groups"
    wanted = "fp32" if lattice else "int8"
    sizes = (
        {
            f"its symbols' width of {spec.symbol_width} is no multiple of 32": spec.symbol_width % 32 == 0,
            f"its MLP's size of {spec.inner} is no multiple of 16": spec.inner % 16 == 0,
        }
        if lattice
        else {
            f"its hidden size of {spec.hidden} is no multiple of 64": spec.hidden % 64 == 0,
            f"its MLP's size of {spec.inner} is no multiple of 64": spec.inner % 64 == 0,
            f"its heads of {spec.head_dim} are no multiple of 16": spec.head_dim % 16 == 0,
        }
    )
    holds = {
        f"it is {manifest.precision}, not {wanted}": manifest.precision == wanted,
        **{
            f"it has {name}={value}": value in _VALUES.get(name, {fields[name].default})
            for name, value in chosen.items()
        },
        **sizes,
    }
    return next((why for why, fits in holds.items() if not fits), None)


def available(manifest: Manifest) -> bool:
    """Return whether this machine can run the artifact by our own code."""
    return why_unsupported(manifest) is None and compiler() is not None and importlib.util.find_spec("onnx") is not None


class NativeSession(HostSession):
    """The step in one pass: nothing but attention, or the sums of groups, brings the rows of a puzzle together.

    ``threads`` share one puzzle, or take one puzzle each; None: all cores. Raises ``UserError`` where the model is of
    another kind (:func:`why_unsupported`), the machine has no compiler, or the graph is not as this version writes it.
    """

    backend = "native-cpu"

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        super().__init__(folder, manifest)
        why = why_unsupported(manifest)
        if why is not None:
            raise UserError(f"--backend native does not run {folder.name}: {why}", OTHERWISE)
        # a thread without a row is of no use
        self.threads = max(1, min(threads or usable_cores(), self.spec.total_len))
        self._library = library()
        path = folder / STEP_FILE
        tensors = read_graph(path, self.spec)
        model: Model | Lattice
        if self.spec.mixing == "groups":
            new = self._library.hrm_new_lattice
            model, _keep = lattice_of(self.spec, tensors, path)
        else:
            new = self._library.hrm_new
            model, _keep = model_of(self.spec, tensors, path)
            self.arithmetic = Arithmetic("int8")
        no_thread = ctypes.c_int32()
        engine = ctypes.c_void_p(new(ctypes.byref(model), self.threads, ctypes.byref(no_thread)))
        if no_thread.value:
            raise UserError(
                f"--backend native: {self.threads} threads cannot be started here",
                "ask for fewer, --threads 1, or raise the limit (ulimit -u, ulimit -v)",
            )
        if not engine:
            raise UserError(f"{path}: there is not enough memory for its weights", "close other programs")
        self._engine = engine
        weakref.finalize(self, self._library.hrm_free, engine)

    def run(self, feeds: dict[str, NDArray[Any]]) -> Outputs:
        batch, table = len(feeds["tokens"]), step_io(self.spec)
        if int(feeds["tokens"].max()) >= self.spec.vocab:  # an address, in C++
            raise ValueError(f"token {feeds['tokens'].max()} is beyond the vocabulary of {self.spec.vocab}")
        given = [np.ascontiguousarray(feeds[name]) if name in feeds else None for name in STEP_INPUTS]
        outputs = [np.empty((batch, *map(int, table[name][1][1:])), np.float32) for name in STEP_OUTPUTS]
        pointers = [None if array is None else array.ctypes.data for array in (*given, *outputs)]
        self._library.hrm_step(self._engine, batch, *pointers)
        z_h, z_l, logits, q = outputs
        return z_h, z_l, logits, q
