"""Slow float64 twins of the core, written from the definitions, and trees to try them on."""

import math
import random
from functools import lru_cache

import numpy as np
import torch
from hypothesis import strategies as st

from nbdt import Hierarchy
from nbdt.nodes import Node

RULES = ("representative", "marginal")


# Trees.


def family():
    """Four classes in two groups, in an order that is not depth-first."""
    return Hierarchy.from_paths(["animal/cat", "vehicle/car", "animal/dog", "vehicle/bus"])


def zoo():
    """Uneven by hand: one leaf at the root, a group of three, a chain of pairs."""
    nested = {
        "thing": [
            "rock",
            {
                "animal": [
                    "cat",
                    {"bird": ["heron", "crane"]},
                    {"fish": ["eel", {"ray": ["m", "n"]}]},
                ]
            },
            {"tool": ["saw", "axe", "awl"]},
        ]
    }
    classes = ["axe", "m", "crane", "rock", "saw", "eel", "cat", "n", "heron", "awl"]
    return Hierarchy.from_nested(nested, classes)


def star(num_classes):
    """All classes directly under the root."""
    return Hierarchy.from_paths([f"c{i}" for i in range(num_classes)])


def caterpillar(depth):
    """A leaf at every level: as deep as `depth + 1` classes can be."""
    nodes = [Node("g0", None, "g0")]
    for level in range(depth):
        nodes.append(Node(f"c{level}", f"g{level}", f"c{level}"))
        if level < depth - 1:
            nodes.append(Node(f"g{level + 1}", f"g{level}", f"g{level + 1}"))
    nodes.append(Node("last", f"g{depth - 1}", "last"))
    return Hierarchy(tuple(nodes), ("last", *(f"c{level}" for level in range(depth))))


def random_tree(num_classes, seed=0, arity=(2, 2), uneven=False):
    """Classes in random order, split from the root down into `arity` parts.

    Parts are equal, or of random sizes if `uneven`.
    """
    rng = random.Random(seed)
    classes = [f"c{i}" for i in range(num_classes)]
    nodes, todo = [Node("root", None, "root")], [("root", rng.sample(classes, num_classes))]
    while todo:
        parent, group = todo.pop()
        parts = min(len(group), rng.randint(*arity))
        if uneven:
            cuts = sorted(rng.sample(range(1, len(group)), parts - 1))
        else:
            cuts = [len(group) * part // parts for part in range(1, parts)]
        for low, high in zip([0, *cuts], [*cuts, len(group)], strict=True):
            name = group[low] if high - low == 1 else f"g{len(nodes)}"
            nodes.append(Node(name, parent, name))
            if high - low > 1:
                todo.append((name, group[low:high]))
    return Hierarchy(tuple(nodes), tuple(classes))


@st.composite
def trees(draw, max_classes=12):
    """Any shape: classes are merged from the leaves up, two or more at a time."""
    count = draw(st.integers(2, max_classes))
    groups = [f"c{i}" for i in draw(st.permutations(range(count)))]
    while len(groups) > 1:
        size = draw(st.integers(2, len(groups)))
        start = draw(st.integers(0, len(groups) - size))
        groups[start : start + size] = [{f"g{len(groups)}": groups[start : start + size]}]
    return Hierarchy.from_nested(groups[0], [f"c{i}" for i in range(count)])


def logits(h, batch=3, scale=1.0, seed=0):
    """Float64 normal logits; the first image's spread is `scale`, the others' grow smaller."""
    noise = np.random.default_rng(seed).standard_normal((batch, h.num_classes))
    return noise * scale / 2.0 ** np.arange(batch)[:, None]


# Structure, from `nodes` and `classes` alone.


@lru_cache(8)
def children(h):
    """Node indices of the children of each node."""
    position = {node.id: index for index, node in enumerate(h.nodes)}
    found = [[] for _ in h.nodes]
    for index, node in enumerate(h.nodes):
        if node.parent is not None:
            found[position[node.parent]].append(index)
    return found


@lru_cache(8)
def classes_below(h):
    """Class indices of the leaves under each node."""
    below = children(h)
    number = {name: index for index, name in enumerate(h.classes)}
    found = [[] for _ in h.nodes]
    for index in reversed(range(len(h.nodes))):
        if not below[index]:
            found[index] = [number[h.nodes[index].id]]
        for child in below[index]:
            found[index].extend(found[child])
    return found


@lru_cache(8)
def paths(h):
    """For each class the node indices from the child of the root to the leaf."""
    position = {node.id: index for index, node in enumerate(h.nodes)}
    found = []
    for name in h.classes:
        node, steps = h.nodes[position[name]], []
        while node.parent is not None:
            steps.append(position[node.id])
            node = h.nodes[position[node.parent]]
        found.append(steps[::-1])
    return found


def heights(h):
    """Edges from each node down to its deepest leaf."""
    below, found = children(h), [0] * len(h.nodes)
    for index in reversed(range(len(h.nodes))):
        found[index] = max((1 + found[child] for child in below[index]), default=0)
    return found


# The rules, on float64 arrays.


def log_sum_exp(values):
    """Over the last axis."""
    top = values.max(axis=-1, keepdims=True)
    return np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]


def node_scores(h, z, rule):
    """(batch, nodes): the mean or logsumexp of the logits below each node."""
    scores = np.empty((len(z), h.num_nodes))
    for node, below in enumerate(classes_below(h)):
        own = z[:, below]
        scores[:, node] = own.mean(axis=1) if rule == "representative" else log_sum_exp(own)
    return scores


def decisions(h, z, rule):
    """(batch, nodes): log-probability of each node among its siblings, 0 for the root."""
    scores = node_scores(h, z, rule)
    found = np.zeros_like(scores)
    for siblings in children(h):
        if siblings:
            own = scores[:, siblings]
            found[:, siblings] = own - log_sum_exp(own)[:, None]
    return found


def leaf_log_probs(h, z, rule):
    """(batch, classes): the sum of the decisions on each class's path."""
    steps = decisions(h, z, rule)
    return np.stack([steps[:, path].sum(axis=1) for path in paths(h)], axis=1)


def descend(h, z, rule):
    """Class reached by each image's greedy descent, and the smallest margin on its way."""
    scores, below = node_scores(h, z, rule), children(h)
    number = {name: index for index, name in enumerate(h.classes)}
    reached, margins = [], []
    for row in scores:
        node, margin = 0, math.inf
        while below[node]:
            ranked = sorted(below[node], key=lambda child: -row[child])
            margin = min(margin, row[ranked[0]] - row[ranked[1]])
            node = ranked[0]
        reached.append(number[h.nodes[node].id])
        margins.append(margin)
    return np.array(reached), np.array(margins)


def tree_loss(h, z, target, rule, beta=1.0, omega=1.0, alpha=0.0):
    """Batch mean; `target` holds class indices or distributions."""
    steps, tall, ways = decisions(h, z, rule), heights(h), paths(h)
    flat = z - log_sum_exp(z)[:, None]
    total = 0.0
    for image in range(len(z)):
        mass = np.eye(h.num_classes)[target[image]] if np.ndim(target) == 1 else target[image]
        for c in range(h.num_classes):
            on_path = sum(
                math.exp(-alpha * tall[node] / tall[0]) * -steps[image, node] for node in ways[c]
            )
            total += mass[c] * (beta * -flat[image, c] + omega * on_path)
    return total / len(z)


# Node maps, by automatic differentiation of the definitions.


def node_score(h, z, node, rule):
    """(batch,): differentiable score of one node."""
    own = z[:, classes_below(h)[node]]
    return own.mean(dim=1) if rule == "representative" else own.logsumexp(dim=1)


def node_log_odds(h, z, node, rule):
    """(batch,): differentiable log p/(1 − p) of one node among its siblings."""
    siblings = next(group for group in children(h) if node in group)
    scores = torch.stack([node_score(h, z, sibling, rule) for sibling in siblings], dim=1)
    log_p = scores.log_softmax(dim=1)
    others = [place for place, sibling in enumerate(siblings) if sibling != node]
    return log_p[:, siblings.index(node)] - log_p[:, others].logsumexp(dim=1)


def grad_cam(quantity, features, weight, bias):
    """(batch, height, width): raw Grad-CAM of `quantity(logits)`, mean gradient times features."""
    features = features.detach().requires_grad_()
    z = features.mean(dim=(2, 3)) @ weight.T + bias
    (gradient,) = torch.autograd.grad(quantity(z).sum(), features)
    return (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).detach()


def entropy(h, z, node):
    """(batch,): nats of the flat softmax within one node."""
    own = z[:, classes_below(h)[node]]
    q = np.exp(own - log_sum_exp(own)[:, None])
    return np.array([-sum(value * math.log(value) for value in row if value) for row in q])
