"""``hrm-edge``: finds the verb, imports its module only then, and turns every failure into one clear message.

Nothing heavy may be imported here: ``hrm-edge --help`` answers at once and works without torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from hrm_edge import __version__
from hrm_edge.cli.process import prepare
from hrm_edge.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER,
    GateError,
    HrmEdgeError,
    Interrupted,
    UserError,
    nearest,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(NamedTuple):
    """Place of a verb's click command (``module:attribute``), and its line in ``--help``."""

    target: str
    summary: str


VERBS = {  # in the order of the pipeline
    "doctor": Verb("hrm_edge.cli.doctor:doctor", "Say what this machine has and lacks, and how to fix it."),
    "info": Verb("hrm_edge.cli.info:info", "Show a model's or recipe's parameters, FLOPs and manifest."),
    "data": Verb("hrm_edge.cli.data:data", "Build data sets from a file, a hub or the puzzle generator."),
    "recipes": Verb("hrm_edge.cli.recipes:recipes", "List the training recipes, and copy one to change it."),
    "train": Verb("hrm_edge.cli.train:train", "Train a recipe into a checkpoint."),
    "eval": Verb("hrm_edge.cli.evaluate:evaluate", "Measure a model's exact accuracy on puzzles."),
    "export": Verb("hrm_edge.cli.export:export", "Turn a checkpoint into an artifact (ONNX, fp32 or INT8)."),
    "bench": Verb("hrm_edge.cli.bench:bench", "Measure latency, throughput and accuracy in one report."),
    "record": Verb("hrm_edge.cli.record:record", "Measure all that works here, into one archive to hand in."),
    "remote": Verb("hrm_edge.cli.remote:remote", "Set up, measure, solve and demo on a board, over ssh."),
    "models": Verb("hrm_edge.cli.models:models", "List the pretrained models, and pull more by name."),
    "solve": Verb("hrm_edge.cli.solve:solve", "Solve puzzles and verify the answers by the rules."),
    "demo": Verb("hrm_edge.cli.demo:demo", "Solve the Sudoku that a camera sees, on a page or in a window."),
    "completion": Verb("hrm_edge.cli.completion:completion", "Let the Tab key complete commands, in bash, zsh, fish."),
}
COMPLETE = "_HRM_EDGE_COMPLETE"  # the variable by which a shell's script asks for completions, as click names it
_MAY_BE_EMPTY = ("--wandb", "--rdzv-endpoint", "--rdzv-id")  # where it means "none"
_VERBOSE = f"{__name__}.verbose"  # in a context's meta


def _say_more(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Note ``-v``, and say which versions run: a report of a fault needs them."""
    if value and not context.meta.get(_VERBOSE) and not context.resilient_parsing:
        context.meta[_VERBOSE] = True
        python = "{}.{}.{}".format(*sys.version_info)
        print(f"hrm-edge {__version__}, Python {python} on {sys.platform}, in {sys.prefix}", file=sys.stderr)


def _verbose_option() -> click.Option:
    words = "Say which versions run, and of an error what was behind it."
    return click.Option(
        ["-v", "--verbose"], is_flag=True, expose_value=False, is_eager=True, callback=_say_more, help=words
    )


def _with_verbose(command: click.Command) -> click.Command:
    """Give ``command`` and the commands below it the option ``-v``, once."""
    if not any("--verbose" in parameter.opts for parameter in command.params):
        command.params.append(_verbose_option())
        for below in command.commands.values() if isinstance(command, click.Group) else ():
            _with_verbose(below)
    return command


class _LazyGroup(click.Group):
    """A group that knows its verbs' names and summaries from a table and imports a verb when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, attribute = verb.target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return _with_verbose(command)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs from the table, none of them imported, and the options."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        matching = [(name, verb.summary) for name, verb in VERBS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=summary) for name, summary in matching]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"No such command '{args[0]}': {nearest(args[0], [*VERBS, 'help', 'version'])}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, name="hrm-edge", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="hrm-edge", message="%(prog)s %(version)s")
def cli() -> None:
    """Train, quantize, export and run Hierarchical Reasoning Models on edge devices.

    A recipe becomes a checkpoint, a checkpoint becomes an artifact, an artifact runs anywhere. Compiled models, engines
    and pulled models are kept in ~/.cache/hrm-edge and may be removed at any time.

    'hrm-edge help COMMAND' explains one.
    """


cli.params.append(_verbose_option())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on ``arguments`` (default: the process's own) and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    context = None
    try:
        prepare()
        if os.environ.get(COMPLETE):
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "hrm-edge", COMPLETE, os.environ[COMPLETE])
        _check_empty(arguments)
        arguments = _long_form(arguments)
        with cli.make_context("hrm-edge", list(arguments), obj=arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()  # a full disk or a closed pipe shows here, not in the interpreter's shutdown
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USER
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. What is still buffered has nowhere to go at shutdown either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (KeyboardInterrupt, click.Abort):
        return _show(Interrupted("Interrupted"))
    except Exception as error:  # noqa: BLE001 - the last resort: every exception ends here
        if _was_interrupted(error) and not isinstance(error, Interrupted):
            return _show(Interrupted("Interrupted"))
        known = error if isinstance(error, HrmEdgeError) else _as_user_error(error)
        if known is None or (context is not None and context.meta.get(_VERBOSE)):
            import traceback

            traceback.print_exc()
        if known is not None:
            return _show(known)
        print(f"\nThis is a bug in hrm-edge {__version__}: please report it with the text above.", file=sys.stderr)
        return EXIT_BUG
    return EXIT_OK


def _long_form(arguments: list[str]) -> list[str]:
    """Write ``help VERB`` as ``VERB --help``, and ``version`` as ``--version``."""
    if arguments[:1] == ["help"]:
        return [*arguments[1:], "--help"]
    return ["--version"] if arguments == ["version"] else arguments


def _check_empty(arguments: Sequence[str]) -> None:
    """Raise ``UserError`` for an empty word, which is nearly always a shell variable that is not set.

    An empty path would be the current folder.
    """
    for before, word in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = word.partition("=")
        is_empty = not word or (word.startswith("--") and equals and not value)
        if is_empty and (flag or before) not in _MAY_BE_EMPTY:
            where = f" after {before}" if before and not word else f": {word}" if word else ""
            raise UserError(f"an argument is empty{where}", "is a variable of your shell not set? name the value")


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind ``error``: a library that is loading makes an ImportError of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _as_user_error(error: Exception) -> UserError | None:
    """Return the user's view of an exception that is the machine's doing, or None where it is a bug of ours."""
    import errno

    from hrm_edge.files import os_error
    from hrm_edge.packages import failed_import, missing_extra, unusable

    if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return os_error(error, error.filename if error.filename is not None else "output")
    if isinstance(error, ModuleNotFoundError):
        lack = missing_extra(error, "this command")
        if lack is not None:
            return lack
    module = failed_import(error)
    if module is not None:
        return unusable(module, error)
    # torch and onnxruntime report memory in a RuntimeError's text
    text = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    ):
        first = str(error).partition("\n")[0]
        return UserError(
            "not enough memory" + (f": {first}" if first else ""), "use a smaller batch, or close other programs"
        )
    return None


def _show(error: HrmEdgeError) -> int:
    """Print ``error`` and its hint on stderr, coloured on a terminal; returns its exit code."""
    try:
        from rich.text import Text

        from hrm_edge.terminal import open_console
    except ImportError:  # it is what does not load here
        print("\n  ".join(filter(None, (error.problem, error.hint))), file=sys.stderr)
        return error.exit_code
    console = open_console(stderr=True, soft_wrap=True)
    if error.exit_code == EXIT_INTERRUPTED:
        console.print(Text(": ".join(filter(None, (error.problem, error.hint))), style="yellow"))
        return error.exit_code
    label = "Failed: " if isinstance(error, GateError) else "Error: "
    console.print(Text.assemble((label, "bold red"), error.problem))
    if error.hint:
        console.print(Text.assemble("  ", (error.hint, "cyan")))
    return error.exit_code
