"""Which WordNet concepts fit the leaves of each inner node, and how well.

For a node with `n` leaves, of which `k` are kinds of a concept that has `m` classes in all:
precision is `k / n`, recall `k / m`, and the fit their harmonic mean, `2 k / (n + m)`.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy

from .database import WordNet, wordnet
from .known import known_senses

MIN_PRECISION = 0.7
MIN_RECALL = 0.5
MIN_LEAVES = 2
MIN_CONTENT = 0.25  # excludes artifact, organism, instrumentality and all above them
VAGUE = ("part", "piece", "article", "unit", "thing", "system", "way")  # they describe nothing
ALTERNATIVE = 0.75  # of the best concept's fit: a node takes no concept that fits worse
# Weight of a word's log count in SemCor against information content: "animal", not "chordate",
# where both fit the same classes, but "motor vehicle", not "container".
FAMILIARITY = 0.03


@dataclass(frozen=True)
class Concept:
    """A synset as the meaning of one inner node."""

    synset: int
    precision: float  # share of the node's leaves that are kinds of it
    recall: float  # share of its classes that are under the node
    fit: float  # harmonic mean of precision and recall
    appeal: float  # which of equally fitting concepts reads better: specific and familiar ones

    @property
    def names(self) -> bool:
        """Whether the recall is high enough to name the node after the concept."""
        return self.recall >= MIN_RECALL

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sort key, best first."""
        return (-self.fit, -self.appeal, self.synset)


def class_synsets(
    classes: Sequence[str], wnids: Sequence[str | None] | None = None
) -> list[int | None]:
    """Return the synset of each class by its id or, without ids, jointly by name; None if unknown.

    Raises:
        NBDTError: `wnids` has not one entry for each class.
        UnknownSynsetError: an id that WordNet 3.0 lacks.
    """
    if wnids is not None and len(wnids) != len(classes):
        raise NBDTError(
            f"Expected one WordNet id or None for each of {len(classes)} classes, got {len(wnids)}."
        )
    if wnids is None:
        wnids = known_senses(classes).wnids
    return [None if wnid is None else wordnet().index(wnid) for wnid in wnids]


@lru_cache(maxsize=8)
def leaf_synsets(classes: tuple[str, ...], wnids: tuple[str | None, ...]) -> tuple[int | None, ...]:
    """Return the synset of each class: by its leaf's id if WordNet 3.0 has it, else by its name."""
    known = tuple(map(wordnet().find, wnids))
    if None not in known:
        return known
    meanings: dict[str | int, str] = {
        place: wordnet().wnid(synset) for place, synset in enumerate(known) if synset is not None
    }
    return tuple(map(wordnet().find, known_senses(classes, meanings).wnids))


def fitting_concepts(
    hierarchy: Hierarchy, synsets: Sequence[int | None]
) -> dict[int, list[Concept]]:
    """Return each inner node's concepts of sufficient precision and content, best first.

    If most leaves of a node share a concept, so do most leaves of one of its children. Each node
    therefore checks only its children's concepts, and the work is linear in the tree. If WordNet
    does not know most of the classes, no node has a concept.
    """
    if 2 * sum(synset is not None for synset in synsets) < len(synsets):
        return {node: [] for node in hierarchy.inner_nodes}
    net = wordnet()
    spans = hierarchy.spans
    under = _classes_by_concept(synsets, hierarchy, net)
    shared: list[set[int]] = [set() for _ in hierarchy.nodes]
    for concept, positions in under.items():
        for position in positions:
            shared[position[1]].add(concept)
    starts = {concept: [position[0] for position in row] for concept, row in under.items()}
    appeal = cache(partial(_appeal, net=net))
    concepts: dict[int, list[Concept]] = {}
    for node in reversed(hierarchy.inner_nodes):
        span = spans[node]
        counts: dict[int, int] = {}
        for concept in set().union(*(shared[child] for child in hierarchy.children[node])):
            places = starts[concept]
            counts[concept] = bisect_left(places, span.stop) - bisect_left(places, span.start)
        size = len(span)
        shared[node] = {c for c, count in counts.items() if count >= MIN_PRECISION * size}
        rows = []
        for synset in shared[node]:
            count, total = counts[synset], len(starts[synset])
            fit = 2 * count / (size + total)
            rows.append(Concept(synset, count / size, count / total, fit, appeal(synset)))
        concepts[node] = sorted(
            (row for row in rows if row.precision * size > MIN_LEAVES - 0.5),
            key=lambda row: row.rank,
        )
    return concepts


def _classes_by_concept(
    synsets: Sequence[int | None], hierarchy: Hierarchy, net: WordNet
) -> dict[int, list[tuple[int, int]]]:
    """Return (depth-first position, leaf) of the classes below each useful concept, ascending."""
    known = [index for index, synset in enumerate(synsets) if synset is not None]
    rows, ancestors = net.closure([synset for synset in synsets if synset is not None])
    vague = [sense for word in VAGUE for sense in net.senses(word) if net.name(sense) == word]
    useful = net.information_content[ancestors] >= MIN_CONTENT
    useful &= ~np.isin(ancestors, vague)
    by_concept: dict[int, list[tuple[int, int]]] = {}
    for row, concept in zip(rows[useful].tolist(), ancestors[useful].tolist(), strict=True):
        leaf = hierarchy.leaf_nodes[known[row]]
        by_concept.setdefault(concept, []).append((hierarchy.spans[leaf].start, leaf))
    return {concept: sorted(leaves) for concept, leaves in by_concept.items()}


def _appeal(synset: int, net: WordNet) -> float:
    """Return a score that prefers specific and familiar concepts."""
    content = float(net.information_content[synset])
    return content + FAMILIARITY * math.log1p(familiarity(synset))


@cache
def familiarity(synset: int) -> int:
    """Return how often SemCor uses the synset, by the most usual of its words."""
    net = wordnet()
    return max(
        net.tag_counts(lemma)[net.senses(lemma).index(synset)] for lemma in net.lemmas(synset)
    )


def hypernyms_of(synsets: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return the strict ancestors of each synset."""
    unique = np.array(sorted(set(synsets)), dtype=np.int64)
    row, ancestor = wordnet().closure(unique)
    parts = np.split(ancestor, np.searchsorted(row, np.arange(1, len(unique))))
    return {
        synset: frozenset(part.tolist()) - {synset}
        for synset, part in zip(unique.tolist(), parts, strict=False)
    }


def assign_concepts(
    hierarchy: Hierarchy, fitting: Mapping[int, Sequence[Concept]]
) -> dict[int, Concept]:
    """Give each concept to at most one node, best fits first; return the concept of each node.

    No node gets a concept that is broader than that of a node above it, nor one that fits all
    leaves of its parent: "chordate" and "vertebrate" as siblings would not tell two groups apart.
    """
    shared = {
        node: {concept.synset for concept in row if concept.precision == 1}
        for node, row in fitting.items()
    }
    pairs = [
        (concept.rank, node, concept)
        for node, row in fitting.items()
        for concept in row
        if concept.names
        and concept.fit >= ALTERNATIVE * row[0].fit
        and (node == 0 or concept.synset not in shared[hierarchy.parents[node]])
    ]
    above = hypernyms_of({concept.synset for _, _, concept in pairs})
    spans = hierarchy.spans
    assigned: dict[int, Concept] = {}
    owner: dict[int, int] = {}
    narrower: dict[int, list[int]] = {}  # owners of the concepts below each concept

    def is_above(high: int, low: int) -> bool:
        return spans[low].start in spans[high] and len(spans[high]) > len(spans[low])

    for _, node, concept in sorted(pairs, key=lambda pair: pair[:2]):
        broader = [owner[other] for other in above[concept.synset] if other in owner]
        if (
            node not in assigned
            and concept.synset not in owner
            and not any(is_above(node, other) for other in broader)
            and not any(is_above(other, node) for other in narrower.get(concept.synset, ()))
        ):
            assigned[node] = concept
            owner[concept.synset] = node
            for other in above[concept.synset]:
                narrower.setdefault(other, []).append(node)
    return assigned
