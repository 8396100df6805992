"""A command that runs on a board by itself: started once, followed through dropped connections, its files brought back.

The job is a folder ``jobs/ID`` in the workspace: ``run.sh``, ``stdout``, ``stderr``, ``out/`` and, when it is done,
``code``. Starting and following are safe to repeat, so whatever step a drop hits is simply done again.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from hrm_edge.errors import Interrupted, UserError
from hrm_edge.remote.host import SSH_FAILED, DroppedError, Host, ProgressedError
from hrm_edge.remote.shell import Stream, new_mark
from hrm_edge.remote.workspace import Workspace

NO_PROGRAM = 127
_KEPT_JOBS = 20
# Where setup.sh puts the program; a board prepared by hand may have it on the PATH.
FIND_EDGE = (
    'edge=; for one in "$HOME/.local/share/hrm-edge/venv/bin/hrm-edge" /opt/hrm-edge/venv/bin/hrm-edge '
    '"$(command -v hrm-edge)" "$HOME/.local/bin/hrm-edge"; do [ -x "$one" ] && edge=$one && break; done; '
    f'[ -n "$edge" ] || {{ echo "hrm-edge is not installed" >&2; exit {NO_PROGRAM}; }}; '
)
# The lock lasts as long as the job: it says whether the job lives, even after the board lost power. A job that began
# and neither lives nor left a code was killed; it is not begun a second time.
_WRAPPER = """\
[ -e code ] && exit 0
if [ -e began ]; then echo killed >code; exit 0; fi
: >began
cut -d ' ' -f 5 /proc/$$/stat >group
mkdir -p out && cd out
sh ../command.sh >../stdout 2>../stderr </dev/null
code=$?
echo $code >../code.tmp && mv ../code.tmp ../code
"""
_LAUNCH = "setsid nohup flock -n lock sh ../../wrapper.sh >/dev/null 2>&1 </dev/null & sleep 0.1"
_FOLLOW = """\
cd jobs/{job} || exit 1
seen={seen}
while :; do
    ended=; [ -e code ] && ended=yes
    size=$(wc -c <stderr 2>/dev/null || echo 0)
    if [ "$size" -gt "$seen" ]; then
        tail -c +$((seen + 1)) stderr | head -c $((size - seen))
        seen=$size
    fi
    [ -n "$ended" ] && exit 0
    if flock -n lock true; then {launch}; fi
    sleep 0.3
done
"""


class Job:
    """One command of this workstation on one board."""

    def __init__(self, space: Workspace, name: str) -> None:
        self.space = space
        self.host: Host = space.host
        self.name = name

    def start(self, script: str) -> None:
        """Put the job's script there and run it, detached from this connection."""
        job = f"jobs/{self.name}"
        old = (
            f"ls -t jobs | tail -n +{_KEPT_JOBS + 1} | while read -r old; do "
            "if [ -e jobs/$old/code ]; then rm -rf jobs/$old; fi; done"
        )
        self._checked(f"{old}; mkdir -p {job}")
        self._put("wrapper.sh", _WRAPPER)
        self._put(f"{job}/command.sh", f"{self.space.base}\n{script}\n")
        self._checked(f"cd {job} && {{ {_LAUNCH}; }}")

    def _put(self, path: str, text: str) -> None:
        """Write a file whole: to the board a dropped connection looks like the end of the text."""
        size = len(text.encode())
        write = f'cat >{path}.$$ && [ "$(wc -c <{path}.$$)" -eq {size} ] && mv {path}.$$ {path}'
        self._checked(write, text)

    def _checked(self, script: str, stdin: str | None = None) -> None:
        done = self.space.run(script, stdin)
        if done.code:
            words = done.err.strip().splitlines() or [f"exit code {done.code}"]
            hint = "df -h" if "No space" in done.err else "ls -ld .cache"
            raise UserError(f"{self.host.name}: the job cannot be written: {words[-1]}", f"ssh {self.host.name} {hint}")

    def follow(self, out: IO[bytes], after_connect: Callable[[], None] | None = None) -> int | None:
        """Copy the job's stderr to ``out`` until it ends; its exit code, None where the board killed it."""
        seen = 0

        def stream() -> None:
            nonlocal seen
            if after_connect:
                after_connect()
            script = self.space.preamble + _FOLLOW.format(job=self.name, seen=seen, launch=_LAUNCH)
            before, mark = seen, new_mark()
            command = self.host.command(script, mark)
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as tail:
                assert tail.stdout is not None
                stream = Stream(tail.stdout, mark)
                while piece := stream.read():
                    out.write(piece)
                    out.flush()
                    seen += len(piece)
            if tail.returncode == SSH_FAILED or tail.returncode < 0:
                raise ProgressedError("connection lost") if seen > before else DroppedError("connection lost")
            if tail.returncode:
                raise UserError(f"{self.host.name}: the job {self.name} is gone", "run the command again")

        self.host.persistently(stream)
        word = self.space.run(f"cat jobs/{self.name}/code").out
        return int(word) if word.strip().isdecimal() else None

    def stdout(self) -> str:
        return self.space.run(f"cat jobs/{self.name}/stdout").out

    def stop(self) -> None:
        """End the job, by force where it does not end in five seconds."""
        kill = (
            f"cd jobs/{self.name} && group=$(cat group) && kill -TERM -$group && for i in 1 2 3 4 5 6 7 8 9 10; do "
            "kill -0 -$group 2>/dev/null || exit 0; sleep 0.5; done; kill -KILL -$group"
        )
        with contextlib.suppress(DroppedError, UserError):
            self.host.run(self.space.preamble + kill)

    def fetch(self, folder: Path) -> list[Path]:
        """Bring the files that the job wrote into ``folder``; links, pipes and devices stay there."""
        source = self.host.at(f"{self.space.folder}/jobs/{self.name}/out/")
        self.host.persistently(lambda: self.host.rsync(["--checksum"], source, folder))
        return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def new_job(space: Workspace, verb: str) -> Job:
    return Job(space, f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{secrets.token_hex(3)}")


@contextlib.contextmanager
def stopped_by_ctrl_c(job: Job) -> Iterator[None]:
    """Let Ctrl-C here end the job there. When this process is killed, the job goes on and can be pulled later."""
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"Stopping {job.name} on {job.host.name}", file=sys.stderr)
        job.stop()
        raise Interrupted("Interrupted", f"the job on {job.host.name} was stopped") from error


def finished_jobs(space: Workspace) -> list[str]:
    """Return jobs of this workstation that are done and wrote files, the newest last."""
    script = (
        'for job in jobs/*/; do [ -e "$job/code" ] && [ -n "$(ls "$job/out" 2>/dev/null)" ] && basename "$job"; done'
    )
    listed = space.run(f"{script}; true").out.split()
    return sorted(name for name in listed if re.fullmatch(r"[\w-]+", name))
