"""One visitor's edit, as it comes from the page, and names to suggest for a new group."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from nbdt.errors import NBDTError
from nbdt.hierarchies.edit.draft import Draft
from nbdt.hierarchies.edit.operations import make
from nbdt.hierarchies.edit.record import (
    KINDS,
    Edit,
    EditError,
    EditRequest,
    check_complete,
    check_kind,
)
from nbdt.hierarchies.edit.undo import EditStack
from nbdt.hierarchies.wordnet.concepts import fitting_concepts, leaf_synsets
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.tree.building import collapse_chains
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import MAX_NAME, Node, short

MAX_NODES = 1000  # of one edit
MAX_NAMES = 3  # that WordNet suggests
LONGEST = 40  # characters of a name that is made of two others
MAX_UNDO = 100  # edits; a tree of 1,000 classes takes some 0.4 MB, and there are many visitors
_STEPS = {"undo": EditStack.undo, "redo": EditStack.redo, "reset": EditStack.reset}


def edited(stack: EditStack, payload: object) -> EditStack:
    """Return the stack after one edit, or after "undo", "redo" or "reset".

    `payload` is hostile until checked: ``kind``, and as that needs them ``nodes`` (ids or unambiguous
    names), ``to`` and ``name``; anything else is ignored.

    Raises EditError: no such edit, or one that cannot be made on this tree; the message says why.
    """
    request = read_request(payload)
    if request.kind in _STEPS:
        return _STEPS[request.kind](stack)
    check_complete(request)
    if request.name in stack.hierarchy.classes:
        raise EditError(f"{short(request.name)} is a class; give the group another name.")
    if request.kind == "group":
        after = stack.group(request.nodes, request.name or "")
    else:
        after = stack.push(make(stack.hierarchy, request))
    return replace(after, past=after.past[-MAX_UNDO:])


def carried(stack: EditStack, old: Hierarchy, new: Hierarchy) -> EditStack:
    """Return edits of one tree on another with classes more or fewer; they can no longer be undone.

    New classes are where they are in `new`, or below the root if an edit removed that group.
    """
    mine = stack.hierarchy
    if mine.hash == old.hash:
        return EditStack(new)
    gone, added = {*mine.classes} - {*new.classes}, {*new.classes} - {*mine.classes}
    nodes = [node for node in mine.nodes if node.id not in gone]
    here = {node.id for node in nodes}
    nodes += [
        node if node.parent in here else node._replace(parent=mine.ids[0])
        for node in new.nodes if node.id in added
    ]  # fmt: skip
    try:
        return EditStack(Hierarchy(tuple(collapse_chains(nodes)), new.classes))
    except NBDTError:  # a group of nothing but classes that are gone
        return EditStack(new)


def read_request(payload: object) -> EditRequest:
    """What came over the wire, each field of its type. Raises EditError."""
    if not isinstance(payload, Mapping):
        raise EditError(f"Expected an edit as a JSON object, got {short(payload)}.")
    kind, nodes = payload.get("kind"), payload.get("nodes") or []
    check_kind(kind, {**KINDS, **_STEPS})
    if not isinstance(nodes, list | tuple) or len(nodes) > MAX_NODES:
        raise EditError(f"Expected 'nodes' to be at most {MAX_NODES:,} ids in a list.")
    words = tuple(_word(node, "nodes") for node in nodes)
    given = {key: payload.get(key) for key in ("to", "name")}
    to, name = (None if text is None else _word(text, key) for key, text in given.items())
    return EditRequest(str(kind), words, to, name.strip() if name else None)


def _word(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise EditError(f"Expected {field!r} to be text of at most {MAX_NAME} characters.")
    return value


def in_words(records: Sequence[Edit]) -> str:
    """The records of one edit as a sentence."""
    text = "; ".join(record.summary for record in records)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def suggest(hierarchy: Hierarchy, nodes: Sequence[str]) -> list[str]:
    """Suggest names that no node has for a group of these nodes, the best first; never none.

    Raises EditError: an unknown or ambiguous node.
    """
    places = Draft(hierarchy).find_all(nodes)
    taken = {*hierarchy.names, *hierarchy.ids}
    words = islice((word for word in _concepts(hierarchy, places) if word not in taken), MAX_NAMES)
    joined = " and ".join(hierarchy.names[place].partition(",")[0] for place in places[:2])
    short = joined if len(joined) <= LONGEST else joined[: LONGEST - 1] + "…"
    return list(dict.fromkeys([*words, short]))


def _concepts(hierarchy: Hierarchy, places: Sequence[int]) -> list[str]:
    """WordNet's words for the classes under these nodes, as opposed to all other classes."""
    members = {index for place in places for index in hierarchy.classes_under(place)}
    if not 2 <= len(members) < hierarchy.num_classes:
        return []
    leaves = [
        Node(str(index), "group" if index in members else "root", str(index))
        for index in range(hierarchy.num_classes)
    ]
    inner = Node("root", None, "root"), Node("group", "root", "group")
    apart = Hierarchy((*inner, *leaves), tuple(leaf.id for leaf in leaves))
    synsets = leaf_synsets(hierarchy.classes, hierarchy.class_wnids)
    concepts = fitting_concepts(apart, synsets)[apart.index("group")]
    return [wordnet().name(concept.synset) for concept in concepts]
