"""Remove what names a person from texts: home and other folders, the user, the machine's name in the network."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Accounts and hosts that systems come with. They name nobody, and some are words of our own messages.
_ACCOUNTS = "root user users admin nvidia jetson ubuntu debian pi docker python gpu cpu home video render"
_HOSTS = "localhost localdomain orin thor nano tegra-ubuntu"
_NOBODY = {"", *_ACCOUNTS.split(), *_HOSTS.split()}
# Folders that every machine has. Of any other absolute path only the last part stays.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "sys", "usr", "var")
# A slash that begins a path: not one inside a word, a relative path or an address.
_ABSOLUTE = re.compile(r"(?<![\w.~/:*-])/[^\s'\",:;()<>|\[\]]+")


class Scrubber:
    """``scrub`` texts of ``people`` and ``hosts``; ``folders`` (path → name) are replaced where a text holds them."""

    def __init__(self, folders: dict[str, str], people: Iterable[str], hosts: Iterable[str]) -> None:
        long_first = sorted((path for path in folders if path.count("/") > 0 and path != "/"), key=len, reverse=True)
        self._folders = [(re.compile(re.escape(path) + r"(?![\w.-])"), folders[path]) for path in long_first]
        words = dict.fromkeys(people, "USER") | dict.fromkeys(hosts, "HOST")
        self._words = [
            (re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])"), instead)
            for word, instead in sorted(words.items(), key=lambda item: -len(item[0]))
            if word.lower() not in _NOBODY
        ]

    def text(self, text: str) -> str:
        """Return ``text`` without them."""
        for pattern, instead in self._folders:
            text = pattern.sub(lambda _, instead=instead: instead, text)  # type: ignore[misc]
        text = _ABSOLUTE.sub(_last_part, text)
        # A word that stands alone is a value such as a kind or a precision, not a sentence that names somebody.
        if re.search(r"[\s/@]", text):
            for pattern, instead in self._words:
                text = pattern.sub(instead, text)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value without them in its texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        return value


def _last_part(path: re.Match[str]) -> str:
    first, _, _ = path[0].lstrip("/").partition("/")
    return path[0] if first in _SYSTEM else path[0].rstrip("/").rpartition("/")[2] or "/"


def scrubber_of_this_machine(out: Path) -> Scrubber:
    """Return what removes this user's and machine's names; ``out`` is the record's folder."""
    home = str(Path.home())
    folders = {os.path.realpath(out): "RECORD", os.path.abspath(out): "RECORD", str(Path.cwd()): "."}
    if not sys.prefix.startswith("/usr"):
        folders[sys.prefix] = "VENV"
    folders |= {home: "~", os.path.realpath(home): "~"}
    # getuser asks the environment first, then the system; who called sudo is named by it alone
    people = {getpass.getuser(), Path(home).name, os.environ.get("SUDO_USER", ""), os.environ.get("LOGNAME", "")}
    host = socket.gethostname()
    return Scrubber(folders, people, {host, host.partition(".")[0]})


def publishable_diagnosis(diagnosis: dict[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    """Return the doctor's JSON without the user's name and groups of their own."""
    facts = diagnosis["facts"]
    known = set(facts["known_groups"])
    facts = {**facts, "user": "root" if facts["is_root"] else "USER", "groups": sorted(set(facts["groups"]) & known)}
    cleaned: dict[str, Any] = scrubber.value({**diagnosis, "facts": facts})
    return cleaned
