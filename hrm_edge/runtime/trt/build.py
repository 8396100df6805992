"""Artifact → engine folder: the artifact's own files, the plan, and the sidecar that says where it is valid."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_edge import __version__
from hrm_edge.callbacks import OnMessage
from hrm_edge.child import python_command
from hrm_edge.errors import UserError
from hrm_edge.files import atomic_folder
from hrm_edge.manifest import MANIFEST, STEP_FILE, Manifest, read_manifest
from hrm_edge.runtime.trt import cache
from hrm_edge.runtime.trt.api import Api, Runtime, find_api
from hrm_edge.runtime.trt.device import find_gpu, memory_available
from hrm_edge.runtime.trt.identity import (
    MODULE_FILE,
    PLAN_FILE,
    BatchRange,
    BuildRecord,
    Engine,
    Frontend,
    Identity,
    Machine,
    Options,
    entry_of,
)
from hrm_edge.runtime.trt.plugins import find_attention, plugin_identity
from hrm_edge.runtime.trt.targets import check_targets
from hrm_edge.runtime.trt.worker import MIB, Request, out_of_memory

_WORKSPACE_SHARE = 0.5  # of MemAvailable: on a Jetson the builder, the desktop and the GPU share one memory
_WORKSPACE_STEPS_MIB = (4096, 2048, 1024, 512, 256, 128, 64)
Make = Callable[[Request, OnMessage], dict[str, Any]]
"""Writes the plan of a request and returns what ``BuildRecord`` says of the build."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build that a user may set; None: the default."""

    runtime: Runtime | None = None
    sms: tuple[int, ...] = ()
    max_batch: int = 64
    opt_batch: int | None = None
    workspace_mib: int | None = None
    optimization_level: int = 3
    plugin: Path | None = None
    use_cache: bool = True
    frontend: Frontend = "onnx"
    module: bool = False
    """Whether to save the engine as a torch module too."""


def _workspace_mib(asked: int | None, available: int) -> int:
    """Return MiB that the builder may use: what was asked for, else the largest step under half of MemAvailable.

    Steps, so that the same machine gives the same engine although its free memory changes from day to day.
    Raises ``UserError`` when more is asked for than the share that is safe.
    """
    limit = int(available * _WORKSPACE_SHARE) // MIB
    if asked is not None:
        if asked > limit:
            raise UserError(
                f"--workspace {asked} MiB is more than half of the {available // MIB} MiB of memory that are available",
                f"ask for {limit} or less, or close other programs",
            )
        return asked
    return next((step for step in _WORKSPACE_STEPS_MIB if step <= limit), _WORKSPACE_STEPS_MIB[-1])


def plan_identity(manifest: Manifest, options: BuildOptions) -> Identity:
    """Return the identity of the engine that ``options`` give; ``UserError`` where this machine cannot build it."""
    runtime: Runtime | None = options.runtime or ("tensorrt_rtx" if options.sms else None)
    api = find_api(runtime)
    if options.sms and not api.targets:
        raise UserError(
            f"--sm: {api.name} builds for the GPU of this machine only",
            "leave it out, or build for other GPUs with --runtime tensorrt_rtx",
        )
    sms, gpu = tuple(sorted(set(options.sms))), None
    if not sms:
        gpu = _find_gpu_or_targets(api)
        sms = (gpu.sm,) if api.targets else ()
    check_targets(api, sms or (gpu.sm if gpu else 0,), manifest.precision)
    if options.max_batch > manifest.max_batch:
        raise UserError(
            f"--max-batch {options.max_batch}: the artifact was checked up to {manifest.max_batch}", "ask for less"
        )
    opt = min(8, options.max_batch) if options.opt_batch is None else options.opt_batch
    if opt > options.max_batch:
        raise UserError(f"--opt-batch {opt} is above --max-batch {options.max_batch}", "it is a batch within the range")
    built_with = Options(
        frontend=options.frontend,
        precision=manifest.precision,
        optimization_level=options.optimization_level,
        workspace_mib=_workspace_mib(options.workspace_mib, memory_available()),
        batch=BatchRange(min=1, opt=opt, max=options.max_batch),
    )
    plugin = plugin_identity() if _uses_plugin(manifest, api) else None
    return Machine(api, gpu).identity(manifest, built_with, sms, plugin)


def _find_gpu_or_targets(api: Api) -> Any:
    """Return this machine's GPU; where there is none, what can be built without."""
    try:
        return find_gpu()
    except UserError as error:
        known = ",".join(map(str, api.targets))
        hint = f"name the GPUs to build for: --sm {known}" if known else "build on the machine that will run the engine"
        raise UserError(f"an engine is built for a GPU: {error.problem}", hint) from error


def _uses_plugin(manifest: Manifest, api: Api) -> bool:
    """Return whether the engine calls the attention plugin; one with targets has none and reads the node's body."""
    return bool(manifest.provenance.get("plugin")) and not api.targets


def build_engine(
    artifact: Path, out: Path, options: BuildOptions, on_message: OnMessage, make: Make | None = None
) -> tuple[Engine, bool]:
    """Write the engine folder ``out``; returns its sidecar and whether the engine came from the cache.

    ``make``: what builds the plan, by default :func:`_run_worker`, from the artifact's ONNX.
    Raises ``UserError`` for whatever the machine, the target or the model cannot do; ``out`` is then absent.
    """
    manifest = read_manifest(artifact)
    identity = plan_identity(manifest, options)
    plugin = find_attention(options.plugin) if identity.plugin else None
    with atomic_folder(out) as folder:
        for name in (*manifest.files, MANIFEST):
            shutil.copyfile(artifact / name, folder / name)
        cached = cache.find(identity, module=options.module) if options.use_cache else None
        if cached is not None:
            cache.place_engine(*cached, folder)
            return cached[1], True
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build") as scratch:
            plan, module = Path(scratch) / PLAN_FILE, Path(scratch) / MODULE_FILE
            request = Request(
                step=artifact / STEP_FILE,
                plan=plan,
                runtime=identity.runtime,
                sms=identity.sm if identity.device is None else (),
                options=identity.options,
                timing_cache=cache.timing_cache(identity),
                plugin=plugin,
                module=module if options.module else None,
            )
            record = (make or _run_worker)(request, on_message)
            built = BuildRecord(
                **record, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), hrm_edge=__version__
            )
            saved = entry_of(module) if options.module else None
            engine = Engine(identity=identity, plan=entry_of(plan), module=saved, build=built)
            cache.place_engine(Path(scratch), engine, folder)
        cache.keep(folder, engine)
        return engine, False


def _run_worker(request: Request, on_message: OnMessage) -> dict[str, Any]:
    """Build in a process of its own and pass its progress on; its end, whatever it is, becomes a result or an error."""
    command = python_command("-m", "hrm_edge.runtime.trt.worker")
    begun = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as errors,  # a pipe that nobody reads could fill up and stop the worker
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(request.model_dump_json())
            worker.stdin.close()
            result = None
            for line in worker.stdout:
                result = _heard(line, begun, on_message) or result
        except BaseException:
            worker.kill()
            raise
        worker.wait()
        errors.seek(0)
        said = errors.read().strip()
    if result is None:
        raise _died(worker.returncode, said, request)
    if "error" in result:
        raise UserError(result["error"]["problem"], result["error"]["hint"])
    return dict(result["done"])


def _heard(line: str, begun: float, on_message: OnMessage) -> dict[str, Any] | None:
    """Parse a line of the worker: its result, or None for progress and for what a native library prints."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if "phase" in document:
        on_message(
            f"building the engine, {time.monotonic() - begun:.0f} s: {document['phase']} "
            f"{document['step']}/{document['steps']}"
        )
        return None
    return document if {"done", "error"} & set(document) else None


def _died(code: int, errors: str, request: Request) -> UserError:
    """Return the error of a worker that ended without a result."""
    if code == -signal.SIGKILL:
        problem, hint = out_of_memory("the kernel killed the builder (see dmesg)", request.options)
        return UserError(problem, hint)
    last = errors.splitlines()[-1] if errors else "it said nothing"
    if "MemoryError" in errors or "bad_alloc" in errors:
        return UserError(*out_of_memory(last, request.options))
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return UserError(
        f"the builder of {request.runtime} ended with {how}: {last}",
        "try a smaller --max-batch or --optimization-level; ONNX Runtime runs the same artifact",
    )
