"""What `nbdt hierarchy edit` does: make an edit from words, and keep it in a history."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence

import typer

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .history import History, HistoryError, Version
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
        check_kind(kind)
        takes, nodes = KINDS[kind], [*words]
        if takes.name == "none" and name is not None:
            raise EditError(f"{kind!r} takes no name, got {short(name)}.")
        if takes.name == "required" and not takes.members and name is None and nodes:
            name = nodes.pop()
        to = nodes.pop() if takes.to and nodes else None
        request = EditRequest(kind, tuple(nodes), to, name)
        check_complete(request)
    except EditError as error:
        usage = f"{kind} {KINDS[kind].usage}" if kind in KINDS else USAGE
        raise typer.BadParameter(f"{error} Usage: nbdt hierarchy edit TREE {usage}") from None
    return make(hierarchy, request)


def keep_edit(
    history: History, before: Hierarchy, after: Hierarchy, record: Edit, why: str = ""
) -> Version:
    """Save what one edit made as a version, by the user of this process.

    An empty history begins with the tree before the edit. The reason is by default what the edit did.

    Raises:
        HistoryError: `before` is none of the versions.
        OSError: the folder cannot be written.
    """
    versions, who = history.versions(), _user()
    same = [version.number for version in versions if version.hash == before.hash]
    if versions and not same:
        raise HistoryError(
            f"The tree to be changed is no version in {history.where}; name the folder "
            "itself to change its latest version, or another folder."
        )
    parent = same[-1] if same else history.save(before, who=who, why="before the edits").number
    return history.save(after, who=who, why=why or record.summary, parent=parent, edits=[record])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in many containers
        return f"user {os.getuid()}"
