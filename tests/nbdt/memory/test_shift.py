"""Offsets of decisions, and whether they or the memory help more."""

import numpy as np
import pytest
import torch

from nbdt.decide.head import DecisionRules
from nbdt.memory.preview import Change
from nbdt.memory.shift import Comparison, compare, divergence, fit_offsets, offsets_of, shifted
from tests import oracle

TREE = oracle.family()


def between(mixed, one, other, count):
    """Photographs of `one` that look rather like `other`."""
    seen = (mixed({one: 0.42, other: 0.58}, seed=n) for n in range(count))
    return [Change(f"{n:064x}", TREE.classes[one], each) for n, each in enumerate(seen)]


@pytest.mark.parametrize("rule", oracle.RULES)
def test_divergence_equals_its_definition_decision_by_decision(rule):
    z, w = np.random.default_rng(0).normal(size=(2, 5, TREE.num_classes)) * 3
    rules = DecisionRules(TREE, rule=rule)
    found = divergence(rules, torch.tensor(z), torch.tensor(w))
    assert float(found) == pytest.approx(oracle.decision_divergence(TREE, rule, z, w), rel=1e-9)
    assert float(divergence(rules, torch.tensor(z), torch.tensor(z))) == 0


def test_offsets_are_the_minimum_and_move_no_other_decision(known):
    _, rules, base = known
    group = next(node for node in TREE.inner_nodes[1:])
    child = TREE.children[group][0]
    wanted = torch.zeros(TREE.num_classes, dtype=torch.float64)
    wanted[TREE.classes_under(child)] = 1.0

    def value(offsets):
        moved = divergence(rules, base.logits.double(), base.logits.double() + offsets)
        return (offsets - wanted).square().mean() + moved

    found = fit_offsets(
        rules, [group], lambda offsets: (offsets - wanted).square().mean(), base.logits
    )
    outside = [n for n in range(TREE.num_classes) if n not in TREE.classes_under(group)]
    assert not found[outside].any()
    assert found[TREE.classes_under(child)].min() > 0
    for step in (-0.01, 0.01):  # along the only directions that are free
        for other in TREE.children[group]:
            near = found.clone()
            near[TREE.classes_under(other)] += step
            assert value(near) >= value(found)


def test_corrected_photographs_are_likelier_and_the_rows_stay(known, mixed):
    rows, rules, base = known
    changes = between(mixed, 0, 1, 10)
    done = shifted(rows, changes, rules, base)
    features = torch.stack([torch.tensor(change.features).float() for change in changes])
    old, new = (
        rules(features @ head.weight.T + head.bias)[:, 0].mean() for head in (base, done.fitted)
    )
    assert new > old + 0.05
    torch.testing.assert_close(
        done.fitted.bias - base.bias, offsets_of(changes, rules, base).float(), atol=1e-5, rtol=0
    )
    assert done.rows is rows
    assert [change.id for change in done.changes] == [change.id for change in changes]
    assert shifted(rows, [Change("a" * 64, "nothing")], rules, base).fitted is base


def test_each_correction_is_left_out_once(known, mixed):
    rows, rules, base = known
    found = compare(rows, between(mixed, 0, 1, 7), rules, base)
    assert (found.corrections, found.others) == (7, len(rows))
    assert all(0 <= right <= 7 for right in found.right)
    assert found.right[0] >= 5  # they are alike, so the others teach each
    one = compare(rows, between(mixed, 0, 1, 1), rules, base)
    assert one.right == (0, 0)
    assert one.gained == (0, 0)


@pytest.mark.parametrize(
    ("right", "gained", "first"),
    [
        ((3, 5), (0, -1), "shift"),
        ((3, 3), (0, 4), "memory"),
        ((3, 5), (0, -9), "memory"),
        ((1, 4), (0, 0), "memory"),
    ],
)
def test_offsets_come_first_only_where_they_help_more(right, gained, first):
    found = Comparison(10, right, 400, gained)
    assert found.best_first[0] == first
    assert {*found.best_first} == {"memory", "shift"}
    assert all(text in found.words for text in ("10 corrected", f"{right[1]} through offsets"))
