"""``hrm-edge remote HOST``: doctor, setup, bench, record, solve, demo on a board, from this workstation."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrm_edge.cli.options import PATH, STDOUT, JsonCommand, json_option, option, say
from hrm_edge.errors import UserError
from hrm_edge.files import check_writable
from hrm_edge.terminal import echo

if TYPE_CHECKING:
    from hrm_edge.remote.errand import Board

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
WHEELHOUSE = "build/wheelhouse"
_model_option = option("--model", help="Artifact folder or shipped model.  [default: one for 9x9 Sudoku]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@option("--ssh-config", type=click.Path(path_type=Path, exists=True), help="Another configuration for ssh.")
@click.argument("host")
@click.pass_context
def remote(context: click.Context, host: str, ssh_config: Path | None) -> None:
    """Work on HOST, a board that ssh reaches: an alias, NAME or USER@NAME.

    Models go there by content, and only what changed. A job runs by itself: a dropped connection is made again and
    the job followed on; Ctrl-C stops it. A host key has to be accepted by you first: ssh HOST.

    \b
    hrm-edge remote jetson setup --wheelhouse build/wheelhouse
    hrm-edge remote jetson bench build/int8 --duration 60s --json jetson.json
    """
    from hrm_edge.remote.errand import Board

    context.obj = Board(host, ssh_config)


@remote.command("doctor", cls=JsonCommand, context_settings=_PASSED_ON)
@json_option("everything that was found")
@click.pass_obj
def _doctor(board: Board, json_file: str | None) -> None:
    """Say what HOST has and lacks."""
    from hrm_edge.remote.errand import json_words

    option, files = json_words(json_file)
    with board.errand("doctor", say) as errand:
        errand.run(f'"$edge" doctor {option}', files=files, say_files=True)
    if json_file != STDOUT:
        echo(f"Next: {board.command('bench', 'sudoku-nano', '--duration', '60s')}")


@remote.command("setup")
@option("--wheelhouse", type=PATH, default=WHEELHOUSE, help="Made by 'make wheelhouse'; HOST needs no internet.")
@click.argument("setup_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _setup(board: Board, wheelhouse: Path, setup_options: tuple[str, ...]) -> None:
    """Install hrm-edge on HOST from a wheelhouse; run again after an update. SETUP_OPTIONS go to setup.sh after --.

    \b
    hrm-edge remote jetson setup -- --link
    """
    from hrm_edge.remote.errand import check_wheelhouse

    check_wheelhouse(wheelhouse)
    with board.errand("setup", say) as errand:
        errand.install(wheelhouse, setup_options)
    echo(f"Next: {board.command('bench', 'sudoku-nano', '--duration', '60s')}")


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


@remote.command("bench", context_settings=_PASSED_ON)
@click.argument("model")
@option("--engine", is_flag=True, help="Build a TensorRT engine on HOST and measure that.")
@click.argument("bench_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _bench(board: Board, model: str, engine: bool, bench_options: tuple[str, ...]) -> None:
    """Measure MODEL on HOST and bring the report back. BENCH_OPTIONS are those of 'hrm-edge bench'.

    Files after --json, --markdown, --html are written on this machine; a file after --data is sent.

    \b
    hrm-edge remote jetson bench build/int8 --duration 60s --json jetson.json
    """
    from hrm_edge.remote.errand import file_on_board, split_files

    rest, files = split_files(bench_options)
    files.setdefault("--json", Path("reports") / f"{_plain(f'{board.host}-{Path(model).name}')}.json")
    for flag, file in files.items():
        check_writable(flag, file)
    with board.errand("bench", say) as errand:
        path = errand.send_model(_artifact(model), engine=engine)
        words = errand.send_data(rest)
        words += [word for flag in files for word in (flag, file_on_board(flag))]
        errand.run(f'"$edge" bench {path} {" ".join(words)}', files=files)
    echo(f"Report: {files['--json']}")
    echo(f"Next: hrm-edge bench --compare {shlex.quote(str(files['--json']))} OTHER.json")


@remote.command("record", context_settings=_PASSED_ON)
@option("--out", type=PATH, help="The archive on this machine.  [default: reports/HOST-record.tar.gz]")
@click.argument("record_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _record(board: Board, out: Path | None, record_options: tuple[str, ...]) -> None:
    """Measure all that works on HOST and bring the archive back. RECORD_OPTIONS are those of 'hrm-edge record'.

    A run that was stopped goes on: give the same command again.

    \b
    hrm-edge remote jetson record --quick
    """
    from hrm_edge.cli.record import show_record
    from hrm_edge.record.archive import SUFFIX, read_archive

    archive = check_writable("--out", out or Path("reports") / f"{_plain(board.host)}-record{SUFFIX}")
    with board.errand("record", say) as errand:
        errand.record(record_options, archive, SUFFIX)
    show_record(read_archive(archive), archive)


def _plain(name: str) -> str:
    """Return ``name`` with nothing but letters, digits and dashes, for a file."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@remote.command("solve", cls=JsonCommand, context_settings=_PASSED_ON)
@click.argument("puzzle")
@_model_option
@option("--engine", is_flag=True, help="Build a TensorRT engine on HOST and solve with that.")
@json_option("the answers")
@click.argument("solve_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _solve(
    board: Board, puzzle: str, model: str | None, engine: bool, json_file: str | None, solve_options: tuple[str, ...]
) -> None:
    """Solve PUZZLE, text or a file that is sent, on HOST. SOLVE_OPTIONS are those of 'hrm-edge solve'."""
    from hrm_edge import zoo
    from hrm_edge.remote.errand import json_words

    default = zoo.default_for("sudoku") or ""
    option, files = json_words(json_file)
    with board.errand("solve", say) as errand:
        path = errand.send_model(_artifact(model or str(zoo.folder_of(default))), engine=engine)
        is_file = len(puzzle) < 250 and Path(puzzle).exists()
        what = errand.space.send_data(Path(puzzle)).path if is_file else shlex.quote(puzzle)
        words = " ".join([*map(shlex.quote, solve_options), option])
        errand.run(f'"$edge" solve {what} --model {path} {words}', files=files, say_files=True)
    if json_file != STDOUT:
        echo(f"Next: {board.command('bench', model or default)}")


@remote.command("demo", context_settings=_PASSED_ON)
@option("--port", type=click.IntRange(1024, 65535), default=8000, help="Here and on HOST.")
@_model_option
@click.argument("demo_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _demo(board: Board, port: int, model: str | None, demo_options: tuple[str, ...]) -> None:
    """Run the camera demo on HOST and show its page here, through ssh: nothing is opened on the network."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: a demo that nobody looks at would keep the camera
        if signal.getsignal(ending) != signal.SIG_IGN:  # nohup ignores the terminal's end
            signal.signal(ending, signal.default_int_handler)
    with board.errand("demo", say) as errand:
        words = ["--web", f"127.0.0.1:{port}"]
        if model:
            words += ["--model", errand.send_model(_artifact(model))]
        words += map(shlex.quote, demo_options)
        say(f"http://127.0.0.1:{port} shows the demo on {board.host}; Ctrl-C ends it")
        errand.run(f'"$edge" demo {" ".join(words)} 1>&2', port=port, show=False)


@remote.command("pull")
@option("--out", type=PATH, default="reports", help="Folder for them.")
@click.pass_obj
def _pull(board: Board, out: Path) -> None:
    """Bring back the reports of this workstation's jobs on HOST, as when this machine slept while they ran."""
    from hrm_edge.remote.job import Job, finished_jobs

    with board.errand("pull", say) as errand:
        names = finished_jobs(errand.space)
        for name in names:
            folder = out / board.host.rpartition("@")[2] / name
            folder.mkdir(parents=True, exist_ok=True)
            for path in Job(errand.space, name).fetch(folder):
                echo(str(path))
    if not names:
        echo(f"no finished job of this workstation has files on {board.host}")
