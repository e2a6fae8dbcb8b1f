"""Tree supervision against its slow float64 reference implementation, its limits, and errors."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from nbdt import DecisionRules, Hierarchy, NBDTError, attach, flat
from nbdt.train import TreeSupervisionLoss
from nbdt.train.loss import SCHEDULES, weight_at
from tests import oracle

TREES = {
    "family": oracle.family,
    "zoo": oracle.zoo,
    "star of 17": lambda: oracle.star(17),
    "18 levels": lambda: oracle.caterpillar(18),
    "uneven of 150": lambda: oracle.random_tree(150, arity=(2, 9), uneven=True),
}
KINDS = [  # rule, β, ω, α
    ("representative", 1.0, 1.0, 0.0),
    ("representative", 0.5, 2.0, 0.0),
    ("representative", 0.0, 1.0, 0.7),
    ("representative", 1.0, 0.0, 0.0),
    ("marginal", 1.0, 1.0, 0.7),
    ("marginal", 0.3, 2.0, 3.0),
]


def sample(h, scale=3.0, batch=4):
    """Float64 logits, class indices, and distributions."""
    z = oracle.logits(h, batch, scale, seed=h.num_classes)
    rng = np.random.default_rng(h.num_classes)
    target = rng.integers(h.num_classes, size=batch)
    return torch.tensor(z), torch.tensor(target), torch.tensor(rng.dirichlet(z[0] * 0 + 0.3, batch))


@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
@pytest.mark.parametrize("tree", TREES)
def test_equal_to_the_reference(tree, rule, beta, omega, alpha):
    h = TREES[tree]()
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    z, index, distribution = sample(h)
    for target in (index, distribution):
        reference = oracle.tree_loss(h, z.numpy(), target.numpy(), rule, beta, omega, alpha)
        assert loss(z, target).item() == pytest.approx(reference, rel=1e-6)
        assert loss(
            z.float(), target.to(torch.float32) if target.is_floating_point() else target
        ).item() == (pytest.approx(reference, rel=1e-5))


@pytest.mark.parametrize("scale", [1e-3, 1e4])
@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
def test_equal_to_the_reference_at_any_scale(scale, rule, beta, omega, alpha):
    h = TREES["uneven of 150"]()
    z, index, _ = sample(h, scale)
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    given = z.float()
    reference = oracle.tree_loss(h, given.double().numpy(), index.numpy(), rule, beta, omega, alpha)
    tolerance = 1e-5 * max(1, scale, abs(reference)) * (beta + omega)
    assert loss(given, index).item() == pytest.approx(reference, rel=0, abs=tolerance)


def test_without_alpha_the_path_term_is_the_soft_loss():
    h = oracle.zoo()
    z, index, _ = sample(h)
    soft = F.cross_entropy(z, index) + F.nll_loss(DecisionRules(h, rule="representative")(z), index)
    assert TreeSupervisionLoss(h, rule="representative")(z, index).item() == pytest.approx(
        soft.item()
    )


def test_alpha_lightens_decisions_near_the_root():
    h = oracle.family()  # one decision at height 2 of 2, one at height 1 of 2, then a leaf
    z, index, _ = sample(h)
    steps = -oracle.decisions(h, z.numpy(), "representative")
    paths = oracle.paths(h)
    expected = np.mean(
        [
            np.exp(-0.8 * 1 / 2) * steps[image, paths[c][0]] + steps[image, paths[c][1]]
            for image, c in enumerate(index.tolist())
        ]
    )
    loss = TreeSupervisionLoss(h, rule="representative", beta=0, alpha=0.8)
    assert loss(z, index).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
def test_a_one_hot_distribution_is_an_index(rule, beta, omega, alpha):
    h = oracle.zoo()
    z, index, _ = sample(h)
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    one_hot = F.one_hot(index, h.num_classes).double()
    assert loss(z, one_hot).item() == pytest.approx(loss(z, index).item(), rel=1e-12)


@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
@pytest.mark.parametrize("tree", ["zoo", "star of 17", "18 levels"])
def test_gradient(tree, rule, beta, omega, alpha):
    h = TREES[tree]()
    z, index, distribution = sample(h, batch=2)
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    z.requires_grad_()
    assert gradcheck(lambda logits: loss(logits, index), z)
    assert gradcheck(lambda logits: loss(logits, distribution), z)


@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
@pytest.mark.parametrize("tree", TREES)
def test_gradients_are_finite_at_wide_logits(tree, rule, beta, omega, alpha):
    h = TREES[tree]()
    z, index, distribution = sample(h, 1e4)
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    for target in (index, distribution.float()):
        given = z.float().requires_grad_()
        value = loss(given, target)
        value.backward()
        assert value.isfinite()
        assert given.grad.isfinite().all()


@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
@pytest.mark.parametrize("tree", TREES)
def test_a_confident_right_answer_costs_nothing(tree, rule, beta, omega, alpha):
    h = TREES[tree]()
    index = torch.tensor([0, 1, h.num_classes - 1])
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    costs = [
        loss(height * F.one_hot(index, h.num_classes).float(), index).item()
        for height in (1, 100, 10_000)
    ]
    assert costs[0] > costs[1] >= costs[2] >= 0
    assert costs[2] < 1e-6


def test_autocast_does_not_lower_the_precision():
    h = oracle.zoo()
    z, index, distribution = sample(h)
    loss = TreeSupervisionLoss(h, rule="representative", alpha=0.5)
    for target in (index, distribution.float()):
        expected = loss(z.float(), target)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(z.float(), target), expected)
        assert loss(z.bfloat16(), target).dtype == torch.float32


def test_nothing_of_the_loss_is_saved_or_trained():
    loss = TreeSupervisionLoss(oracle.zoo(), rule="representative")
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []


# Weights and schedules.

WEIGHTED = [  # what is passed beside the rule; names of nodes of the zoo
    {"class_weights": True},
    {"node_weights": {"animal": 3.0, "fish": 0.0, "thing": 0.5}},
    {"label_smoothing": 0.2},
    {"class_weights": True, "node_weights": {"tool": 2.0}, "label_smoothing": 0.1, "alpha": 0.7},
    {"class_weights": True, "label_smoothing": 0.3, "beta": 0.4, "omega": 1.7},
]


@pytest.mark.parametrize("options", WEIGHTED)
@pytest.mark.parametrize("rule", ["representative", "marginal"])
def test_weights_equal_the_reference(rule, options):
    h = oracle.zoo()
    z, index, distribution = sample(h)
    options = dict(options)
    if rule == "marginal":
        options.setdefault("alpha", 0.5)
    weights = np.random.default_rng(1).uniform(0.1, 3, h.num_classes)
    reference = {key: options[key] for key in ("alpha", "beta", "omega") if key in options}
    reference["smoothing"] = options.get("label_smoothing", 0.0)
    if options.pop("class_weights", False):
        options["class_weights"] = reference["class_weights"] = torch.tensor(weights)
        reference["class_weights"] = weights
    named = options.get("node_weights", {})
    reference["node_weights"] = {h.names.index(name): value for name, value in named.items()}
    loss = TreeSupervisionLoss(h, rule=rule, **options)
    nodes = torch.tensor(np.random.default_rng(2).dirichlet(np.full(h.num_nodes, 0.3), len(z)))
    for target in (index, distribution, F.one_hot(index, h.num_classes).double(), nodes):
        expected = oracle.weighted_tree_loss(h, z.numpy(), target.numpy(), rule, **reference)
        assert loss(z, target).item() == pytest.approx(expected, rel=1e-6)


# ---- groups as labels ----


def one_hot(nodes, h):
    return F.one_hot(torch.tensor(nodes), h.num_nodes).double()


@given(oracle.trees(), st.integers(0, 10**6), st.sampled_from(["representative", "marginal"]))
def test_a_group_is_the_set_of_its_classes(h, seed, rule):
    rng = np.random.default_rng(seed)
    z = torch.tensor(rng.normal(size=(3, h.num_classes)) * 4, requires_grad=True)
    nodes = rng.integers(h.num_nodes, size=3)
    alpha = 0.5 if rule == "marginal" else 0.0
    loss = TreeSupervisionLoss(h, rule=rule, alpha=alpha)
    leaves = torch.tensor(rng.integers(h.num_classes, size=3))
    leaf_nodes = torch.tensor(h.leaf_nodes)[leaves].tolist()
    same = loss(z, one_hot(leaf_nodes, h))
    assert float(same.detach()) == pytest.approx(float(loss(z, leaves).detach()), rel=1e-9)
    assert float(loss(z, one_hot([0, 0, 0], h)).detach()) == pytest.approx(0, abs=1e-12)
    flat = TreeSupervisionLoss(h, rule="representative", omega=0.0)
    found = flat(z, one_hot(nodes, h))
    values = [oracle.set_loss(h, row, node) for row, node in zip(z.detach(), nodes, strict=True)]
    assert float(found.detach()) == pytest.approx(np.mean(values), rel=1e-9, abs=1e-12)
    (slope,) = torch.autograd.grad(found, z)
    for row, node in enumerate(nodes):
        inside = torch.full((h.num_classes,), -torch.inf, dtype=torch.float64)
        below = h.classes_under(int(node))
        inside[below] = z.detach()[row, below]
        expected = (z.detach()[row].softmax(0) - inside.softmax(0)) / 3
        torch.testing.assert_close(slope[row], expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("rule", ["representative", "marginal"])
def test_gradients_of_group_labels(rule):
    h = oracle.zoo()
    z, _, _ = sample(h)
    nodes = torch.tensor(np.random.default_rng(2).dirichlet(np.full(h.num_nodes, 0.3), len(z)))
    loss = TreeSupervisionLoss(h, rule=rule, alpha=0.5, label_smoothing=0.1)
    assert gradcheck(lambda logits: loss(logits, nodes), z.requires_grad_())
    wide = (1e4 * z.detach()).float().requires_grad_()
    loss(wide, nodes.float()).backward()
    assert wide.grad.isfinite().all()


def test_class_weights_and_smoothing_are_those_of_torch():
    h = oracle.zoo()
    z, index, _ = sample(h)
    weights = torch.linspace(0.2, 2, h.num_classes)
    loss = TreeSupervisionLoss(
        h, rule="representative", omega=0, class_weights=weights, label_smoothing=0.1
    )
    known = torch.nn.CrossEntropyLoss(weights.double(), label_smoothing=0.1)
    assert loss(z, index).item() == pytest.approx(known(z, index).item(), rel=1e-6)


def test_weights_have_gradients_and_stay_finite_at_wide_logits():
    h = oracle.zoo()
    options = {"class_weights": [0.5] * 9 + [2.0], "node_weights": {"bird": 5.0}}
    loss = TreeSupervisionLoss(h, rule="representative", label_smoothing=0.1, **options)
    z, index, distribution = sample(h, batch=2)
    assert gradcheck(lambda logits: loss(logits, index), z.requires_grad_())
    assert gradcheck(lambda logits: loss(logits, distribution), z)
    given = (z.detach() * 1e4).float().requires_grad_()
    loss(given, index).backward()
    assert given.grad.isfinite().all()


def test_a_nodes_weight_is_about_its_own_decision():
    h = oracle.zoo()
    z, index, _ = sample(h)
    target = torch.full_like(index, h.classes.index("saw"))  # thing, tool, saw
    plain = TreeSupervisionLoss(h, rule="representative", beta=0)(z, target)
    fish = TreeSupervisionLoss(h, rule="representative", beta=0, node_weights={"fish": 9})
    assert fish(z, target).item() == pytest.approx(plain.item())
    tool = TreeSupervisionLoss(h, rule="representative", beta=0, node_weights={"tool": 0})
    root = -oracle.decisions(h, z.numpy(), "representative")[:, h.names.index("tool")].mean()
    assert tool(z, target).item() == pytest.approx(root, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_schedules_equal_the_reference(name, progress):
    expected = oracle.weight_over_time(name, progress, 2.0, 0.5)
    assert weight_at(name, progress, 2.0, 0.5) == pytest.approx(expected)


def test_schedules_end_where_training_ends_and_unknown_ones_are_refused():
    assert weight_at("linear", 1.2, 0.0, 3.0) == 3.0
    assert weight_at("cosine", -1.0, 0.0, 3.0) == 0.0
    with pytest.raises(NBDTError, match="Unknown schedule 'lineal'.*Did you mean 'linear'"):
        weight_at("lineal", 0, 0, 1)


def test_the_weights_may_change_between_steps():
    h = oracle.zoo()
    z, index, _ = sample(h)
    loss = TreeSupervisionLoss(h, rule="representative")
    loss.beta, loss.omega = 0.25, 3.0
    fresh = TreeSupervisionLoss(h, rule="representative", beta=0.25, omega=3.0)
    assert torch.equal(loss(z, index), fresh(z, index))


# A tree from the start, or afterwards.


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.GroupNorm(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    )


def flat_then_attached(wrap, steps=12, rank=0, world=1):
    """Losses and leaf log-probabilities of both ways to train, from the same start."""
    h = oracle.family()
    loss = TreeSupervisionLoss(h, rule="representative")
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(steps, 8, 6, generator=generator)[:, rank::world]
    targets = inputs[..., :4].argmax(dim=2)
    found = []
    for attached in (False, True):
        model = network()
        if attached:
            attach(model, h, rule="representative")
        wrapped = wrap(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for x, y in zip(inputs, targets, strict=True):
            with flat(wrapped) if attached else nullcontext():
                value = loss(wrapped(x), y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        if not attached:
            attach(model, h, rule="representative")
        found.append((losses, model(inputs[0]).detach()))
    return found


def test_attaching_before_and_after_training_is_the_same():
    (late, late_answer), (early, early_answer) = flat_then_attached(lambda model: model)
    assert late == early
    assert torch.equal(late_answer, early_answer)
    assert sum(late[-3:]) < sum(late[:3])


def test_so_it_is_under_ddp_and_two_processes_equal_one(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, root / "tests" / "programs" / "train_flat_then_attached.py"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")],
            env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    mean = json.loads(outputs[0][0].split("losses")[1])
    alone = flat_then_attached(lambda model: model)[0][0]
    assert mean == pytest.approx(alone, rel=1e-4)


# What is refused.


def test_marginal_without_alpha_is_refused_and_explained():
    with pytest.raises(NBDTError, match=r"flat softmax.*\(β \+ ω\) · cross-entropy.*alpha > 0"):
        TreeSupervisionLoss(oracle.zoo(), rule="marginal")


@pytest.mark.parametrize("weight", ["beta", "omega", "alpha"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_finite_and_not_negative(weight, value):
    with pytest.raises(NBDTError, match="β, ω and α are finite"):
        TreeSupervisionLoss(oracle.zoo(), rule="representative", **{weight: value})


def test_an_unknown_rule_is_refused():
    with pytest.raises(NBDTError, match="Unknown rule 'soft'"):
        TreeSupervisionLoss(oracle.zoo(), rule="soft")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, r"Expected 4 class weights, one a class, got \(2,\)"),
        ({"class_weights": [1.0, -1.0, 0, 0]}, "Class weights are finite and ≥ 0"),
        ({"class_weights": [0.0] * 4}, "not all of them 0"),
        ({"node_weights": {"animals": 2.0}}, "no node 'animals'.* mean 'animal'"),
        ({"node_weights": {"cat": 2.0}}, "'cat' is a class: only inner nodes decide"),
        ({"node_weights": {"animal": -2.0}}, "weight is finite and ≥ 0, got -2.0 for 'animal'"),
        ({"label_smoothing": 1.0}, "label_smoothing is at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_weights_are_explained(options, message):
    with pytest.raises(NBDTError, match=message):
        TreeSupervisionLoss(oracle.family(), rule="representative", **options)


def test_a_name_that_several_nodes_have_is_refused():
    h = Hierarchy.from_nested(
        {"a": [{"x": ["1", "2"]}, "3"], "b": [{"x": ["4", "5"]}, "6"]}, list("123456")
    )
    with pytest.raises(NBDTError, match="2 nodes are named 'x'; say which id: 'a/x/'"):
        TreeSupervisionLoss(h, rule="representative", node_weights={"x": 2.0})
    TreeSupervisionLoss(h, rule="representative", node_weights={"a/x/": 2.0})


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (2,), (4,), (3, 1), (1, 3, 4), ()])
def test_targets_of_another_shape_are_refused(shape):
    loss = TreeSupervisionLoss(oracle.family(), rule="representative")
    with pytest.raises(
        NBDTError, match=r"Expected targets of shape \(3,\), \(3, 4\) or \(3, 7\), got \("
    ):
        loss(torch.zeros(3, 4), torch.zeros(shape))


def test_logits_of_another_shape_are_refused():
    loss = TreeSupervisionLoss(oracle.family(), rule="representative")
    with pytest.raises(
        NBDTError, match=r"Expected class logits of shape \(batch, 4\), got \(3, 5\)"
    ):
        loss(torch.zeros(3, 5), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("index", [-100, -1, 150, 10**6])
def test_no_class_index_is_ignored_or_wraps_around(index):
    loss = TreeSupervisionLoss(TREES["uneven of 150"](), rule="representative")
    with pytest.raises(IndexError, match="out of bounds|out of range"):
        loss(torch.zeros(2, 150), torch.tensor([3, index]))
