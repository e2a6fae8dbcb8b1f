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

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .draft import Draft, check_name, refuse
from .record import KINDS, Edit, EditRequest, check_complete


def move(hierarchy: Hierarchy, node: str, to: str) -> tuple[Hierarchy, Edit]:
    """Put `node`, a class or a group with all it holds, into the group `to`.

    Raises EditError: an unknown or ambiguous node, the root, `to` being a class, being inside
    `node`, or holding it already.
    """
    draft = Draft(hierarchy)
    what, into = draft.find(node), draft.find(to)
    one, two, parent = draft.label(what), draft.label(into), hierarchy.parents[what]
    draft.refuse_root(what, "moved")
    inside = "is itself" if into == what else "is inside it"
    refuse(what in hierarchy.path_to(into),
           f"{one} cannot be moved into {two}, which {inside}; choose a group outside it.")  # fmt: skip
    draft.need_group(into, "group the two to put them together")
    refuse(parent == into, f"{one} is in {two} already.")
    draft.put(hierarchy.ids[what], hierarchy.ids[into])
    draft.collapse(hierarchy.ids[parent])
    text = f"moved {draft.located(what)} to {two}"
    return draft.finish("move", [what], text, to=hierarchy.ids[into])


def group(hierarchy: Hierarchy, nodes: Sequence[str], name: str) -> tuple[Hierarchy, Edit]:
    """Put some of the children of one group into a new group inside it.

    Raises EditError: an unknown or ambiguous node, fewer than two, nodes from different groups, all
    the children of their group, or a name that cannot be one.
    """
    draft = Draft(hierarchy)
    members = draft.find_all(nodes)
    refuse(len(members) < 2, f"A new group needs two or more nodes, got {len(members)}.")
    check_name(name)
    parent = draft.shared_parent(members)
    shown, around = draft.labels(members), draft.label(parent)
    refuse(len(members) == len(hierarchy.children[parent]),
           f"{shown} are all that {around} holds, so a group of them would be its only child; rename "
           f"{around} instead.")  # fmt: skip
    created = draft.create(name, hierarchy.ids[parent], members)
    text = f"grouped {shown} as {short(name)} in {around}"
    return draft.finish("group", members, text, name=name, created=created)


def ungroup(hierarchy: Hierarchy, node: str) -> tuple[Hierarchy, Edit]:
    """Remove a group; what it holds goes to the group around it.

    Raises EditError: an unknown or ambiguous node, a class, or the root.
    """
    draft = Draft(hierarchy)
    what = draft.find(node)
    draft.need_group(what, "only a group can be ungrouped")
    draft.refuse_root(what, "ungrouped")
    draft.dissolve(hierarchy.ids[what])
    parent, members = hierarchy.parents[what], draft.labels(hierarchy.children[what])
    text = f"ungrouped {draft.label(what)}: {members} went to {draft.label(parent)}"
    return draft.finish("ungroup", [what], text)


def rename(hierarchy: Hierarchy, node: str, name: str) -> tuple[Hierarchy, Edit]:
    """Give a group another name. No decision and no answer changes.

    Raises EditError: an unknown or ambiguous node, a class, the name that it has, or a name that
    cannot be one.
    """
    draft = Draft(hierarchy)
    what = draft.find(node)
    shown = draft.label(what)
    refuse(not hierarchy.children[what],
           f"{shown} is a class, and its name is the model's; rename a group.")  # fmt: skip
    check_name(name)
    refuse(hierarchy.names[what] == name, f"{shown} has that name already.")
    draft.name(hierarchy.ids[what], name)
    return draft.finish("rename", [what], f"renamed {shown} to {short(name)}", name=name)


def swap(hierarchy: Hierarchy, node: str, other: str) -> tuple[Hierarchy, Edit]:
    """Exchange the places of two nodes, each with all it holds.

    Raises EditError: an unknown or ambiguous node, one inside the other, or siblings, whose order
    means nothing.
    """
    draft = Draft(hierarchy)
    one, two = draft.find(node), draft.find(other)
    draft.refuse_nested(one, two, "swapped")
    above, below = hierarchy.parents[one], hierarchy.parents[two]
    refuse(above == below,
           f"{draft.label(one)} and {draft.label(two)} are both in {draft.label(above)}, where order "
           "means nothing: a swap would change nothing.")  # fmt: skip
    draft.put(hierarchy.ids[one], hierarchy.ids[below])
    draft.put(hierarchy.ids[two], hierarchy.ids[above])
    text = f"swapped {draft.located(one)} with {draft.located(two)}"
    return draft.finish("swap", [one, two], text)


def merge(
    hierarchy: Hierarchy, node: str, other: str, name: str | None = None
) -> tuple[Hierarchy, Edit]:
    """Make two groups one: `node` takes what `other` holds, and `name` if given.

    Where the two are all that the group around them holds, that group is the result, since it
    already holds exactly their classes; it keeps its name unless `name` is given.

    Raises EditError: an unknown or ambiguous node, a class, one inside the other, or a name that
    cannot be one.
    """
    draft = Draft(hierarchy)
    one, two = draft.find(node), draft.find(other)
    draft.refuse_nested(one, two, "merged")
    for what in (one, two):
        draft.need_group(what, "move it into the group instead")
    if name is not None:
        check_name(name)
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
        draft.name(result, name)
    shown = short(hierarchy.names[hierarchy.index(result)] if name is None else name)
    text = f"merged {draft.label(one)} and {draft.label(two)} as {shown}"
    return draft.finish("merge", [one, two], text, name=name)


def split(
    hierarchy: Hierarchy, node: str, members: Sequence[str], name: str
) -> tuple[Hierarchy, Edit]:
    """Take some children out of a group, into a new group beside it.

    Raises EditError: an unknown or ambiguous node, a class, the root, fewer than two members,
    members that are not children of `node`, all of its children, or a name that cannot be one.
    """
    draft = Draft(hierarchy)
    what, taken = draft.find(node), draft.find_all(members)
    draft.need_group(what, "only a group can be split")
    draft.refuse_root(what, "split", "group some of its children instead")
    children, shown = hierarchy.children[what], draft.label(what)
    strangers = [member for member in taken if member not in children]
    refuse(strangers, f"{draft.labels(strangers)} cannot be split off {shown}, whose children are "
           f"{draft.labels(children)}.")  # fmt: skip
    refuse(len(taken) < 2, f"A new group needs two or more nodes, got {len(taken)}; move a single one "
           "instead.")  # fmt: skip
    refuse(len(taken) == len(children), f"Splitting {draft.labels(taken)} off {shown} would take its "
           "last child away; leave it some, or rename it.")  # fmt: skip
    check_name(name)
    created = draft.create(name, hierarchy.ids[hierarchy.parents[what]], taken)
    draft.collapse(hierarchy.ids[what])
    text = f"split {draft.labels(taken)} off {shown} as {short(name)}"
    return draft.finish("split", [what, *taken], text, name=name, created=created)


def make(hierarchy: Hierarchy, request: EditRequest | Edit) -> tuple[Hierarchy, Edit]:
    """Make the edit of the kind that a request or a record names.

    Raises EditError: an unknown kind, a part that is missing, or an edit that cannot be made.
    """
    check_complete(request)
    kind = KINDS[request.kind]
    arguments: list[Any] = [*request.nodes[: kind.nodes]]
    if kind.members:
        arguments.append(request.nodes[kind.nodes :])
    if kind.to:
        arguments.append(request.to)
    named = {} if kind.name == "none" else {"name": request.name}
    return _FUNCTIONS[request.kind](hierarchy, *arguments, **named)


def apply(hierarchy: Hierarchy, record: Edit) -> tuple[Hierarchy, Edit]:
    """Make a recorded edit again, on the tree that it was made on.

    Raises EditError: this is another tree, or the result is not the recorded one.
    """
    refuse(hierarchy.hash != record.before,
           f"This edit ({record.summary}) was made on the hierarchy {record.before[:12]}, not on this "
           f"one, {hierarchy.hash[:12]}.")  # fmt: skip
    result, made = make(hierarchy, record)
    refuse(result.hash != record.after,
           f"This edit ({record.summary}) gives the hierarchy {result.hash[:12]}, while its record says "
           f"{record.after[:12]}; the record was altered.")  # fmt: skip
    return result, replace(made, part_of=record.part_of)


_FUNCTIONS: dict[str, Callable[..., tuple[Hierarchy, Edit]]] = {
    function.__name__: function for function in (move, group, ungroup, rename, swap, merge, split)
}
