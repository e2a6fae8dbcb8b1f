"""Readable names for inner nodes: WordNet's concept if one fits, else the node's leaves.

A node is *named* if a concept has precision ≥ 0.7 and recall ≥ 0.5 for its leaves, covers two or
more of them and has information content ≥ 0.25 (see `wordnet/concepts.py`). Labels, best first:

- `dog`: named. Each concept names the one node that it fits best, and no node gets a concept that
  is broader than those of the nodes above it.
- `dog: terriers`: named, but another node is called `dog`. The second part sets this one apart.
- `dog: beagle, basset + 3`: the leaves are dogs, but most dogs are elsewhere. Not *named*.
- `cat, car + 3`: no concept fits. The root is then "all classes".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, count
from typing import Any

from nbdt.tree.hierarchy import Hierarchy

from .wordnet import concepts
from .wordnet.concepts import Concept
from .wordnet.database import wordnet

ALL = "all classes"  # name of a root that no concept fits
MAX_WORD = 60  # characters of a class name inside another node's label
MOST_SHOWN = 5  # leaves in a label
_LISTING = re.compile(r"(?P<kind>.+?: )?(?P<leaves>.+?)(?: \+ (?P<more>[0-9,]+))?(?: \([0-9]+\))?")
UNCHANGED_PLURALS = ("fish", "sheep", "deer", "craft", "s", "works", "people", "ware", "clothing")


@dataclass(frozen=True)
class NodeName:
    """The name of one inner node, and how well it fits."""

    node: str  # the node's id
    label: str  # the readable name, unique in the hierarchy
    wnid: str | None  # the concept's WordNet id; None if no concept fits
    name: str | None  # the concept's word ("dog"); None if no concept fits
    precision: float  # share of the node's leaves that are kinds of the concept
    recall: float  # share of the concept's classes that are under the node
    fit: float  # harmonic mean of precision and recall; 0 if no concept fits
    named: bool  # whether precision and recall are both sufficient


def name_groups(hierarchy: Hierarchy, wnids: Sequence[str | None] | None = None) -> Hierarchy:
    """Return the hierarchy with readable, distinct names for its inner nodes.

    Exported as `nbdt.hierarchies.rename`. Classes, ids and structure stay. A named node carries its
    concept's `wnid`.

    Args:
        hierarchy: any hierarchy.
        wnids: WordNet id of each class, or None; by default the ids of the leaves, else chosen
            jointly from the names (`senses`). Classes that WordNet does not know are ignored; if
            they are the majority, every label lists leaves.

    Raises NBDTError: `wnids` does not have one entry per class, or an id that WordNet 3.0 lacks.
    """
    return apply_names(hierarchy, group_names(hierarchy, wnids))


def group_names(hierarchy: Hierarchy, wnids: Sequence[str | None] | None = None) -> list[NodeName]:
    """Return the names that `name_groups` gives, from the root down, with their fit; same arguments, errors.

    Exported as `nbdt.hierarchies.names`.
    """
    synsets = (
        concepts.leaf_synsets(hierarchy.classes, hierarchy.class_wnids)
        if wnids is None
        else concepts.class_synsets(hierarchy.classes, wnids)
    )
    return names_from_concepts(hierarchy, synsets, concepts.fitting_concepts(hierarchy, synsets))


def names_from_concepts(
    hierarchy: Hierarchy, synsets: Sequence[int | None], fitting: Mapping[int, Sequence[Concept]]
) -> list[NodeName]:
    """Report names, given the concepts that fit each inner node, best first."""
    assigned = concepts.assign_concepts(hierarchy, fitting)
    labels = _Labels(hierarchy, synsets, fitting)
    # These nodes come first: they get the plain word, whatever the order of the nodes.
    for node, concept in sorted(assigned.items(), key=lambda item: (item[1].rank, item[0])):
        labels.plain(node, concept)
    for node in hierarchy.inner_nodes:
        if node not in assigned:
            labels.qualified(node)
    net = wordnet()
    rows = []
    for node in hierarchy.inner_nodes:
        fit: tuple[Any, ...] = (None, None, 0.0, 0.0, 0.0, False)
        if best := labels.concept[node]:
            words = net.wnid(best.synset), net.name(best.synset)
            fit = (*words, best.precision, best.recall, best.fit, best.names)
        rows.append(NodeName(hierarchy.ids[node], labels.labels[node], *fit))
    return rows


def apply_names(hierarchy: Hierarchy, rows: Iterable[NodeName]) -> Hierarchy:
    """Return the hierarchy with these names."""
    by_id = {row.node: row for row in rows}
    nodes = [
        node._replace(name=row.label, wnid=row.wnid if row.named else None)
        if (row := by_id.get(node.id))
        else node
        for node in hierarchy.nodes
    ]
    return Hierarchy(tuple(nodes), hierarchy.classes)


def leaf_label(classes: Sequence[str], limit: int = 2, total: int | None = None) -> str:
    """Return a label that lists a node's leaves, at most `limit`: ``"cat, dog + 3"``.

    `classes` are the leaves, or the first of `total`.
    """
    total = len(classes) if total is None else total
    if limit == total - 1 <= len(classes) - 1:  # "+ 1" is as long as most names
        limit = total
    shown = ", ".join(map(_short, classes[:limit]))
    return f"{shown} + {total - limit:,}" if total > limit else shown


def relist_leaves(label: str, before: Sequence[str], after: Sequence[str]) -> str | None:
    """Update a label that lists a node's leaves after the classes below it changed; None for others.

    A kind in front of the list stays only if no leaf was added: a new one may be of another kind.
    """
    listing = _LISTING.fullmatch(label)
    if listing is None:
        return None
    listed, more = listing["leaves"].split(", "), int((listing["more"] or "0").replace(",", ""))
    by_label = {_short(name): name for name in before}
    if len(listed) + more != len(before) or not by_label.keys() >= {*listed}:
        return None
    if [*before] == [*after]:
        return label
    still_there = [by_label[word] for word in listed if by_label[word] in after]
    leaves = list(dict.fromkeys([*still_there, *after]))
    kind = listing["kind"] or "" if {*after} <= {*before} else ""
    return kind + leaf_label(leaves, max(2, len(still_there)))


def _short(name: str) -> str:
    """Return a short form: "tench" for "tench, Tinca tinca", "oak tree" for "oak_tree"."""
    word = name.replace("_", " ").partition(",")[0].strip() or name
    return word if len(word) <= MAX_WORD else word[: MAX_WORD - 1] + "…"


class _Labels:
    """Labels that no other node and no class has."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        synsets: Sequence[int | None],
        fitting: Mapping[int, Sequence[Concept]],
    ) -> None:
        self.hierarchy, self.fitting, self.net = hierarchy, fitting, wordnet()
        self.labels: dict[int, str] = {}
        self.concept: dict[int, Concept | None] = {}  # which each label is or begins with
        self._used = set(hierarchy.classes)
        known = {synset for synset in synsets if synset is not None}
        known |= {concept.synset for row in fitting.values() for concept in row}
        self._above = concepts.hypernyms_of(known)
        self._synsets = synsets
        # Better known first, then in class order.
        self._rank = [
            (-concepts.familiarity(synset) if synset is not None else 0, index)
            for index, synset in enumerate(synsets)
        ]

    def plain(self, node: int, concept: Concept) -> None:
        """Label a node with a word of its concept, followed by the kind if all words are taken."""
        words = self.net.lemmas(concept.synset)
        kinds = map(self.net.name, self.net.parents[concept.synset].tolist())
        options = chain(words, (f"{words[0]} ({kind})" for kind in kinds))
        free = next((word for word in options if word not in self._used), None)
        self._add(node, free or self._with_leaves(node, concept), concept)

    def qualified(self, node: int) -> None:
        """Label a node with its best concept's word and what sets it apart, or with its leaves."""
        row = self.fitting[node]
        if not row:
            self._add(node, self._leaves(node), None)
            return
        concept = next((concept for concept in row if concept.names), row[0])
        label = self._with_kind(node, concept, row) if concept.names else None
        self._add(node, label or self._with_leaves(node, concept), concept)

    def _with_kind(self, node: int, concept: Concept, row: Sequence[Concept]) -> str | None:
        """Return a free label such as "dog: terriers", if most of the node's leaves are both.

        A kind that occurs in a single child does not describe the others.
        """
        children = self.hierarchy.children[node]
        kinds = [
            other.synset
            for other in row
            if concept.synset in self._above[other.synset]
            and sum(self._has_kind(child, other.synset) for child in children) != 1
            # Otherwise both mean the same classes.
            and (other.precision, other.recall) != (concept.precision, concept.recall)
        ]
        name = self.net.name(concept.synset)
        labels = (f"{name}: {plural(self.net.name(kind))}" for kind in kinds)
        return next((label for label in labels if label not in self._used), None)

    def _has_kind(self, node: int, kind: int) -> bool:
        known = (self._synsets[index] for index in self.hierarchy.classes_under(node))
        return any(s is not None and kind in (s, *self._above[s]) for s in known)

    def _with_leaves(self, node: int, concept: Concept) -> str:
        """Return a label such as "dog: beagle, basset + 3", with leaves that are dogs first."""

        def key(index: int) -> tuple[bool, int, int]:
            synset = self._synsets[index]
            known = synset is not None and concept.synset in {synset, *self._above[synset]}
            return (not known, *self._rank[index])

        shown = nsmallest(MOST_SHOWN, self.hierarchy.classes_under(node), key=key)
        prefix = f"{self.net.name(concept.synset)}: "
        return self._free(prefix, shown, len(self.hierarchy.spans[node]))

    def _leaves(self, node: int) -> str:
        """Return a label with the best-known leaves of the largest children."""
        if node == 0 and self.hierarchy.num_classes > 2 and ALL not in self._used:
            return ALL
        spans, children = self.hierarchy.spans, self.hierarchy.children[node]
        groups = sorted(children, key=lambda child: -len(spans[child]))
        first = [
            min(self.hierarchy.classes_under(child), key=self._rank.__getitem__) for child in groups
        ]
        rest = nsmallest(
            2 * MOST_SHOWN, self.hierarchy.classes_under(node), key=self._rank.__getitem__
        )
        shown = list(dict.fromkeys([*first[:2], *rest]))[:MOST_SHOWN]
        return self._free("", shown, len(spans[node]))

    def _free(self, prefix: str, shown: Sequence[int], total: int) -> str:
        """Return a free label with as few leaves as possible."""
        words = [self.hierarchy.classes[index] for index in shown]
        labels = (prefix + leaf_label(words, n, total) for n in range(2, MOST_SHOWN + 1))
        numbered = (f"{prefix}{leaf_label(words, 2, total)} ({number})" for number in count(2))
        return next(label for label in chain(labels, numbered) if label not in self._used)

    def _add(self, node: int, label: str, concept: Concept | None) -> None:
        self._used.add(label)
        self.labels[node], self.concept[node] = label, concept


def plural(words: str) -> str:
    """Return the regular plural of a noun or compound: "terriers", "ladies"."""
    head, of, rest = words.partition(" of ")
    if head.endswith(UNCHANGED_PLURALS):
        return words
    if head.endswith(("x", "z", "ch", "sh")):
        return f"{head}es{of}{rest}"
    if head.endswith("y") and head[-2:-1] not in "aeiou":
        return f"{head[:-1]}ies{of}{rest}"
    if head.endswith("man"):
        return f"{head[:-2]}en{of}{rest}"
    return f"{head}s{of}{rest}"
