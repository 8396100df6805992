"""What the documents say can be typed: commands parse with the real command line, make targets exist, links resolve.

Only the reading is checked here; ``make quickstart`` runs the pipeline itself.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hrm_edge.cli import main as frame

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "docs"  # its links are checked by mkdocs, which knows the generated pages
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "benchmarks" / "RESULTS.md",
    ROOT / "recipes" / "README.md",
    ROOT / "jetson" / "README.md",
]
DOCUMENTS += sorted(SITE.rglob("*.md"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
QUICKSTART = ROOT / "scripts" / "quickstart.sh"


def code_lines(text: str) -> list[str]:
    """The lines of fenced blocks (continued lines joined) and the inline code of a Markdown text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return lines + re.findall(r"`([^`\n]+)`", prose)


def commands_of(path: Path) -> list[str]:
    """Every ``hrm-edge VERB …`` that the file tells people to type."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        lines = code_lines(text)
    elif path.suffix == ".yaml":
        header = re.sub(r"\\\n#", " ", text)
        lines = [line.lstrip("# ") for line in header.splitlines() if line.startswith("#")]
    else:
        lines = text.replace("\\\n", " ").replace('"${resume[@]}"', "--resume").splitlines()
    return [match[1].strip() for line in lines if (match := re.search(r"(?:^|\s)hrm-edge ([a-z-].*)", line))]


def all_commands() -> list[tuple[str, str]]:
    files = [*DOCUMENTS, *RECIPES, QUICKSTART]
    return [(str(path.relative_to(ROOT)), command) for path in files for command in commands_of(path)]


def check(command: click.Command, arguments: list[str], name: str) -> None:
    """Raise ``click.UsageError`` or ``AssertionError`` unless ``command`` takes ``arguments``; opens no file."""
    if arguments[:1] in (["--help"], ["--version"]):
        return
    context = click.Context(command, info_name=name, **command.context_settings)
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        value = values.get(parameter.name or "")
        missing = value is None or value == () or "UNSET" in repr(value)
        assert not (parameter.required and missing), f"{name}: {parameter.name} is missing in {arguments}"
        if isinstance(parameter.type, click.Choice) and not missing:
            for one in value if isinstance(value, list | tuple) else [value]:
                parameter.type.convert(one, parameter, context)
    if isinstance(command, click.Group):
        assert rest or command.invoke_without_command, f"{name}: no verb after it"
        if not rest:
            return
        child = command.get_command(context, rest[0])
        assert child is not None, f"{name} has no verb '{rest[0]}'"
        check(child, rest[1:], rest[0])
    else:
        assert not rest, f"{name}: surplus arguments {rest}"


@pytest.mark.parametrize(("where", "text"), all_commands(), ids=lambda value: value[:60])
def test_commands_parse(where, text):
    arguments = shlex.split(text, comments=True)
    if len(arguments) == 1 and arguments[0] in frame.VERBS:  # a sentence names the verb
        return
    check(frame.cli, arguments, "hrm-edge")
    if arguments[0] == "remote" and arguments[2:3] in (["bench"], ["solve"]):  # what is passed on is the verb's own
        check(frame.cli, [word for word in arguments[2:] if word != "--engine"], "hrm-edge")


@click.group()
def toy() -> None: ...


@toy.command()
@click.argument("puzzle")
@click.option("--halt", type=click.Choice(["head", "rules"]))
@click.option("--model", required=True)
def solve(puzzle: str, halt: str, model: str) -> None: ...


@pytest.mark.parametrize("text", ["solve X --model m", "solve X --model m --halt head", "solve --help"])
def test_the_check_accepts(text):
    check(toy, text.split(), "toy")


@pytest.mark.parametrize(
    "text",
    [
        "slove X",
        "solve X",
        "solve --model m",
        "solve X Y --model m",
        "solve X --model m --halt heads",
        "solve X --modle m",
        "solve X --model",
        "",
    ],
)
def test_the_check_refuses(text):
    with pytest.raises((click.UsageError, AssertionError)):
        check(toy, text.split(), "toy")


def test_commands_are_found():
    assert code_lines("a `hrm-edge x` b\n```sh\nhrm-edge y \\\n  --z\n```\n") == ["hrm-edge y    --z", "hrm-edge x"]
    assert len(commands_of(ROOT / "README.md")) >= 5
    assert len(commands_of(QUICKSTART)) >= 6


def test_the_readme_is_one_reading_with_one_picture():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(re.findall(r"!\[[^\]]+\]\(", text)) == 1


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [line for path in DOCUMENTS for line in code_lines(path.read_text())]
    lines += (ROOT / ".ci" / "run").read_text().splitlines()
    named = {match[1] for line in lines if (match := re.match(r"make ([a-z0-9-]+)", line))}
    assert {"quickstart", "test", "check"} <= named <= targets


@pytest.mark.parametrize(
    "path", [d for d in DOCUMENTS if SITE not in d.parents], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_resolve(path):
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not re.match(r"https?://", target):
            file, _, anchor = target.partition("#")
            assert not file or (path.parent / file).exists(), f"{path.name}: {target} does not exist"
            assert not anchor or file or anchor in headings, f"{path.name}: no heading for {target}"


def test_tables_of_figures_are_rendered_from_results_files():
    checked = subprocess.run([sys.executable, "scripts/tables.py", "--check"], cwd=ROOT, check=False)
    assert checked.returncode == 0, "a table is out of date: run python scripts/tables.py"
