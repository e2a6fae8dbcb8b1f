"""Labels for nodes: which concept goes to which node, and what each is then called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from itertools import chain, count

from nbdt.tree.hierarchy import Hierarchy

from ..wordnet.database import wordnet
from .concepts import Concept, familiarity, hypernyms_of

ALL = "all classes"
MAX_WORD = 60  # characters of a class name inside another node's label
MOST_SHOWN = 5  # leaves in a label
ALTERNATIVE = 0.75  # of the best concept's fit: worse ones yield to a qualified label
_LISTING = re.compile(r"(?P<kind>.+?: )?(?P<leaves>.+?)(?: \+ (?P<more>[0-9,]+))?(?: \([0-9]+\))?")
UNCHANGED_PLURALS = ("fish", "sheep", "deer", "craft", "s", "works", "people", "ware", "clothing")


def leaf_label(classes: Sequence[str], limit: int = 2, total: int | None = None) -> str:
    """An honest label from a node's own leaves: ``"cat, dog + 3"``.

    Args:
        classes: the leaves, or the first of them.
        limit: how many are shown.
        total: how many leaves there are, where `classes` are not all.
    """
    total = len(classes) if total is None else total
    if limit == total - 1 <= len(classes) - 1:  # "+ 1" is as long as most names
        limit = total
    shown = ", ".join(map(_short, classes[:limit]))
    return f"{shown} + {total - limit:,}" if total > limit else shown


def relisted(label: str, before: Sequence[str], after: Sequence[str]) -> str | None:
    """The label of a node that lists its leaves, now that these are others.

    A kind in front of the list stays only where no leaf was added, which might be of another.

    Args:
        label: the node's present one.
        before: the classes below it that the label was made for.
        after: the classes below it now.

    Returns:
        The label in place of it; None for one that lists no leaves.
    """
    found = _LISTING.fullmatch(label)
    if found is None:
        return None
    listed, more = found["leaves"].split(", "), int((found["more"] or "0").replace(",", ""))
    by_label = {_short(name): name for name in before}
    if len(listed) + more != len(before) or not by_label.keys() >= {*listed}:
        return None
    if [*before] == [*after]:
        return label
    kept = [by_label[word] for word in listed if by_label[word] in after]
    leaves = list(dict.fromkeys([*kept, *after]))
    kind = found["kind"] or "" if {*after} <= {*before} else ""
    return kind + leaf_label(leaves, max(2, len(kept)))


def _short(name: str) -> str:
    """Of "tench, Tinca tinca" the first word, of "oak_tree" both; a very long name is cut."""
    word = name.replace("_", " ").partition(",")[0].strip() or name
    return word if len(word) <= MAX_WORD else word[: MAX_WORD - 1] + "…"


def owners(hierarchy: Hierarchy, fitting: Mapping[int, Sequence[Concept]]) -> dict[int, Concept]:
    """One concept for one node, best fits first, never one broader than a node's above it.

    A concept that all leaves of the parent are kinds of as well says nothing of the child: of two
    siblings "chordate" and "vertebrate" nobody knows which is which.
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
    chosen: dict[int, Concept] = {}
    owner: dict[int, int] = {}
    narrower: dict[int, list[int]] = {}  # owners of the concepts below each concept

    def is_above(high: int, low: int) -> bool:
        return spans[low].start in spans[high] and len(spans[high]) > len(spans[low])

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


class Labels:
    """Gives each node a label that no other node and no class has.

    Args:
        hierarchy: the tree.
        synsets: (classes,) indices in WordNet, None where unknown.
        fitting: the concepts of each inner node, best first.

    Attributes:
        found: label by node.
        concept: by node, the concept that the label has or begins with.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        synsets: Sequence[int | None],
        fitting: Mapping[int, Sequence[Concept]],
    ) -> None:
        self.hierarchy = hierarchy
        self.fitting = fitting
        self.net = wordnet()
        self.found: dict[int, str] = {}
        self.concept: dict[int, Concept | None] = {}
        self._used = set(hierarchy.classes)
        known = {synset for synset in synsets if synset is not None}
        self._above = hypernyms_of(known | {c.synset for row in fitting.values() for c in row})
        self._synsets = synsets
        # Better known first, then in class order.
        self._rank = [
            (-familiarity(synset) if synset is not None else 0, index)
            for index, synset in enumerate(synsets)
        ]

    def plain(self, node: int, concept: Concept) -> None:
        """The concept's word, another of its words, or the word with its kind."""
        words = self.net.lemmas(concept.synset)
        kinds = map(self.net.name, self.net.parents[concept.synset].tolist())
        options = chain(words, (f"{words[0]} ({kind})" for kind in kinds))
        free = next((word for word in options if word not in self._used), None)
        self._add(node, free or self._with_leaves(node, concept), concept)

    def qualified(self, node: int) -> None:
        """The concept's word and what sets this node apart, or leaves alone."""
        row = self.fitting[node]
        if not row:
            self._add(node, self._leaves(node), None)
            return
        concept = next((concept for concept in row if concept.names), row[0])
        label = self._with_kind(node, concept, row) if concept.names else None
        self._add(node, label or self._with_leaves(node, concept), concept)

    def _with_kind(self, node: int, concept: Concept, row: Sequence[Concept]) -> str | None:
        """As "dog: terriers", if most of the node's leaves are both and no node is so called.

        A kind that lies in one child alone says nothing of the others.
        """
        kinds = [
            other.synset
            for other in row
            if concept.synset in self._above[other.synset]
            and not self._in_one_child(node, other.synset)
            # Else both mean the same classes, and nothing is set apart.
            and (other.precision, other.recall) != (concept.precision, concept.recall)
        ]
        name = self.net.name(concept.synset)
        labels = (f"{name}: {plural(self.net.name(kind))}" for kind in kinds)
        return next((label for label in labels if label not in self._used), None)

    def _in_one_child(self, node: int, kind: int) -> bool:
        return sum(self._has_kind(child, kind) for child in self.hierarchy.children[node]) == 1

    def _has_kind(self, node: int, kind: int) -> bool:
        known = (self._synsets[index] for index in self._under(node))
        return any(s is not None and kind in (s, *self._above[s]) for s in known)

    def _with_leaves(self, node: int, concept: Concept) -> str:
        """As "dog: beagle, basset + 3", leaves that are dogs first."""

        def key(index: int) -> tuple[bool, int, int]:
            synset = self._synsets[index]
            known = synset is not None and concept.synset in {synset, *self._above[synset]}
            return (not known, *self._rank[index])

        shown = nsmallest(MOST_SHOWN, self._under(node), key=key)
        return self._free(
            f"{self.net.name(concept.synset)}: ", shown, len(self.hierarchy.spans[node])
        )

    def _leaves(self, node: int) -> str:
        """The best-known leaf of each of the largest children, since they have little in common."""
        if node == 0 and self.hierarchy.num_classes > 2 and ALL not in self._used:
            return ALL
        groups = sorted(
            self.hierarchy.children[node], key=lambda child: -len(self.hierarchy.spans[child])
        )
        first = [min(self._under(child), key=self._rank.__getitem__) for child in groups]
        rest = nsmallest(2 * MOST_SHOWN, self._under(node), key=self._rank.__getitem__)
        shown = list(dict.fromkeys([*first[:2], *rest]))[:MOST_SHOWN]
        return self._free("", shown, len(self.hierarchy.spans[node]))

    def _under(self, node: int) -> list[int]:
        return self.hierarchy.classes_under(node)

    def _free(self, prefix: str, shown: Sequence[int], total: int) -> str:
        """As few leaves as make the label differ from the others'."""
        words = [self.hierarchy.classes[index] for index in shown]
        labels = (prefix + leaf_label(words, n, total) for n in range(2, MOST_SHOWN + 1))
        numbered = (f"{prefix}{leaf_label(words, 2, total)} ({number})" for number in count(2))
        return next(label for label in chain(labels, numbered) if label not in self._used)

    def _add(self, node: int, label: str, concept: Concept | None) -> None:
        self._used.add(label)
        self.found[node], self.concept[node] = label, concept


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
