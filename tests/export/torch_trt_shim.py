"""Torch-TensorRT-RTX on a machine without a GPU, for tests only: import this before ``torch_tensorrt``.

It needs to hear of a GPU, and reads each engine back after building it, and again when a saved module is loaded, which
needs one. Both are answered here; what converts, what builds, and what saves and loads modules are the real packages.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

PROPERTIES = SimpleNamespace(name="shim", major=8, minor=6, total_memory=8 << 30, multi_processor_count=30)

torch.cuda.get_device_capability = lambda *_: (8, 6)
torch.cuda.current_device = lambda: 0
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_name = lambda *_: PROPERTIES.name
torch.cuda.set_device = lambda *_: None
torch.cuda.get_device_properties = lambda *_: PROPERTIES
torch.cuda.mem_get_info = lambda *_: (8 << 30, 8 << 30)
torch.cuda.default_stream = lambda *_: None
torch._C._CudaDeviceProperties = object

from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter
from torch_tensorrt.dynamo.runtime import _TRTEngine as engines


class _Engine:
    streamable_weights_size = 0

    def __init__(self, plan: Any) -> None:
        self.serialize = lambda: plan

    def get_tensor_dtype(self, name: str) -> Any:
        return trt.float32  # nothing is allocated by it: what runs the engine is replaced where it is run

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class _Runtime:
    def __init__(self, logger: Any) -> None:
        self.deserialize_cuda_engine = _Engine


class _TensorRT:
    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return _Runtime if name == "Runtime" else getattr(self.module, name)


trt = interpreter.trt
interpreter.trt = engines.trt = _TensorRT(trt)
engines.multi_gpu_device_check = lambda: None
