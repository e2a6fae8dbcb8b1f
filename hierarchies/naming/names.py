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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nbdt.tree.hierarchy import Hierarchy

from ..wordnet.database import wordnet
from .concepts import Concept, class_synsets, fitting_concepts, hierarchy_synsets
from .labels import Labels, leaf_label, owners

__all__ = ["NamingReport", "NodeName", "leaf_label", "names", "relabel", "rename", "report"]


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
    return relabel(hierarchy, names(hierarchy, wnids))


def names(hierarchy: Hierarchy, wnids: Sequence[str | None] | None = None) -> NamingReport:
    """The names that `rename` gives, with their fit. Takes and raises the same."""
    synsets = (
        hierarchy_synsets(hierarchy) if wnids is None else class_synsets(hierarchy.classes, wnids)
    )
    return report(hierarchy, synsets, fitting_concepts(hierarchy, synsets))


def report(
    hierarchy: Hierarchy, synsets: Sequence[int | None], fitting: Mapping[int, Sequence[Concept]]
) -> NamingReport:
    """`names` where the concepts that fit each inner node are known already."""
    chosen = owners(hierarchy, fitting)
    labels = Labels(hierarchy, synsets, fitting)
    # Owners first: they have the plain word, whatever the order of the nodes.
    for node, concept in sorted(chosen.items(), key=lambda item: (item[1].rank, item[0])):
        labels.plain(node, concept)
    for node in hierarchy.inner_nodes:
        if node not in chosen:
            labels.qualified(node)
    return NamingReport(
        tuple(
            _row(hierarchy.ids[node], labels.found[node], labels.concept[node])
            for node in hierarchy.inner_nodes
        )
    )


def relabel(hierarchy: Hierarchy, rows: Iterable[NodeName]) -> Hierarchy:
    """The same tree with these names."""
    by_id = {row.node: row for row in rows}
    nodes = [
        node._replace(name=row.label, wnid=row.wnid if row.named else None)
        if (row := by_id.get(node.id))
        else node
        for node in hierarchy.nodes
    ]
    return Hierarchy(tuple(nodes), hierarchy.classes)


def _row(node: str, label: str, concept: Concept | None) -> NodeName:
    if concept is None:
        return NodeName(node, label, None, None, 0.0, 0.0, 0.0, named=False)
    net = wordnet()
    return NodeName(
        node,
        label,
        net.wnid(concept.synset),
        net.name(concept.synset),
        concept.precision,
        concept.recall,
        concept.fit,
        concept.names,
    )
