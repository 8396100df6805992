"""The folder of compiled kernels (see ``python -m hrm_edge.ops.aot``): which binary serves a call.

Axes: B batch, S positions, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.files import read_json, sha256
from hrm_edge.plugin.contract import ABI, LEAST_SM

_BUILD = "build it on a machine with Triton: python -m hrm_edge.ops.aot --out FOLDER"


@dataclass(frozen=True)
class Kernel:
    """One binary, the calls it serves (0 or None: no limit), and how it is launched."""

    sm: int
    dtype: str
    head_dim: int
    rope: bool
    grid: bool
    max_length: int | None
    max_sequences: int | None
    block_m: int
    threads: int
    shared: int  # bytes of dynamic shared memory
    file: str
    sha256: str

    def serves(self, dtype: str, head_dim: int, rope: bool, grid: bool, length: int, sequences: int) -> bool:
        """Return whether it serves such a call; ``sequences`` is B*H."""
        return (
            (self.dtype, self.head_dim, self.rope, self.grid) == (dtype, head_dim, rope, grid)
            and (not self.max_length or length <= self.max_length)
            and (not self.max_sequences or sequences <= self.max_sequences)
        )


class KernelFolder:
    """Reads ``kernels.json``; binaries are read, and their hashes verified, when they are asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        path = self.folder / "kernels.json"
        if not path.is_file():
            raise UserError(f"{self.folder} holds no compiled kernels", _BUILD)
        raw = read_json(path)
        try:
            self.abi, self.base, self.symbol = int(raw["abi"]), int(raw["base"]), str(raw["symbol"])
            self.kernels = tuple(Kernel(**row) for row in raw["kernels"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}", _BUILD) from error
        if self.abi != ABI:
            raise UserError(f"{path}: kernels of ABI {self.abi}, this hrm-edge launches ABI {ABI}", _BUILD)

    @property
    def sms(self) -> tuple[int, ...]:
        """Architectures with binaries of their own; the base's PTX serves the others."""
        return tuple(sorted({kernel.sm for kernel in self.kernels} - {self.base}))

    def candidates(
        self, sm: int, dtype: str, head_dim: int, rope: bool, grid: bool, length: int, sequences: int
    ) -> tuple[Kernel, ...]:
        """Return kernels to try for a call on architecture ``sm``: its own binary if any, then the base's PTX."""
        if sm < LEAST_SM:
            raise UserError(
                f"the attention plugin needs compute capability {LEAST_SM / 10}, this GPU has {sm / 10}",
                "export without --plugin",
            )
        kernels = []
        for wanted in dict.fromkeys((sm, self.base)):
            fitting = (
                k for k in self.kernels if k.sm == wanted and k.serves(dtype, head_dim, rope, grid, length, sequences)
            )
            kernels += [kernel for kernel in (next(fitting, None),) if kernel is not None]
        if not kernels:
            kind = f"{'with' if rope else 'without'} rope{', heads of a board' * grid}"
            case = f"{dtype}, head size {head_dim}, {kind}, length {length}"
            raise UserError(f"{self.folder} has no kernel for {case}", _BUILD)
        return tuple(kernels)

    def read(self, kernel: Kernel) -> bytes:
        """Return the binary (cubin, or PTX ending in a zero byte)."""
        path = self.folder / kernel.file
        if not path.is_file():
            raise UserError(f"{path} is missing although kernels.json lists it", _BUILD)
        if sha256(path) != kernel.sha256:
            raise UserError(f"{path}: hash mismatch, the file was changed or damaged", _BUILD)
        return path.read_bytes()
