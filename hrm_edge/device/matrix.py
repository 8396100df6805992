"""JetPack releases and what each brings, from ``jetpack.yaml`` beside this file."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

MATRIX = Path(__file__).with_name("jetpack.yaml")


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Release(_Closed):
    """One JetPack. Versions are leading parts: ``10.3`` stands for every TensorRT 10.3.x."""

    jetpack: str
    l4t: list[str]
    socs: list[str]
    cuda: str
    tensorrt: list[str]
    python: str
    cuda_python: str
    torch: str
    """Where it comes from; for people."""
    torch_tensorrt: str
    packages: dict[str, dict[str, str]]
    """SoC → package → the only version that works there; one that is not named is not tied to the JetPack."""


class Soc(_Closed):
    name: str
    sm: str


class Matrix(_Closed):
    releases: list[Release]
    socs: dict[str, Soc]
    modules: dict[str, str]

    def release_of(self, l4t: str) -> Release | None:
        """The JetPack of an L4T version such as ``36.4.3``: a row that names it in full, else one for its branch."""
        for release in self.releases:
            if l4t in release.l4t:
                return release
        return next((r for r in self.releases if any(starts_with(l4t, branch) for branch in r.l4t)), None)


def jetpack_of(l4t: str | None) -> str | None:
    """The JetPack that ships an L4T release, None where no row has it."""
    release = load_matrix().release_of(l4t) if l4t else None
    return release.jetpack if release else None


def starts_with(version: str, leading: str) -> bool:
    """Whether ``version`` begins with all parts of ``leading``: 10.3.0.30 with 10.3, but 10.30 does not."""
    return version == leading or version.startswith(f"{leading}.")


@functools.cache
def load_matrix() -> Matrix:
    return Matrix.model_validate(yaml.safe_load(MATRIX.read_text(encoding="utf-8")))
