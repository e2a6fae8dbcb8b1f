"""Offsets of decisions: what a few corrections that lean one way can teach, without a new fit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ..decide.head import DecisionRules
from ..progress import Progress, counted, no_progress
from ..tree.labels import classes_below
from .corrected import HELD_GROWN, Corrected, fit_changes
from .preview import Change
from .refit import FittedHead, examples_of
from .rows import Rows

STRENGTH = 0.05  # of the corrections' mean loss, beside the divergence of the other answers
STEPS = 60  # of L-BFGS
FOLDS = 5  # of corrections, each left out once


def fit_offsets(
    rules: DecisionRules, nodes: Iterable[int], loss: Callable[[Tensor], Tensor], others: Tensor
) -> Tensor:
    """Fit an offset for each child of some decisions: of the logits of all classes below it.

    It moves the child's score by as much, and no decision below it. What is minimised is the loss
    plus the divergence of the answers to other images from what they were; it is convex where the
    loss is.

    Args:
        nodes: inner nodes, whose decisions may move.
        loss: of offsets (classes,).
        others: (images, classes) logits of images whose answers are held.

    Returns:
        (classes,) float64 offsets.
    """
    tree = rules.hierarchy
    children = [child for node in sorted({*nodes}) for child in tree.children[node]]
    below = classes_below(tree)[children].double().T.to(others.device)
    found = below.new_zeros(len(children), requires_grad=True)
    others = others.double()
    optimizer = torch.optim.LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        offsets = below @ found
        value = loss(offsets) + divergence(rules, others, others + offsets)
        value.backward()
        return value

    optimizer.step(closure)
    return (below @ found).detach()


def divergence(rules: DecisionRules, before: Tensor, after: Tensor) -> Tensor:
    """Return how far answers moved: the mean of KL(before ‖ after) of the classes' probabilities.

    By the chain rule it is the sum over the decisions, each weighted by how likely it is reached.

    Args:
        before: (images, classes) logits.
        after: the same, now.
    """
    old = rules(before)
    moved: Tensor = (old.exp() * (old - rules(after))).sum(dim=1).mean()
    return moved


@dataclass(frozen=True)
class Comparison:
    """What corrections teach about other photographs: as rows of the memory, or as offsets."""

    corrections: int  # photographs that were corrected
    # how many of them each of the two answers right when it was given the others
    right: tuple[int, int]
    others: int  # photographs of the memory, each answered by a fit without it
    gained: tuple[float, float]  # how many more of them each of the two answers right, on average

    @property
    def best_first(self) -> tuple[str, str]:
        """Return "memory" and "shift" in the order in which to try them.

        Offsets come first where the mistakes lean one way, so that they answer half of the corrected
        photographs right and more than the memory, and cost at most `HELD_GROWN` of the others.
        """
        leans = 2 * self.right[1] >= self.corrections and self.right[1] > self.right[0]
        if leans and self.gained[1] >= -HELD_GROWN * self.others:
            return "shift", "memory"
        return "memory", "shift"

    @property
    def words(self) -> str:
        """Both figures as sentences."""
        return (
            f"Of {counted(self.corrections, 'corrected photograph')}, each answered without its own "
            f"correction, {self.right[0]:,} would be right through the memory and {self.right[1]:,} "
            f"through offsets. Of {counted(self.others, 'other photograph')} {self.gained[0]:+.1f} "
            f"and {self.gained[1]:+.1f} more would be right."
        )


def offsets_of(changes: Sequence[Change], rules: DecisionRules, base: FittedHead) -> Tensor:
    """Fit offsets (classes,) to corrected photographs, on top of a head fitted on a memory.

    The decisions on the paths to their labels may move. The answers to the memory's photographs,
    each by a fit without it, are held.
    """
    tree = rules.hierarchy
    labels = [tree.index(str(change.label)) for change in changes]
    logits, below = logits_of(changes, base).double(), classes_below(tree)[labels]

    def loss(offsets: Tensor) -> Tensor:
        inside = rules(logits + offsets).masked_fill(~below, -torch.inf)
        return -STRENGTH * cast(Tensor, inside.logsumexp(dim=1).mean())

    nodes = {node for label in labels for node in tree.path_to(label)[:-1]}
    return fit_offsets(rules, nodes, loss, base.logits)


def shifted(
    rows: Rows, changes: Sequence[Change], rules: DecisionRules, base: FittedHead
) -> Corrected:
    """Return a head with the offsets of corrected photographs; the rows stay. See `offsets_of`."""
    usable = [change for change in changes if change.label in rules.hierarchy.ids]
    if not usable:
        return Corrected(rows, base)
    offsets = offsets_of(usable, rules, base).float()
    fit = replace(base.fit, bias=base.fit.bias + offsets / base.factor)
    fitted = replace(base, fit=fit, logits=(base.logits.float() + offsets).half())
    return Corrected(rows, fitted, tuple(usable))


def logits_of(changes: Sequence[Change], fitted: FittedHead) -> Tensor:
    """Return the logits (changes, classes) of corrected photographs."""
    features = torch.stack([torch.tensor(change.features).float() for change in changes])
    return features @ fitted.weight.T + fitted.bias


def compare(
    rows: Rows, changes: Sequence[Change], rules: DecisionRules, base: FittedHead,
    progress: Progress = no_progress,
) -> Comparison:  # fmt: skip
    """Find which helps more on photographs that it was not given, by leaving corrections out.

    Args:
        changes: corrected photographs, with features and labels.
        base: the head fitted on `rows`.
    """
    tree, labels = rules.hierarchy, examples_of(rows, rules).labels
    right, gained = [0, 0], [0.0, 0.0]
    exact, was = labels >= 0, rules(base.logits.float()).argmax(dim=1) == labels
    folds = min(FOLDS, len(changes))
    for fold in progress(range(folds), folds, "comparing"):
        out, given = changes[fold::folds], [c for n, c in enumerate(changes) if n % folds != fold]
        taught = fit_changes(rows, given, rules, base)
        offsets = offsets_of(given, rules, base).float() if given else torch.zeros(tree.num_classes)
        found = logits_of(out, taught.fitted), logits_of(out, base) + offsets
        under = classes_below(tree)[[tree.index(str(change.label)) for change in out]]
        for way, logits in enumerate(found):
            answers = rules(logits).argmax(dim=1, keepdim=True)
            right[way] += int(under.gather(1, answers).sum())
        now = rules(base.logits.float() + offsets).argmax(dim=1) == labels
        gained[0] += taught.gained * taught.others / folds
        gained[1] += float((now.int() - was.int())[exact].sum()) / folds
    pairs = (right[0], right[1]), (gained[0], gained[1])
    return Comparison(len(changes), pairs[0], int(exact.sum()), pairs[1])
