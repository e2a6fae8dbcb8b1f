"""Names for inner nodes that a person can read: WordNet's where one fits, else from the leaves.

A node is *named* when a concept has precision ≥ 0.7 and recall ≥ 0.5 for its leaves, covers two
or more of them and has information content ≥ 0.25 (see `concepts`). Labels, from best to last:

- `dog`: named, and no other node is. Each concept goes to the node that it fits best; no node is
  called by something broader than the nodes above it.
- `dog: terriers`: named, but `dog` is another node's; what sets the branch apart comes after it.
- `dog: beagle, basset + 3`: all kinds of dog, but not most of them. Not *named*.
- `cat, car + 3`: nothing fits. The root is then "all classes".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from typing import Any

from nbdt.hierarchy import Hierarchy

from .concepts import Concept, class_synsets, fitting_concepts, hypernyms_of, leaf_spans
from .wordnet import WordNet, wordnet

ALL = "all classes"
MAX_WORD = 60  # characters of a class name inside another node's label
ALTERNATIVE = 0.75  # of the best concept's fit: worse ones yield to a qualified label
UNCHANGED_PLURALS = ("fish", "sheep", "deer", "craft", "s", "works", "people", "ware", "clothing")


@dataclass(frozen=True)
class NodeName:
    """What one inner node is called, and how well that fits.

    Attributes:
        node: the node's id.
        label: what people read; different for each node.
        wnid: the concept's WordNet id; None where nothing fits.
        name: the concept's word ("dog"); None where nothing fits.
        precision: share of the node's leaves that are kinds of the concept.
        recall: share of the concept's classes that are under the node.
        fit: harmonic mean of precision and recall, 0 where nothing fits.
        named: whether precision and recall both suffice.
    """

    node: str
    label: str
    wnid: str | None
    name: str | None
    precision: float
    recall: float
    fit: float
    named: bool


@dataclass(frozen=True)
class NamingReport:
    """The names of all inner nodes, breadth-first from the root. Iterable and printable."""

    rows: tuple[NodeName, ...]

    def __iter__(self) -> Iterator[NodeName]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def share_named(self) -> float:
        """Share of inner nodes with sufficient precision and recall."""
        return sum(row.named for row in self.rows) / len(self.rows)

    @property
    def share_precise(self) -> float:
        """Share of inner nodes with sufficient precision, whatever the recall."""
        return sum(row.wnid is not None for row in self.rows) / len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"nodes": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        head = (
            f"{len(self)} inner nodes: {self.share_named:.1%} named, "
            f"{self.share_precise:.1%} of one kind"
        )
        return "\n".join([head, *(f"{row.fit:5.2f}  {row.label}" for row in self.rows)])


def rename(hierarchy: Hierarchy, wnids: Sequence[str | None] | None = None) -> Hierarchy:
    """The same tree with readable, distinct names for its inner nodes.

    Classes, ids and structure stay. Named nodes carry their concept's `wnid`, others none.

    Args:
        hierarchy: any tree.
        wnids: WordNet ids of the classes, None for those that have none; by default those that
            the leaves carry, else chosen jointly from the names (`senses`). Classes that WordNet
            does not know do not take part; where they are the majority, all labels are of leaves.

    Raises:
        NBDTError: not one entry of `wnids` for each class, or an id that WordNet 3.0 lacks.
    """
    rows = {row.node: row for row in names(hierarchy, wnids)}
    nodes = [
        node._replace(name=row.label, wnid=row.wnid if row.named else None)
        if (row := rows.get(node.id))
        else node
        for node in hierarchy.nodes
    ]
    return Hierarchy(tuple(nodes), hierarchy.classes)


def names(hierarchy: Hierarchy, wnids: Sequence[str | None] | None = None) -> NamingReport:
    """The names that `rename` gives, with their fit. Takes and raises the same."""
    net = wordnet()
    synsets = class_synsets(hierarchy, wnids, net)
    known = sum(synset is not None for synset in synsets)
    fitting: dict[int, list[Concept]] = {node: [] for node in hierarchy.inner_nodes}
    if 2 * known >= len(synsets):
        fitting = fitting_concepts(hierarchy, synsets, net)
    chosen = _owners(hierarchy, fitting, net)
    labels = _Labels(hierarchy, synsets, net)
    # Owners first: they have the plain word, whatever the order of the nodes.
    for node, concept in sorted(chosen.items(), key=lambda item: (item[1].rank, item[0])):
        labels.plain(node, concept)
    for node in hierarchy.inner_nodes:
        if node not in chosen:
            labels.qualified(node, fitting[node])
    return NamingReport(tuple(labels.rows[node] for node in hierarchy.inner_nodes))


def leaf_label(classes: Sequence[str], limit: int = 2) -> str:
    """An honest label from a node's own leaves: ``"cat, dog + 3"``."""
    shown = ", ".join(map(_short, classes[:limit]))
    return f"{shown} + {len(classes) - limit:,}" if len(classes) > limit else shown


def _short(name: str) -> str:
    """Of "tench, Tinca tinca" the first word; a very long name is cut."""
    word = name.split(",")[0].strip() or name
    return word if len(word) <= MAX_WORD else word[: MAX_WORD - 1] + "…"


def _owners(
    hierarchy: Hierarchy, fitting: dict[int, list[Concept]], net: WordNet
) -> dict[int, Concept]:
    """One concept for one node, best fits first, never one broader than a node's above it."""
    pairs = [
        (concept.rank, node, concept)
        for node, row in fitting.items()
        for concept in row
        if concept.names and concept.fit >= ALTERNATIVE * row[0].fit
    ]
    above = hypernyms_of([concept.synset for _, _, concept in pairs], net)
    start, size = leaf_spans(hierarchy)
    chosen: dict[int, Concept] = {}
    owner: dict[int, int] = {}
    narrower: dict[int, list[int]] = {}  # owners of the concepts below each concept

    def is_above(high: int, low: int) -> bool:
        inside = start[high] <= start[low] < start[high] + size[high]
        return inside and size[high] > size[low]

    for _, node, concept in sorted(pairs, key=lambda pair: pair[:2]):
        broader = [owner[other] for other in above[concept.synset] if other in owner]
        if (
            node not in chosen
            and concept.synset not in owner
            and not any(is_above(node, other) for other in broader)
            and not any(is_above(other, node) for other in narrower.get(concept.synset, ()))
        ):
            chosen[node] = concept
            owner[concept.synset] = node
            for other in above[concept.synset]:
                narrower.setdefault(other, []).append(node)
    return chosen


class _Labels:
    """Gives each node a label that no other node and no class has."""

    def __init__(
        self, hierarchy: Hierarchy, synsets: Sequence[int | None], net: WordNet
    ) -> None:
        self.hierarchy = hierarchy
        self.net = net
        self.used = set(hierarchy.classes)
        self.rows: dict[int, NodeName] = {}
        known = [synset for synset in synsets if synset is not None]
        above = hypernyms_of(known, net)
        self.kinds = [frozenset() if s is None else above[s] | {s} for s in synsets]

    def plain(self, node: int, concept: Concept) -> None:
        """The concept's word, another of its words, or the word with its kind."""
        words = self.net.lemmas(concept.synset)
        kind = self.net.parents[concept.synset].tolist()
        options = [*words, *(f"{words[0]} ({self.net.name(parent)})" for parent in kind)]
        free = [word for word in options if word not in self.used]
        self._add(node, free[0] if free else self._with_leaves(node, concept), concept)

    def qualified(self, node: int, row: Sequence[Concept]) -> None:
        """The concept's word and what sets this node apart, or leaves alone."""
        if not row:
            self._add(node, self._leaves(node), None)
            return
        concept = next((concept for concept in row if concept.names), row[0])
        label = self._with_leaves(node, concept)
        if concept.names:
            label = self._with_kind(concept, row) or label
        self._add(node, label, concept)

    def _with_kind(self, concept: Concept, row: Sequence[Concept]) -> str | None:
        """"dog: terriers", if most of the node's dogs are terriers and no node is so called."""
        below = [other for other in row if concept.synset in self._above(other.synset)]
        for other in below:
            name, kind = self.net.name(concept.synset), plural(self.net.name(other.synset))
            if (label := f"{name}: {kind}") not in self.used:
                return label
        return None

    def _above(self, synset: int) -> frozenset[int]:
        return hypernyms_of([synset], self.net)[synset]

    def _with_leaves(self, node: int, concept: Concept) -> str:
        """"dog: beagle, basset + 3", leaves that are dogs first."""
        under = sorted(self.hierarchy.classes_under(node))
        under.sort(key=lambda index: concept.synset not in self.kinds[index])
        return self._free(f"{self.net.name(concept.synset)}: ", under)

    def _leaves(self, node: int) -> str:
        if node == 0 and self.hierarchy.num_classes > 3 and ALL not in self.used:
            return ALL
        return self._free("", sorted(self.hierarchy.classes_under(node)))

    def _free(self, prefix: str, classes: Sequence[int]) -> str:
        """As few leaves as make the label differ from the others'."""
        words = [self.hierarchy.classes[index] for index in classes]
        labels = (prefix + leaf_label(words, limit) for limit in range(2, 6))
        numbered = (f"{prefix}{leaf_label(words)} ({number})" for number in count(2))
        return next(label for label in chain(labels, numbered) if label not in self.used)

    def _add(self, node: int, label: str, concept: Concept | None) -> None:
        self.used.add(label)
        key = self.hierarchy.ids[node]
        if concept is None:
            self.rows[node] = NodeName(key, label, None, None, 0.0, 0.0, 0.0, False)
            return
        self.rows[node] = NodeName(
            key,
            label,
            self.net.wnid(concept.synset),
            self.net.name(concept.synset),
            concept.precision,
            concept.recall,
            concept.fit,
            concept.names,
        )


def plural(words: str) -> str:
    """The regular plural of a noun or of a compound's last word: "terriers", "ladies"."""
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
