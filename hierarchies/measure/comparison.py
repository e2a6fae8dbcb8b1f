"""What an edit does to a model's answers: two trees on the same class logits, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nbdt.decide.head import DecisionRules
from nbdt.decide.metrics import accuracy, calibration_error, hierarchical_distance
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.hierarchy import Hierarchy

CHUNK = 1000  # images; a row of the table of nodes is float64

VERDICTS = ("now right", "now wrong", "still wrong", "other path", "other soft answer")


class NodeResult(NamedTuple):
    """How well one inner node decides, over the images whose class is below it.

    Attributes:
        images: how many those are.
        accuracy: share of them that it sends to the right child.
        log_prob: mean log-probability of the right child.
    """

    images: int
    accuracy: float
    log_prob: float

    @property
    def mistakes(self) -> int:
        """How many images it sends to a wrong child."""
        return self.images - round(self.images * self.accuracy)


@dataclass(frozen=True, eq=False)
class TreeResult:
    """One tree's answers.

    Attributes:
        hierarchy: the tree.
        soft, hard: (count,) class indices: the likeliest leaf, and the greedy descent's.
        probability: (count,) of the soft answer.
        labels: (count,) the right ones.
        nodes: results of the inner nodes that have images, by node index.
    """

    hierarchy: Hierarchy
    soft: Tensor
    hard: Tensor
    probability: Tensor
    labels: Tensor
    nodes: Mapping[int, NodeResult]

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Share of right answers, "soft" and "hard"."""
        return {
            "soft": accuracy(self.soft, self.labels),
            "hard": accuracy(self.hard, self.labels),
        }

    def route(self, class_index: int) -> list[str]:
        """Names of the nodes from the root to a class."""
        tree = self.hierarchy
        return [tree.names[node] for node in tree.path_of_class(class_index)]


class ImageChange(NamedTuple):
    """One image whose answer or path is another.

    `verdict` is one of VERDICTS: what became of its hard answer ("still wrong" is another wrong
    one), or, where that is as before, what else changed.
    """

    image: int
    verdict: str


class NodeChange(NamedTuple):
    """One inner node before and after; None where a tree has no such node."""

    node: str
    name: str
    before: NodeResult | None
    after: NodeResult | None

    @property
    def gain(self) -> int:
        """How many mistakes fewer it makes; below 0, how many more."""
        if self.before is None or self.after is None:
            return 0
        return self.before.mistakes - self.after.mistakes


def measure(logits: Tensor, labels: Tensor, hierarchy: Hierarchy, rule: str) -> TreeResult:
    """A tree's answers on class logits (count, classes) with labels (count,).

    Raises:
        NBDTError: another number of classes, or logits that are not finite.
    """
    rules = DecisionRules(hierarchy, rule=rule)
    soft = [rules(part).max(dim=1) for part in logits.split(CHUNK)]
    hard = torch.cat([rules.hard(part) for part in logits.split(CHUNK)])
    answers = torch.cat([best.indices for best in soft])
    probability = torch.cat([best.values for best in soft]).exp()
    nodes = _nodes(rules, logits, labels)
    return TreeResult(hierarchy, answers, hard, probability, labels, nodes)


def _nodes(rules: DecisionRules, logits: Tensor, labels: Tensor) -> dict[int, NodeResult]:
    tree = rules.hierarchy
    parent = torch.tensor(tree.parents[1:])
    on_path = _on_path(tree)[:, 1:]
    # Rows: images, right decisions, log-probability of the right child; columns: the children.
    sums = torch.zeros(3, len(parent), dtype=torch.float64)
    for part, target in zip(logits.split(CHUNK), labels.split(CHUNK), strict=True):
        values = rules.log_probs(part)[:, 1:]
        best = values.new_full((len(values), tree.num_nodes), -torch.inf)
        best = best.scatter_reduce(1, parent.expand_as(values), values, "amax")
        right = on_path[target]
        sums[0] += right.sum(0)
        sums[1] += (right & (values == best[:, parent])).sum(0)
        sums[2] += torch.where(right, values, 0).sum(0)
    totals = torch.zeros(3, tree.num_nodes, dtype=torch.float64).index_add(1, parent, sums)
    images, correct, log_prob = totals.tolist()
    return {
        node: NodeResult(
            int(images[node]), correct[node] / images[node], log_prob[node] / images[node]
        )
        for node in tree.inner_nodes
        if images[node]
    }


def _on_path(tree: Hierarchy) -> Tensor:
    """(classes, nodes): whether a node is on the way to a class."""
    found = torch.zeros(tree.num_nodes, tree.num_classes, dtype=torch.bool)
    found[list(tree.leaf_nodes), range(tree.num_classes)] = True
    for node in range(tree.num_nodes - 1, 0, -1):  # children before parents
        found[tree.parents[node]] |= found[node]
    return found.t().contiguous()


# ---- before and after -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two trees on the same images.

    Attributes:
        before, after: their answers.
        images: those whose answer or path changed, in order.
        nodes: all inner nodes of either tree that have images, the most changed first.
    """

    before: TreeResult
    after: TreeResult
    images: tuple[ImageChange, ...]
    nodes: tuple[NodeChange, ...]

    @property
    def verdicts(self) -> dict[str, int]:
        """How many images of each verdict."""
        counts = Counter(change.verdict for change in self.images)
        return {verdict: counts[verdict] for verdict in VERDICTS}

    @property
    def easier(self) -> list[NodeChange]:
        """Nodes that make fewer mistakes than before, the most so first."""
        return [change for change in self.nodes if change.gain > 0]

    @property
    def harder(self) -> list[NodeChange]:
        """Nodes that make more mistakes than before, the most so first."""
        return [change for change in self.nodes if change.gain < 0]


def compare(before: TreeResult, after: TreeResult) -> Comparison:
    """What changed from one tree to the other, for the same images.

    A path changed if it goes through other nodes. A node is the same if it has kept its id and
    name, or its classes: neither another name nor a class more or less makes it another.

    Raises:
        NBDTError: the trees have other classes, or another order of them.
    """
    check_same_classes(before.hierarchy, after.hierarchy)
    return Comparison(
        before, after, tuple(_images(before, after)), tuple(_node_changes(before, after))
    )


def _images(before: TreeResult, after: TreeResult) -> list[ImageChange]:
    moved = _moved(before.hierarchy, after.hierarchy)
    answers = [
        result.tolist()
        for result in (before.labels, before.hard, after.hard, before.soft, after.soft)
    ]
    found = []
    for image, (label, old, new, old_soft, new_soft) in enumerate(zip(*answers, strict=True)):
        if old != new:
            verdict = {old: "now wrong", new: "now right"}.get(label, "still wrong")
        elif moved[new]:
            verdict = "other path"
        elif old_soft != new_soft:
            verdict = "other soft answer"
        else:
            continue
        found.append(ImageChange(image, verdict))
    return found


def _moved(old: Hierarchy, new: Hierarchy) -> list[bool]:
    """For each class whether its path goes through other nodes."""
    partner = _partners(old, new)
    found = []
    for leaf, there in zip(old.leaf_nodes, new.leaf_nodes, strict=True):
        route = [partner.get(node) for node in new.path_to(there)[:-1]]
        found.append(route != old.path_to(leaf)[:-1])
    return found


def _class_sets(tree: Hierarchy) -> list[int]:
    """The classes below each node, as the bits of a number."""
    sets = [0 if index < 0 else 1 << index for index in tree.class_indices]
    for node in range(tree.num_nodes - 1, 0, -1):
        sets[tree.parents[node]] |= sets[node]
    return sets


def _node_changes(before: TreeResult, after: TreeResult) -> list[NodeChange]:
    partner = _partners(before.hierarchy, after.hierarchy)
    old, new = before.hierarchy, after.hierarchy
    changes = [
        NodeChange(new.ids[node], new.names[node], before.nodes.get(partner.get(node, -1)), result)
        for node, result in after.nodes.items()
    ]
    gone = before.nodes.keys() - set(partner.values())
    changes += [
        NodeChange(old.ids[node], old.names[node], before.nodes[node], None)
        for node in sorted(gone)
    ]
    return sorted(changes, key=lambda change: -abs(change.gain))


def _partners(old: Hierarchy, new: Hierarchy) -> dict[int, int]:
    """Old node of each inner node of the new tree: of its id and name, else of its classes."""
    partner: dict[int, int] = {}
    keys: list[tuple[Sequence[object], Sequence[object]]] = [
        (list(zip(old.ids, old.names, strict=True)), list(zip(new.ids, new.names, strict=True))),
        (_class_sets(old), _class_sets(new)),
    ]
    for old_keys, new_keys in keys:
        taken = set(partner.values())
        places = {old_keys[node]: node for node in old.inner_nodes if node not in taken}
        for node in new.inner_nodes:
            if node not in partner and new_keys[node] in places:
                partner[node] = places.pop(new_keys[node])
    return partner


# ---- beyond the share of right answers ------------------------------------------------------------


def quality(logits: Tensor, result: TreeResult) -> dict[str, dict[str, float]]:
    """How good each kind of answer is on a tree: "flat", "soft" and "hard", each with

    - accuracy: share of right answers;
    - distance: how far up the tree one must go on average for the answer to be right, in edges;
    - severity: the same over the wrong answers, 0 if there is none;
    - calibration_error: of the stated probability; not for "hard", which is no likeliest class.
    """
    labels, tree = result.labels, result.hierarchy
    flat = logits.softmax(dim=1).max(dim=1)
    answers = {"flat": flat.indices, "soft": result.soft, "hard": result.hard}
    found = {}
    for kind, answer in answers.items():
        distance = hierarchical_distance(answer, labels, tree).double()
        wrong = distance[distance > 0]
        found[kind] = {
            "accuracy": accuracy(answer, labels),
            "distance": float(distance.mean()),
            "severity": float(wrong.mean()) if len(wrong) else 0.0,
        }
    for kind, probability in {"flat": flat.values, "soft": result.probability}.items():
        right = answers[kind] == labels
        found[kind]["calibration_error"] = calibration_error(probability.clamp(0, 1), right)
    return found


# ---- as data ----------------------------------------------------------------------------------


def tree_record(result: TreeResult) -> dict[str, Any]:
    """Plain data for JSON: accuracies and every inner node that has images."""
    tree = result.hierarchy
    nodes = [
        {"node": tree.ids[node], "name": tree.names[node], **values._asdict()}
        for node, values in result.nodes.items()
    ]
    return {"hierarchy": tree.hash, **result.accuracy, "nodes": nodes}


def comparison_record(found: Comparison, files: Sequence[str]) -> dict[str, Any]:
    """Plain data for JSON: the images and nodes that changed."""
    classes = found.before.hierarchy.classes

    def answer(result: TreeResult, image: int) -> dict[str, Any]:
        hard = int(result.hard[image])
        soft = classes[int(result.soft[image])]
        return {"hard": classes[hard], "soft": soft, "path": result.route(hard)}

    images = [
        {
            "file": files[change.image],
            "label": classes[int(found.before.labels[change.image])],
            "verdict": change.verdict,
            "before": answer(found.before, change.image),
            "after": answer(found.after, change.image),
        }
        for change in found.images
    ]
    nodes = [
        {
            "node": change.node,
            "name": change.name,
            "gain": change.gain,
            "before": change.before._asdict() if change.before else None,
            "after": change.after._asdict() if change.after else None,
        }
        for change in found.nodes
        if change.before != change.after
    ]
    return {"verdicts": found.verdicts, "images": images, "nodes": nodes}
