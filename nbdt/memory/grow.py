"""Other classes for a model with a memory: one more, one split in two, two merged.

The result is a new model over the same network. Its memory is a copy whose labels are nodes of the
new tree; a label whose classes changed becomes the smallest group that holds them all.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..decide.head import NBDTHead
from ..errors import NBDTError
from ..model.cascade import refuse_cascade
from ..model.model import NBDT
from ..storage import is_uri
from ..tree.building import collapse_chains
from ..tree.class_names import normalised_name
from ..tree.hierarchy import Hierarchy
from ..tree.nodes import Node


@dataclass(frozen=True)
class Growth:
    """A hierarchy over other classes."""

    hierarchy: Hierarchy  # the new one
    # the classes that a class of the old one is now, where it is not itself
    became: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def labels(self, old: Hierarchy) -> dict[str, str]:
        """Return the id of the smallest new node that holds what each node of the old one held."""
        new, found = self.hierarchy, dict[str, str]()
        leaf = dict(zip(new.classes, new.leaf_nodes, strict=True))
        for node, key in enumerate(old.ids):
            classes = [old.classes[index] for index in old.classes_under(node)]
            leaves = [leaf[one] for name in classes for one in self.became.get(name, (name,))]
            found[key] = new.ids[new.common_ancestor(leaves)]
        return found


def add_class(hierarchy: Hierarchy, name: str, parent: str, wnid: str | None = None) -> Growth:
    """Add a class, last in the order of classes.

    `parent`: the group that it joins, by id or unambiguous name.

    Raises NBDTError: a name that is taken or cannot be one, or a parent that is unknown or a class.
    """
    _check_free(hierarchy, name)
    node = hierarchy.index(parent)
    if not hierarchy.children[node]:
        raise NBDTError(
            f"{parent!r} is a class, and {name!r} can only join a group. Name the group around it, "
            f"{hierarchy.names[hierarchy.parents[node]]!r}, or another."
        )
    nodes = (*hierarchy.nodes, Node(name, hierarchy.ids[node], name, wnid))
    return Growth(Hierarchy(nodes, (*hierarchy.classes, name)))


def split_class(hierarchy: Hierarchy, name: str, into: tuple[str, str]) -> Growth:
    """Make a class a group of two: the first takes its place in the order, the second is last.

    Raises NBDTError: no such class, or a name that is taken or cannot be one.
    """
    leaf = _class(hierarchy, name)
    for one in into:
        _check_free(hierarchy, one)
    if normalised_name(into[0]) == normalised_name(into[1]):
        raise NBDTError(f"The two classes need two names, got {into[0]!r} twice.")
    nodes = (*hierarchy.nodes, *(Node(one, leaf.id, one) for one in into))
    classes = (*(into[0] if one == leaf.id else one for one in hierarchy.classes), into[1])
    return Growth(Hierarchy(nodes, classes), {leaf.id: into})


def merge_classes(hierarchy: Hierarchy, one: str, other: str, name: str | None = None) -> Growth:
    """Make two classes one, at the place of the first; a group left with one child goes.

    `name`: of the result, by default that of the first.

    Raises NBDTError: no such class, twice the same, all that there are, or a name that is taken or
    cannot be one.
    """
    first, second = _class(hierarchy, one), _class(hierarchy, other)
    if first == second:
        raise NBDTError(f"Name two classes to merge, not {one!r} twice.")
    named = first.id if name is None else name
    if named not in {first.id, second.id}:
        _check_free(hierarchy, named)
    kept = [node for node in hierarchy.nodes if node not in {first, second}]
    wnid = next((node.wnid for node in (first, second) if node.id == named), None)
    nodes = collapse_chains([*kept, Node(named, first.parent, named, wnid)])
    classes = [named if key == first.id else key for key in hierarchy.classes if key != second.id]
    became = dict.fromkeys((first.id, second.id), (named,))
    return Growth(Hierarchy(tuple(nodes), tuple(classes)), became)


def grow(model: NBDT, growth: Growth, place: str | os.PathLike[str]) -> NBDT:
    """Return a model with other classes and a memory of its own, which still has to be fitted.

    Until `refit`, a new class has the weights of the old one that it came from, or zeros.

    Args:
        model: with a memory; neither changes.
        place: a new folder, for the memory.

    Raises NBDTError: no memory, or one that is not a local folder.
    """
    memory = model.memory
    if memory is None or is_uri(memory.table.place):
        what = "no memory" if memory is None else f"its memory at {memory.table.place!r}"
        raise NBDTError(f"Expected a model with a memory in a local folder, got one with {what}.")
    grown = with_classes(model, growth)
    shutil.copytree(memory.table.place, Path(place))
    grown.use_memory(place)
    if grown.memory is not None:
        rows, labels = grown.memory.rows, growth.labels(model.hierarchy)
        changed = {
            key: {"label": labels[label]}
            for key, label in zip(rows.ids, rows.labels, strict=True)
            if labels.get(label, label) != label
        }
        if changed:
            grown.memory.table.update_each(changed)
    return grown


def with_classes(model: NBDT, growth: Growth) -> NBDT:
    """Return a model with other classes and no memory, over the same network; see `grow`."""
    refuse_cascade(
        model, "given other classes", "Change the large model, then make the cascade again."
    )
    tree, linear = growth.hierarchy, model.head.linear
    made = nn.Linear(linear.in_features, tree.num_classes, device=linear.weight.device)
    with torch.no_grad():
        made.weight.zero_()
        made.bias.zero_()
        for index, old in reversed([*enumerate(model.hierarchy.classes)]):
            for name in growth.became.get(old, (old,)):
                made.weight[tree.classes.index(name)] = linear.weight[index]
                if linear.bias is not None:
                    made.bias[tree.classes.index(name)] = linear.bias[index]
    head = NBDTHead.from_linear(made, tree, rule=model.rule)
    grown = NBDT(model.backbone, head, model.architecture, model.preprocess)
    grown.provenance = {key: one for key, one in model.provenance.items() if key != "memory"}
    return grown.train(model.training)


def _class(hierarchy: Hierarchy, name: str) -> Node:
    node = hierarchy.index(name)
    if hierarchy.children[node]:
        raise NBDTError(f"{name!r} is a group; name a class.")
    return hierarchy.nodes[node]


def _check_free(hierarchy: Hierarchy, name: str) -> None:
    """Raise NBDTError if a node has this name, or one that reads the same."""
    taken = {normalised_name(text): text for text in (*hierarchy.ids, *hierarchy.names)}
    if (there := taken.get(normalised_name(name))) is not None:
        raise NBDTError(f"There is a class or a group {there!r} already; choose another name.")
