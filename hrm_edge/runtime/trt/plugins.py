"""The attention plugin, loaded before an engine is built or read: the C++ library, or its kernels through Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm_edge.plugin.contract import ABI, NAME, NAMESPACE, VERSION
from hrm_edge.plugin.load import find_library, load_plugin
from hrm_edge.plugin.python import register_python_plugin
from hrm_edge.runtime.trt.api import Api


def find_attention(path: Path | None = None) -> Path:
    """Return the folder of kernels (for the plugin in Python), else the library: as given, or as installed."""
    if path is not None and (path / "kernels.json").is_file():
        return path
    return find_library(path)


def load_attention(api: Api, path: Path, expected: dict[str, Any] | None = None) -> dict[str, Any]:
    """Register the plugin with TensorRT and return what an engine's identity says of it.

    ``expected``: that of the engine that is about to be read. Either form reads the other's engines.
    """
    if path.is_dir():
        register_python_plugin(api.module, path)
    else:
        load_plugin(api.module, path, expected=expected)
    return plugin_identity()


def plugin_identity() -> dict[str, Any]:
    """Return what an engine depends on of the plugin: its interface. The kernels themselves stay outside the engine."""
    return {"name": NAME, "version": VERSION, "namespace": NAMESPACE, "abi": ABI}
