"""How long work is watched: by a progress bar, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Watch(Protocol):
    """Given items, their number (None if nobody knows it) and a word for them, yields the items.

    `nbdt.terminal.tracked` is one that draws a bar.
    """

    def __call__(self, items: Iterable[Item], count: int | None, what: str, /) -> Iterable[Item]:
        """The items, as they are taken."""
        ...


def unwatched(items: Iterable[Item], _count: int | None, _what: str, /) -> Iterable[Item]:
    """The items alone."""
    return items
