"""Where a new class belongs in a tree: by the meaning of its name, or beside what looks like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nbdt.errors import listed
from nbdt.hierarchies.wordnet.concepts import MIN_CONTENT, leaf_synsets
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.hierarchies.wordnet.known import known_senses
from nbdt.memory.memory import Memory
from nbdt.tree.hierarchy import Hierarchy


@dataclass(frozen=True)
class ProposedPlace:
    """A place for a new class.

    Attributes:
        parent: id of the group that it would join.
        reason: in words, with the classes that it is like.
        wnid: the WordNet id of its name, if that is known.
    """

    parent: str
    reason: str
    wnid: str | None = None


def propose_place(memory: Memory, name: str, features: Tensor) -> ProposedPlace:
    """Propose where a new class belongs; a person decides.

    Args:
        memory: of the model.
        name: of the class.
        features: (images, features) of its photographs.
    """
    return by_name(memory.hierarchy, name) or by_features(memory, features)


def by_name(hierarchy: Hierarchy, name: str) -> ProposedPlace | None:
    """Propose the smallest group with all classes that share the most specific WordNet concept.

    Returns None where WordNet does not know the name, or only general concepts are shared.
    """
    net, known = wordnet(), leaf_synsets(hierarchy.classes, hierarchy.class_wnids)
    meanings: dict[str | int, str] = {
        place: net.wnid(synset) for place, synset in enumerate(known) if synset is not None
    }
    wnid = known_senses((*hierarchy.classes, name), meanings).wnids[-1]
    synset = net.find(wnid)
    if synset is None:
        return None
    mine = {synset, *net.ancestors(synset)}
    shared = {
        place: max(float(net.information_content[one]) for one in both)
        for place, other in enumerate(known)
        if other is not None and (both := mine & {other, *net.ancestors(other)})
    }
    best = max(shared.values(), default=0.0)
    if best < MIN_CONTENT:
        return None
    like = [place for place, content in shared.items() if content > best - 1e-6]
    names = listed((hierarchy.classes[place] for place in like), limit=3)
    return ProposedPlace(_around(hierarchy, like), f"by its name it is akin to {names}", wnid)


def by_features(memory: Memory, features: Tensor) -> ProposedPlace:
    """Propose the group around the class whose mean photograph is most like the mean of these."""
    rows, hierarchy = memory.rows, memory.hierarchy
    values = torch.from_numpy(rows.features[rows.active]).float()
    labels = np.array(rows.labels)[rows.active]
    centre, mean = values.mean(dim=0), features.float().mean(dim=0)
    means = torch.stack([values[labels == name].mean(dim=0) for name in hierarchy.classes])
    cosines = torch.nn.functional.cosine_similarity(means - centre, mean - centre)
    nearest = int(cosines.nan_to_num(-1.0).argmax())
    reason = f"its photographs are most like those of {hierarchy.classes[nearest]!r}"
    return ProposedPlace(_around(hierarchy, [nearest]), reason)


def _around(hierarchy: Hierarchy, classes: Sequence[int]) -> str:
    """Return the id of the smallest group that holds classes."""
    groups = (hierarchy.parents[hierarchy.leaf_nodes[index]] for index in classes)
    return hierarchy.ids[hierarchy.common_ancestor(groups)]
