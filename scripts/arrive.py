"""Arrive as a new user does: a fresh copy, a fresh environment, and nothing typed but what the documents print.

    python scripts/arrive.py student       # a laptop: install, solve a photo on the demo's page
    python scripts/arrive.py researcher    # data from files, training resumed, a checkpoint evaluated, ARC submitted
    python scripts/arrive.py engineer      # gather wheels, install on a board over ssh, bring a report back

Prints how long each command took, and writes it as JSON (--out FILE, default build/arrive-USER.json). Where the
document's words do not fit here, they are replaced by the table below, and both are reported. It needs `make venv` and
a package index; the engineer's board is an sshd on this machine, with a home of its own (openssh-server, rsync).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # what a user brings is drawn by the tests' helpers

from hrm_edge.device.identity import describe_device  # noqa: E402
from hrm_edge.errors import HrmEdgeError, UserError  # noqa: E402
from hrm_edge.files import read_json, write_json  # noqa: E402
from tests import inputs  # noqa: E402
from tests.remote.board import Board, free_port  # noqa: E402

INTERRUPTED = 130
SERVES = "hrm-edge demo"  # until Ctrl-C
PHOTO = "docs/pictures/photo.jpg"
# Of docs/how-to/published.md: what makes six commands minutes on a CPU.
SMALL = "model.hidden=64 model.max_steps=4 train.batch=2 train.steps=2 train.compile=false evaluate.puzzles=2"
PLAIN = "{}.{}".format(*sys.version_info)


@dataclass(frozen=True)
class User:
    """Who arrives: the documents' lines to type, what is replaced in them, and what has to be there at the end."""

    lines: tuple[tuple[str, str, slice], ...]
    """(document, heading, which lines of the first block under it)."""
    most: int
    """Commands at most."""
    replaced: tuple[tuple[str, str], ...] = ()
    """(pattern, text): a free port, this machine in the place of a board, a training of seconds."""
    bring: tuple[Callable[[Path], None], ...] = ()
    made: tuple[str, ...] = ()
    board: bool = False


ALL = slice(None)
USERS = {
    "student": User((("README.md", "Three commands", ALL),), 3, made=("solved.jpg",)),
    "researcher": User(
        (("docs/how-to/published.md", "Six commands, from files on your disk to a submission", ALL),),
        6,
        ((r"(data build arc .*)", r"\1 --augment 3"), (r"(train arc-1_reduced)", rf"\1 {SMALL}"), ("12h", "1s")),
        (inputs.archives, inputs.published, inputs.puzzles),
        ("submission.json",),
    ),
    "engineer": User(
        (("README.md", "Three commands", slice(2)), ("README.md", "For engineers", ALL)),
        5,
        (
            (r"'\.\[web\]'", "."),
            (r"\bHOST\b", "board"),
            (r"make wheelhouse", rf"make wheelhouse WHEELS='--machine {platform.machine()} --python {PLAIN}'"),
        ),
        made=("board.json",),
        board=True,
    ),
}


@dataclass
class Typed:
    """A command that was run: as the document prints it, as it was typed, what it took and said."""

    document: str
    printed: str
    typed: str
    seconds: float = 0
    exit_code: int | None = None
    said: str = field(default="", repr=False)


def block(document: str, heading: str) -> list[str]:
    """Lines of the first block of commands under ``heading``, continued lines joined, comments left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n.*?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise UserError(f"{document} has no commands under '{heading}'", "name the heading in scripts/arrive.py")
    lines = found[1].replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def to_type(user: User) -> list[Typed]:
    """The commands of ``user``, with this machine's words in them."""
    commands = []
    for document, heading, which in user.lines:
        for printed in block(document, heading)[which]:
            typed = printed
            for pattern, text in user.replaced:
                typed = re.sub(pattern, text, typed)
            commands.append(Typed(document, printed, typed))
    return commands


def fresh_copy(folder: Path) -> None:
    """Copy what git tracks, as it lies in the working tree: what a clone of it would have."""
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def fresh_environ(home: Path) -> dict[str, str]:
    """A login's environment: no cache, no virtual environment; where the package index is stays known."""
    own = str(Path(sys.prefix) / "bin")
    path = [str(home / "bin"), *(part for part in os.environ["PATH"].split(os.pathsep) if part != own)]
    kept = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "LC_", "LANG", "SSL_"))}
    return {**kept, "HOME": str(home), "PATH": os.pathsep.join(path), "TERM": "dumb", "PYTHONUNBUFFERED": "1"}


def send_photo(address: str, photo: Path, solved: Path, seconds: float = 120) -> None:
    """Send ``photo`` to the demo's page as a browser does, and save the picture once the answer is in it."""
    with urllib.request.urlopen(urllib.request.Request(f"{address}/photo", photo.read_bytes(), method="POST")):
        pass
    end = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(f"{address}/state") as answer:
            state = json.load(answer)["state"]
        if state == "solved":
            break
        if time.monotonic() > end:
            raise UserError(f"the page still says '{state}' after {seconds:g} s", "look at the photo")
        time.sleep(0.2)
    with urllib.request.urlopen(f"{address}/snapshot.jpg") as picture:
        solved.write_bytes(picture.read())


def run(command: Typed, folder: Path, environ: dict[str, str], console: Console) -> None:
    """Type ``command`` in the shell that the earlier ones left, and show what it says."""
    console.print(f"$ {command.typed}", style="bold", markup=False, highlight=False, soft_wrap=True)
    state = folder.parent / "shell"  # the exported variables: an activated environment stays activated
    state.touch()
    script = f". {shlex.quote(str(state))}\n{command.typed}\ncode=$?\nexport -p >{shlex.quote(str(state))}\nexit $code"
    began = time.monotonic()
    with subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            command.said += line
            console.print(f"  {line.rstrip()}", markup=False, highlight=False, soft_wrap=True)
            if command.typed.startswith(SERVES) and (page := re.search(r"http://[\d.]+:\d+", line)):
                send_photo(page[0], folder / PHOTO, folder / "solved.jpg")
                command.seconds = time.monotonic() - began
                os.killpg(running.pid, signal.SIGINT)
    command.exit_code = running.returncode
    command.seconds = command.seconds or time.monotonic() - began


@contextmanager
def board(folder: Path, home: Path) -> Iterator[None]:
    """An sshd that ``ssh board`` reaches: a machine that has nothing of ours yet."""
    (folder / "board").mkdir()
    made = Board(folder / "board")
    try:
        made.uninstall()
        script = home / "bin" / "ssh"  # openssh takes ~/.ssh/config from the account's home, not from $HOME
        script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {made.config} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        yield
    finally:
        made.close()


def arrive(name: str, console: Console) -> list[Typed]:
    """Type every command of the user ``name`` in a fresh folder; raise ``HrmEdgeError`` where one stops them."""
    user = USERS[name]
    commands = to_type(user)
    with tempfile.TemporaryDirectory(prefix=f"arrive-{name}-") as place:
        home, folder = Path(place) / "home", Path(place) / "hrm-edge"
        (home / "bin").mkdir(parents=True)
        folder.mkdir()
        fresh_copy(folder)
        for bring in user.bring:
            bring(folder)
        environ = fresh_environ(home)
        with board(Path(place), home) if user.board else nullcontext():
            for command in commands:
                command.typed = re.sub(r"\b8000\b", str(free_port()), command.typed)
                run(command, folder, environ, console)
                expected = INTERRUPTED if command.typed.startswith(SERVES) else 0
                if command.exit_code != expected:
                    raise HrmEdgeError(f"'{command.typed}' ended with exit code {command.exit_code}")
        for made in user.made:
            if not (folder / made).is_file():
                raise HrmEdgeError(f"{made} was not made")
            (ROOT / "build" / f"arrive-{name}").mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / made, ROOT / "build" / f"arrive-{name}" / made)
    return commands


def document(name: str, commands: list[Typed]) -> dict[str, Any]:
    """What is written: the commands with their seconds, on which machine and when."""
    keys = ("document", "printed", "typed", "seconds", "exit_code")
    return {
        "kind": "hrm-edge arrive",
        "schema_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"python scripts/arrive.py {name}",
        "user": name,
        "device": describe_device().model_dump(mode="json"),
        "load": os.getloadavg()[0],
        "commands": [{key: getattr(command, key) for key in keys} for command in commands],
        "count": len(commands),
        "minutes": sum(command.seconds for command in commands) / 60,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Arrive as a new user does.")
    parser.add_argument("user", choices=USERS)
    parser.add_argument("--out", type=Path, help="default: build/arrive-USER.json")
    options = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, by children too
    try:
        commands = arrive(options.user, console)
    except HrmEdgeError as error:
        Console(stderr=True).print(f"The {options.user} is stopped: {error}", style="red")
        return 1
    table = Table("command", "of", "seconds", title=f"The {options.user}'s first result")
    for command in commands:
        table.add_row(Text(command.typed), command.document, f"{command.seconds:.0f}")
    console.print(table)
    file = options.out or ROOT / "build" / f"arrive-{options.user}.json"
    write_json(file, document(options.user, commands))
    report = read_json(file)
    console.print(f"{report['count']} commands, {report['minutes']:.1f} minutes: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
