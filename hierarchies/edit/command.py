"""The edits as words on a command line: ``move owl raptors``, ``group owl eagle --name raptors``."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .operations import make
from .record import KINDS, Edit, EditError, EditRequest, check_complete, check_kind

USAGE = "; ".join(f"{kind} {takes.usage}" for kind, takes in KINDS.items())


def make_edit(
    hierarchy: Hierarchy, kind: str, words: Sequence[str], name: str | None
) -> tuple[Hierarchy, Edit]:
    """Make the edit that the words of a command line ask for.

    Raises:
        typer.BadParameter: an unknown kind, or words other than its kind takes.
        EditError: it cannot be made on this hierarchy.
    """
    try:
        request = _request(kind, words, name)
    except EditError as error:
        usage = f"{kind} {KINDS[kind].usage}" if kind in KINDS else USAGE
        raise typer.BadParameter(f"{error} Usage: nbdt hierarchy edit TREE {usage}") from None
    return make(hierarchy, request)


def _request(kind: str, words: Sequence[str], name: str | None) -> EditRequest:
    check_kind(kind)
    takes, nodes, to = KINDS[kind], [*words], None
    if takes.name == "none" and name is not None:
        raise EditError(f"{kind!r} takes no name, got {short(name)}.")
    if takes.name_is_word and name is None and nodes:
        name = nodes.pop()
    if takes.to and nodes:
        to = nodes.pop()
    request = EditRequest(kind, tuple(nodes), to, name)
    check_complete(request)
    return request
