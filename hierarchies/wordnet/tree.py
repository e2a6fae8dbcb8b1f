"""Hierarchies from WordNet's graph of hypernyms, with one parent chosen for each synset.

The rules are deterministic and do not depend on the order of the classes:

- A synset with several hypernyms keeps the one with most of the given classes below it. Ties go to
  the hypernym whose nearest ancestor with yet more classes is the most specific, then to the most
  specific hypernym, then to the lowest id. Beside a cat and a car, a dog is a canine (which leads
  to carnivores), not a domestic animal (which leads to animals).
- Inner nodes with a single child vanish, so a chain leaves its most specific synset.
- A class that is an ancestor of another class becomes an inner node with a leaf of its own: "woman"
  holds the leaves "woman" and "girl". Classes of the same synset are siblings below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy

from .database import WordNet, wordnet
from .senses import senses


def from_wnids(wnids: Sequence[str], names: Sequence[str] | None = None) -> Hierarchy:
    """Build the hierarchy over classes whose WordNet ids are known.

    Args:
        wnids: one id such as "n02084071" for each class, in class order.
        names: class names in the same order; by default each synset's first word, or the id
            where two classes would be called the same.

    Raises:
        UnknownSynsetError: an id that WordNet 3.0 lacks.
        HierarchyError: fewer than two classes, or a name given twice.
        NBDTError: unequal lengths.
    """
    net = wordnet()
    synsets = [net.index(wnid) for wnid in wnids]
    labels = _default_names(synsets, net) if names is None else list(names)
    if len(labels) != len(synsets):
        raise NBDTError(
            f"Expected one name for each of {len(synsets)} ids, got {len(labels)} names."
        )
    return Hierarchy.from_networkx(_graph(synsets, labels, net), labels, collapse=True)


def from_wordnet(
    names: Sequence[str], overrides: Mapping[str | int, str] | None = None
) -> Hierarchy:
    """Build the WordNet hierarchy over classes from their names alone.

    Class names stay as they are; repeated ones are qualified ("crane (bird)"). `senses` takes the
    same arguments, raises the same errors and reports the choices.
    """
    report = senses(names, overrides)
    return from_wnids(report.wnids, report.labels)


def chosen_parents(synsets: Sequence[int], net: WordNet) -> dict[int, int]:
    """Return one parent for every synset from the given ones to the root, by the rules above."""
    below = np.bincount(net.closure(sorted(set(synsets)))[1], minlength=net.num_synsets)
    content = net.information_content

    def rank(option: int) -> tuple[int, float, float, int]:
        company = (a for a in net.ancestors(option) if below[a] > below[option])
        nearest = max((float(content[a]) for a in company), default=0.0)
        return int(below[option]), nearest, float(content[option]), -option

    parents: dict[int, int] = {}
    waiting = sorted(set(synsets))
    while waiting:
        synset = waiting.pop()
        options = net.parents[synset].tolist()
        if options and synset not in parents:
            parents[synset] = options[0] if len(options) == 1 else max(options, key=rank)
            waiting.append(parents[synset])
    return parents


def _default_names(synsets: Sequence[int], net: WordNet) -> list[str]:
    times = Counter(map(net.name, synsets))
    return [net.name(s) if times[net.name(s)] == 1 else net.wnid(s) for s in synsets]


def _graph(synsets: Sequence[int], labels: Sequence[str], net: WordNet) -> nx.DiGraph[str]:
    """Return a graph with each class as a leaf below its synset; chains are not collapsed."""
    parents = chosen_parents(synsets, net)
    taken = set(labels)
    keys = {synset: net.wnid(synset) for synset in {*synsets, *parents, *parents.values()}}
    keys = {synset: f"{key}/" if key in taken else key for synset, key in keys.items()}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for synset in sorted(keys):
        graph.add_node(keys[synset], name=net.name(synset), wnid=net.wnid(synset))
    graph.add_edges_from((keys[parent], keys[child]) for child, parent in sorted(parents.items()))
    for synset, label in zip(synsets, labels, strict=True):
        graph.add_node(label, name=label, wnid=net.wnid(synset))
        graph.add_edge(keys[synset], label)
    return graph
