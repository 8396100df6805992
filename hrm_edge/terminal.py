"""What reaches a person's terminal: text as it is, never read as markup, its control characters written out.

Nearly every command prints names, paths and words out of files that others wrote. Through this module ``run[bold]x``
stays what it is, and a model's card cannot move the cursor or hide what follows.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

# Control characters but tab and newline, and those that turn the direction of text. Bold, which a solved grid has on a
# terminal, passes.
_CONTROL = re.compile("\x1b(?!\\[[01]m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Return ``text`` with its control characters written out (ESC becomes ``\\x1b``)."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _PlainConsole(Console):
    """Rich's console for text of others: no markup, no emoji codes, no control characters of theirs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def open_console(*, stderr: bool = False, width: int = 160, **options: Any) -> Console:
    """Make a console on stdout or stderr. ``width``: columns where that is no terminal; ``options`` are rich's."""
    console = _PlainConsole(stderr=stderr, **options)
    if not console.is_terminal:
        console.width = width
    return console


def echo(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print ``message`` on stdout or stderr at once."""
    print(visible(str(message)), end="\n" if nl else "", file=sys.stderr if err else sys.stdout, flush=True)


def table_of(
    columns: Sequence[str],
    rows: Iterable[Sequence[Text | str]],
    *,
    words: Collection[int] | None = (0,),
    no_wrap: bool = False,
    **options: Any,
) -> Table:
    """Make a table: the columns with the numbers in ``words`` are text, the others are figures, aligned on the right.

    ``words``: None where all are text. ``options`` are those of rich's ``Table``.
    """
    from rich.table import Table

    table = Table(title_justify="left", **options)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if words is None or index in words else "right", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*row)
    return table


@contextlib.contextmanager
def status(message: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on while the block runs; call the result with what is going on now."""
    with open_console(stderr=True).status(Text(message)) as shown:
        yield lambda now: shown.update(Text(now))
