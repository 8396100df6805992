"""Paths and commands in reports, without the folders of the machine that wrote them."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator


def _publishable(path: str) -> str:
    return PurePath(path).name if PurePath(path).is_absolute() else path


PublishedPath = Annotated[str, AfterValidator(_publishable)]
"""Path as it was given; of an absolute path only the last part, because folders of a machine mean nothing elsewhere."""


def _publishable_words(command: str) -> str:
    words = (word.partition("=") if word.startswith("--") else ("", "", word) for word in shlex.split(command))
    return shlex.join(name + equals + _publishable(value) for name, equals, value in words)


PublishedCommand = Annotated[str, AfterValidator(_publishable_words)]
"""Shell command; only the last part of each absolute path in it."""
