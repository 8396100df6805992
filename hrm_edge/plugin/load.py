"""Find and load the plugin library, before an engine that needs it is read, and say what is wrong if that fails."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hrm_edge import __version__
from hrm_edge.errors import UserError
from hrm_edge.files import sha256
from hrm_edge.plugin.contract import ABI, NAME, NAMESPACE, VERSION

LIBRARY = "libhrm_edge_plugin.so"
SOURCES = Path(__file__).with_name("cpp")
# Where 'cmake --install' puts the library. Not the current folder, nor the engine's: what was downloaded holds no code.
FOLDERS = (Path(__file__).parent / "lib", Path("/usr/local/lib"))
_HOW_TO_BUILD = (
    "build it: python -m hrm_edge.ops.aot --out kernels (any machine with Triton), then "
    f"cmake -S {SOURCES} -B build -DHRM_KERNELS_DIR=$PWD/kernels && cmake --build build && "
    f"cmake --install build --prefix {SOURCES.parent}"
)


@dataclass(frozen=True)
class PluginInfo:
    """Plugin that an engine needs, by its sidecar; compared before the engine is read."""

    library: str  # file name
    sha256: str
    abi: int
    package: str  # hrm-edge that compiled the kernels
    tensorrt_headers: str  # major.minor
    sms: tuple[int, ...]
    name: str = NAME
    version: str = VERSION
    namespace: str = NAMESPACE

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_library(path: Path | str | None = None) -> Path:
    """Find the library at ``path`` (a file, or a folder that holds it), by default where it was installed."""
    if path is not None:
        wanted = Path(path)
        wanted = wanted / LIBRARY if wanted.is_dir() else wanted
        if not wanted.is_file():
            raise UserError(f"{wanted}: no such plugin library", _HOW_TO_BUILD)
        return wanted
    for folder in FOLDERS:
        if (folder / LIBRARY).is_file():
            return folder / LIBRARY
    raise UserError(f"{LIBRARY} is in none of {', '.join(map(str, FOLDERS))}", _HOW_TO_BUILD)


def _describe(library: Path) -> PluginInfo:
    """Ask a library what it is, before TensorRT sees it."""
    try:
        ask = ctypes.CDLL(str(library.resolve())).hrm_edge_plugin_info
    except OSError as error:
        raise UserError(f"{library} cannot be loaded: {error}", "build it on this machine") from error
    except AttributeError as error:
        raise UserError(f"{library} is no plugin library of hrm-edge", _HOW_TO_BUILD) from error
    ask.restype = ctypes.c_char_p
    abi, package, headers, sms = ask().decode().split(" ")
    return PluginInfo(
        library.name, sha256(library), int(abi), package, headers, tuple(int(sm) for sm in sms.split(","))
    )


def _check(info: PluginInfo, expected: dict[str, Any] | None = None) -> None:
    """Raise ``UserError`` unless the library serves this hrm-edge and, where given, the engine's sidecar."""
    if info.abi != ABI:
        raise UserError(
            f"{info.library} has ABI {info.abi}, hrm-edge {__version__} needs {ABI}", "build the plugin again"
        )
    for field in ("name", "version", "namespace", "abi"):
        ours, wanted = info.as_dict()[field], (expected or {}).get(field)
        if wanted is not None and wanted != ours:
            raise UserError(
                f"the engine needs plugin {field} {wanted!r}, {info.library} has {ours!r}",
                "build the engine again, or load the library that it was built with",
            )


def load_plugin(trt: Any, path: Path | str | None = None, *, expected: dict[str, Any] | None = None) -> PluginInfo:
    """Load the library into ``trt``'s plugin registry and return what it is; ``expected`` is the sidecar's record.

    ``trt`` is the TensorRT module that will build or read the engine.
    """
    library = find_library(path)
    info = _describe(library)
    _check(info, expected)
    registry = trt.get_plugin_registry()
    if registry.get_creator(NAME, VERSION, NAMESPACE) is not None:
        return info  # loaded earlier, or the Python plugin is registered: either reads the engine
    if registry.load_library(str(library.resolve())) is None:
        raise UserError(f"TensorRT {trt.__version__} did not take {library}", _HOW_TO_BUILD)
    if registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        raise UserError(f"{library} was loaded, but {NAMESPACE}::{NAME} is not in the registry", _HOW_TO_BUILD)
    return info


def explain(message: str) -> UserError | None:
    """Explain TensorRT's plugin errors; None where ``message`` is about something else."""
    low = message.lower()
    if "plugin not found" in low or ("getplugincreator could not find" in low) or "no importer registered" in low:
        return UserError(
            f"TensorRT does not know a plugin that the model uses (ours is {NAMESPACE}::{NAME}, version {VERSION})",
            f"load {LIBRARY} before the model: hrm_edge.plugin.load.load_plugin, or trtexec --dynamicPlugins; "
            f"{_HOW_TO_BUILD}",
        )
    return None
