"""The edits as words on a command line: ``move owl raptors``, ``group owl eagle --name raptors``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import typer

from nbdt.tree.hierarchy import Hierarchy

from .. import edit
from .operations import Edit

Result = tuple[Hierarchy, Edit]


class _Kind(NamedTuple):
    """What one edit takes: how many nodes at least and most, and whether a name."""

    usage: str
    least: int
    most: int | None
    name: str  # "required", "optional" or "none"
    make: Callable[[Hierarchy, Sequence[str], str | None], Result]


_KINDS = {
    "move": _Kind("NODE GROUP", 2, 2, "none", lambda h, n, _: edit.move(h, *n)),
    "group": _Kind(
        "NODE NODE… --name NAME",
        2,
        None,
        "required",
        lambda h, n, name: edit.group(h, n, name or ""),
    ),
    "ungroup": _Kind("GROUP", 1, 1, "none", lambda h, n, _: edit.ungroup(h, *n)),
    "rename": _Kind("GROUP NAME", 2, 2, "none", lambda h, n, _: edit.rename(h, *n)),
    "swap": _Kind("NODE NODE", 2, 2, "none", lambda h, n, _: edit.swap(h, *n)),
    "merge": _Kind(
        "GROUP GROUP [--name NAME]",
        2,
        2,
        "optional",
        lambda h, n, name: edit.merge(h, n[0], n[1], name),
    ),
    "split": _Kind(
        "GROUP NODE NODE… --name NAME",
        3,
        None,
        "required",
        lambda h, n, name: edit.split(h, n[0], n[1:], name or ""),
    ),
}
USAGE = "; ".join(f"{kind} {entry.usage}" for kind, entry in _KINDS.items())


def make_edit(tree: Hierarchy, kind: str, nodes: Sequence[str], name: str | None) -> Result:
    """The edited tree and the record.

    Raises:
        typer.BadParameter: an unknown kind, or arguments that are not those of its kind.
        EditError: it cannot be made on this tree.
    """
    if kind not in _KINDS:
        raise typer.BadParameter(f"Unknown edit {kind!r}; choose one of {', '.join(_KINDS)}.")
    entry = _KINDS[kind]
    fits = entry.least <= len(nodes) <= (entry.most or len(nodes))
    named = entry.name == "optional" or (entry.name == "required") == (name is not None)
    if not (fits and named):
        raise typer.BadParameter(f"Usage: nbdt hierarchy edit TREE {kind} {entry.usage}")
    return entry.make(tree, nodes, name)
