"""Which WordNet concepts fit the leaves of each inner node, and how well.

For a node with `n` leaves, of which `k` are kinds of a concept that has `m` classes in all:
precision is `k / n`, recall `k / m`, and the fit their harmonic mean, `2 k / (n + m)`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID

from ..wordnet.candidates import candidates
from ..wordnet.database import WordNet, wordnet
from ..wordnet.lexicon import lemma_key
from ..wordnet.senses import senses

MIN_PRECISION = 0.7
MIN_RECALL = 0.5
MIN_LEAVES = 2
MIN_CONTENT = 0.25  # leaves out artifact, organism, instrumentality and all above them
VAGUE = ("part", "piece", "article", "unit", "thing", "system", "way")  # these say nothing
FAMILIARITY = 0.03  # of a word's log count in SemCor against information content: "animal", not
# "chordate", where both mean the same classes, yet "motor vehicle" and not "container"


@dataclass(frozen=True)
class Concept:
    """A synset as the meaning of one inner node.

    Attributes:
        synset: its index.
        precision: share of the node's leaves that are kinds of it.
        recall: share of its classes that are under the node.
        fit: harmonic mean of precision and recall.
        appeal: which of equally fitting concepts reads better: specific and familiar ones.
    """

    synset: int
    precision: float
    recall: float
    fit: float
    appeal: float

    @property
    def names(self) -> bool:
        """Whether the recall suffices for the node to be called by the concept."""
        return self.recall >= MIN_RECALL

    @property
    def rank(self) -> tuple[float, float, int]:
        """Best first when sorted."""
        return (-self.fit, -self.appeal, self.synset)


def class_synsets(
    classes: Sequence[str], wnids: Sequence[str | None] | None = None
) -> list[int | None]:
    """The synset of each class: by its id, or all jointly by their names where no ids are given.

    Classes that WordNet does not know are None.

    Raises:
        NBDTError: not one id or None for each class.
        UnknownSynsetError: an id that WordNet 3.0 lacks.
    """
    if wnids is not None and len(wnids) != len(classes):
        raise NBDTError(
            f"Expected one WordNet id or None for each of {len(classes)} classes, got {len(wnids)}."
        )
    found = _wnids_by_name(classes, [None] * len(classes)) if wnids is None else wnids
    return _synsets(found)


def hierarchy_synsets(hierarchy: Hierarchy) -> list[int | None]:
    """The synset of each class: by its leaf's id where WordNet 3.0 has it, else by its name."""
    offsets = set(wordnet().offsets.tolist())
    carried = hierarchy.class_wnids
    known = [wnid if wnid and int(wnid[1:]) in offsets else None for wnid in carried]
    return _synsets(known if None not in known else _wnids_by_name(hierarchy.classes, known))


def _synsets(wnids: Sequence[str | None]) -> list[int | None]:
    """`WordNet.index` of all ids at once: a lookup each would take longer than the clustering."""
    net = wordnet()
    shaped = [bool(wnid and WNID.fullmatch(wnid)) for wnid in wnids]
    digits = [
        int(wnid[1:]) if wnid and fits else 0 for wnid, fits in zip(wnids, shaped, strict=True)
    ]
    places = np.searchsorted(net.offsets, digits).clip(max=net.num_synsets - 1)
    right = (net.offsets[places] == digits) & shaped
    return [
        None if wnid is None else place if fits else net.index(wnid)  # which raises
        for wnid, place, fits in zip(wnids, places.tolist(), right.tolist(), strict=True)
    ]


def _wnids_by_name(names: Sequence[str], known: list[str | None]) -> list[str | None]:
    """Fills in the ids of the names that WordNet has, chosen to fit together."""
    net = wordnet()
    seen = {lemma_key(name) for name, wnid in zip(names, known, strict=True) if wnid}
    asked = []
    for place, name in enumerate(names):
        key = lemma_key(name)
        # A second class of one spelling would have to be another sense; that is not known.
        if known[place] or (key and key not in seen and candidates(name, net)):
            asked.append(place)
            seen.add(key)
    if not asked:
        return known
    overrides: dict[str | int, str] = {
        i: wnid for i, place in enumerate(asked) if (wnid := known[place])
    }
    report = senses([names[place] for place in asked], overrides)
    found = dict(zip(asked, report.wnids, strict=True))
    return [found.get(place) for place in range(len(names))]


def fitting_concepts(
    hierarchy: Hierarchy, synsets: Sequence[int | None]
) -> dict[int, list[Concept]]:
    """For each inner node the concepts of sufficient precision and content, best first.

    A concept that most leaves of a node share is shared by most leaves of one of its children, so
    each node need only look at its children's: the work is linear in the tree. Where WordNet
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
    found: dict[int, list[Concept]] = {}
    for node in reversed(hierarchy.inner_nodes):
        counts = {
            concept: _count(starts[concept], spans[node])
            for concept in set().union(*(shared[child] for child in hierarchy.children[node]))
        }
        size = len(spans[node])
        shared[node] = {c for c, count in counts.items() if count >= MIN_PRECISION * size}
        rows = [_concept(c, counts[c], size, len(starts[c]), appeal(c)) for c in shared[node]]
        found[node] = sorted(
            (row for row in rows if row.precision * size > MIN_LEAVES - 0.5),
            key=lambda row: row.rank,
        )
    return found


def _classes_by_concept(
    synsets: Sequence[int | None], hierarchy: Hierarchy, net: WordNet
) -> dict[int, list[tuple[int, int]]]:
    """(depth-first position, leaf) of the classes below each concept worth naming, ascending."""
    known = [index for index, synset in enumerate(synsets) if synset is not None]
    pairs = net.closure([synset for synset in synsets if synset is not None])
    vague = [sense for word in VAGUE for sense in net.senses(word) if net.name(sense) == word]
    kept = net.information_content[pairs.synset] >= MIN_CONTENT
    kept &= ~np.isin(pairs.synset, vague)
    found: dict[int, list[tuple[int, int]]] = {}
    for row, concept in zip(pairs.row[kept].tolist(), pairs.synset[kept].tolist(), strict=True):
        leaf = hierarchy.leaf_nodes[known[row]]
        found.setdefault(concept, []).append((hierarchy.spans[leaf].start, leaf))
    return {concept: sorted(leaves) for concept, leaves in found.items()}


def _count(positions: list[int], span: range) -> int:
    return bisect_left(positions, span.stop) - bisect_left(positions, span.start)


def _concept(synset: int, count: int, size: int, total: int, appeal: float) -> Concept:
    return Concept(synset, count / size, count / total, 2 * count / (size + total), appeal)


def _appeal(synset: int, net: WordNet) -> float:
    """Content and familiarity: of several right names the exact one that people know."""
    content = float(net.information_content[synset])
    return content + FAMILIARITY * math.log1p(familiarity(synset))


@cache
def familiarity(synset: int) -> int:
    """How often SemCor's annotators met the synset under the most usual of its words."""
    net = wordnet()
    return max(
        net.tag_counts(lemma)[net.senses(lemma).index(synset)] for lemma in net.lemmas(synset)
    )


def hypernyms_of(synsets: Iterable[int]) -> dict[int, frozenset[int]]:
    """Strict ancestors of each synset."""
    unique = np.array(sorted(set(synsets)), dtype=np.int64)
    pairs = wordnet().closure(unique)
    starts = np.searchsorted(pairs.row, np.arange(1, len(unique)))
    rows = np.split(pairs.synset, starts) if len(unique) else []
    return {
        own: frozenset(row.tolist()) - {own} for own, row in zip(unique.tolist(), rows, strict=True)
    }
