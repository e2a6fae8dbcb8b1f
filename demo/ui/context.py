"""What the panels of the page share: its components and the state of the visitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..visitor import Visitor

if TYPE_CHECKING:
    from ..store import Store

Drawn = tuple[gr.HTML, Callable[[Visitor], gr.HTML]]  # a component and the function that draws it


@dataclass(frozen=True)
class PageContext:
    """What a panel needs to join the page.

    Attributes:
        page: the page itself, for what happens when it is opened.
        store: corrections and saved hierarchies; None if nothing is to be kept.
        visitor: a `Visitor`, on the server only.
        tree: the interactive hierarchy.
        note: one line for results and errors, read out by screen readers; its prop is `text`.
        components: every output that shows the visitor's state, with the function that draws it.
        apply_data: the training data for applying corrections; None where visitors may not.
    """

    page: gr.Blocks
    store: Store | None
    visitor: gr.State
    tree: gr.HTML
    note: gr.HTML
    components: tuple[Drawn, ...]
    apply_data: Path | None = None

    @property
    def outputs(self) -> list[gr.HTML]:
        """The components that are drawn again after any change of the visitor."""
        return [component for component, _ in self.components]

    def redraw(self, visitor: Visitor) -> tuple[Any, ...]:
        """Return values for `outputs`."""
        return tuple(draw(visitor) for _, draw in self.components)
