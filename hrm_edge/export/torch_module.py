"""The engine as a torch module: an ExportedProgram that Torch-TensorRT saved, looked through before it is loaded.

``torch.export.load`` unpickles parts of the file, evaluates others as expressions, and so may run anything. A hash in a
sidecar says that the file is whole, not that it is harmless: who can write the one can write the other. Therefore
:func:`_look_through` accepts only what Torch-TensorRT writes for a step: pickles that name nothing but its own settings
and the engine (read by an unpickler that calls nothing), a program that runs that engine and takes its outputs, and
expressions about the batch. The engine's bytes must be those of ``engine.plan``.

Axes: B slots, S cells, P puzzle tokens, T = P + S, D hidden.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrm_edge.errors import UserError
from hrm_edge.export.torch_trt import INSTALL, installed, load_torch_tensorrt
from hrm_edge.manifest import STATE_FILE, Manifest
from hrm_edge.model.session import TorchCarry, gathered
from hrm_edge.runtime.state import State, carry_dtype, read_state
from hrm_edge.runtime.trt.api import find_api
from hrm_edge.runtime.trt.device import find_gpu
from hrm_edge.runtime.trt.identity import (
    MODULE_FILE,
    Engine,
    Machine,
    Opened,
    differences,
    read_engine,
    rebuild_module,
    refuse,
    verify_module,
)
from hrm_edge.runtime.trt.plugins import find_attention, load_attention
from hrm_edge.session import StepResult

Run = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
"""(tokens [B, S] int32, puzzle vectors [B, P * D] where there are any, z_h and z_l [B, T, D]) → as ``STEP_OUTPUTS``."""

_RECONSTRUCT = "torch_tensorrt.dynamo.runtime._TRTEngine._reconstruct_trt_engine"
_NATIVE = "__torch__.torch.classes.tensorrt.Engine"  # the same in the form of Torch-TensorRT's C++ runtime
_NAMED = re.compile(  # what the pickles of a saved module name
    "|".join(map(re.escape, (_RECONSTRUCT, _NATIVE, "torch_tensorrt.dynamo._settings.CompilationSettings")))
    + r"|torch_tensorrt\._Device\.Device|torch_tensorrt\._enums\.[A-Za-z]+|sympy\.core\.symbol\.Symbol"
    r"|torch\.(float32|float16|bfloat16|int32|int64|bool|device)|(__builtin__|builtins)\.set"
)
_ENGINE_FIELD, _METADATA_FIELD, _FIELDS = 3, 7, 12  # of the list of strings that an engine is saved as

_NAME = re.compile(r"[\w.+]*")
_STRINGS = {  # key in the program's JSON → what its strings may be; torch evaluates expressions and guards
    "target": re.compile(r"torch\.ops\.tensorrt\.execute_engine\.default|_operator\.getitem"),
    "expr_str": re.compile(r"Symbol\('\w+'(, (positive|integer)=True)*\)|\d+"),
    "guards_code": re.compile(r"L\['\w+'\]\.size\(\)\[0\] (==|<=|>=) (L\['\w+'\]\.size\(\)\[0\]|\d+)"),
    "in_spec": (_SPEC := re.compile(r'([\[\]{}",:\s\d]|null|type|context|children_spec|builtins\.(tuple|list|dict))*')),
    "out_spec": _SPEC,
}
_RECORD = re.compile(
    r"[^/]+/(models/model\.json|data/constants/(?P<engine>(opaque|custom)_obj_\d+)|data/sample_inputs/model\.pt|"
    r"data/(constants|weights)/model_(constants|weights)_config\.json|"
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id))"
)


class _Unexpected(ValueError):
    """Something that Torch-TensorRT does not write into the module of a step."""


class _Inert:
    """Stands for whatever a pickle names: it takes any arguments and state, and does nothing."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.given = (state,)


class _Reader(pickle.Unpickler):
    """Reads a pickle without calling anything of it."""

    def find_class(self, module: str, name: str) -> Any:
        if not _NAMED.fullmatch(f"{module}.{name}"):
            raise _Unexpected(f"a pickle that names {module}.{name}")
        return _Inert


def _read_pickle(pickled: bytes) -> Any:
    """Read what is in a pickle, every object as an :class:`_Inert`; raises ``_Unexpected``."""
    stream = io.BytesIO(pickled)
    try:
        value = _Reader(stream).load()
        if stream.read(1):  # such as an archive, which torch looks for at the end
            raise _Unexpected("a pickle that something follows")
        return value
    except _Unexpected:
        raise
    except Exception as error:  # whatever a damaged pickle makes the reader stumble over
        raise _Unexpected(f"a pickle that cannot be read: {error}") from error


def _records(data: bytes) -> dict[str, bytes]:
    """Return every record of an archive by name, as torch writes them: stored, not compressed, names once."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files: dict[str, bytes] = {}
        for about in archive.infolist():
            if about.filename in files:
                raise _Unexpected(f"two records {about.filename}")
            if about.compress_type != zipfile.ZIP_STORED:
                raise _Unexpected(f"a compressed record {about.filename}")
            files[about.filename] = archive.read(about)
    return files


def _archive(records: dict[str, bytes]) -> bytes:
    """Write an archive of nothing but ``records``.

    A file may hold two archives, of which Python's reader takes one and torch's the other. This holds one.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return stream.getvalue()


def _engine_of(record: bytes) -> tuple[bytes, bytes]:
    """Return the plan in a saved engine, its metadata looked through too, and the record to load in its place."""
    pickled = record
    if record[:2] == b"PK":  # of the C++ runtime: an archive of its own, with one pickle
        inner = _records(record)
        (name,) = (name for name in inner if name.endswith(".pkl"))
        pickled, record = inner[name], _archive(inner)
    module = _read_pickle(pickled)
    fields: Any = module.given[0] if isinstance(module, _Inert) and module.given else None
    fields = fields[0] if isinstance(fields, tuple) and fields else fields
    if not isinstance(fields, list) or len(fields) != _FIELDS or not all(isinstance(field, str) for field in fields):
        raise _Unexpected("no engine where one should be")
    _read_pickle(base64.b64decode(fields[_METADATA_FIELD]))
    return base64.b64decode(fields[_ENGINE_FIELD]), record


def _check_program(document: Any, key: str = "") -> None:
    """Raise ``_Unexpected`` unless every string of a program's JSON is a plain name or what its place allows."""
    if isinstance(document, dict):
        for name, value in document.items():
            _check_program(name)
            _check_program(value, name)
    elif isinstance(document, list):
        for value in document:
            _check_program(value, key)
    elif isinstance(document, str) and not _STRINGS.get(key, _NAME).fullmatch(document):
        raise _Unexpected(f"'{document[:80]}' as {key or 'a name'}")


def _look_through(data: bytes) -> tuple[str, bytes]:
    """Check a saved module; returns the sha256 of the plan inside, and the module written anew from what was checked.

    Only the second may be loaded: whatever else the file held is not in it. Raises ``_Unexpected`` for anything that
    might do more than run the engine.
    """
    plans: list[bytes] = []
    checked: dict[str, bytes] = {}
    try:
        for name, record in _records(data).items():
            match = _RECORD.fullmatch(name)
            if match is None:
                raise _Unexpected(f"a record {name}")
            checked[name] = record
            if match["engine"]:
                plan, checked[name] = _engine_of(record)
                plans.append(plan)
            elif name.endswith(".json"):
                document = json.loads(record)
                _check_program(document)
                checked[name] = json.dumps(document).encode()
            elif name.endswith(".pt") and record:
                raise _Unexpected(f"sample inputs in {name}")
    except _Unexpected:
        raise
    except Exception as error:  # torn or encrypted records, JSON that is none or too deep
        raise _Unexpected(f"what cannot be read: {error}") from error
    if len(plans) != 1:
        raise _Unexpected(f"{len(plans)} engines")
    return hashlib.sha256(plans[0]).hexdigest(), _archive(checked)


def _read_module(folder: Path, engine: Engine) -> io.BytesIO:
    """Verify the module's file against the sidecar, look it through, and return it written anew in memory.

    Raises ``UserError``.
    """
    verify_module(folder, engine)
    path, again = folder / MODULE_FILE, rebuild_module(folder, engine.identity.options.precision)
    try:
        plan, module = _look_through(path.read_bytes())
    except _Unexpected as error:
        raise UserError(
            f"{path} is not loaded: it holds {error}, which Torch-TensorRT does not write", again
        ) from error
    if plan != engine.plan.sha256:
        raise UserError(f"{path} holds another engine than the sidecar names: {plan[:16]}…", again)
    return io.BytesIO(module)


def _check_valid(folder: Path, engine: Engine, machine: Machine, manifest: Manifest, here: dict[str, str]) -> None:
    """Raise ``UserError`` naming every field that differs, among them the packages, now ``here``, that saved it."""
    was = engine.build.packages
    changed = [(name, was.get(name), now) for name, now in here.items() if was.get(name) != now]
    again = rebuild_module(folder, manifest.precision)
    refuse(folder / MODULE_FILE, differences(engine.identity, machine, manifest) + changed, again)


def open_module(folder: Path, manifest: Manifest) -> ModuleSession:
    """Open a session of a verified artifact whose engine was saved as a torch module, on this machine's GPU.

    Raises ``UserError`` naming what is missing, torn, not as Torch-TensorRT writes it, or different from where it was
    built.
    """
    engine = read_engine(folder)
    data = _read_module(folder, engine)
    module = load_torch_tensorrt()
    gpu = find_gpu()
    _check_valid(folder, engine, Machine(find_api(engine.identity.runtime), gpu), manifest, installed(module))
    if not torch.cuda.is_available():
        raise UserError(f"torch {torch.__version__} has no CUDA, and {MODULE_FILE} runs on a GPU", INSTALL)
    state = read_state(folder / STATE_FILE, manifest.spec, carry_dtype(manifest))
    if engine.identity.plugin:
        load_attention(find_api(engine.identity.runtime), find_attention(), expected=engine.identity.plugin)
    session = ModuleSession(_load(data), manifest, state, torch.device("cuda"), engine.identity.options.batch.max)
    session.opened = Opened(folder, folder, engine, gpu.name)
    return session


def _load(data: io.BytesIO) -> Run:
    """Load the program that :func:`_read_module` returned; imports Torch-TensorRT, which its operators need."""
    run: Run = torch.export.load(data).module()
    return run


class ModuleSession:
    """A saved module behind the ``Session`` protocol, its carry in torch tensors on ``device``."""

    opened: Opened | None = None

    def __init__(self, run: Run, manifest: Manifest, state: State, device: torch.device, max_batch: int) -> None:
        self.spec, self.max_batch = manifest.spec, max_batch
        self.backend = f"torch_tensorrt-{device.type}"
        self._run, self._state, self._device = run, state, device
        z_h, z_l = (torch.from_numpy(start.copy()).to(device) for start in state.start)
        self._start = z_h, z_l

    def initial_carry(self, batch: int) -> TorchCarry:
        if not 1 <= batch <= self.max_batch:
            raise ValueError(f"batch {batch} is not in 1..{self.max_batch}, the range the module was built for")
        z_h, z_l = (start.expand(batch, self.spec.total_len, -1).contiguous() for start in self._start)
        return z_h, z_l

    def gather(self, carry: TorchCarry, rows: NDArray[np.int64]) -> TorchCarry:
        return gathered(carry, self.initial_carry(len(rows)), rows)

    def step(self, tokens: NDArray[np.uint8], puzzle_ids: NDArray[np.int32], carry: TorchCarry) -> StepResult:
        given = [torch.from_numpy(tokens.astype(np.int32))]
        if self._state.puzzle_table is not None:
            given.append(torch.from_numpy(self._state.puzzle_vectors(puzzle_ids)))
        with torch.no_grad():
            z_h, z_l, logits, q = self._run(*(tensor.to(self._device) for tensor in given), *carry)
        return (z_h, z_l), logits.cpu().numpy(), q.cpu().numpy()
