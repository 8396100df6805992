"""Contract between operator, ONNX node and plugins: names, limits, and the version of what they exchange."""

from __future__ import annotations

NAME = "FusedAttention"  # of the plugin and of the ONNX node
VERSION = "1"  # of the plugin's inputs, outputs and fields
NAMESPACE = "hrm_edge"  # and domain of the ONNX node
ABI = 1  # of kernels.json and of the kernels' launch parameters; an engine and a library must have the same

DTYPES = ("float16", "bfloat16", "float32")  # by index in the C++ plugin
HEAD_DIMS = (32, 64)
MAX_LENGTH = 1024
LEAST_SM = 80  # asynchronous copies and bfloat16 products begin with Ampere
ALIGNMENT = 16  # bytes, of every pointer: the kernels load vectors
