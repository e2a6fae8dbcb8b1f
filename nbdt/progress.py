"""Progress of long work: a callback that library functions take, and bars on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:  # Rich is loaded only to draw
    from rich.progress import Progress as Bar

Item = TypeVar("Item")


class Progress(Protocol):
    """A callback that yields the items it is given and reports how many were taken.

    `no_progress` reports nothing; `tracked` draws a bar.
    """

    def __call__(self, items: Iterable[Item], count: int | None, what: str, /) -> Iterable[Item]:
        """Yield `items`; `count` is their number, None if unknown, and `what` a noun for them."""
        ...


def no_progress(items: Iterable[Item], _count: int | None, _what: str, /) -> Iterable[Item]:
    """Return `items` and report nothing."""
    return items


def progress(what: str) -> Bar:
    """Return a bar on stderr with count, items per second and time left; it vanishes at the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (
        SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), Rate(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    return Bar(*columns, console=Console(stderr=True), transient=True)


def tracked(items: Iterable[Item], count: int | None, what: str = "images") -> Iterator[Item]:
    """Yield `items` while a bar shows the progress; `count` is None if unknown."""
    with progress(what) as bar:
        yield from bar.track(items, total=count)


def escape_terminal(text: str) -> str:
    """Return `text` without characters that control a terminal; use it for names from files."""
    return text if text.isprintable() else ascii(text)


def counted(number: int, noun: str) -> str:
    """Return ``"1 model"`` or ``"1,200 models"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
