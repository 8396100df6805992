"""The Python plugin through TensorRT's lean runtime, and its launches against a stand-in for the CUDA driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrm_edge.errors import UserError
from hrm_edge.plugin import python as module
from hrm_edge.plugin.contract import ABI, NAME, NAMESPACE, VERSION
from hrm_edge.plugin.driver import Driver, DriverError
from hrm_edge.plugin.kernels import KernelFolder
from hrm_edge.plugin.python import _Launcher, _plugin_classes, register_python_plugin
from tests.plugin.conftest import FakeCuda

KEPT: list[Any] = []  # a PluginField points into its array and does not keep it alive
QKV, COS, SIN, OUT, STREAM = 0x10000, 0x20000, 0x30000, 0x40000, 7


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_lean_bindings", reason="pip install 'hrm-edge[lean]'")


@pytest.fixture
def creator(trt: Any, kernels: Path) -> Iterator[Any]:
    yield register_python_plugin(trt, kernels)
    trt.get_plugin_registry().deregister_creator(module._registered.pop(trt.__name__))


def fields(trt: Any, **values: int | list[int]) -> Any:
    KEPT.extend(np.array(value if isinstance(value, list) else [value], np.int32) for value in values.values())
    arrays = KEPT[len(KEPT) - len(values) :]
    return trt.PluginFieldCollection(
        [trt.PluginField(n, a, trt.PluginFieldType.INT32) for n, a in zip(values, arrays, strict=True)]
    )


def test_registered_found_created_serialized_and_read_again(trt: Any, creator: Any) -> None:
    found = trt.get_plugin_registry().get_creator(NAME, VERSION, NAMESPACE)
    assert found is creator
    assert [field.name for field in found.field_names] == ["heads", "grid"]
    built = found.create_plugin("layer", fields(trt, heads=8, grid=[9, 9, 3, 3]), trt.TensorRTPhase.BUILD)
    copy = built.clone()
    stored = copy.get_fields_to_serialize()
    _ = [np.full(1, 77 + i, np.int32) for i in range(100)]  # memory that was let go would be these now
    assert {field.name: field.data.tolist() for field in stored} == {"heads": [8], "abi": [ABI], "grid": [9, 9, 3, 3]}
    read = found.create_plugin("layer", stored, trt.TensorRTPhase.RUNTIME)
    assert read is not built
    assert (read.heads, read.grid) == (8, (9, 9, 3, 3))
    plain = found.create_plugin("layer", fields(trt, heads=8), trt.TensorRTPhase.BUILD)
    assert {field.name: field.data.tolist() for field in plain.get_fields_to_serialize()}["grid"] == [0, 0, 0, 0]
    assert found.create_plugin("layer", plain.get_fields_to_serialize(), trt.TensorRTPhase.RUNTIME).grid == ()
    assert (read.plugin_name, read.plugin_version, read.plugin_namespace) == (NAME, VERSION, NAMESPACE)


@pytest.mark.parametrize("values, phase, text", [
    ({}, "BUILD", "`heads` must be"),
    ({"heads": 0}, "BUILD", "`heads` must be"),
    ({"heads": 4, "grid": [9, 9, 3]}, "BUILD", "grid [9, 9, 3] is not rows, columns"),
    ({"heads": 4, "grid": [9, 9, 2, 3]}, "BUILD", "boxes of 2x3 do not fill a board of 9x9"),
    ({"heads": 6, "grid": [9, 9, 3, 3]}, "BUILD", "6 heads cannot see row, column, box and board in turn"),
    ({"heads": 4}, "RUNTIME", "has ABI None"),
    ({"heads": 4, "abi": ABI + 1}, "RUNTIME", f"has ABI {ABI + 1}"),
])  # fmt: skip
def test_wrong_fields_make_no_plugin(
    trt: Any, creator: Any, caplog: pytest.LogCaptureFixture, values: dict[str, Any], phase: str, text: str
) -> None:
    assert creator.create_plugin("layer", fields(trt, **values), getattr(trt.TensorRTPhase, phase)) is None
    assert text in caplog.text


def test_it_is_registered_once(trt: Any, creator: Any, kernels: Path) -> None:
    assert register_python_plugin(trt, kernels) is creator


class Desc(SimpleNamespace):
    """A stand-in for TensorRT's descriptions of tensors, whose own cannot be made without an engine."""


def tensors(trt: Any, *shapes: tuple[int, ...], kind: str = "HALF", layout: str = "LINEAR") -> list[Desc]:
    kinds = [kind, *["FLOAT"] * (len(shapes) - 1)]
    formats = trt.TensorFormat
    return [Desc(dims=s, type=getattr(trt.DataType, k), format=getattr(formats, layout), min=s, max=s)
            for s, k in zip(shapes, kinds, strict=True)]  # fmt: skip


@pytest.fixture
def with_formats(trt: Any) -> Any:
    """The lean bindings lack TensorFormat, which every full TensorRT has."""
    if hasattr(trt, "TensorFormat"):
        return trt
    return SimpleNamespace(**{n: getattr(trt, n) for n in dir(trt)}, TensorFormat=SimpleNamespace(LINEAR=0, CHW4=1))


@pytest.fixture
def layer(with_formats: Any, kernels: Path, cuda: FakeCuda) -> Any:
    plugin, _ = _plugin_classes(with_formats)
    return plugin(4, _Launcher(KernelFolder(kernels), lambda: cuda.driver))


ROPE = ((82, 16), (82, 16))


def test_a_launch_with_rope(layer: Any, with_formats: Any, cuda: FakeCuda, kernels: Path) -> None:
    shapes = tensors(with_formats, (3, 82, 3 * 4 * 32), *ROPE)
    layer.configure_plugin(shapes, [])
    attached = layer.attach_to_context(None)
    attached.on_shape_change(shapes, [])
    attached.enqueue(shapes, [], [QKV, COS, SIN], [OUT], 0, STREAM)
    (kernel, _) = KernelFolder(kernels).candidates(87, "float16", 32, True, False, 82, 12)
    last = cuda.last
    assert list(last.grid) == [12 * -(-82 // kernel.block_m), 1, 1]
    assert list(last.block) == [kernel.threads, 1, 1]
    assert (last.shared, last.stream, last.out) == (kernel.shared, STREAM, OUT)
    assert list(last.pointers) == [QKV, COS, SIN]
    assert list(last.integers) == [82, 4, 16, 0, 0, 0, 0]  # length, heads, rope_stride, no board
    assert list(last.scratch) == [None, None]
    assert last.symbol == b"attention_kernel"
    assert cuda.get("ptx") == 0


def test_a_launch_without_rope_and_a_larger_batch(layer: Any, with_formats: Any, cuda: FakeCuda) -> None:
    for batch, length in ((1, 82), (1024, 82), (1, 901)):
        shapes = tensors(with_formats, (batch, length, 3 * 4 * 32))
        layer.on_shape_change(shapes, [])
        layer.enqueue(shapes, [], [QKV], [OUT], 0, STREAM)
        kernel = layer.ready[1]
        assert cuda.last.grid[0] == batch * 4 * -(-length // kernel.block_m)
        assert list(cuda.last.pointers) == [QKV, QKV, QKV]
        assert list(cuda.last.integers) == [length, 4, 0, 0, 0, 0, 0]
    assert cuda.get("modules") == 3  # three rows of the table


def test_a_launch_of_heads_that_see_parts_of_a_board(with_formats: Any, kernels: Path, cuda: FakeCuda) -> None:
    plugin, _ = _plugin_classes(with_formats)
    layer = plugin(4, _Launcher(KernelFolder(kernels), lambda: cuda.driver), (9, 9, 3, 3))
    shapes = tensors(with_formats, (2, 81, 3 * 4 * 32))
    layer.configure_plugin(shapes, [])
    attached = layer.attach_to_context(None)
    attached.on_shape_change(shapes, [])
    attached.enqueue(shapes, [], [QKV], [OUT], 0, STREAM)
    assert attached.ready[1].grid
    assert list(cuda.last.integers) == [81, 4, 0, 9, 9, 3, 3]
    assert cuda.last.out == OUT
    with pytest.raises(UserError, match="a board of 9x9 has 81 cells, there are 82 positions"):
        attached.on_shape_change(tensors(with_formats, (2, 82, 3 * 4 * 32)), [])


def test_modules_are_loaded_once_per_context(layer: Any, with_formats: Any, cuda: FakeCuda) -> None:
    shapes = tensors(with_formats, (1, 82, 3 * 4 * 32))
    for _ in range(2):
        layer.clone().on_shape_change(shapes, [])
    assert cuda.get("modules") == 1
    cuda.set("context", 2)
    layer.on_shape_change(shapes, [])
    assert cuda.get("modules") == 2


@pytest.mark.parametrize("sm, refuse, expected_ptx", [(87, 0, 0), (87, 209, 1), (87, 200, 1), (86, 0, 1), (121, 0, 1)])
def test_ptx_where_there_is_no_cubin_or_the_driver_refuses_it(
    layer: Any, with_formats: Any, cuda: FakeCuda, sm: int, refuse: int, expected_ptx: int
) -> None:
    cuda.set("sm", sm)
    cuda.set("refuse_cubin", refuse)
    shapes = tensors(with_formats, (1, 82, 3 * 4 * 32))
    layer.on_shape_change(shapes, [])
    layer.enqueue(shapes, [], [QKV], [OUT], 0, STREAM)
    assert cuda.get("ptx") == expected_ptx
    assert cuda.last.block[0] == layer.ready[1].threads


def test_another_driver_error_is_not_hidden_by_the_fallback(layer: Any, with_formats: Any, cuda: FakeCuda) -> None:
    cuda.set("refuse_cubin", 2)  # out of memory
    with pytest.raises(DriverError, match="cuModuleLoadData failed with error 2"):
        layer.on_shape_change(tensors(with_formats, (1, 82, 3 * 4 * 32)), [])


@pytest.mark.parametrize("shapes, text", [
    ([(1, 82, 385)], "is not [B, S, 3*heads*Dh] with heads=4"),
    ([(1, 82, 3 * 4 * 16)], "head size 16"),
    ([(1, 1025, 3 * 4 * 32)], "1025 positions"),
    ([(1, 0, 3 * 4 * 32)], "0 positions"),
    ([(1, 82, 3 * 4 * 32), (82, 32), (82, 32)], "a rope table is [82, 32]"),
    ([(1, 82, 3 * 4 * 32), (81, 16), (81, 16)], "a rope table is [81, 16]"),
    ([(1, 82, 3 * 4 * 32), (82, 16)], "2 inputs"),
    ([(82, 3 * 4 * 32)], "is not [B, S"),
])  # fmt: skip
def test_shapes_that_are_refused(layer: Any, with_formats: Any, shapes: list[tuple[int, ...]], text: str) -> None:
    for call in (layer.configure_plugin, layer.on_shape_change):
        with pytest.raises(UserError) as error:
            call(tensors(with_formats, *shapes), [])
        assert text in error.value.problem


def test_enqueue_refuses_what_it_was_not_prepared_for(layer: Any, with_formats: Any) -> None:
    shapes = tensors(with_formats, (1, 82, 3 * 4 * 32))
    with pytest.raises(UserError, match="before it was told"):
        layer.enqueue(shapes, [], [QKV], [OUT], 0, STREAM)
    layer.on_shape_change(shapes, [])
    with pytest.raises(UserError, match="before it was told"):
        layer.enqueue(tensors(with_formats, (2, 82, 3 * 4 * 32)), [], [QKV], [OUT], 0, STREAM)
    with pytest.raises(UserError, match="not aligned to 16 bytes"):
        layer.enqueue(shapes, [], [QKV + 8], [OUT], 0, STREAM)


def test_formats(layer: Any, with_formats: Any) -> None:
    trt = with_formats

    def ask(position: int, *kinds: str, layout: str = "LINEAR") -> bool:
        described = [Desc(desc=Desc(type=getattr(trt.DataType, kind), format=getattr(trt.TensorFormat, layout)))
                     for kind in kinds]  # fmt: skip
        return bool(layer.supports_format_combination(position, described, len(kinds) - 1))

    for kind in ("HALF", "BF16", "FLOAT"):
        assert all(ask(i, kind, "FLOAT", "FLOAT", kind) for i in range(4))
        assert not ask(0, kind, kind, layout="CHW4")
    assert not ask(0, "INT8", "INT8")
    assert not ask(1, "HALF", "HALF", "HALF", "HALF")  # tables stay float32
    assert not ask(3, "HALF", "FLOAT", "FLOAT", "FLOAT")


def test_an_old_gpu_is_refused(layer: Any, with_formats: Any, cuda: FakeCuda) -> None:
    cuda.set("sm", 75)
    with pytest.raises(UserError, match=r"needs compute capability 8.0, this GPU has 7.5"):
        layer.on_shape_change(tensors(with_formats, (1, 82, 3 * 4 * 32)), [])


def test_without_a_driver_or_a_context(cuda: FakeCuda) -> None:
    with pytest.raises(UserError, match="no CUDA driver"):
        Driver("libcuda-that-is-not-there.so.1")
    cuda.set("context", 0)
    with pytest.raises(UserError, match="no CUDA context is current"):
        cuda.driver.context()


def test_a_damaged_folder_is_named(kernels: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no compiled kernels"):
        KernelFolder(tmp_path)
    document = json.loads((kernels / "kernels.json").read_text())
    path = tmp_path / "kernels.json"
    path.write_text(json.dumps(document))
    folder = KernelFolder(tmp_path)
    with pytest.raises(UserError, match="is missing although"):
        folder.read(folder.kernels[0])
    (tmp_path / folder.kernels[0].file).write_bytes(b"\x7fELF")
    with pytest.raises(UserError, match="hash mismatch"):
        folder.read(folder.kernels[0])
    with pytest.raises(UserError, match="no kernel for float32"):
        folder.candidates(87, "float32", 32, True, False, 82, 8)
    path.write_text(json.dumps({**document, "abi": ABI + 1}))
    with pytest.raises(UserError, match=f"kernels of ABI {ABI + 1}"):
        KernelFolder(tmp_path)
    path.write_text('{"abi": 1}')
    with pytest.raises(UserError, match="is damaged"):
        KernelFolder(tmp_path)
