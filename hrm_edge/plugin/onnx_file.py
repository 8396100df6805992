"""Make TensorRT take the plugin: drop the function bodies from an ONNX file, with nothing but the standard library.

The exported file describes its custom node twice: as a plugin, and by a body of standard operators. TensorRT's parser
takes a body where it finds one (onnx-tensorrt, ModelImporter.cpp: local functions before plugins). Without it, the
parser asks the plugin registry.
"""

from __future__ import annotations

from hrm_edge.errors import UserError

_FUNCTIONS = 25  # ModelProto.functions, of onnx.proto


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _skip(data: bytes, at: int, wire: int) -> int:
    """End of a field's value that begins at ``at`` (protobuf's encoding guide)."""
    if wire == 0:
        return _varint(data, at)[1]
    if wire == 2:
        length, at = _varint(data, at)
        return at + length
    if wire in (1, 5):
        return at + (8 if wire == 1 else 4)
    raise ValueError(f"wire type {wire}")


def without_functions(model: bytes) -> bytes:
    """Return the serialized ``ModelProto`` without local functions; all other bytes stay as they are."""
    kept, at = [], 0
    try:
        while at < len(model):
            tag, value = _varint(model, at)
            end = _skip(model, value, tag & 7)
            if end > len(model):
                raise ValueError("cut off")
            if tag >> 3 != _FUNCTIONS:
                kept.append(model[at:end])
            at = end
    except (IndexError, ValueError) as error:
        raise UserError(f"not an ONNX model: {error}", "give the bytes of a .onnx file") from error
    return b"".join(kept)
