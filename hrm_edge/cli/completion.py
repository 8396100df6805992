"""``hrm-edge completion``: what a shell needs to complete commands, options, and names of models and recipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import click

from hrm_edge.terminal import echo


class _Shell(NamedTuple):
    """Where a shell's script goes, and the file that has to read it (None: it is read from there anyway)."""

    script: str
    started_by: str | None


# ``{data}`` and ``{config}`` are the user's folders of the XDG directories, ``{home}`` is the home.
SHELLS = {
    "bash": _Shell("{data}/hrm-edge/completion.bash", "{home}/.bashrc"),
    "zsh": _Shell("{data}/hrm-edge/completion.zsh", "{zdotdir}/.zshrc"),
    "fish": _Shell("{config}/fish/completions/hrm-edge.fish", None),
}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False)
@click.option("--install", is_flag=True, help="Write the script for this user, and let new shells read it.")
def completion(shell: str | None, install: bool) -> None:
    """Print the script by which SHELL completes hrm-edge's words, or install it.  [default: the shell of $SHELL]

    \b
    hrm-edge completion --install             # for new shells
    eval "$(hrm-edge completion bash)"        # for this one; zsh the same
    hrm-edge completion fish | source
    """
    from hrm_edge.errors import UserError

    login = Path(os.environ.get("SHELL", "")).name
    shell = shell or login
    if shell not in SHELLS:
        raise UserError(
            f"$SHELL is '{login}', for which there is no script" if login else "$SHELL is not set",
            f"name one of {', '.join(SHELLS)}: hrm-edge completion bash",
        )
    if install:
        _install(shell)
    else:
        echo(source(shell))


def source(shell: str) -> str:
    """Return the script for ``shell``."""
    from click.shell_completion import get_completion_class

    from hrm_edge.cli.main import COMPLETE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(cli, {}, "hrm-edge", COMPLETE)
    return made.source_template % made.source_vars()


def _install(shell: str) -> None:
    from hrm_edge.files import write_text

    home = Path.home()
    folders = {
        "home": str(home),
        "data": os.environ.get("XDG_DATA_HOME") or str(home / ".local/share"),
        "config": os.environ.get("XDG_CONFIG_HOME") or str(home / ".config"),
        "zdotdir": os.environ.get("ZDOTDIR") or str(home),
    }
    place = SHELLS[shell]
    script = Path(place.script.format(**folders))
    script.parent.mkdir(parents=True, exist_ok=True)
    write_text(script, source(shell) + "\n")
    echo(f"{script}")
    if place.started_by is not None:
        started_by = Path(place.started_by.format(**folders))
        line = f'[ -r "{script}" ] && . "{script}"  # hrm-edge completion'
        if shell == "zsh":
            line = f"autoload -Uz compinit && (( $+functions[compdef] )) || compinit; {line}"
        before = started_by.read_text(encoding="utf-8") if started_by.is_file() else ""
        if line not in before.splitlines():
            end = "" if before.endswith("\n") or not before else "\n"
            write_text(started_by, f"{before}{end}{line}\n")
        echo(f"{started_by} reads it")
    echo(f"Next: open a new {shell}, type hrm-edge and a blank, press Tab twice")
