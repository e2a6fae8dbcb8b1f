"""What a hierarchy, or an edit of one, changes in the answers on given class logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nbdt.decide.head import DecisionRules
from nbdt.decide.metrics import accuracy, calibration_error, hierarchical_distance
from nbdt.errors import NBDTError
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.labels import classes_below

from ..edit.difference import match_nodes

CHUNK = 1000  # images; a row of the table of nodes is float64

VERDICTS = ("now right", "now wrong", "still wrong", "other path", "other soft answer")


class NodeResult(NamedTuple):
    """How well one inner node decides, over the images with a class below it."""

    images: int  # their number
    mistakes: int  # how many of them it sends to a wrong child
    accuracy: float  # share of them that it sends to the right child
    log_prob: float  # mean log-probability of the right child


@lru_cache(maxsize=32)
def rules_of(hierarchy: Hierarchy, rule: str) -> DecisionRules:
    """Return the compiled rules of a hierarchy on the CPU; the last few are kept."""
    return DecisionRules(hierarchy, rule=rule).eval()


@dataclass(frozen=True, eq=False)
class TreeResult:
    """A hierarchy's answers on class logits."""

    rules: DecisionRules  # the compiled hierarchy
    logits: Tensor  # (count, classes)
    labels: Tensor | None  # (count,) the right classes; None where they are not known
    soft: Tensor  # (count,) class indices: the likeliest leaf, and the greedy descent's
    hard: Tensor
    probability: Tensor  # (count,) of the soft answer

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy."""
        return self.rules.hierarchy

    @property
    def known_labels(self) -> Tensor:
        """(count,) the right classes. Raises NBDTError: they are not known."""
        if self.labels is None:
            raise NBDTError("These photographs have no labels; measure them with labels.")
        return self.labels

    @cached_property
    def nodes(self) -> Mapping[int, NodeResult]:
        """Results of the inner nodes that have images, by node index."""
        return _nodes(self.rules, self.logits, self.known_labels)

    @property
    def answers(self) -> dict[str, Tensor]:
        """(count,) class indices of each kind of answer: "flat", "soft" and "hard"."""
        return {"flat": self.logits.argmax(dim=1), "soft": self.soft, "hard": self.hard}

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Share of right answers of each kind."""
        return {kind: accuracy(one, self.known_labels) for kind, one in self.answers.items()}


class NodeChange(NamedTuple):
    """One inner node before and after; None where a hierarchy has no such node."""

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


def measure(logits: Tensor, labels: Tensor | None, hierarchy: Hierarchy, rule: str) -> TreeResult:
    """A hierarchy's answers on class logits (count, classes), with labels (count,) if known.

    Raises NBDTError: another number of classes, or logits that are not finite.
    """
    rules = rules_of(hierarchy, rule)
    with torch.inference_mode():
        soft = [rules(part).max(dim=1) for part in logits.split(CHUNK)]
        hard = torch.cat([rules.hard(part) for part in logits.split(CHUNK)])
        answers = torch.cat([best.indices for best in soft])
        probability = torch.cat([best.values for best in soft]).exp()
    return TreeResult(rules, logits, labels, answers, hard, probability)


def _nodes(rules: DecisionRules, logits: Tensor, labels: Tensor) -> dict[int, NodeResult]:
    hierarchy = rules.hierarchy
    parent = torch.tensor(hierarchy.parents[1:])
    on_path = classes_below(hierarchy).t()[:, 1:]
    # Rows: images, right decisions, log-probability of the right child; columns: the children.
    sums = torch.zeros(3, len(parent), dtype=torch.float64)
    for part, target in zip(logits.split(CHUNK), labels.split(CHUNK), strict=True):
        values = rules.log_probs(part)[:, 1:]
        best = values.new_full((len(values), hierarchy.num_nodes), -torch.inf)
        best = best.scatter_reduce(1, parent.expand_as(values), values, "amax")
        right = on_path[target]
        sums[0] += right.sum(0)
        sums[1] += (right & (values == best[:, parent])).sum(0)
        sums[2] += torch.where(right, values, 0).sum(0)
    totals = torch.zeros(3, hierarchy.num_nodes, dtype=torch.float64).index_add(1, parent, sums)
    rows = zip(*totals.tolist(), strict=True)
    return {
        node: NodeResult(int(images), int(images - right), right / images, log_prob / images)
        for node, (images, right, log_prob) in enumerate(rows)
        if images
    }


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed from one hierarchy to the other, for the same images.

    A path changed if it goes through other nodes, and nodes are the same as `match_nodes` says.

    Raises NBDTError: the hierarchies have other classes, or another order of them.
    """

    before: TreeResult  # their answers
    after: TreeResult

    def __post_init__(self) -> None:
        check_same_classes(self.before.hierarchy.classes, self.after.hierarchy.classes)

    @cached_property
    def partners(self) -> dict[int, int]:
        """Old node of each new one that has a match: see `match_nodes`."""
        pairs = match_nodes(self.before.hierarchy, self.after.hierarchy)
        return {new: old for old, new in pairs.items()}

    @property
    def changed(self) -> dict[str, int]:
        """How many images have another answer, "soft" and "hard"."""
        soft, hard = self.before.soft != self.after.soft, self.before.hard != self.after.hard
        return {"soft": int(soft.sum()), "hard": int(hard.sum())}

    @cached_property
    def images(self) -> dict[int, str]:
        """The images whose answer or path changed, and what became of them, one of `VERDICTS`.

        "still wrong" is another wrong hard answer; the last two are of images that keep theirs.
        """
        before, after = self.before, self.after
        moved = self._moved()
        columns = (before.known_labels, before.hard, after.hard, before.soft, after.soft)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        changes = {}
        for image, (label, old, new, old_soft, new_soft) in enumerate(rows):
            if old != new:
                verdict = {old: "now wrong", new: "now right"}.get(label, "still wrong")
            elif moved[new]:
                verdict = "other path"
            elif old_soft != new_soft:
                verdict = "other soft answer"
            else:
                continue
            changes[image] = verdict
        return changes

    def _moved(self) -> list[bool]:
        """For each class whether its path goes through other nodes."""
        old, new = self.before.hierarchy, self.after.hierarchy
        return [
            [self.partners.get(node) for node in new.path_of_class(index)]
            != old.path_of_class(index)
            for index in range(old.num_classes)
        ]

    @cached_property
    def nodes(self) -> tuple[NodeChange, ...]:
        """All inner nodes of either hierarchy that have images, the most changed first."""
        before, after = self.before, self.after
        old, new = before.hierarchy, after.hierarchy
        changes = [
            NodeChange(
                new.ids[node],
                new.names[node],
                before.nodes.get(self.partners.get(node, -1)),
                result,
            )
            for node, result in after.nodes.items()
        ]
        gone = before.nodes.keys() - set(self.partners.values())
        changes += [
            NodeChange(old.ids[node], old.names[node], before.nodes[node], None)
            for node in sorted(gone)
        ]
        return tuple(sorted(changes, key=lambda change: -abs(change.gain)))


def quality(result: TreeResult) -> dict[str, dict[str, float]]:
    """How good each kind of answer is: "flat", "soft" and "hard", each with

    - accuracy: share of right answers;
    - distance: how far up the hierarchy one must go on average for the answer to be right, in edges;
    - severity: the same over the wrong answers, 0 if there is none;
    - calibration_error: of the stated probability; not for "hard", which is no likeliest class.
    """
    labels, hierarchy = result.known_labels, result.hierarchy
    flat = result.logits.softmax(dim=1).amax(dim=1)
    stated, measured = {"flat": flat, "soft": result.probability}, {}
    for kind, answer in result.answers.items():
        distance = hierarchical_distance(answer, labels, hierarchy).double()
        wrong = distance[distance > 0]
        measured[kind] = {
            "accuracy": result.accuracy[kind],
            "distance": float(distance.mean()),
            "severity": float(wrong.mean()) if len(wrong) else 0.0,
        }
        if kind in stated:
            error = calibration_error(stated[kind].clamp(0, 1), answer == labels)
            measured[kind]["calibration_error"] = error
    return measured
