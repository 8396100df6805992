"""JetPack releases and the versions that each one ships, from ``jetpack.yaml`` in this folder."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml

from hrm_edge.records import Record

MATRIX = Path(__file__).with_name("jetpack.yaml")


class Release(Record):
    """JetPack release. A version is a prefix: ``10.3`` stands for every TensorRT 10.3.x."""

    jetpack: str
    l4t: list[str]
    socs: list[str]
    cuda: str
    tensorrt: list[str]
    python: str
    cuda_python: str
    torch: str
    """Source of its wheel, as text for people."""
    torch_tensorrt: str
    packages: dict[str, dict[str, str]]
    """SoC → package → the only version that works there; packages that are not listed do not depend on the JetPack."""


class _Soc(Record):
    """Chip and the compute capability of its GPU, such as ``8.7``."""

    name: str
    sm: str


class _Matrix(Record):
    """All of ``jetpack.yaml``."""

    releases: list[Release]
    socs: dict[str, _Soc]
    """Chip's name in the device tree (``tegra234``) → chip."""
    modules: dict[str, str]
    """Part number in the device tree → module's name."""

    def release_of(self, l4t: str) -> Release | None:
        """Return the release of an L4T version (``36.4.3``): the row that lists it, else the row of its branch."""
        for release in self.releases:
            if l4t in release.l4t:
                return release
        return next((r for r in self.releases if any(starts_with(l4t, branch) for branch in r.l4t)), None)


def jetpack_of(l4t: str | None) -> str | None:
    """Return the JetPack that ships an L4T release, or None where no row has it."""
    release = load_matrix().release_of(l4t) if l4t else None
    return release.jetpack if release else None


def starts_with(version: str, leading: str) -> bool:
    """Return whether all parts of ``leading`` begin ``version``: 10.3 begins 10.3.0.30, but not 10.30."""
    return version == leading or version.startswith(f"{leading}.")


@functools.cache
def load_matrix() -> _Matrix:
    """Read and check ``jetpack.yaml``, once per process."""
    return _Matrix.model_validate(yaml.safe_load(MATRIX.read_text(encoding="utf-8")))
