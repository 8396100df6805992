"""Engine folder → session: everything that can be wrong is asked before the plan is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hrm_edge.errors import UserError
from hrm_edge.manifest import STATE_FILE, Manifest
from hrm_edge.runtime.state import carry_dtype, read_state
from hrm_edge.runtime.trt import cache
from hrm_edge.runtime.trt.api import Api, Messages, find_api, logger_for
from hrm_edge.runtime.trt.build import BuildOptions, plan_identity
from hrm_edge.runtime.trt.cuda import Cuda, find_cuda
from hrm_edge.runtime.trt.device import Gpu, find_gpu
from hrm_edge.runtime.trt.identity import (
    PLAN_FILE,
    Frontend,
    Machine,
    Opened,
    differences,
    read_engine,
    rebuild,
    refuse,
)
from hrm_edge.runtime.trt.plugins import find_attention, load_attention
from hrm_edge.runtime.trt.session import TrtSession
from hrm_edge.spec import STEP_INPUTS, STEP_OUTPUTS, step_io

_TENSOR_NAMES: dict[Frontend, dict[str, str]] = {  # of step_io → of the engine, where they differ
    "onnx": {},
    "torch-tensorrt": {name: f"output{index}" for index, name in enumerate(STEP_OUTPUTS)},
}


def open_engine(
    folder: Path, manifest: Manifest, *, api: Api | None = None, gpu: Gpu | None = None, cuda: Cuda | None = None
) -> TrtSession:
    """Open a session of an artifact folder with an engine; ``api``, ``gpu``, ``cuda``: this machine's by default.

    Raises ``UserError`` naming what is missing, torn, or different from where the engine was built.
    """
    artifact = folder
    if not (folder / PLAN_FILE).is_file():
        folder = _built_before(folder, manifest)
    engine = read_engine(folder)
    api = api or find_api(engine.identity.runtime)
    gpu = gpu or find_gpu()
    machine = Machine(api, gpu)
    refuse(folder / PLAN_FILE, differences(engine.identity, machine, manifest), rebuild(folder))
    if engine.identity.plugin:
        load_attention(api, find_attention(), expected=engine.identity.plugin)
    messages = Messages()
    logger = logger_for(api, messages)
    runtime = api.module.Runtime(logger)
    plan = runtime.deserialize_cuda_engine((folder / PLAN_FILE).read_bytes())
    if plan is None:
        said = messages.errors[0] if messages.errors else "no reason given"
        raise UserError(f"{api.name} {api.version} cannot read {folder / PLAN_FILE}: {said}", rebuild(folder))
    dtype = carry_dtype(manifest)
    names = _TENSOR_NAMES[engine.identity.options.frontend]
    _check_tensors(plan, api, manifest, dtype, folder, names)
    state = read_state(artifact / STATE_FILE, manifest.spec, dtype)
    session = TrtSession(plan, manifest, state, cuda or find_cuda(), engine.identity, names)
    session.keep = (runtime, logger)  # TensorRT does not
    session.opened = Opened(artifact, folder, engine, gpu.name)
    return session


def _built_before(folder: Path, manifest: Manifest) -> Path:
    """Return the cached engine that ``export --backend tensorrt`` would use here, else ``folder``."""
    cached = cache.find(plan_identity(manifest, BuildOptions()))
    return cached[0] if cached is not None else folder


def _check_tensors(
    plan: Any, api: Api, manifest: Manifest, dtype: np.dtype[Any], folder: Path, names: dict[str, str]
) -> None:
    """Compare names, types and shapes of the engine with ``step_io``."""
    trt, table = api.module, step_io(manifest.spec)
    kinds = {"int32": trt.int32, "float32": trt.float32, "carry": trt.float16 if dtype == np.float16 else trt.float32}
    names_here = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    wanted = [name for name in (*STEP_INPUTS, *STEP_OUTPUTS) if name in table]
    if sorted(names_here) != sorted(names.get(name, name) for name in wanted):
        raise UserError(f"{folder / PLAN_FILE} has tensors {names_here}, the model has {wanted}", rebuild(folder))
    for name in wanted:
        called, (kind, shape) = names.get(name, name), table[name]
        is_now = (plan.get_tensor_dtype(called), tuple(plan.get_tensor_shape(called))[1:])
        if is_now != (kinds[kind], shape[1:]):
            was = f"{is_now[0]} {list(is_now[1])}"
            raise UserError(
                f"{folder / PLAN_FILE}: '{name}' is {was}, the model has {kind} {list(shape[1:])}", rebuild(folder)
            )
