"""The base of every part of a report."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Closed(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _publishable(path: str) -> str:
    return PurePath(path).name if PurePath(path).is_absolute() else path


PublishedPath = Annotated[str, AfterValidator(_publishable)]
"""A path as it was given; of an absolute one the last part, since the machine's folders tell a reader nothing."""


def _publishable_words(command: str) -> str:
    words = (word.partition("=") if word.startswith("--") else ("", "", word) for word in shlex.split(command))
    return shlex.join(name + equals + _publishable(value) for name, equals, value in words)


PublishedCommand = Annotated[str, AfterValidator(_publishable_words)]
"""A shell command; of its absolute paths the last part."""
