"""Changes of a memory that are not written."""

import torch

from nbdt.decide.head import DecisionRules
from nbdt.memory.preview import Change, with_changes
from nbdt.memory.refit import examples_of, fit_head
from tests import oracle

TREE = oracle.family()
RULES = DecisionRules(TREE, rule="marginal")


def test_rows_with_changes_are_those_that_would_be_written(drawn):
    rows, middles = drawn
    new = Change("f" * 64, TREE.ids[1], middles[0].half().numpy(), by="ann", why="seen", weight=2)
    changed = with_changes(
        rows, [new, Change(rows.ids[3], why="blurred"), Change(rows.ids[4], TREE.classes[0])]
    )
    assert changed.ids == (*rows.ids, new.id)
    assert (changed.labels[-1], changed.by[-1], changed.weights[-1]) == (TREE.ids[1], "ann", 2)
    assert changed.labels[4] == TREE.classes[0]
    assert (~changed.active).nonzero()[0].tolist() == [3]
    assert changed.why[3] == "blurred"
    assert (rows.active.all(), len(rows.weights), rows.weights.max()) == (True, len(rows), 1)


def test_the_last_of_several_changes_counts_and_unknown_strikes_do_nothing(drawn):
    rows, _ = drawn
    struck, back = Change(rows.ids[0]), Change(rows.ids[0], rows.labels[0])
    assert with_changes(rows, [struck, back]).active.all()
    assert not with_changes(rows, [back, struck]).active[0]
    assert with_changes(rows, [Change("e" * 64)]).ids == rows.ids


def test_a_weight_counts_as_so_many_copies(drawn):
    rows, middles = drawn
    features = (middles[0] + middles[1]).half().numpy() / 2
    label = TREE.classes[0]
    heavy = examples_of(with_changes(rows, [Change("a" * 64, label, features, weight=3)]), RULES)
    light = examples_of(with_changes(rows, [Change("a" * 64, label, features)]), RULES)
    assert heavy.key != light.key
    assert heavy.targets.weights[-1] == 3 * light.targets.weights[-1]
    base = fit_head(light, RULES)
    fits = [fit_head(each, RULES, base, choose=False) for each in (light, heavy)]
    chances = [fit.fit.logits(torch.from_numpy(features).float()).softmax(0)[0] for fit in fits]
    assert chances[1] > chances[0]


def test_the_rows_that_stay_keep_their_folds(drawn):
    rows, middles = drawn
    before = examples_of(rows, RULES).fold
    new = Change("0" * 64 + "1", TREE.classes[0], middles[0].half().numpy())
    assert torch.equal(examples_of(with_changes(rows, [new]), RULES).fold[:-1], before)
