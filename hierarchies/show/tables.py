"""Tables in the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nbdt.progress import escape_terminal


def plain_console(width: int | None = None) -> Console:
    """Return a console that prints text as it is, of a `width` in columns where there is no terminal."""
    console = Console(highlight=False, emoji=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], note: str = ""
) -> Table:
    """Return a table, at least as wide as its title, with a note below; no cell is read as markup."""
    made = Table(*columns, title=title or None, caption=note or None, min_width=len(title))
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def name_cell(name: str) -> Text:
    """Return a name from a file as the cell of a table, which breaks where it is too long."""
    return Text(escape_terminal(name), overflow="fold")
