"""What commands write to a terminal: text that cannot steer it, and progress on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")


def plain(text: str) -> str:
    """Text that cannot steer the terminal: of a file or a class that a stranger named."""
    return text if text.isprintable() else ascii(text)


def counted(number: int, noun: str) -> str:
    """As "1 model" and "1,200 models"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def progress(what: str) -> Progress:
    """A bar on stderr that goes away when it is done: count, items a second, time left."""
    columns = (
        SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), transient=True)


def tracked(items: Iterable[Item], count: int | None, what: str = "images") -> Iterator[Item]:
    """`items`, with a bar that moves as they are taken; `count` is None if nobody knows it."""
    with progress(what) as bar:
        yield from bar.track(items, total=count)


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")
