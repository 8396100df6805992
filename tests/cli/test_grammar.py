"""The same words mean the same thing in every verb: --json [FILE], -v, -V, help, version, the nearest name."""

from __future__ import annotations

import json
import re

import click
import pytest

from hrm_edge import __version__, zoo
from hrm_edge.cli import main as frame
from hrm_edge.cli.options import JsonCommand
from tests.needs import left_out

EASY = "002968470000017200090002016783106020021079053540000061015820007000005000074031009"


def all_commands(command: click.Command, name: str = "hrm-edge") -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    children = [(child, command.get_command(click.Context(command), child)) for child in command.list_commands(None)]
    return [(name, command), *(row for child, found in children for row in all_commands(found, f"{name} {child}"))]


COMMANDS = all_commands(frame.cli)


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_says_more_with_v_and_takes_json_alike(name, command):
    options = {flag: parameter for parameter in command.params for flag in parameter.opts}
    assert "-v" in options
    if "--json" in options:
        assert isinstance(command, JsonCommand | click.Group), name
        assert options["--json"].metavar == "[FILE]"
        assert options["--json"].flag_value == "-"


# One name for one thing, and one type and meaning of it, in whatever verb.
@pytest.mark.parametrize("flag", ["--limit", "--data", "--backend", "--model", "--views", "--threads", "--json"])
def test_an_option_has_one_type_in_all_verbs(flag):
    kinds = {
        (type(parameter.type).__name__, parameter.multiple)
        for name, command in COMMANDS
        for parameter in command.params
        if flag in parameter.opts and not name.startswith("hrm-edge remote")  # whose options go on to the board
    }
    assert len(kinds) == 1


@pytest.mark.parametrize("words", [["info", "--json", "sudoku-nano"], ["info", "sudoku-nano", "--json"]])
def test_json_without_a_file_is_stdout_and_takes_no_argument_away(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert frame.main(words) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "sudoku-nano"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["info", "sudoku-nano", "--json", "{file}"],
        ["info", "--json", "{file}", "sudoku-nano"],
        ["info", "sudoku-nano", "--json={file}"],
        ["models", "--json", "{file}"],
        ["recipes", "--json", "{file}"],
        ["solve", EASY, "--json", "{file}"],
        ["doctor", "--json", "{file}"],
    ],
    ids=lambda words: " ".join(words).replace(EASY, "PUZZLE"),
)
def test_json_with_a_file_leaves_stdout_to_people(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", left_out(tmp_path))  # of the doctor's processes
    file = tmp_path / "new" / "report"
    assert frame.main([word.format(file=file) for word in words]) == 0
    captured = capsys.readouterr()
    document = json.loads(file.read_text())
    assert document
    assert "Next: " in captured.out
    assert not captured.out.startswith("{")
    assert f"Report: {file}" in captured.err


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    assert frame.main(["solve", EASY, "--json", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert f"--json {tmp_path}: it is a folder" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("words", [["version"], ["-V"], ["--version"]])
def test_version(words, capsys):
    assert frame.main(words) == 0
    assert capsys.readouterr().out == f"hrm-edge {__version__}\n"


def test_help_of_a_verb(capsys):
    texts = []
    for words in (["help", "data", "build"], ["data", "build", "--help"], ["help"], ["--help"]):
        assert frame.main(words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert "Usage: hrm-edge data build" in texts[0]


@pytest.mark.parametrize("words", [["-v", "info", "nonesuch"], ["info", "-v", "nonesuch"], ["info", "nonesuch", "-v"]])
def test_v_shows_versions_and_what_is_behind_an_error(words, capsys):
    assert frame.main(words) == 2
    said = capsys.readouterr().err
    assert re.match(rf"hrm-edge {re.escape(__version__)}, Python 3\.\d+\.\d+ on \w+, in ", said)
    assert "Traceback" in said
    assert "Error: no model 'nonesuch'" in said
    assert frame.main(["info", "nonesuch"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["slove", "x"], "did you mean 'solve'?"),
        (["versoin"], "did you mean 'version'?"),
        (["solve", EASY, "--model", "sudoku-nan"], "did you mean 'sudoku-nano'?"),
        (["eval", "sudoku-latice", "--data", "x"], "did you mean 'sudoku-lattice'?"),
        (["info", "mini-sudoku_nan"], "did you mean 'mini-sudoku_nano'?"),
        (["train", "sudoku_latice"], "did you mean 'sudoku_lattice'?"),
        (["export", "sudoku-nan", "--out", "x"], "did you mean 'sudoku-nano'?"),
    ],
)
def test_the_nearest_name(words, guess, capsys):
    assert frame.main(words) == 2
    assert guess in capsys.readouterr().err


def test_help_fits_80_columns(capsys):
    for name, _ in COMMANDS:
        words = name.split()[1:]
        words = ["remote", "HOST", *words[1:]] if words[:1] == ["remote"] else words
        assert frame.main([*words, "--help"]) == 0
        wide = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80]
        assert [line for line in wide if not re.fullmatch(r"  hrm-edge solve [1-9.]{81}", line)] == [], name


def test_a_shipped_model_is_described_with_what_it_can_do(capsys):
    for name in zoo.names():
        assert frame.main(["info", name]) == 0
        shown = capsys.readouterr().out
        card = zoo.card(name)
        assert f"{card.accuracy[0].exact_accuracy:.1%}" in shown
        assert card.data.split()[0] in shown
