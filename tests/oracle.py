"""Slow float64 reference implementations of the core, written from the definitions, and trees to try them on."""

import hashlib
import itertools
import math
import random
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from hypothesis import strategies as st

from nbdt import Hierarchy
from nbdt.tree.nodes import Node

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


def shown_paths(h, z, rule):
    """For each image the nodes on the path to its most probable class, and each one's margin."""
    steps, leaves, below = decisions(h, z, rule), leaf_log_probs(h, z, rule), children(h)
    parents = {child: parent for parent, group in enumerate(below) for child in group}
    found = []
    for row, chances in zip(steps, leaves, strict=True):
        best = max(range(h.num_classes), key=lambda index: chances[index])
        nodes = paths(h)[best]
        others = [[row[o] for o in below[parents[node]] if o != node] for node in nodes]
        found.append((nodes, [row[n] - max(rest) for n, rest in zip(nodes, others, strict=True)]))
    return found


def class_margin(h, chances, chosen, step):
    """The best class on the path's side of a decision minus the best on the others', in nats.

    `chances` (classes,) are log-probabilities, the decision the `step`-th on the path to `chosen`.
    """
    ways = [[0, *path] for path in paths(h)]
    mine = ways[chosen]
    same = [c for c, way in enumerate(ways) if way[: step + 2] == mine[: step + 2]]
    others = [c for c, way in enumerate(ways) if way[: step + 1] == mine[: step + 1]]
    return max(chances[same]) - max(chances[[c for c in others if c not in same]])


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


# Tree supervision with weights, a class and a decision at a time.


def set_loss(h, z, node):
    """−log of the flat softmax's mass under a node, for one image's logits (classes,)."""
    z = np.asarray(z, dtype=np.float64)
    return float(log_sum_exp(z[None])[0] - log_sum_exp(z[None, classes_below(h)[node]])[0])


def weighted_tree_loss(h, z, target, rule, *, beta=1.0, omega=1.0, alpha=0.0, **weights):
    """`tree_loss` with `class_weights`, `node_weights` (by node index) and flat `smoothing`.

    Distributions may be over nodes: a group's label counts as the mean of its classes, is not
    smoothed, and teaches no decision below it.
    """
    per_class = weights.get("class_weights", np.ones(h.num_classes))
    per_node, smoothing = weights.get("node_weights", {}), weights.get("smoothing", 0.0)
    steps, tall, ways = decisions(h, z, rule), heights(h), paths(h)
    flat = z - log_sum_exp(z)[:, None]
    above = {child: node for node, below in enumerate(children(h)) for child in below}
    total = norm = 0.0
    for image in range(len(z)):
        mass = np.eye(h.num_classes)[target[image]] if np.ndim(target) == 1 else target[image]
        if len(mass) == h.num_nodes:
            for node in h.inner_nodes:
                weight = mass[node] * np.mean([per_class[c] for c in classes_below(h)[node]])
                total += weight * beta * set_loss(h, z[image], node)
                for step in h.path_to(node)[1:]:
                    importance = math.exp(-alpha * tall[step] / tall[0])
                    importance *= per_node.get(above[step], 1.0)
                    total += weight * omega * importance * -steps[image, step]
                norm += weight
            mass = mass[list(h.leaf_nodes)]
        for c in range(h.num_classes):
            smoothed = (1 - smoothing) * mass[c] + smoothing * mass.sum() / h.num_classes
            total += per_class[c] * smoothed * beta * -flat[image, c]
            for node in ways[c]:
                importance = math.exp(-alpha * tall[node] / tall[0])
                importance *= per_node.get(above[node], 1.0)
                total += per_class[c] * mass[c] * omega * importance * -steps[image, node]
            norm += per_class[c] * mass[c]
    return total / norm


def weight_over_time(schedule, progress, start, end):
    """β or ω: the shapes written as mixtures of start and end."""
    share = {
        "constant": 0.0,
        "linear": progress,
        "cosine": math.sin(math.pi * progress / 2) ** 2,
    }[schedule]
    return (1 - share) * start + share * end


# Evidence, image by image and region by region.


def cosine(a, b):
    """Of two vectors, 0 where one is zero."""
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def nearest_below(h, node, embeddings, labels, query, k, without=()):
    """(row, cosine) of the `k` images most like the query among those of classes below a node."""
    wanted = {h.classes[index] for index in classes_below(h)[node]}
    found = [
        (cosine(row, query), index)
        for index, (row, label) in enumerate(zip(embeddings.tolist(), labels, strict=True))
        if label in wanted and index not in without
    ]
    return [(index, value) for value, index in sorted(found, key=lambda pair: -pair[0])[:k]]


def likeness(own, other, weights):
    """(channels, rows, columns) twice: the weighted mean cosine of each cell of the other's."""
    _, rows, columns = other.shape
    found = np.zeros((rows, columns))
    for r, c in np.ndindex(rows, columns):
        for at in np.ndindex(weights.shape):
            found[r, c] += weights[at] * cosine(own[(slice(None), *at)], other[:, r, c])
    return found


# Counterfactuals and words, pixel by pixel and cell by cell.


def gaussian_blur(channel, sigma):
    """(height, width): each pixel the weighted mean of all there are, weights exp(−d²/2σ²)."""
    height, width = channel.shape
    down, across = np.mgrid[:height, :width]
    out = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            weights = np.exp(-((down - r) ** 2 + (across - c) ** 2) / (2 * sigma**2))
            out[r, c] = (weights * channel).sum() / weights.sum()
    return out


def cell_mask(cells, grid, height, width):
    """(height, width): 1 on the pixels whose centre is in a cell."""
    mask = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            owner = (int((r + 0.5) * grid[0] / height), int((c + 0.5) * grid[1] / width))
            mask[r, c] = owner in set(cells)
    return mask


def fitted_map(prior, masks, falls, length, noise):
    """Posterior mean of a Gaussian process over cells, by inverting the covariance of cells."""
    places = list(np.ndindex(prior.shape))
    covariance = [
        [math.exp(-(math.dist(a, b) ** 2) / (2 * length**2)) for b in places] for a in places
    ]
    design = masks.reshape(len(masks), -1).astype(float)
    variance = noise * np.trace(design @ covariance @ design.T) / len(masks)
    seen = design @ prior.ravel()
    scale = max(0.0, seen @ falls / (seen @ seen))
    precision = np.linalg.inv(covariance) + design.T @ design / variance
    update = np.linalg.solve(precision, design.T @ (falls - scale * seen) / variance)
    return (scale * prior.ravel() + update).reshape(prior.shape)


def chosen_regions(before, after, spread, steady):
    """For each decision the row of `after` (sets, decisions) whose region is chosen."""
    chosen = []
    for own in range(len(before)):
        scores = []
        for row, values in enumerate(after):
            falls = [(b - a) / s for b, a, s in zip(before, values, spread, strict=True)]
            others = [abs(fall) for index, fall in enumerate(falls) if index != own]
            wins = sum(falls[own] > other for other in others)
            scores.append((wins, falls[own] / (steady + max(others, default=0)), row))
        chosen.append(max(scores)[2])
    return chosen


def integrated_gradients(function, whole, start, shares, step=1e-5):
    """Central differences of a function of a flat array, averaged along a line, times its length."""
    found = np.zeros_like(whole)
    for share in shares:
        at = start + share * (whole - start)
        for index in range(len(at)):
            beside = np.eye(len(at))[index] * step
            found[index] += (function(at + beside) - function(at - beside)) / (2 * step)
    return found / len(shares) * (whole - start)


def shared_out(values, rows, columns, steps=12):
    """`values` over rows × columns, each position cut into steps × steps equal crumbs.

    Exact where `steps` × height is a multiple of `rows`, and so for the width.
    """
    height, width = values.shape
    out = np.zeros((rows, columns))
    for r in range(height * steps):
        for c in range(width * steps):
            place = (r * rows // (height * steps), c * columns // (width * steps))
            out[place] += float(values[r // steps, c // steps]) / steps**2
    return out


def centre(values):
    """The name of the ninth in which the centre of a map's positive mass is."""
    total = row = column = 0.0
    height, width = values.shape
    for r, c in itertools.product(range(height), range(width)):
        mass = max(float(values[r, c]), 0)
        total, row = total + mass, row + mass * (r + 0.5) / height
        column += mass * (c + 0.5) / width
    if not total:
        return ""
    names = [
        ["top", "middle", "bottom"][int(3 * row / total)],
        ["left", "centre", "right"][int(3 * column / total)],
    ]
    return "in the centre" if names == ["middle", "centre"] else f"at the {' '.join(names)}"


def numbers_of(explanation):
    """Every number, as words would write it, that is a fact of the explanation."""
    path, facts = explanation.path, set()
    shares = [path.probability]
    running = 0.0
    for decision in path:
        running += decision.log_probs[decision.chosen]
        shares += [math.exp(running), *(math.exp(p) for p in decision.log_probs)]
    for found in explanation.counterfactuals:
        shares += [found.share, found.searched, found.runner_up_path.probability]
    shares += [v["probability"] for k, v in explanation.made.items() if k.endswith("_answer")]
    if explanation.answer is not None:
        shares += [explanation.answer.accuracy or 0, 0.05]  # and the rate of false alarms
    for found in filter(None, explanation.tested):
        facts |= {f"{abs(odds):.2f}" for odds in found.log_odds}
        for odds in map(math.exp, found.log_odds):
            shares.append(odds / (1 + odds))
            facts |= {f"{100 * shares[-1]:.1f}", "99.9", "0.1"}
    for share in shares:
        facts |= {f"{100 * share:.0f}", "99" if share > 0.99 else "", "1" if share < 0.01 else ""}
    for found in explanation.evidence:
        for neighbour in (*found.chosen, *found.rejected):
            facts.add(f"{neighbour.similarity:.2f}")
    return facts


# Audits: what `nbdt.explain.audit.perturbation`, `specificity` and `sanity` compute in batches.


def log_odds(h, z):
    """(batch, nodes) under node scores `z` (batch, nodes): log p/(1 − p) among siblings, root 0."""
    found = np.zeros_like(z)
    for siblings in children(h):
        for node in siblings:
            others = [other for other in siblings if other != node]
            found[:, node] = z[:, node] - log_sum_exp(z[:, others])
    return found


def region_curve(probability, top, rest, values, grid, steps):
    """Probability of an image whose best regions, one after the other, are `top`'s, else `rest`'s.

    `probability` takes one image (3, height, width); `values` (rows, columns) ranks the regions.
    """
    height, width = top.shape[1:]
    order = sorted(np.ndindex(*grid), key=lambda cell: -values[cell])
    found = []
    for step in range(steps + 1):
        image = rest.copy()
        for row, column in order[: round(len(order) * step / steps)]:
            for y in range(height):
                for x in range(width):
                    if (y * grid[0] // height, x * grid[1] // width) == (row, column):
                        image[:, y, x] = top[:, y, x]
        found.append(probability(image))
    return np.array(found)


def trapezia(curve):
    """Area under equally spaced points over 0 to 1."""
    width = 1 / (len(curve) - 1)
    return sum(width * (a + b) / 2 for a, b in itertools.pairwise(curve))


def path_specificity(before, after, path, spread):
    """Share of other decisions on a path that change less than a decision falls, for each.

    `before` (nodes,) are one image's log-odds, `after` (len(path), nodes) those without the top
    regions of each decision's map.
    """
    shares = []
    for row, node in enumerate(path):
        fall = (before[node] - after[row][node]) / spread[node]
        others = [n for n in path if n != node]
        wins = [abs(before[n] - after[row][n]) / spread[n] < fall for n in others]
        shares.append(sum(wins) / len(wins) if wins else math.nan)
    return np.array(shares)


# Corrections: what `nbdt.train.corrections.fit` computes in batches.


def swaps(before, after, path):
    """For each decision the share of the others' regions that lower it less than its own does."""
    shares = []
    for row, node in enumerate(path):
        own = before[node] - after[row][node]
        others = [before[node] - after[other][node] for other in range(len(path)) if other != row]
        points = [1 if own > fall else 0.5 if own == fall else 0 for fall in others]
        shares.append(sum(points) / len(points) if points else math.nan)
    return shares


def sibling_log_probs(h, rule, z):
    """(nodes,) log p(node | parent) of one image's class logits `z` (classes,), root 0."""
    scores = node_scores(h, np.asarray(z, dtype=np.float64)[None], rule)[0]
    found = np.zeros(h.num_nodes)
    for siblings in children(h):
        for node in siblings:
            found[node] = scores[node] - log_sum_exp(scores[None, list(siblings)])[0]
    return found


def correction_loss(h, rule, z, said):
    """What one correction costs: ("step", child node) or ("label", node of a class or group)."""
    log_probs = sibling_log_probs(h, rule, z)
    kind, index = said
    if kind == "step":
        return -log_probs[index]
    path = -sum(log_probs[node] for node in h.path_to(index))
    return path if rule == "marginal" else path + set_loss(h, z, index)


def decision_divergence(h, rule, before, after):
    """Mean over images of Σ over inner nodes of P_before(node) · KL(before ‖ after)."""
    total = 0.0
    for z, w in zip(before, after, strict=True):
        p, q = sibling_log_probs(h, rule, z), sibling_log_probs(h, rule, w)
        for siblings in children(h):
            for node in siblings:
                reach = math.exp(sum(p[other] for other in h.path_to(node)))
                total += reach * (p[node] - q[node])
    return total / len(before)


# Batches: what `nbdt.explain.batch.run` writes, one image and one decision at a time.


def sha256(file):
    """Of a file's bytes, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def batch_row(path):
    """A path's columns, from nothing but its names and log-probabilities."""
    decisions, total = [], 1.0
    for decision in path:
        probabilities = [math.exp(value) for value in decision.log_probs]
        ranked = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
        second = next(i for i in ranked if i != decision.chosen)
        total *= probabilities[decision.chosen]
        decisions.append(
            {
                "node": decision.node,
                "node_id": decision.node_id,
                "chosen": decision.children[decision.chosen],
                "chosen_id": decision.child_ids[decision.chosen],
                "probability": probabilities[decision.chosen],
                "runner_up": decision.children[second],
                "runner_up_id": decision.child_ids[second],
                "runner_up_probability": probabilities[second],
                "margin": math.log(probabilities[decision.chosen] / probabilities[second]),
                "is_likeliest": ranked[0] == decision.chosen,
            }
        )
    return {"class": path.class_name, "probability": total, "decisions": decisions}


def height_of_common_ancestor(h, first, second):
    """Edges between the lowest node above both classes and its deepest leaf."""
    routes = [[0, *paths(h)[index]] for index in (first, second)]
    shared = [node for node in routes[0] if node in routes[1]]
    return heights(h)[shared[-1]]


def calibration_error(probabilities, right, bins):
    """Bin by bin, from the definition; a bin holds its lower edge, the last one both."""
    total = 0.0
    for b in range(bins):
        last = b == bins - 1
        inside = [
            (p, r)
            for p, r in zip(probabilities, right, strict=True)
            if b / bins <= p < (b + 1) / bins or (last and p == 1)
        ]
        if inside:
            sure = math.fsum(p for p, _ in inside) / len(inside)
            share = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(right) * abs(sure - share)
    return total


# Where an answer stops.


def path_masses(h, rule, z):
    """Nodes from the root to the most probable leaf of one image, and the probability of each."""
    below = classes_below(h)
    log_probs = leaf_log_probs(h, z[None], rule)[0]
    best = max(range(h.num_classes), key=lambda c: log_probs[c])
    nodes = [0, *paths(h)[best]]
    return nodes, [math.fsum(math.exp(log_probs[c]) for c in below[node]) for node in nodes]


def stopping_scores(h, nodes, masses, threshold):
    """(1 − ln|L(j)| / ln C + λ) · p(j) of each node on a path."""
    below = classes_below(h)
    return [
        (1 - math.log(len(below[node])) / math.log(h.num_classes) + threshold) * mass
        for node, mass in zip(nodes, masses, strict=True)
    ]


def familiarity(z):
    """The z-score of the largest of 100 or more logits among all but the largest 5 %; else −entropy."""
    if len(z) < 100:
        top = max(z)
        total = math.fsum(math.exp(value - top) for value in z)
        shares = [math.exp(value - top) / total for value in z]
        return math.fsum(p * math.log(p) for p in shares if p > 0)
    others = sorted(z)[: len(z) - math.ceil(0.05 * len(z))]
    mean = math.fsum(others) / len(others)
    variance = math.fsum((value - mean) ** 2 for value in others) / (len(others) - 1)
    return (max(z) - mean) / math.sqrt(variance)


# Answers that may stop above a class, an image and a threshold at a time.


def stopping_depth(rule, information, masses, threshold):
    """Depth of the answer of one stopping rule on one path, from the rule's words."""
    leaf = len(masses) - 1
    if rule == "information":
        scores = [(i + threshold) * p for i, p in zip(information, masses, strict=True)]
        return max(range(len(scores)), key=lambda depth: (scores[depth], -depth))
    if rule == "class or nothing":
        return leaf if masses[leaf] > threshold else 0
    if rule == "top-down":
        depth = 0
        while depth < leaf and masses[depth + 1] / masses[depth] > threshold:
            depth += 1
        return depth
    climbed = threshold if rule == "climb" else min(threshold, 0.65)
    depth = max(d for d in range(leaf + 1) if d == 0 or masses[d] > climbed)
    return depth if rule == "climb" or masses[depth] > threshold else 0


def curve_area(points):
    """Area under (information, error) points in falling order of information."""
    pairs = itertools.pairwise(points)
    return math.fsum((a - b) * (e + f) / 2 for (a, e), (b, f) in pairs)


def expected_distances(h, probabilities):
    """Mean height of the lowest common ancestor of each class with a class drawn from these."""
    return [
        math.fsum(p * height_of_common_ancestor(h, c, k) for k, p in enumerate(probabilities))
        for c in range(h.num_classes)
    ]


def area_under_roc(known, unknown):
    """Share of pairs in which the known one scores higher; ties count half."""
    wins = [(a > b) + (a == b) / 2 for a in known for b in unknown]
    return math.fsum(wins) / len(wins)


# A last layer fitted on labelled features.


def penalised_loss(weight, bias, features, labels, members, weights, strength):
    """The function that a fit minimises, image by image, in float64.

    `labels` are class indices, or −1 − g where any class of `members[g]` is right.
    """
    total = 0.0
    for row, label, counts in zip(features, labels, weights, strict=True):
        logits = [
            sum(w * x for w, x in zip(line, row, strict=True)) + b
            for line, b in zip(weight, bias, strict=True)
        ]
        top = max(logits)
        powers = [math.exp(value - top) for value in logits]
        right = (
            [label] if label >= 0 else [c for c, is_in in enumerate(members[-1 - label]) if is_in]
        )
        total -= counts * math.log(sum(powers[c] for c in right) / sum(powers))
    return total + sum(w * w for line in weight for w in line) / (2 * strength)


def contribution(weight_of_pull, coefficients, row, query):
    """One photograph's part of a decision's log-odds: a product of two sums, in float64."""
    pull = sum(c * a for c, a in zip(coefficients, weight_of_pull, strict=True))
    return pull * sum(x * q for x, q in zip(row, query, strict=True))


def grouped(maps, regions, least, level):
    """Consecutive maps that all correlate in rank, pair by pair; those with a region are alone.

    Maps correlate if they do so as a whole, or with all values below a share of the largest as one.
    """
    from scipy.stats import spearmanr

    def alike(one, other):
        lows = [level * np.abs(m).max() for m in (one, other)]
        cut = [np.where(m < low, low, m) for m, low in zip((one, other), lows, strict=True)]
        varied = [pair for pair in ((one, other), cut) if all(np.ptp(m) for m in pair)]
        return any(spearmanr(*pair, axis=None).statistic > least for pair in varied)

    groups = []
    for i in range(len(maps)):
        before = groups[-1] if groups else ()
        free = before and not any(regions[j] for j in (*before, i))
        if free and all(alike(maps[i], maps[j]) for j in before):
            groups[-1] = (*before, i)
        else:
            groups.append((i,))
    return groups


# Cascades, an image and a threshold at a time.


def weakest_decision(h, z, rule, depth=None):
    """(batch,): the smallest probability on the path to the most probable class, down to a depth."""
    steps = decisions(h, z, rule)
    found = []
    for row, (nodes, _) in zip(steps, shown_paths(h, z, rule), strict=True):
        found.append(min(math.exp(row[node]) for node in nodes[:depth]))
    return np.array(found)


def smallest_threshold(confidence, same, agreement):
    """The smallest threshold whose bound on expected disagreement is kept; None if none is."""
    count, limit = len(same), 1 - Fraction(str(agreement))
    pairs = [*zip(confidence, same, strict=True)]
    for threshold in sorted({0.0, *confidence}):
        other = sum(chance > threshold and not agrees for chance, agrees in pairs)
        if Fraction(other + 1, count + 1) <= limit:
            return threshold
    return None
