"""The process that builds one engine: ``python -m hrm_edge.runtime.trt.worker < request.json``.

A process of its own, because a builder takes gigabytes and gives them back only at its end, because the kernel may
kill it for them, and because its peak memory is then its own. It prints one JSON document a line: progress, then
``done`` or ``error``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from hrm_edge.errors import UserError
from hrm_edge.files import atomic_file
from hrm_edge.plugin.load import explain
from hrm_edge.plugin.onnx_file import without_functions
from hrm_edge.runtime.trt.api import Api, Messages, Runtime, find_api, logger_for
from hrm_edge.runtime.trt.identity import Options
from hrm_edge.runtime.trt.plugins import load_attention

MIB = 1 << 20
_MEMORY_WORDS = (
    "out of memory",
    "outofmemory",
    "memoryallocation",
    "bad_alloc",
    "failed to allocate",
    "insufficient memory",
    "memoryerror",
    "can't allocate memory",
)


class Request(BaseModel):
    """Order for a build: what to build, and from which files."""

    model_config = ConfigDict(extra="forbid")

    step: Path
    plan: Path
    runtime: Runtime
    sms: tuple[int, ...]
    options: Options
    timing_cache: Path | None
    plugin: Path | None
    """The attention plugin's library or kernels; None: the model's own standard operators."""
    module: Path | None = None
    """Path to save the engine to as a torch module, by a ``Make`` that can."""


def _say(**document: Any) -> None:
    print(json.dumps(document), flush=True)


def _parse(api: Api, builder: Any, request: Request, logger: Any) -> tuple[Any, Any]:
    """Parse the step: (network, parser); an operator that the target refuses is an error that names the node."""
    trt = api.module
    strongly = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # always on where it is not a flag
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    data = request.step.read_bytes()
    if request.plugin is not None:
        data = without_functions(data)  # the parser takes a body where it finds one, and asks no plugin
    if not parser.parse(data):
        raise _refused(api, [parser.get_error(index) for index in range(parser.num_errors)], request.step)
    return network, parser


def _refused(api: Api, errors: list[Any], step: Path) -> UserError:
    """Return what the parser's errors say about the first node that it does not take."""
    for error in errors:
        plugin = explain(error.desc())
        if plugin is not None and "FusedAttention" in error.node_operator():
            return plugin
        if error.node_operator():
            where = f"node '{error.node_name()}' ({error.node_operator()}, number {error.node()})"
            more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
            return UserError(
                f"{api.name} {api.version} refuses {where} of {step}{more}: {error.desc()}",
                "export the model again with this hrm-edge, or run it with ONNX Runtime: --backend onnxruntime",
            )
    said = errors[0].desc() if errors else "no reason given"
    return UserError(f"{api.name} {api.version} cannot read {step}: {said}", "export the model again")


def _configure(api: Api, builder: Any, network: Any, request: Request) -> Any:
    """Set limits, precision and the range of the batch."""
    trt, options = api.module, request.options
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.sms:
        config.num_compute_capabilities = len(request.sms)
        for index, sm in enumerate(request.sms):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), index)
    batch = options.batch
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = [[size if axis == -1 else axis for axis in tensor.shape] for size in (batch.min, batch.opt, batch.max)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    return config


class _Timings:
    """TensorRT's record of measured kernels: a second engine for the same GPU builds in a fraction of the time."""

    def __init__(self, config: Any, path: Path | None) -> None:
        self.path, self.config = path, config
        if path is not None:
            self.cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
            if not config.set_timing_cache(self.cache, False):  # another TensorRT's: start anew
                self.cache = config.create_timing_cache(b"")
                config.set_timing_cache(self.cache, False)

    def save(self) -> None:
        if self.path is not None:
            data = bytes(self.config.get_timing_cache().serialize())
            with atomic_file(self.path) as temporary:
                temporary.write_bytes(data)


def _progress_monitor(api: Api) -> Any:
    """Return a monitor that reports each phase of the build; None where TensorRT has none."""
    base: Any = getattr(api.module, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.steps: dict[str, int] = {}
            self.last_report = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            self.report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self.report(phase, step + 1)
            return True

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def report(self, phase: str, step: int) -> None:
            now = time.monotonic()
            if now - self.last_report >= 0.2:
                self.last_report = now
                _say(phase=phase, step=step, steps=self.steps.get(phase, 0))

    return Monitor()


def _failed(api: Api, messages: Messages, request: Request) -> NoReturn:
    """Explain a build that gave no plan."""
    said = messages.errors[-1] if messages.errors else "no reason given"
    for message in messages.errors:
        if says_memory(message):
            raise UserError(*out_of_memory(message, request.options))
        plugin = explain(message)
        if plugin is not None:
            raise plugin
    raise UserError(
        f"{api.name} {api.version} could not build the engine: {said}",
        "a smaller --max-batch or --optimization-level may pass; ONNX Runtime runs the same artifact",
    )


def says_memory(message: str) -> bool:
    """Return whether a builder's or torch's message is about memory that could not be had."""
    return any(word in message.lower() for word in _MEMORY_WORDS)


def out_of_memory(said: str, options: Options) -> tuple[str, str]:
    """Return (problem, hint) for a build that wanted more memory than there is."""
    limits = f"workspace {options.workspace_mib} MiB, batch up to {options.batch.max}"
    hint = "give it less with --workspace MIB or --max-batch N, close other programs, or add swap"
    return f"building the engine ran out of memory ({limits}): {said}", f"{hint}; on a Jetson: sudo init 3"


def _build(request: Request) -> dict[str, Any]:
    """Write the plan; returns what the sidecar records of it."""
    api, messages, begun = find_api(request.runtime), Messages(), time.monotonic()
    if request.plugin is not None:
        load_attention(api, request.plugin)
    logger = logger_for(api, messages)
    builder = api.module.Builder(logger)
    network, _parser = _parse(api, builder, request, logger)  # the network uses the parser's weights: keep it alive
    config = _configure(api, builder, network, request)
    monitor = _progress_monitor(api)
    if monitor is not None:
        config.progress_monitor = monitor
    timings = _Timings(config, request.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        _failed(api, messages, request)
    request.plan.write_bytes(memoryview(plan))
    timings.save()
    return {
        "seconds": round(time.monotonic() - begun, 3),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "tensorrt_peak_mib": messages.peak_mib,
        "layers": network.num_layers,
        "timing_cache": request.timing_cache is not None,
    }


def main() -> None:
    warnings.simplefilter("ignore")  # deprecations inside TensorRT's own bindings are not the user's to fix
    request = Request.model_validate_json(sys.stdin.read())
    try:
        _say(done=_build(request))
    except UserError as error:
        _say(error={"problem": error.problem, "hint": error.hint})
    except MemoryError as error:
        problem, hint = out_of_memory(str(error) or "the process could not get more", request.options)
        _say(error={"problem": problem, "hint": hint})


if __name__ == "__main__":
    main()
