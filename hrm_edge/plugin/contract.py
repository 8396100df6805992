"""Contract between operator, ONNX node and plugins: names, limits, and the version of what they exchange."""

from __future__ import annotations

from collections.abc import Sequence

NAME = "FusedAttention"  # of the plugin and of the ONNX node
VERSION = "2"  # of the plugin's inputs, outputs and fields; 1 had no field `grid`, and would have ignored it
NAMESPACE = "hrm_edge"  # and domain of the ONNX node
ABI = 2  # of kernels.json and of the kernels' launch parameters; an engine and a library must have the same

DTYPES = ("float16", "bfloat16", "float32")  # by index in the C++ plugin
HEAD_DIMS = (32, 64)
MAX_LENGTH = 1024
LEAST_SM = 80  # asynchronous copies and bfloat16 products begin with Ampere
ALIGNMENT = 16  # bytes, of every pointer: the kernels load vectors

NO_GRID = (0, 0, 0, 0)  # of the field `grid` and of the launch where all heads see all positions
VIEWS = 4  # head h sees, by h % 4: its cell's row, its column, its box, the whole board


def view_blocks(grid: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (rows, columns) of the block of cells that each view shows; ``grid`` as in ``ModelSpec.grid``."""
    rows, columns, box_rows, box_columns = grid
    return (1, columns), (rows, 1), (box_rows, box_columns), (rows, columns)


def grid_problem(grid: Sequence[int], heads: int, length: int) -> str | None:
    """Return why the kernels have no blocks for this board; None where they have. A length of -1 is not known yet."""
    if len(grid) != 4 or min(grid) < 1:
        return f"grid {list(grid)} is not rows, columns, rows of a box, columns of a box"
    rows, columns, box_rows, box_columns = grid
    if rows % box_rows or columns % box_columns:
        return f"boxes of {box_rows}x{box_columns} do not fill a board of {rows}x{columns}"
    if length not in (rows * columns, -1):
        return f"a board of {rows}x{columns} has {rows * columns} cells, there are {length} positions"
    return None if heads % VIEWS == 0 else f"{heads} heads cannot see row, column, box and board in turn"


def shape_problem(heads: int, qkv: Sequence[int], grid: Sequence[int] = ()) -> str | None:
    """Return why the kernels do not compute the attention of ``qkv`` [B, S, 3*heads*Dh]; None where they do.

    A dimension of -1 is not known yet.
    """
    if len(qkv) != 3 or heads < 1 or qkv[2] <= 0 or qkv[2] % (3 * heads):
        return f"qkv {list(qkv)} is not [B, S, 3*heads*Dh] with heads={heads}"
    if qkv[2] // (3 * heads) not in HEAD_DIMS:
        return f"head size {qkv[2] // (3 * heads)}, the kernels have {HEAD_DIMS}"
    if qkv[1] == 0 or qkv[1] > MAX_LENGTH:
        return f"{qkv[1]} positions, the kernels take 1 to {MAX_LENGTH}"
    return grid_problem(grid, heads, qkv[1]) if grid else None
