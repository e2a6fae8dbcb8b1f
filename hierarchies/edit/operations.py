"""Changes that people make to a hierarchy: move, group, ungroup, rename, swap, merge, split.

Each function takes a hierarchy and nodes, by id or unambiguous name, and returns the new hierarchy
and an `Edit`, its record. The given hierarchy stays as it is. Classes, their order and the ids of
all nodes that an edit does not name are kept; a node that gets a new name loses its WordNet id.

A group left with one child is removed and the child takes its place, since a decision needs
two or more. In a binary tree every move leaves such a group behind, so refusing would forbid them all.
The root stays: left with one child, it takes over that child's children.

A new group's id is made from its name, "bird/", and gets a number if that id is taken: "bird/2". The
same edit of the same tree therefore has the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .draft import (
    Draft,
    check_name,
    find,
    find_all,
    label,
    labels,
    located,
    need_group,
    refuse_nested,
    refuse_root,
    shared_parent,
)
from .record import KINDS, Edit, EditError, EditRequest, check_complete


def move(hierarchy: Hierarchy, node: str, to: str) -> tuple[Hierarchy, Edit]:
    """Put `node`, a class or a group with all it holds, into the group `to`.

    Raises:
        EditError: an unknown or ambiguous node, the root, `to` being a class, being inside `node`,
            or holding it already.
    """
    what, into = find(hierarchy, node), find(hierarchy, to)
    refuse_root(hierarchy, what, "moved")
    if what in hierarchy.path_to(into):
        raise EditError(
            f"{label(hierarchy, what)} cannot be moved into {label(hierarchy, into)}, which "
            f"{'is itself' if into == what else 'is inside it'}; choose a group outside it."
        )
    need_group(hierarchy, into, "group the two to put them together")
    parent = hierarchy.parents[what]
    if parent == into:
        raise EditError(f"{label(hierarchy, what)} is in {label(hierarchy, into)} already.")
    draft = Draft(hierarchy)
    draft.put(hierarchy.ids[what], hierarchy.ids[into])
    draft.collapse(hierarchy.ids[parent])
    text = f"moved {located(hierarchy, what)} to {label(hierarchy, into)}"
    return draft.finish("move", [what], text, to=hierarchy.ids[into])


def group(
    hierarchy: Hierarchy, nodes: Sequence[str], name: str, *, wnid: str | None = None
) -> tuple[Hierarchy, Edit]:
    """Put some of the children of one group into a new group inside it.

    Raises:
        EditError: an unknown or ambiguous node, fewer than two, nodes from different groups, all
            the children of their group, or a name that cannot be one.
    """
    members = find_all(hierarchy, nodes)
    if len(members) < 2:
        raise EditError(f"A new group needs two or more nodes, got {len(members)}.")
    check_name(name)
    parent = shared_parent(hierarchy, members)
    if len(members) == len(hierarchy.children[parent]):
        raise EditError(
            f"{labels(hierarchy, members)} are all that {label(hierarchy, parent)} holds, so a "
            f"group of them would be its only child; rename {label(hierarchy, parent)} instead."
        )
    draft = Draft(hierarchy)
    created = draft.create(name, wnid, hierarchy.ids[parent], members)
    text = f"grouped {labels(hierarchy, members)} as {short(name)} in {label(hierarchy, parent)}"
    return draft.finish("group", members, text, name=name, wnid=wnid, created=created)


def ungroup(hierarchy: Hierarchy, node: str) -> tuple[Hierarchy, Edit]:
    """Remove a group; what it holds goes to the group around it.

    Raises:
        EditError: an unknown or ambiguous node, a class, or the root.
    """
    what = find(hierarchy, node)
    need_group(hierarchy, what, "only a group can be ungrouped")
    refuse_root(hierarchy, what, "ungrouped")
    draft = Draft(hierarchy)
    draft.dissolve(hierarchy.ids[what])
    parent = label(hierarchy, hierarchy.parents[what])
    members = labels(hierarchy, hierarchy.children[what])
    text = f"ungrouped {label(hierarchy, what)}: {members} went to {parent}"
    return draft.finish("ungroup", [what], text)


def rename(
    hierarchy: Hierarchy, node: str, name: str, *, wnid: str | None = None
) -> tuple[Hierarchy, Edit]:
    """Give a group another name. No decision and no answer changes.

    Raises:
        EditError: an unknown or ambiguous node, a class, the name that it has, or a name that
            cannot be one.
    """
    what = find(hierarchy, node)
    if not hierarchy.children[what]:
        raise EditError(
            f"{label(hierarchy, what)} is a class, and its name is the model's; rename a group."
        )
    check_name(name)
    if hierarchy.names[what] == name and wnid in (None, hierarchy.nodes[what].wnid):
        raise EditError(f"{label(hierarchy, what)} has that name already.")
    draft = Draft(hierarchy)
    draft.name(hierarchy.ids[what], name, wnid)
    text = f"renamed {label(hierarchy, what)} to {short(name)}"
    return draft.finish("rename", [what], text, name=name, wnid=wnid)


def swap(hierarchy: Hierarchy, node: str, other: str) -> tuple[Hierarchy, Edit]:
    """Exchange the places of two nodes, each with all it holds.

    Raises:
        EditError: an unknown or ambiguous node, one inside the other, or siblings, whose order
            means nothing.
    """
    one, two = find(hierarchy, node), find(hierarchy, other)
    refuse_nested(hierarchy, one, two, "swapped")
    above, below = hierarchy.parents[one], hierarchy.parents[two]
    if above == below:
        raise EditError(
            f"{label(hierarchy, one)} and {label(hierarchy, two)} are both in "
            f"{label(hierarchy, above)}, where order means nothing: a swap would change nothing."
        )
    draft = Draft(hierarchy)
    draft.put(hierarchy.ids[one], hierarchy.ids[below])
    draft.put(hierarchy.ids[two], hierarchy.ids[above])
    text = f"swapped {located(hierarchy, one)} with {located(hierarchy, two)}"
    return draft.finish("swap", [one, two], text)


def merge(
    hierarchy: Hierarchy,
    node: str,
    other: str,
    name: str | None = None,
    *,
    wnid: str | None = None,
) -> tuple[Hierarchy, Edit]:
    """Make two groups one: `node` takes what `other` holds, and `name` if given.

    Where the two are all that the group around them holds, that group is the result, since it
    already holds exactly their classes; it keeps its name unless `name` is given.

    Raises:
        EditError: an unknown or ambiguous node, a class, one inside the other, or a name that
            cannot be one.
    """
    one, two = find(hierarchy, node), find(hierarchy, other)
    refuse_nested(hierarchy, one, two, "merged")
    for what in (one, two):
        need_group(hierarchy, what, "move it into the group instead")
    if name is not None:
        check_name(name)
    elif wnid is not None:
        raise EditError(f"A WordNet id, here {short(wnid)}, goes with a name; give both.")
    draft = Draft(hierarchy)
    ids, around = hierarchy.ids, hierarchy.parents[two]
    if {*hierarchy.children[around]} == {one, two}:
        result = ids[around]
        draft.dissolve(ids[one])
        draft.dissolve(ids[two])
    else:
        result = ids[one]
        draft.dissolve(ids[two], into=result)
        draft.collapse(ids[around])
    if name is not None:
        draft.name(result, name, wnid)
    shown = short(hierarchy.names[hierarchy.index(result)] if name is None else name)
    text = f"merged {label(hierarchy, one)} and {label(hierarchy, two)} as {shown}"
    return draft.finish("merge", [one, two], text, name=name, wnid=wnid)


def split(
    hierarchy: Hierarchy,
    node: str,
    members: Sequence[str],
    name: str,
    *,
    wnid: str | None = None,
) -> tuple[Hierarchy, Edit]:
    """Take some children out of a group, into a new group beside it.

    Raises:
        EditError: an unknown or ambiguous node, a class, the root, fewer than two members, members
            that are not children of `node`, all of its children, or a name that cannot be one.
    """
    what, taken = find(hierarchy, node), find_all(hierarchy, members)
    need_group(hierarchy, what, "only a group can be split")
    refuse_root(hierarchy, what, "split", "group some of its children instead")
    strangers = [member for member in taken if member not in hierarchy.children[what]]
    if strangers:
        raise EditError(
            f"{labels(hierarchy, strangers)} cannot be split off {label(hierarchy, what)}, whose "
            f"children are {labels(hierarchy, hierarchy.children[what])}."
        )
    if len(taken) < 2:
        raise EditError(
            f"A new group needs two or more nodes, got {len(taken)}; move a single one instead."
        )
    if len(taken) == len(hierarchy.children[what]):
        raise EditError(
            f"Splitting {labels(hierarchy, taken)} off {label(hierarchy, what)} would take its "
            "last child away; leave it some, or rename it."
        )
    check_name(name)
    draft = Draft(hierarchy)
    created = draft.create(name, wnid, hierarchy.ids[hierarchy.parents[what]], taken)
    draft.collapse(hierarchy.ids[what])
    text = f"split {labels(hierarchy, taken)} off {label(hierarchy, what)} as {short(name)}"
    return draft.finish("split", [what, *taken], text, name=name, wnid=wnid, created=created)


def make(hierarchy: Hierarchy, request: EditRequest | Edit) -> tuple[Hierarchy, Edit]:
    """Make the edit of the kind that a request or a record names.

    Raises:
        EditError: an unknown kind, a part that is missing, or an edit that cannot be made.
    """
    check_complete(request)
    kind, alone = KINDS[request.kind], len(KINDS[request.kind].nodes)
    arguments: list[Any] = [*request.nodes[:alone]]
    if kind.members:
        arguments.append(request.nodes[alone:])
    if kind.to:
        arguments.append(request.to)
    named = {} if kind.name == "none" else {"name": request.name, "wnid": request.wnid}
    return _FUNCTIONS[request.kind](hierarchy, *arguments, **named)


def apply(hierarchy: Hierarchy, record: Edit) -> tuple[Hierarchy, Edit]:
    """Make a recorded edit again, on the tree that it was made on.

    Raises:
        EditError: this is another tree, or the result is not the recorded one.
    """
    if hierarchy.hash != record.before:
        raise EditError(
            f"This edit ({record.summary}) was made on the hierarchy {record.before[:12]}, not on "
            f"this one, {hierarchy.hash[:12]}."
        )
    result, made = make(hierarchy, record)
    if result.hash != record.after:
        raise EditError(
            f"This edit ({record.summary}) gives the hierarchy {result.hash[:12]}, while its "
            f"record says {record.after[:12]}; the record was altered."
        )
    return result, replace(made, part_of=record.part_of)


_FUNCTIONS: dict[str, Callable[..., tuple[Hierarchy, Edit]]] = {
    function.__name__: function for function in (move, group, ungroup, rename, swap, merge, split)
}
