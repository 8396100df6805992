"""The reference pages of the documentation site, made from the code while the site is built (a hook of mkdocs)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from hrm_edge.cli import main as frame
from hrm_edge.device.matrix import load_matrix
from hrm_edge.doctor import Diagnosis
from hrm_edge.manifest import Manifest
from hrm_edge.recipe import Recipe
from hrm_edge.record.schema import RecordInfo
from hrm_edge.report.schema import BenchReport, EvalReport

WIDE = "---\nhide: [toc]\n---\n\n"  # no list of headings beside a page of wide tables
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "RESULTS.md"
ROLE = re.compile(r":(?:attr|class|func|meth|mod):(?=<code>)")  # Sphinx's word before a name of code
WORD = re.compile(r"(<[^>]*>)|([^\s<>&]*-[^\s<>&]*)")  # a tag, or a word with a hyphen
SCHEMAS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("A recipe (YAML)", Recipe),
    ("An artifact's manifest.json", Manifest),
    ("The report of hrm-edge bench --json", BenchReport),
    ("The report of hrm-edge eval --json", EvalReport),
    ("The output of hrm-edge doctor --json", Diagnosis),
    ("The record.json of hrm-edge record", RecordInfo),
)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {"commands": commands(), "files": schemas(), "jetpack": jetpack(), "measured": measured()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings' ``:func:`` is left out before a name, and ``--data`` is not broken in two where a line is wrapped."""
    html = ROLE.sub("", html)
    return re.sub(r'<div class="language-sh .*?</div>', lambda block: WORD.sub(_whole, block[0]), html, flags=re.DOTALL)


def _whole(match: re.Match[str]) -> str:
    return match[1] or f'<span class="whole">{match[2]}</span>'


def commands() -> str:
    """Every verb's ``--help``, as the command line prints it."""
    codes = "0 done, 1 the work ran and missed its own gate, 2 your input or the machine is at fault, 130 interrupted"
    context = click.Context(frame.cli, info_name="hrm-edge", help_option_names=["-h", "--help"])
    return "\n".join(["# Commands", "", f"Exit codes: {codes}.", "", *_help(frame.cli, context)])


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"{'#' * (1 + context.command_path.count(' '))} {context.command_path}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _help(child, click.Context(child, info_name=name, parent=context))


def schemas() -> str:
    """The fields of every file that other programs read, from the models that write them."""
    parts = ["# Files and reports", "", "Closed schemas: an unknown key is an error. The unit is in the name.", ""]
    for title, model in SCHEMAS:
        schema = model.model_json_schema()
        named = {"": schema, **schema.get("$defs", {})}
        parts += [f"## {title}", ""]
        for name, part in named.items():
            if "properties" in part:
                parts += [f"### {title}: {name}", ""] if name else []
                parts += ["| field | type | |", "|---|---|---|"]
                fields = part["properties"].items()
                parts += [*(f"| `{key}` | {_type(value)} | {_about(value)} |" for key, value in fields), ""]
    return "\n".join(parts)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"{schema['$ref'].rpartition('/')[2]}"
    for kind in ("anyOf", "oneOf"):
        if kind in schema:
            return " or ".join(_type(one) for one in schema[kind])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _about(schema: dict[str, Any]) -> str:
    words = str(schema.get("description", "")).replace("\n", " ").replace("|", "\\|").rstrip(".")
    default = schema.get("default")
    shown = default not in (None, [], "") and not isinstance(default, dict)  # a part's defaults are in its own table
    return " ".join([*([f"{words}."] if words else []), *([f"Default: `{default}`."] if shown else [])])


def measured() -> str:
    """The tables of results; the files that they are rendered from are in the checkout, not on the site."""
    return WIDE + re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", RESULTS.read_text(encoding="utf-8"))


def jetpack() -> str:
    """The matrix in jetson/matrix.yaml, which ``hrm-edge doctor`` compares a board with."""
    about = "`hrm-edge doctor` compares a board with this table (`jetson/matrix.yaml`)."
    rows = [f"{WIDE}# JetPack table", "", about, ""]
    rows += [
        "| JetPack | L4T | chips | CUDA | TensorRT | Python | cuda-python | torch | Torch-TensorRT |",
        "|" + 9 * "---|",
    ]
    matrix = load_matrix()
    for r in matrix.releases:
        chips = ", ".join(matrix.socs[soc].name for soc in r.socs)
        tied: dict[str, list[str]] = {name: [] for name in ("torch", "torch-tensorrt")}
        for soc, packages in r.packages.items():
            for name, version in packages.items():
                tied[name].append(f"{matrix.socs[soc].name}: {version} only")
        sources = [
            "; ".join([where, *tied[name]]) for name, where in zip(tied, (r.torch, r.torch_tensorrt), strict=True)
        ]
        cells = [r.jetpack, ", ".join(r.l4t), chips, r.cuda, " or ".join(r.tensorrt), r.python, r.cuda_python, *sources]
        rows.append(f"| {' | '.join(cells)} |")
    rows += ["", "| part number | module |", "|---|---|"]
    return "\n".join([*rows, *(f"| {part} | {name} |" for part, name in matrix.modules.items()), ""])
