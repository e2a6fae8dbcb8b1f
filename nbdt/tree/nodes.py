"""Nodes as data, and the checks that make a tree of them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import NBDTError, listed, nearest

MAX_NAME = 500  # characters
MAX_NODES = 500_000  # of a hierarchy; 100,000 classes in binary groups are 199,999
WNID = re.compile("n[0-9]{8}")  # WordNet 3.0 id of a noun
# Characters that reorder or hide text, so that a name would not read as what it is.
_DECEPTIVE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # Unicode categories
_INVISIBLE = frozenset("\u034f\u115f\u1160\u3164\uffa0")  # of other categories
# Joiners shape Persian, Indic scripts and emoji; beside ASCII or at an end they only hide.
_JOINERS = "\u200c\u200d"
_STRAY_JOINER = re.compile(f"(?:^|[\x00-\x7f])[{_JOINERS}]|[{_JOINERS}](?:[\x00-\x7f]|$)")


class HierarchyError(NBDTError):
    """Nodes that form no hierarchy; the message names the node and the remedy."""


class Node(NamedTuple):
    """One node as data. A leaf's `id` and `name` are its class; `parent` is None for the root."""

    id: str
    parent: str | None
    name: str
    wnid: str | None = None


def canonical_tree(nodes: Sequence[Node], classes: Sequence[str]) -> tuple[Node, ...]:
    """Check the nodes; return them breadth-first, siblings by their smallest class index.

    Raises HierarchyError: not a tree whose leaves are exactly `classes`; see `Hierarchy`.
    """
    check_size(len(nodes))
    _check_words(nodes, classes)
    children = _children_by_id(nodes)
    order = _breadth_first(nodes, children)
    _check_leaves(nodes, children, classes)
    _check_arity(nodes, children)
    return _canonical(order, children, classes)


def nfc(word: Any) -> Any:
    """Return a text in Unicode's form NFC, in which names are compared; anything else as it is."""
    return unicodedata.normalize("NFC", word) if isinstance(word, str) else word


def short(value: object, limit: int = 60) -> str:
    """Return any value for a message, escaped and cut."""
    plain = value is None or isinstance(value, str | bytes | int | float)
    text = repr(value) if plain else type(value).__name__  # repr of a deep value may not end
    return text if len(text) <= limit else text[:limit] + "…"


def check_size(count: int, what: str = "nodes") -> None:
    """Refuse more nodes than a hierarchy may have, before work is done on them. Raises HierarchyError."""
    if count > MAX_NODES:
        raise HierarchyError(
            f"A hierarchy has at most {MAX_NODES:,} {what}; this has {count:,} or more."
        )


def check_word(word: object, what: str) -> None:
    """Raise HierarchyError, beginning with `what`, unless `word` can be shown as a name."""
    if not isinstance(word, str):
        raise HierarchyError(f"{what} must be text, got {short(word)}.")
    if not word.strip():
        raise HierarchyError(f"{what} is empty ({word!r}); give it a name.")
    if len(word) > MAX_NAME:
        raise HierarchyError(
            f"{what} has {len(word):,} characters ({short(word)}); at most {MAX_NAME} are allowed."
        )
    hides = (unicodedata.category(one) in _DECEPTIVE and one not in _JOINERS for one in word)
    hidden = not word.isprintable() and (any(hides) or _STRAY_JOINER.search(word))
    if hidden or not _INVISIBLE.isdisjoint(word):
        raise HierarchyError(
            f"{what} {word!a} holds control, bidirectional or zero-width characters; remove them."
        )


def _check_words(nodes: Sequence[Node], classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise HierarchyError(f"A hierarchy needs two or more classes, got {len(classes)}.")
    for name in classes:
        check_word(name, "A class name")
    repeated = [name for name, count in Counter(map(nfc, classes)).items() if count > 1]
    if repeated:
        raise HierarchyError(
            f"Duplicate class {listed(repeated)}: class names are unique; qualify them, as in "
            "'crane (bird)' and 'crane (machine)'."
        )
    checked = set(classes)  # a leaf's id and name are its class as a rule
    for node in nodes:
        for word, what in ((node.id, "A node id"), (node.name, "The name of node {id!r}")):
            if not isinstance(word, str) or word not in checked:
                check_word(word, what.format(id=node.id))
        if node.parent is not None and not isinstance(node.parent, str):
            raise HierarchyError(
                f"The parent of node {node.id!r} must be an id or null, got {short(node.parent)}."
            )
        if node.wnid is not None and not (isinstance(node.wnid, str) and WNID.fullmatch(node.wnid)):
            raise HierarchyError(
                f"Node {node.id!r} has WordNet id {short(node.wnid)}; expected a form like "
                "'n02084071'."
            )


def _children_by_id(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Return the children of each node id; ids must be unique and every parent exist."""
    children: dict[str, list[Node]] = {}
    parents: dict[str, str | None] = {}
    for node in nodes:
        if node.id in parents:
            raise HierarchyError(
                f"Node {node.id!r} appears under two parents, {parents[node.id]!r} and "
                f"{node.parent!r}; a tree allows one: remove an edge, or give distinct names."
            )
        parents[node.id] = node.parent
        children[node.id] = []
    for node in nodes:
        if node.parent is not None:
            if node.parent not in children:
                raise HierarchyError(f"Node {node.id!r} names an unknown parent {node.parent!r}.")
            children[node.parent].append(node)
    return children


def _breadth_first(nodes: Sequence[Node], children: Mapping[str, list[Node]]) -> list[Node]:
    """Return the nodes from the one root down; all must be reached."""
    roots = [node for node in nodes if node.parent is None]
    if len(roots) > 1:
        raise HierarchyError(
            f"{len(roots)} roots: {listed(node.id for node in roots)}; put them under one node."
        )
    order = list(roots)
    for node in order:  # grows while it is read
        order.extend(children[node.id])
    if len(order) < len(nodes):
        reached = {node.id for node in order}
        import networkx as nx

        lost = nx.DiGraph((n.parent, n.id) for n in nodes if n.id not in reached)
        cycle = [parent for parent, _ in nx.find_cycle(lost)]
        shown = [*map(repr, [*cycle, cycle[0]])]
        shown = shown if len(shown) <= 8 else [*shown[:4], "…", *shown[-3:]]
        raise HierarchyError(
            f"The parents form a cycle: {' → '.join(shown)}; remove one of these edges."
        )
    return order


def _check_leaves(
    nodes: Sequence[Node], children: Mapping[str, list[Node]], classes: Sequence[str]
) -> None:
    names = set(classes)
    leaves = {node.id for node in nodes if not children[node.id]}
    inner = {word for node in nodes if children[node.id] for word in (node.id, node.name)}
    both = [name for name in classes if name not in leaves and name in inner]
    if both:
        raise HierarchyError(
            f"Class {listed(both)} is also an inner node; a class is a leaf: give it a leaf of "
            f"its own under that node, such as {both[0] + ' (other)'!r}."
        )
    missing = [name for name in classes if name not in leaves]
    if missing:
        raise HierarchyError(
            f"The tree has no leaf for class {listed(missing)}.{nearest(missing[0], leaves)} "
            "Add the leaf or remove the class."
        )
    extra = sorted(leaves - names)
    if extra:
        raise HierarchyError(
            f"Leaf {listed(extra)} is not among the {len(names)} classes."
            f"{nearest(extra[0], names)} Add the class or remove the leaf."
        )


def _check_arity(nodes: Sequence[Node], children: Mapping[str, list[Node]]) -> None:
    wrong = next((node for node in nodes if node.name != node.id and not children[node.id]), None)
    if wrong is not None:
        raise HierarchyError(
            f"Leaf {wrong.id!r} is named {wrong.name!r}; a leaf is named by its class."
        )
    chain = next((node for node in nodes if len(children[node.id]) == 1), None)
    if chain is not None:
        raise HierarchyError(
            f"Inner node {chain.id!r} has the single child {children[chain.id][0].id!r}, which "
            "decides nothing; remove it, or build with collapse=True (`convert --collapse`)."
        )


def _canonical(
    order: Sequence[Node], children: Mapping[str, list[Node]], classes: Sequence[str]
) -> tuple[Node, ...]:
    first = {name: index for index, name in enumerate(classes)}
    for node in reversed(order):
        if children[node.id]:
            first[node.id] = min(first[child.id] for child in children[node.id])
    result = [order[0]]
    for node in result:
        result.extend(sorted(children[node.id], key=lambda child: first[child.id]))
    return tuple(result)
