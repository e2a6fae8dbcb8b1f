"""The summary picture of a run: which groups, and which classes, are taken for others."""

import heapq
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from nbdt.decide.head import DecisionRules
from nbdt.hierarchies.show.picture import bars, saved
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

MOST_GROUPS = 20
MOST_PAIRS = 12
LONGEST = 24  # characters of a name


def main_groups(hierarchy: Hierarchy, most: int = MOST_GROUPS) -> list[int]:
    """Return at most `most` nodes, each class below exactly one: the largest are opened first."""
    nodes = [(-len(hierarchy.classes_under(0)), 0)]
    while True:
        _, node = nodes[0]
        children = hierarchy.children[node]
        if not children or (node and len(nodes) - 1 + len(children) > most):
            break
        heapq.heapreplace(nodes, (-len(hierarchy.classes_under(children[0])), children[0]))
        for child in children[1:]:
            heapq.heappush(nodes, (-len(hierarchy.classes_under(child)), child))
    return sorted((node for _, node in nodes), key=lambda node: hierarchy.spans[node].start)


def confusion(hierarchy: Hierarchy, nodes: list[int], answers: Tensor, labels: Tensor) -> Tensor:
    """Return how many images of each node's classes (rows) were answered with each node's."""
    place = torch.zeros(hierarchy.num_classes, dtype=torch.int64)
    for index, node in enumerate(nodes):
        place[hierarchy.classes_under(node)] = index
    flat = place[labels.long()] * len(nodes) + place[answers]
    return torch.bincount(flat, minlength=len(nodes) ** 2).view(len(nodes), len(nodes))


def summary_picture(model: NBDT) -> bytes:
    """Draw a PNG file of what the model confuses on its reference set, groups and classes."""
    from matplotlib.figure import Figure

    hierarchy, labels = model.hierarchy, model.reference["labels"].long()
    rules = DecisionRules(hierarchy, rule=model.rule)
    answers = rules(model.reference["logits"].float()).argmax(dim=1)
    nodes = main_groups(hierarchy)
    figure = Figure(figsize=(14, 7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_groups(left, hierarchy, nodes, confusion(hierarchy, nodes, answers, labels))
    _draw_pairs(right, hierarchy.classes, answers, labels)
    return saved(figure)


def _draw_groups(axes: Any, hierarchy: Hierarchy, nodes: list[int], counts: Tensor) -> None:
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in counts.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, int(counts[row, column]), ha="center", va="center", color=colour)
    names = [_short(hierarchy.names[node]) for node in nodes]
    axes.set_xticks(range(len(nodes)), names, rotation=60, ha="right", parse_math=False)
    axes.set_yticks(range(len(nodes)), names, parse_math=False)
    axes.set(xlabel="answer", ylabel="truth", title="photographs of each group")


def _draw_pairs(axes: Any, classes: tuple[str, ...], answers: Tensor, labels: Tensor) -> None:
    wrong = (answers != labels).nonzero().flatten().tolist()
    pairs = Counter((int(labels[index]), int(answers[index])) for index in wrong)
    shown = pairs.most_common(MOST_PAIRS)
    names = [f"{_short(classes[truth])} as {_short(classes[taken])}" for (truth, taken), _ in shown]
    counts = [count for _, count in shown]
    bars(axes, names, counts, counts, color="#2166ac")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"{len(wrong):,} of {len(labels):,} answered wrongly")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
