"""``hrm-edge remote HOST``: doctor, setup, bench, solve, demo on a board, from this workstation."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import STDOUT, JsonCommand, json_option
from hrm_edge.errors import EXIT_GATE, GateError, UserError
from hrm_edge.files import check_writable
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.remote.job import Job
    from hrm_edge.remote.workspace import Workspace

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
FILE_OPTIONS = ("--json", "--markdown", "--html")  # of bench: files that come back to this machine
WHEELHOUSE = "build/wheelhouse"


@dataclass(frozen=True)
class _Target:
    """The board and how it is reached."""

    host: str
    ssh_config: Path | None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--ssh-config", type=click.Path(path_type=Path, exists=True), help="Another configuration for ssh.")
@click.argument("host")
@click.pass_context
def remote(context: click.Context, host: str, ssh_config: Path | None) -> None:
    """Work on HOST, a board that ssh reaches: an alias, NAME or USER@NAME.

    Models go there by content, and only what changed. A job runs by itself: a dropped connection is made again and
    the job followed on; Ctrl-C stops it. A host key has to be accepted by you first: ssh HOST.

    \b
    hrm-edge remote jetson setup --wheelhouse build/wheelhouse
    hrm-edge remote jetson bench artifacts/nano-int8 --duration 60s --json jetson.json
    """
    context.obj = _Target(host, ssh_config)


def _say(message: str) -> None:
    echo(message, err=True)


@contextmanager
def _workspace(target: _Target) -> Iterator[Workspace]:
    from hrm_edge.remote.host import reach
    from hrm_edge.remote.workspace import Workspace, workstation

    with reach(target.host, target.ssh_config, _say) as host:
        yield Workspace(host, workstation())


def _run(space: Workspace, verb: str, script: str, port: int | None = None) -> tuple[Job, int]:
    """Run a script as a job and follow it to its end; its exit code is one of hrm-edge's. ``$edge`` is hrm-edge."""
    from hrm_edge.remote.job import FIND_EDGE, NO_PROGRAM, new_job, stopped_by_ctrl_c

    job = new_job(space, verb)
    host = space.host.name
    with stopped_by_ctrl_c(job):
        job.start(FIND_EDGE + script if "$edge" in script else script)
        code = job.follow(sys.stderr.buffer, (lambda: space.host.forward(port)) if port else None)
    if code == NO_PROGRAM:
        raise UserError(f"hrm-edge is not installed on {host}", f"hrm-edge remote {host} setup")
    if code is None or code > 128:
        how = "was killed on the board" if code is None else f"ended by signal {code - 128} on the board"
        raise UserError(f"the job {job.name} {how}", f"ssh {host} dmesg  (out of memory?)")
    return job, code


def _show(job: Job) -> None:
    """Print what the command printed there, but for its last lines: they name files of the board."""
    lines = job.stdout().splitlines(keepends=True)
    echo("".join(line for line in lines if not line.startswith(("Next: ", "Report: "))), nl=False)


def _next(target: _Target, *words: str) -> str:
    """Return a command of this workstation for the same board."""
    config = ["--ssh-config", str(target.ssh_config)] if target.ssh_config else []
    return shlex.join(["hrm-edge", "remote", *config, target.host, *words])


def _finish(code: int, what: str) -> None:
    """Exit as the command on the board did; its own words are on stderr already."""
    if code == EXIT_GATE:
        raise GateError(f"{what} ran and missed its gate, see above")
    if code:
        raise UserError(f"{what} failed, see above", "fix it there, or run 'hrm-edge remote HOST doctor'")


@remote.command(cls=JsonCommand, context_settings=_PASSED_ON)
@json_option("everything that was found")
@click.pass_obj
def doctor(target: _Target, json_file: str | None) -> None:
    """Say what HOST has and lacks."""
    with _workspace(target) as space:
        job, code = _run(space, "doctor", f'"$edge" doctor {_json_words(json_file)}')
        _show(job)
        if code in (0, EXIT_GATE):
            _bring_json(job, json_file)
        _finish(code, f"doctor on {target.host}")
    if json_file != STDOUT:
        echo(f"Next: {_next(target, 'bench', 'sudoku-nano', '--duration', '60s')}")


@remote.command()
@click.option(
    "--wheelhouse",
    type=click.Path(path_type=Path),
    default=WHEELHOUSE,
    show_default=True,
    help="Made by 'make wheelhouse'; HOST needs no internet.",
)
@click.argument("setup_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def setup(target: _Target, wheelhouse: Path, setup_options: tuple[str, ...]) -> None:
    """Install hrm-edge on HOST from a wheelhouse; run again after an update. SETUP_OPTIONS go to setup.sh after --.

    \b
    hrm-edge remote jetson setup -- --link
    """
    if not (wheelhouse / "setup.sh").is_file():
        raise UserError(f"{wheelhouse} is no wheelhouse: it has no setup.sh", "make wheelhouse")
    needed = {machine for machine in ("aarch64", "x86_64") if any(wheelhouse.glob(f"*{machine}.whl"))}
    with _workspace(target) as space:
        machine = space.host.persistently(lambda: space.host.run("uname -m")).out.strip()
        if needed and machine not in needed:
            hint = f"python scripts/wheelhouse.py --machine {machine} --python VERSION"
            raise UserError(f"{target.host} is {machine}, {wheelhouse} is for {', '.join(sorted(needed))}", hint)
        sent = space.send_data(wheelhouse)
        _say(f"Sent {sent.bytes_sent / 1e6:.1f} MB")
        # setup.sh ends with the doctor, whose screen is what the user wants to see
        quoted = " ".join(map(shlex.quote, setup_options))
        _, code = _run(space, "setup", f"bash {sent.path}/setup.sh --offline {sent.path} {quoted} 1>&2")
        _finish(code, f"setup on {target.host}")
    echo(f"Next: {_next(target, 'bench', 'sudoku-nano', '--duration', '60s')}")


def _artifact(name: str) -> Path:
    from hrm_edge import zoo
    from hrm_edge.api.open import unknown_model
    from hrm_edge.checkpoint import is_checkpoint
    from hrm_edge.manifest import MANIFEST

    path = zoo.path_of(name)
    if (path / MANIFEST).is_file():
        return path
    if path.exists() and is_checkpoint(path):
        raise UserError(f"{name} is a checkpoint, which needs torch", "export it here first: hrm-edge export")
    raise unknown_model(name)


def _send_model(space: Workspace, name: str, engine: bool) -> tuple[str, str]:
    """The model's path on the board in shell form, and the script that builds its engine first."""
    sent = space.send_model(_artifact(name))
    _say(f"Sent {sent.bytes_sent / 1e6:.1f} MB" if sent.bytes_sent else f"{space.host.name} has the model already")
    if not engine:
        return sent.path, ""
    built = sent.path.replace("/models/", "/engines/")
    # Built anew each time: hrm-edge's own cache knows whether anything that an engine depends on has changed.
    export = f'"$edge" export {sent.path} --out {built} --backend tensorrt'
    shown = "grep -v '^Next' ../built >&2"  # the next command is this workstation's to tell
    return built, f"rm -rf {built}; {export} >../built; code=$?; {shown}; [ $code -eq 0 ] || exit $code\n"


def _sent_data(space: Workspace, options: list[str]) -> list[str]:
    """``options`` quoted for the board, with a local file after ``--data`` sent there."""
    found: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if found[-1:] == ["--data"] and Path(option).exists():
            found.append(space.send_data(Path(option)).path)
        elif name == "--data" and equals and Path(value).exists():
            found += ["--data", space.send_data(Path(value)).path]
        else:
            found.append(shlex.quote(option))
    return found


def _split_files(options: tuple[str, ...]) -> tuple[list[str], dict[str, Path]]:
    """Take the file options out: the rest, and option → file on this machine."""
    rest: list[str] = []
    files: dict[str, Path] = {}
    waiting = None
    for option in options:
        name, equals, value = option.partition("=")
        if waiting:
            files[waiting] = Path(option)
            waiting = None
        elif name in FILE_OPTIONS and equals:
            files[name] = Path(value)
        elif name in FILE_OPTIONS:
            waiting = name
        else:
            rest.append(option)
    if waiting:
        raise UserError(f"{waiting} needs a file", "hrm-edge bench --help")
    return rest, files


@remote.command(context_settings=_PASSED_ON)
@click.argument("model")
@click.option("--engine", is_flag=True, help="Build a TensorRT engine on HOST and measure that.")
@click.argument("bench_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def bench(target: _Target, model: str, engine: bool, bench_options: tuple[str, ...]) -> None:
    """Measure MODEL on HOST and bring the report back. BENCH_OPTIONS are those of 'hrm-edge bench'.

    Files after --json, --markdown, --html are written on this machine; a file after --data is sent.

    \b
    hrm-edge remote jetson bench artifacts/nano-int8 --duration 60s --json jetson.json
    """
    rest, files = _split_files(bench_options)
    safe = "".join(letter if letter.isalnum() else "-" for letter in f"{target.host}-{Path(model).name}")
    files.setdefault("--json", Path("reports") / f"{safe}.json")
    for option, file in files.items():
        check_writable(option, file)
    with _workspace(target) as space:
        path, build = _send_model(space, model, engine)
        words = _sent_data(space, rest)
        words += [word for option in files for word in (option, f"report{option.replace('--', '.')}")]
        job, code = _run(space, "bench", f'{build}"$edge" bench {path} {" ".join(words)}')
        _show(job)
        if code in (0, EXIT_GATE):
            _bring(job, files)
        _finish(code, f"bench on {target.host}")
    echo(f"Report: {files['--json']}")
    echo(f"Next: hrm-edge bench --compare {shlex.quote(str(files['--json']))} OTHER.json")


def _json_words(json_file: str | None) -> str:
    """Return the option for the board: its JSON to stdout, or to a file that is brought back."""
    return "" if json_file is None else "--json=-" if json_file == STDOUT else "--json=report.json"


def _bring_json(job: Job, json_file: str | None) -> None:
    if json_file not in (None, STDOUT):
        _bring(job, {"--json": Path(json_file)})
        echo(f"Report: {json_file}", err=True)


def _bring(job: Job, files: dict[str, Path]) -> None:
    from hrm_edge.files import atomic_file

    failed: list[UserError] = []
    with tempfile.TemporaryDirectory() as folder:
        job.fetch(Path(folder))
        for option, file in files.items():
            try:
                brought = Path(folder) / f"report{option.replace('--', '.')}"
                if brought.is_symlink() or not brought.is_file():
                    raise UserError(f"{job.host.name} has no file {brought.name}", "run the command again")
                with atomic_file(file) as temporary:
                    shutil.copyfile(brought, temporary)
            except UserError as error:
                failed.append(error)
    if failed:
        what = "; ".join(error.problem for error in failed)
        raise UserError(what, f"the job's files are still there: hrm-edge remote {job.host.name} pull")


@remote.command(cls=JsonCommand, context_settings=_PASSED_ON)
@click.argument("puzzle")
@click.option("--model", help="Artifact folder or shipped model.  [default: one for 9x9 Sudoku]")
@click.option("--engine", is_flag=True, help="Build a TensorRT engine on HOST and solve with that.")
@json_option("the answers")
@click.argument("solve_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def solve(
    target: _Target, puzzle: str, model: str | None, engine: bool, json_file: str | None, solve_options: tuple[str, ...]
) -> None:
    """Solve PUZZLE, text or a file that is sent, on HOST. SOLVE_OPTIONS are those of 'hrm-edge solve'."""
    from hrm_edge import zoo

    default = zoo.default_for("sudoku") or ""
    name = model or str(zoo.folder_of(default))
    with _workspace(target) as space:
        path, build = _send_model(space, name, engine)
        is_file = len(puzzle) < 250 and Path(puzzle).exists()
        what = space.send_data(Path(puzzle)).path if is_file else shlex.quote(puzzle)
        options = " ".join([*map(shlex.quote, solve_options), _json_words(json_file)])
        job, code = _run(space, "solve", f'{build}"$edge" solve {what} --model {path} {options}')
        _show(job)
        if code in (0, EXIT_GATE):
            _bring_json(job, json_file)
        _finish(code, f"solve on {target.host}")
    if json_file != STDOUT:
        echo(f"Next: {_next(target, 'bench', model or default)}")


@remote.command(context_settings=_PASSED_ON)
@click.option("--port", type=click.IntRange(1024, 65535), default=8000, show_default=True, help="Here and on HOST.")
@click.option("--model", help="Artifact folder or shipped model.  [default: one for 9x9 Sudoku]")
@click.argument("demo_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def demo(target: _Target, port: int, model: str | None, demo_options: tuple[str, ...]) -> None:
    """Run the camera demo on HOST and show its page here, through ssh: nothing is opened on the network."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: a demo that nobody looks at would keep the camera
        if signal.getsignal(ending) != signal.SIG_IGN:  # nohup ignores the terminal's end
            signal.signal(ending, signal.default_int_handler)
    with _workspace(target) as space:
        words = ["--web", f"127.0.0.1:{port}"]
        if model:
            words += ["--model", _send_model(space, model, engine=False)[0]]
        words += map(shlex.quote, demo_options)
        _say(f"http://127.0.0.1:{port} shows the demo on {target.host}; Ctrl-C ends it")
        _, code = _run(space, "demo", f'"$edge" demo {" ".join(words)} 1>&2', port)
        _finish(code, f"demo on {target.host}")


@remote.command()
@click.option("--out", type=click.Path(path_type=Path), default="reports", show_default=True, help="Folder for them.")
@click.pass_obj
def pull(target: _Target, out: Path) -> None:
    """Bring back the reports of this workstation's jobs on HOST, as when this machine slept while they ran."""
    from hrm_edge.remote.job import Job, finished_jobs

    with _workspace(target) as space:
        names = finished_jobs(space)
        for name in names:
            folder = out / target.host.rpartition("@")[2] / name
            folder.mkdir(parents=True, exist_ok=True)
            for path in Job(space, name).fetch(folder):
                echo(str(path))
    if not names:
        echo(f"no finished job of this workstation has files on {target.host}")
