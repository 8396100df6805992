"""One command of hrm-edge on a board: what it needs is sent, it runs as a job, its files are brought back."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hrm_edge.callbacks import OnMessage
from hrm_edge.errors import EXIT_GATE, GateError, UserError
from hrm_edge.files import atomic_file
from hrm_edge.remote.host import reach
from hrm_edge.remote.job import FIND_EDGE, NO_PROGRAM, Job, new_job, stopped_by_ctrl_c
from hrm_edge.remote.workspace import Workspace, workstation
from hrm_edge.terminal import echo

_FILE_OPTIONS = ("--json", "--markdown", "--html")  # of bench: files that come back to this machine
STDOUT = "-"


@dataclass(frozen=True)
class Board:
    """A board and how it is reached."""

    host: str
    ssh_config: Path | None

    @contextmanager
    def errand(self, verb: str, on_message: OnMessage) -> Iterator[_Errand]:
        """Reach the board and yield what runs ``verb`` there."""
        with reach(self.host, self.ssh_config, on_message) as host:
            yield _Errand(Workspace(host, workstation()), verb, on_message)

    def command(self, *words: str) -> str:
        """Return a command of this workstation for the board."""
        config = ["--ssh-config", str(self.ssh_config)] if self.ssh_config else []
        return shlex.join(["hrm-edge", "remote", *config, self.host, *words])


class _Errand:
    """One command on a board; the models and data that it needs are sent before it runs."""

    def __init__(self, space: Workspace, verb: str, on_message: OnMessage) -> None:
        self.space, self.verb, self.on_message = space, verb, on_message
        self._build = ""  # builds the engine first

    def send_model(self, artifact: Path, *, engine: bool = False) -> str:
        """Send an artifact; return its path in shell form, or with ``engine`` that of the engine built there first."""
        sent, name = self.space.send_model(artifact), self.space.host.name
        self.on_message(f"Sent {sent.bytes_sent / 1e6:.1f} MB" if sent.bytes_sent else f"{name} has the model already")
        if not engine:
            return sent.path
        built = sent.path.replace("/models/", "/engines/")
        # Built anew each time: hrm-edge's own cache knows whether anything that an engine depends on has changed.
        export = f'"$edge" export {sent.path} --out {built} --backend tensorrt'
        shown = "grep -v '^Next' ../built >&2"  # the next command is this workstation's to tell
        self._build = f"rm -rf {built}; {export} >../built; code=$?; {shown}; [ $code -eq 0 ] || exit $code\n"
        return built

    def send_data(self, options: Sequence[str]) -> list[str]:
        """Return ``options`` quoted for the board, with a local file after ``--data`` sent there."""
        words: list[str] = []
        for option in options:
            name, equals, value = option.partition("=")
            if words[-1:] == ["--data"] and Path(option).exists():
                words.append(self.space.send_data(Path(option)).path)
            elif name == "--data" and equals and Path(value).exists():
                words += ["--data", self.space.send_data(Path(value)).path]
            else:
                words.append(shlex.quote(option))
        return words

    def install(self, wheelhouse: Path, options: Sequence[str]) -> None:
        """Send a wheelhouse and run its setup.sh with ``options``. Raises ``UserError`` for one of another machine."""
        host = self.space.host
        machine = host.persistently(lambda: host.run("uname -m")).out.strip()
        needed = {machine for machine in ("aarch64", "x86_64") if any(wheelhouse.glob(f"*{machine}.whl"))}
        if needed and machine not in needed:
            hint = f"python scripts/wheelhouse.py --machine {machine} --python VERSION"
            raise UserError(f"{host.name} is {machine}, {wheelhouse} is for {', '.join(sorted(needed))}", hint)
        sent = self.space.send_data(wheelhouse)
        self.on_message(f"Sent {sent.bytes_sent / 1e6:.1f} MB")
        # setup.sh ends with the doctor, whose screen is what the user wants to see, but for its next command
        install = f"bash {sent.path}/setup.sh --offline {sent.path} {shlex.join(options)} 2>&1"
        shown = "sed -u '/^Next: /d' >&2"
        self.run(f"{{ {install}; echo $? >../ended; }} | {shown}; exit $(cat ../ended)", show=False)

    def record(self, options: Sequence[str], archive: Path, suffix: str) -> None:
        """Run ``hrm-edge record`` with ``options`` and bring its archive, NAME``suffix``, to ``archive``."""
        # The same options find the same folder again, with the rows that are finished.
        folder = f'"$base"/records/{hashlib.sha256(shlex.join(options).encode()).hexdigest()[:16]}'
        command = f'mkdir -p "$base"/records; "$edge" record --out {folder} {" ".join(self.send_data(options))}'
        # What was brought back is done with: the next record is measured anew.
        keep = f"[ $code -ne 0 ] || {{ mv {folder}{suffix} report{suffix} && rm -rf {folder}; }}; exit $code"
        self.run(f"{command}; code=$?; {keep}", show=False, files={suffix: archive}, brought_at=(0,))

    def run(
        self,
        script: str,
        *,
        port: int | None = None,
        show: bool = True,
        files: Mapping[str, Path] | None = None,
        say_files: bool = False,
        brought_at: tuple[int, ...] = (0, EXIT_GATE),
    ) -> None:
        """Run a script as a job, follow it to its end, and end as it did. ``$edge`` is hrm-edge there.

        ``show``: print what it printed. ``files``: option → file on this machine that is brought back, after a job that
        ended with one of ``brought_at``; ``say_files``: and named. ``port`` is forwarded meanwhile. Raises
        ``GateError`` or ``UserError`` where the command failed; its own words are on stderr already.
        """
        job, code = self._follow(self._build + script, port)
        if show:  # but for its last lines: they name files of the board
            lines = job.stdout().splitlines(keepends=True)
            echo("".join(line for line in lines if not line.startswith(("Next: ", "Report: "))), nl=False)
        if files and code in brought_at:
            _bring(job, files)
            if say_files:
                echo(f"Report: {', '.join(map(str, files.values()))}", err=True)
        what = f"{self.verb} on {self.space.host.name}"
        if code == EXIT_GATE:
            raise GateError(f"{what} ran and missed its gate, see above")
        if code:
            raise UserError(f"{what} failed, see above", "fix it there, or run 'hrm-edge remote HOST doctor'")

    def _follow(self, script: str, port: int | None) -> tuple[Job, int]:
        job, host = new_job(self.space, self.verb), self.space.host
        with stopped_by_ctrl_c(job):
            job.start(FIND_EDGE + script if "$edge" in script else script)
            code = job.follow(sys.stderr.buffer, (lambda: host.forward(port)) if port else None)
        if code == NO_PROGRAM:
            raise UserError(f"hrm-edge is not installed on {host.name}", f"hrm-edge remote {host.name} setup")
        if code is None or code > 128:
            how = "was killed on the board" if code is None else f"ended by signal {code - 128} on the board"
            raise UserError(f"the job {job.name} {how}", f"ssh {host.name} dmesg  (out of memory?)")
        return job, code


def check_wheelhouse(folder: Path) -> None:
    """Raise ``UserError`` where ``folder`` is none, before the board is reached."""
    if not (folder / "setup.sh").is_file():
        raise UserError(f"{folder} is no wheelhouse: it has no setup.sh", "make wheelhouse")


def file_on_board(option: str) -> str:
    """Return the name under which a command on the board writes the file of ``option``."""
    return f"report{option.replace('--', '.')}"


def split_files(options: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Take the file options out: the rest, and option → file on this machine."""
    rest: list[str] = []
    files: dict[str, Path] = {}
    waiting = None
    for option in options:
        name, equals, value = option.partition("=")
        if waiting:
            files[waiting] = Path(option)
            waiting = None
        elif name in _FILE_OPTIONS and equals:
            files[name] = Path(value)
        elif name in _FILE_OPTIONS:
            waiting = name
        else:
            rest.append(option)
    if waiting:
        raise UserError(f"{waiting} needs a file", "hrm-edge bench --help")
    return rest, files


def json_words(json_file: str | None) -> tuple[str, dict[str, Path]]:
    """Return the option for the board, JSON to stdout or to a file, and the file that is brought back."""
    if json_file in (None, STDOUT):
        return "" if json_file is None else "--json=-", {}
    return f"--json={file_on_board('--json')}", {"--json": Path(str(json_file))}


def _bring(job: Job, files: Mapping[str, Path]) -> None:
    failed: list[UserError] = []
    with tempfile.TemporaryDirectory() as folder:
        job.fetch(Path(folder))
        for option, file in files.items():
            try:
                brought = Path(folder) / file_on_board(option)
                if brought.is_symlink() or not brought.is_file():
                    raise UserError(f"{job.host.name} has no file {brought.name}", "run the command again")
                with atomic_file(file) as temporary:
                    shutil.copyfile(brought, temporary)
            except UserError as error:
                failed.append(error)
    if failed:
        what = "; ".join(error.problem for error in failed)
        raise UserError(what, f"the job's files are still there: hrm-edge remote {job.host.name} pull")
