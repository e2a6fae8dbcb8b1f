"""The parts of the page that its panels share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..visitor import Visitor

if TYPE_CHECKING:
    from ..store import Store


@dataclass(frozen=True)
class Stage:
    """What a panel needs to join the page.

    Attributes:
        page: the page itself, for what happens when it is opened.
        store: corrections and saved hierarchies; None if nothing is to be kept.
        visitor: a `Visitor`, on the server only.
        tree: the interactive tree.
        strip: the decisions with their maps.
        note: one line for results and errors, read out by screen readers; its prop is `text`.
        parts: every output that shows the visitor's state, with what draws it.
        apply_data: the photographs that corrections are applied with; None where nobody may.
    """

    page: gr.Blocks
    store: Store | None
    visitor: gr.State
    tree: gr.HTML
    strip: gr.HTML
    note: gr.HTML
    parts: tuple[tuple[gr.HTML, Callable[[Visitor], gr.HTML]], ...]
    apply_data: Path | None = None

    @property
    def shown(self) -> list[gr.HTML]:
        """Outputs that are drawn again after any change of the visitor."""
        return [part for part, _ in self.parts]

    def redraw(self, visitor: Visitor) -> tuple[Any, ...]:
        """Values for `shown`."""
        return tuple(draw(visitor) for _, draw in self.parts)
