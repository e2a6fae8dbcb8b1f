"""The tree of a run: from names, from ids, from the classifier, and what is said about it."""

import dataclasses

import torch

from nbdt import Hierarchy
from nbdt.train.data.class_order import class_indices, class_order
from nbdt.train.recipe import Recipe
from nbdt.train.tree import describe, plan_tree

FROZEN = Recipe("small_convnet", 32, freeze_backbone=True, rule="marginal")
NAMES = ["heron", "crane", "stork", "truck", "bus", "zorblax"]


def weights(names):
    """Unlike each other, but for the last class, which is nearly the first."""
    rows = torch.eye(len(names)) + 0.1
    rows[-1] = rows[0] + 0.05 * rows[-1]
    return rows


def plan(names, asked=None, recipe=FROZEN, meanings=None):
    said = []
    order = class_order(names)
    return plan_tree(asked, order, recipe, meanings or {}, said.append), "\n".join(said), order


def test_a_frozen_run_has_everyday_groups_and_says_how_names_were_read():
    made, said, order = plan(NAMES)
    assert made.kind == "readable"
    assert "5 of 6" in said
    assert "'zorblax'" in said
    hierarchy = made.make(weights(order.names))
    assert hierarchy.classes == order.names
    assert hierarchy.depth <= 3


def test_names_that_wordnet_does_not_know_leave_the_classifier_to_decide():
    made, _, order = plan(["zorblax", "quuxel", "frobnix", "heron"])
    assert made.kind == "induced"
    assert made.make(None) is None
    assert made.make(torch.eye(4)).classes == order.names
    strict = dataclasses.replace(FROZEN, rule="representative")
    assert plan(NAMES, recipe=strict)[0].kind == "induced"
    shaped = dataclasses.replace(FROZEN, branching=4)
    assert plan(NAMES, recipe=shaped)[0].kind == "induced"
    assert plan(NAMES, recipe=Recipe("small_convnet", 32))[0].kind == "induced"


def test_a_meaning_that_is_given_counts():
    made, said, _ = plan(NAMES, "readable")
    assert "zorblax" in said
    assert not all(made.wnids)
    assert all(plan(NAMES, "readable", meanings={"zorblax": "lorry"})[0].wnids)


def test_wordnet_ids_are_kept():
    """Their names alone would lead elsewhere: a cock is also a tap, an ox an adult bull."""
    wnids = ["n01514668", "n02403003", "n02084071"]
    made, said, order = plan(wnids, "readable")
    assert not said
    assert made.make(None).class_wnids == tuple(sorted(wnids))
    assert class_indices(sorted(wnids), order) == [0, 1, 2]


def test_a_deep_tree_gets_a_remark_and_one_group_is_no_groups():
    said = []
    describe(Hierarchy.from_nested({"all": ["a", "b"]}), said.append)
    assert said == ["The tree has 1 group on 1 level."]
    nested = ["a", "b"]
    for index in range(12):
        nested = [f"c{index}", {f"g{index}": nested}]
    describe(Hierarchy.from_nested({"all": nested}), said.append)
    assert "13 levels; few people follow that many" in said[1]
