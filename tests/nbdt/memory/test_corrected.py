"""A head that follows what people said about single photographs."""

from dataclasses import replace

import numpy as np
import torch

from nbdt.memory.corrected import HEAVIEST, fit_changes
from nbdt.memory.preview import Change
from nbdt.memory.refit import examples_of
from tests import oracle

TREE = oracle.family()


def answer(fitted, rules, features):
    logits = fitted.weight @ torch.as_tensor(np.asarray(features)).float() + fitted.bias
    return int(rules(logits[None]).argmax())


def test_a_corrected_photograph_and_its_near_duplicate_are_right(known, mixed):
    rows, rules, base = known
    seen = mixed({0: 0.4, 1: 0.6})
    assert answer(base, rules, seen) == 1
    done = fit_changes(rows, [Change("a" * 64, TREE.classes[0], seen)], rules, base)
    assert not done.aside
    assert answer(done.fitted, rules, seen) == 0
    assert answer(done.fitted, rules, mixed({0: 0.4, 1: 0.6}, seed=2)) == 0
    assert done.others == len(rows)
    assert done.fitted.key == examples_of(done.rows, rules).key
    assert (base.key, len(rows)) == (examples_of(rows, rules).key, 8 * TREE.num_classes)


def test_a_step_needs_only_a_class_under_the_child(known, mixed):
    rows, rules, base = known
    group = next(node for node in TREE.inner_nodes[1:])
    under = TREE.classes_under(group)
    outside = next(n for n in range(TREE.num_classes) if n not in under)
    seen = mixed({under[0]: 0.45, outside: 0.55})
    done = fit_changes(rows, [Change("a" * 64, TREE.ids[group], seen)], rules, base)
    assert answer(done.fitted, rules, seen) in under


def test_a_photograph_that_stays_wrong_counts_more(known, mixed):
    rows, rules, base = known
    change = Change("a" * 64, TREE.classes[0], mixed({0: 0.3, 1: 0.7}))
    weak = replace(base, fit=replace(base.fit, strength=base.fit.strength / 1000))
    done = fit_changes(rows, [change], rules, weak)
    assert 1 < done.changes[0].weight <= HEAVIEST
    assert answer(done.fitted, rules, change.features) == 0
    two = [
        replace(change, id=key, label=label)
        for key, label in zip("bc", TREE.classes[:2], strict=True)
    ]
    done = fit_changes(rows, two, rules, base)
    assert [each.id for each in done.changes] == ["c"]
    assert "later" in done.aside["b"]


def test_what_harms_the_others_or_has_no_place_is_kept_aside(known, mixed):
    rows, rules, base = known
    seen = mixed({0: 0.3, 1: 0.7})
    wanted, unknown = Change("a" * 64, TREE.classes[0], seen), Change("b" * 64, "nothing", -seen)
    done = fit_changes(rows, [wanted, unknown], rules, base)
    assert [change.id for change in done.changes] == [wanted.id]
    assert "nothing" in done.aside[unknown.id]
    weakest = replace(base, fit=replace(base.fit, strength=base.fit.strength / 1e5))
    done = fit_changes(rows, [wanted], rules, weakest)
    assert "more of 32 other photographs would be wrong" in done.aside[wanted.id]
    assert done.fitted is weakest
    assert done.rows is rows


def test_a_row_that_is_the_same_photograph_takes_the_new_label(known):
    rows, rules, base = known
    done = fit_changes(rows, [Change("a" * 64, TREE.classes[1], rows.features[0])], rules, base)
    assert rows.labels[0] == TREE.classes[0]
    assert done.rows.labels[0] == TREE.classes[1]
    assert answer(done.fitted, rules, rows.features[0]) == 1


def test_striking_out_the_last_photographs_of_a_class_is_kept_aside(known):
    rows, rules, base = known
    mine = [
        key for key, label in zip(rows.ids, rows.labels, strict=True) if label == rows.labels[0]
    ]
    done = fit_changes(rows, [Change(key) for key in mine], rules, base)
    assert "fewer than" in " ".join(done.aside.values())
    assert done.rows.active.sum() >= len(rows) - len(mine) + 2


def test_a_row_that_the_fit_has_not_is_kept_aside_without_its_features(known):
    rows, rules, base = known
    done = fit_changes(rows, [Change("a" * 64, TREE.classes[1])], rules, base)
    assert "needs its features" in done.aside["a" * 64]
    assert not done.changes
