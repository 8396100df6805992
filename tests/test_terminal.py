"""Names, paths and words of others on the terminal: never markup, never control characters, by one module."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
from pathlib import Path

import pytest
from rich.table import Table

from hrm_edge import terminal, zoo
from hrm_edge.cli import main as frame
from hrm_edge.errors import UserError
from hrm_edge.tasks.samples import sample_file

PACKAGE = Path(terminal.__file__).parent
MARKUP = ("run[bold]x", "x[/y]", "my [v2] model", "[red]", "a:smile:b", "[/]")
HOSTILE = "\x1b[2Jgone\x1b]0;title\x07\x9b31m\u202ereversed\r"


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_text(text, capsys):
    console = terminal.open_console()
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    console.print(table)
    console.print(text)
    terminal.echo(text)
    assert capsys.readouterr().out.count(text) == 6


def test_control_characters_are_written_out(capsys):
    console = terminal.open_console()
    table = Table(title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    terminal.echo(HOSTILE)
    terminal.echo(HOSTILE, err=True)
    for text in capsys.readouterr():
        assert "\\x1b[2Jgone" in text
        assert set(text).isdisjoint("\x1b\x07\x9b\u202e\r")


def test_a_status_line_takes_any_text(capsys):
    with terminal.status("x[/y]") as say:
        say("run[/bold]")
    assert capsys.readouterr().err == ""  # stderr is no terminal here


def test_styles_of_our_own_reach_a_terminal():
    console = terminal.open_console(force_terminal=True, color_system="standard", width=40)
    with console.capture() as shown:
        console.print("text\x1b[2J", style="red")
    assert shown.get() == "\x1b[31mtext\\x1b[2J\x1b[0m\n"
    assert terminal.visible("\x1b[1m5\x1b[0m\t6\n") == "\x1b[1m5\x1b[0m\t6\n"  # a solved grid's bold digits


def test_nothing_else_writes_to_the_terminal():
    """A second way to print would interpret markup or pass control characters on."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [f"{getattr(node.value, 'id', '')}.{node.attr}"]
            ways = {"rich.console.Console", "rich.markup.escape", "rich.print", "click.echo", "click.secho"}
            found += [f"{path.name}:{node.lineno} {name}" for name in names if name in ways or "from_markup" in name]
    assert [place for place in found if not place.startswith("terminal.py")] == [
        place for place in found if place.startswith("artifact.py") and place.endswith("Console")
    ]


@pytest.mark.parametrize("name", MARKUP)
def test_folders_with_brackets_in_every_step(name, capsys, tmp_path, monkeypatch):
    """Data, model and recipe in folders of this name; the last line is a command that a shell takes."""
    monkeypatch.chdir(tmp_path)
    model = Path(name) / "model"
    shutil.copytree(zoo.ZOO / "sudoku-nano", model)

    def run(*words: str) -> str:
        capsys.readouterr()
        assert frame.main(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    out = run("data", "build", "mini-sudoku", "--out", f"{name}/data", "--count", "4", "--test-count", "2")
    assert f"mini-sudoku in {name}/data" in out
    assert out.splitlines()[-1].endswith(f" --data {shlex.quote(f'{name}/data')}")
    out = run("info", str(model))
    assert f"{model} (artifact)" in out
    assert out.splitlines()[-1] == f"Next: hrm-edge bench {shlex.quote(str(model))} --data DATA"
    puzzles = Path(name) / "puzzles.csv"
    shutil.copyfile(sample_file("sudoku"), puzzles)
    out = run("eval", str(model), "--data", str(puzzles), "--limit", "1", "--max-steps", "1")
    assert f"{puzzles}: 1 sudoku puzzles" in out
    assert frame.main(["info", f"{name}/none[/b]"]) == 2
    assert f"no model '{name}/none[/b]'" in capsys.readouterr().err


def test_a_hostile_card_is_shown_as_text(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shelf = tmp_path / "hrm-edge" / "models"
    shutil.copytree(zoo.ZOO / "sudoku-nano", shelf / "zz")
    card = json.loads((zoo.ZOO / "sudoku-nano.card.json").read_text())
    card |= {"name": "zz", "fails_on": f"[/b] {HOSTILE}", "training": "[/red]"}
    card["accuracy"][0]["data"] = f"set [/b] {HOSTILE}"
    (shelf / "zz.card.json").write_text(json.dumps(card))
    assert frame.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "set [/b] \\x1b[2Jgone" in out
    assert "\x1b" not in out
    assert frame.main(["info", "zz"]) == 0
    out = capsys.readouterr().out
    assert "fails on: [/b] \\x1b[2Jgone" in out
    assert "[/red]; " in out
    assert "\x1b" not in out


def test_a_hostile_manifest_is_shown_as_text(capsys, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(zoo.ZOO / "sudoku-nano", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["gate"] = {"passed": False, "limits": {}, "failures": [f"[/b]{HOSTILE}"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for words in (["info", str(folder)], ["solve", "0" * 81, "--model", str(folder)]):
        frame.main(words)
        shown = "".join(capsys.readouterr())
        assert "[/b]\\x1b[2Jgone" in shown
        assert "\x1b" not in shown


def test_an_error_shows_what_it_names_as_text(capsys):
    assert frame._show(UserError(f"x[/y] {HOSTILE}", "do [bold]that")) == 2
    err = capsys.readouterr().err
    assert "Error: x[/y] \\x1b[2Jgone" in err
    assert "do [bold]that" in err
    assert "\x1b" not in err
