"""Compile the fused kernel ahead of time, with no GPU: cubins per architecture, and PTX for all the others.

    python -m hrm_edge.ops.aot --out kernels [--sm 87 ...] [--dtype float16 ...] [--head-dim 64 ...]

The folder is what the TensorRT plugins carry: the binaries, ``kernels.json`` for Python and ``kernels.inc`` for C++.
A device needs neither Triton nor this module.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_edge import __version__
from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.files import atomic_folder, sha256
from hrm_edge.ops.tuning import BASE_SM, SMS, Config, read_table
from hrm_edge.plugin.contract import ABI, DTYPES, HEAD_DIMS

_BOARD = ("rows", "columns", "box_rows", "box_columns")
PARAMETERS = (
    *("qkv", "cos", "sin", "length", "heads", "rope_stride", *_BOARD, "out"),
    *("global_scratch", "profile_scratch"),
)
_SYMBOL = "attention_kernel"
# PTX is translated by the driver, and JetPack 6.2's is CUDA 12.6 (PTX 8.5): the oldest that Triton's code needs
_PTX_VERSION = 80
_TRITON_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True)
class _Variant:
    """One compiled kernel: what it computes and with which tiles."""

    dtype: str
    head_dim: int
    rope: bool
    config: Config
    grid: bool = False

    @property
    def name(self) -> str:
        kind = ("rope" if self.rope else "plain") + ("_grid" if self.grid else "")
        return f"{_TRITON_TYPES[self.dtype]}_d{self.head_dim}_{kind}_{self.config.name}"


def _compile_variant(sm: int, variant: _Variant) -> Any:
    """Compile a Triton kernel, with ``asm["ptx"]``, ``asm["cubin"]`` and ``metadata``; the base gets portable PTX."""
    try:
        import triton
        from triton import knobs
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError as error:
        raise UserError("compiling the fused kernel needs Triton", "pip install 'hrm-edge[fused]'") from error
    from hrm_edge.ops.kernel import attention_kernel

    element = f"*{_TRITON_TYPES[variant.dtype]}"
    types = (element, "*fp32", "*fp32", *["i32"] * (3 + len(_BOARD)), element)
    signature = dict(zip(PARAMETERS, types, strict=False))
    config = variant.config
    constants = {
        "D": variant.head_dim,
        "ROPE": variant.rope,
        "GRID": variant.grid,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
    }
    source = ASTSource(
        fn=attention_kernel,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={
            (index,): [["tt.divisibility", 16]] for index in (0, 1, 2, types.index(element, 1))
        },  # the plugins check the pointers
    )
    options = {"num_warps": config.warps, "num_stages": config.stages}
    if sm == BASE_SM:
        options["ptx_version"] = _PTX_VERSION
    with knobs.compilation.scope():
        knobs.compilation.disable_line_info = True  # half of a cubin's size, and paths of the machine that built it
        kernel = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    _check_abi(kernel, variant)
    return kernel


def _check_abi(kernel: Any, variant: _Variant) -> None:
    """Refuse a Triton whose launch takes more than PARAMETERS: the launchers pass no scratch memory."""
    header = re.search(rf"\.entry {_SYMBOL}\((.*?)\)", kernel.asm["ptx"], re.DOTALL)
    count = len(re.findall(r"\.param", header.group(1))) if header else 0
    meta = kernel.metadata
    if count != len(PARAMETERS) or meta.global_scratch_size or meta.profile_scratch_size or meta.num_ctas != 1:
        raise UserError(
            f"this Triton compiles {variant.name} to {count} parameters or with scratch memory",
            f"the launchers expect {', '.join(PARAMETERS)}: install the pinned Triton",
        )


def _variants(sm: int, dtypes: tuple[str, ...], head_dims: tuple[int, ...]) -> list[tuple[_Variant, dict[str, Any]]]:
    """Return every kernel that the table of ``sm`` can ask for, with its row's limits, in the order they are tried."""
    table = read_table()
    open_cases = {(dtype, head_dim) for dtype in dtypes for head_dim in head_dims}
    kernels = []
    for row in table.get(sm, table[BASE_SM]).rows:
        limits = {"max_length": row.max_length, "max_sequences": row.max_sequences}
        for dtype, head_dim in sorted(case for case in open_cases if row.serves(*case)):
            kinds = itertools.product((True, False), (True, False))
            kernels += [(_Variant(dtype, head_dim, rope, row.config, grid), limits) for rope, grid in kinds]
            if not any(limits.values()):
                open_cases.remove((dtype, head_dim))  # no later row is reached
    return kernels


def build(out: Path, sms: tuple[int, ...], dtypes: tuple[str, ...], head_dims: tuple[int, ...]) -> dict[str, Any]:
    """Write the folder ``out`` and return what its ``kernels.json`` holds; the base's PTX is always in it."""
    import triton

    rows: list[dict[str, Any]] = []
    with atomic_folder(out) as folder:
        for sm in (*sms, BASE_SM):
            for variant, limits in _variants(sm, dtypes, head_dims):
                ending = "ptx" if sm == BASE_SM else "cubin"
                path = folder / f"sm{sm}_{variant.name}.{ending}"
                kernel = _compile_variant(sm, variant)
                if not path.exists():
                    code = kernel.asm[ending]
                    # the driver wants a C string
                    path.write_bytes(code.encode() + b"\0" if ending == "ptx" else code)
                rows.append(
                    {
                        "sm": sm,
                        "dtype": variant.dtype,
                        "head_dim": variant.head_dim,
                        "rope": variant.rope,
                        "grid": variant.grid,
                        **limits,
                        "block_m": variant.config.block_m,
                        "threads": 32 * kernel.metadata.num_warps,
                        "shared": kernel.metadata.shared,
                        "file": path.name,
                        "sha256": sha256(path),
                    }
                )
        document = {
            "abi": ABI,
            "version": __version__,
            "triton": triton.__version__,
            "symbol": _SYMBOL,
            "kernels": rows,
        }
        document["base"] = BASE_SM
        (folder / "kernels.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (folder / "kernels.inc").write_text(_render_inc(document), encoding="utf-8")
    return document


def _render_inc(document: dict[str, Any]) -> str:
    """Return the table for the C++ plugin: HRM_BLOB(id, file), then HRM_KERNEL(...) in the order they are tried."""
    files = list(dict.fromkeys(row["file"] for row in document["kernels"]))
    lines = [f'HRM_META({document["abi"]}, "{document["version"]}", {document["base"]})']
    lines += [f'HRM_BLOB({index}, "{name}")' for index, name in enumerate(files)]
    for row in document["kernels"]:
        values = [files.index(row["file"]), row["sm"], DTYPES.index(row["dtype"]), row["head_dim"]]
        values += [int(row["rope"]), int(row["grid"])]
        values += [row["max_length"] or 0, row["max_sequences"] or 0, row["block_m"], row["threads"], row["shared"]]
        lines.append(f"HRM_KERNEL({', '.join(map(str, values))})")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hrm_edge.ops.aot", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder for the kernels")
    parser.add_argument("--sm", type=int, nargs="+", choices=SMS, default=list(SMS), help="architectures")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="element types")
    parser.add_argument("--head-dim", type=int, nargs="+", choices=HEAD_DIMS, default=list(HEAD_DIMS))
    options = parser.parse_args(arguments)
    try:
        done = build(options.out, tuple(options.sm), tuple(options.dtype), tuple(options.head_dim))
    except HrmEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {len(done['kernels'])} kernels, {size / 1e6:.1f} MB, Triton {done['triton']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
