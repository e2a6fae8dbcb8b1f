"""Stopping rules, curves over their thresholds and lists of classes against slow references."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import DecisionRules, NBDTError
from nbdt.decide.metrics import distance_at, distance_table, reordered
from nbdt.decide.selective import (
    FIXED,
    RULES,
    answer_quality,
    average_precision,
    calibration_by_level,
    right_nodes,
    risk_coverage,
    stopping_rules,
    swept,
)
from nbdt.decide.stopping import PathMasses
from tests import oracle

FEW = settings(max_examples=25)


@st.composite
def cases(draw):
    """Rules, masses, the deepest right node, and each path without its repeated leaf."""
    tree, seed = draw(oracle.trees()), draw(st.integers(0, 99))
    rules = DecisionRules(tree, rule=draw(st.sampled_from(oracle.RULES)))
    z = oracle.logits(tree, batch=6, scale=draw(st.sampled_from([1.0, 4.0])), seed=seed)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, tree.num_classes, len(z)))
    masses = PathMasses(rules, torch.tensor(z))
    return rules, masses, labels


def plain_paths(masses):
    """Information and probability of each node, a list for each image."""
    sizes = [len(set(row)) for row in masses.nodes.tolist()]
    tables = masses.information.tolist(), masses.log_mass.exp().tolist()
    return [[row[:size] for row in rows] for *rows, size in zip(*tables, sizes, strict=True)]


def levels(critical):
    """Thresholds between all critical values, so that rounding decides nothing."""
    values = sorted({v for v in critical.flatten().tolist() if math.isfinite(v)})
    ends = [values[0] - 1, *values, values[-1] + 1] if values else [0.0]
    return [(a + b) / 2 for a, b in itertools.pairwise(ends) if b - a > 1e-9] or ends


@FEW
@given(cases())
def test_rules_stop_where_their_words_say(case):
    _, masses, _ = case
    paths = plain_paths(masses)
    for rule, critical in stopping_rules(masses).items():
        assert (critical[:, 1:] <= critical[:, :-1]).all()
        for threshold in levels(critical):
            stops = (critical <= threshold).int().argmax(1).tolist()
            for image, (stop, path) in enumerate(zip(stops, paths, strict=True)):
                expected = oracle.stopping_depth(rule, *path, threshold)
                nodes = masses.nodes[image]
                if not near_tie(rule, *path, threshold):
                    assert nodes[stop] == nodes[expected], rule


def near_tie(rule, information, masses, threshold):
    """Whether rounding could decide."""
    if rule == "information":
        scores = sorted((i + threshold) * p for i, p in zip(information, masses, strict=True))
        return scores[-1] - scores[-2] < 1e-9 * max(1, abs(threshold))
    shares = [b / a for a, b in itertools.pairwise(masses)]
    values = shares if rule == "top-down" else masses
    return any(abs(v - limit) < 1e-9 for v in values for limit in (threshold, FIXED))


@FEW
@given(cases())
def test_curves_are_the_means_at_each_threshold(case):
    rules, masses, labels = case
    depth = masses.true_depth(labels, rules)
    right = right_nodes(depth, masses.nodes.shape[1])
    for critical in stopping_rules(masses).values():
        curve = risk_coverage(critical, masses.information, right)
        values = sorted({v for v in critical[:, :-1].flatten().tolist() if v < math.inf})
        points = []
        for threshold in [None, *values]:
            stops = [
                next(d for d, c in enumerate(row) if c <= threshold)
                if threshold is not None
                else len(row) - 1
                for row in critical.tolist()
            ]
            kept = [masses.information[i, d].item() for i, d in enumerate(stops)]
            wrong = [d > depth[i].item() for i, d in enumerate(stops)]
            points.append((math.fsum(kept) / len(kept), sum(wrong) / len(wrong)))
        points.append((0.0, 0.0))
        torch.testing.assert_close(
            torch.stack([*curve], dim=1), torch.tensor(points, dtype=torch.float64)
        )
        assert float(curve.area) == pytest.approx(oracle.curve_area(points), abs=1e-12)
        assert (curve.information.diff() <= 1e-12).all()
        assert (curve.error.diff() <= 1e-12).all()


def test_a_curve_without_mistakes_has_no_area_and_all_precision():
    rules = DecisionRules(oracle.zoo(), rule="marginal")
    labels = torch.arange(10)
    masses = PathMasses(rules, 9 * torch.eye(10))
    depth = masses.true_depth(labels, rules)
    right = right_nodes(depth, masses.nodes.shape[1])
    assert float(risk_coverage(masses.critical, masses.information, right).area) == 0
    assert average_precision(masses.critical, masses.information, depth) == pytest.approx(1)
    wrong = masses.true_depth(labels.roll(1), rules)
    assert average_precision(masses.critical, masses.information, wrong) < 0.5


@FEW
@given(cases())
def test_average_precision_is_the_area_over_shared_information(case):
    rules, masses, labels = case
    depth = masses.true_depth(labels, rules)
    critical = stopping_rules(masses)["climb"]
    points = []
    for threshold in [-1.0, *sorted(set(critical[:, :-1].flatten().tolist()))]:
        recall = precision = 0.0
        for image, row in enumerate(critical.tolist()):
            stop = next(d for d, c in enumerate(row) if c <= threshold)
            given_ = masses.information[image, stop].item()
            shared = masses.information[image, min(stop, int(depth[image]))].item()
            recall += shared / len(labels)
            precision += (shared / given_ if given_ else 1.0) / len(labels)
        points.append((recall, precision))
    expected = oracle.curve_area([*points, (0.0, 1.0)])
    found = average_precision(critical, masses.information, depth)
    assert found == pytest.approx(expected, abs=1e-9)
    assert -1e-9 <= found <= 1 + 1e-9


@FEW
@given(cases())
def test_shares_of_answers_add_up(case):
    rules, masses, labels = case
    depth = masses.true_depth(labels, rules)
    for threshold in (-math.inf, 0.0, 1.0, math.inf):
        stops = masses.stop(threshold)
        found = answer_quality(masses, stops, depth)
        assert found.classes + found.groups + found.root == pytest.approx(1)
        ends = [masses.nodes[i, d].item() for i, d in enumerate(stops.tolist())]
        children = oracle.children(rules.hierarchy)
        assert found.classes == pytest.approx(np.mean([not children[node] for node in ends]))
        assert found.root == pytest.approx(np.mean([node == 0 for node in ends]))
        below = oracle.classes_below(rules.hierarchy)
        hits = [int(k) in below[node] for node, k in zip(ends, labels, strict=True)]
        assert found.right == pytest.approx(np.mean(hits))
    assert found.root == 1
    assert found.information == 0


@FEW
@given(cases())
def test_calibration_by_level_looks_at_the_nodes_of_one_depth(case):
    rules, masses, labels = case
    tree = rules.hierarchy
    rows = calibration_by_level(masses, masses.true_depth(labels, rules), tree)
    below = oracle.classes_below(tree)
    for row in rows:
        chances, hits = [], []
        for image, best in enumerate(masses.leaves.tolist()):
            path = tree.path_of_class(best)
            if len(path) > row["depth"]:
                chances.append(masses.log_mass[image, row["depth"]].exp().clamp(max=1).item())
                hits.append(int(labels[image]) in below[path[row["depth"]]])
        assert row["images"] == len(hits)
        assert row["right"] == pytest.approx(np.mean(hits))
        assert row["calibration_error"] == pytest.approx(
            oracle.calibration_error(chances, hits, 15), abs=1e-9
        )
    assert rows[0]["images"] == len(labels)


# ---- lists of classes ----


@FEW
@given(cases(), st.integers(1, 12))
def test_reordering_keeps_the_first_and_sorts_the_next_by_expected_distance(case, count):
    rules, masses, _ = case
    tree = rules.hierarchy
    z = masses.log_mass.new_tensor(oracle.logits(tree, batch=5, scale=2.0, seed=count))
    log_probs = rules(z)
    order, plain = reordered(log_probs, tree, count), log_probs.argsort(1, descending=True)
    assert torch.equal(order.sort(1).values, torch.arange(tree.num_classes).expand_as(order))
    assert torch.equal(order[:, 0], plain[:, 0])
    assert torch.equal(order[:, count:], plain[:, count:])
    for row, chances in zip(order.tolist(), log_probs.exp().tolist(), strict=True):
        costs = [oracle.expected_distances(tree, chances)[k] for k in row[1:count]]
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(costs))


@given(oracle.trees())
def test_the_distance_table_is_symmetric_and_right(tree):
    table = distance_table(tree)
    assert torch.equal(table, table.T)
    for first in range(tree.num_classes):
        for second in range(tree.num_classes):
            expected = oracle.height_of_common_ancestor(tree, first, second)
            assert table[first, second] == expected


def test_distance_at_is_the_mean_over_the_first_classes():
    tree = oracle.zoo()
    order = torch.stack(
        [torch.randperm(10, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    )
    labels = torch.tensor([2, 7])
    for count in (1, 5, 20):
        expected = [
            np.mean([oracle.height_of_common_ancestor(tree, k, int(label)) for k in row[:count]])
            for row, label in zip(order.tolist(), labels, strict=True)
        ]
        assert distance_at(order, labels, tree, count).tolist() == pytest.approx(expected)


# ---- shares and scores ----


def test_what_cannot_be_measured_is_refused():
    table = torch.zeros(3, 2)
    with pytest.raises(NBDTError, match="one shape with images"):
        swept(table, torch.zeros(3, 3))
    with pytest.raises(NBDTError, match="one shape with images"):
        swept(table[:0], table[:0])
    with pytest.raises(NBDTError, match=r"\(batch, 10\) log-probabilities.* 0"):
        reordered(torch.zeros(1, 10), oracle.zoo(), 0)
    with pytest.raises(NBDTError, match=r"\(batch, 10\) log-probabilities"):
        reordered(torch.zeros(1, 9), oracle.zoo())


def test_the_rules_are_named_once():
    masses = PathMasses(DecisionRules(oracle.zoo(), rule="marginal"), torch.zeros(1, 10))
    assert tuple(stopping_rules(masses)) == RULES
