"""Tree supervision against its slow float64 twin, at its limits, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from nbdt import DecisionRules, NBDTError
from nbdt.train import TreeSupervisionLoss

from . import oracle

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
def test_equal_to_the_twin(tree, rule, beta, omega, alpha):
    h = TREES[tree]()
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    z, index, distribution = sample(h)
    for target in (index, distribution):
        twin = oracle.tree_loss(h, z.numpy(), target.numpy(), rule, beta, omega, alpha)
        assert loss(z, target).item() == pytest.approx(twin, rel=1e-6)
        assert loss(
            z.float(), target.to(torch.float32) if target.is_floating_point() else target
        ).item() == (pytest.approx(twin, rel=1e-5))


@pytest.mark.parametrize("scale", [1e-3, 1e4])
@pytest.mark.parametrize(("rule", "beta", "omega", "alpha"), KINDS)
def test_equal_to_the_twin_at_any_scale(scale, rule, beta, omega, alpha):
    h = TREES["uneven of 150"]()
    z, index, _ = sample(h, scale)
    loss = TreeSupervisionLoss(h, rule=rule, beta=beta, omega=omega, alpha=alpha)
    given = z.float()
    twin = oracle.tree_loss(h, given.double().numpy(), index.numpy(), rule, beta, omega, alpha)
    tolerance = 1e-5 * max(1, scale, abs(twin)) * (beta + omega)
    assert loss(given, index).item() == pytest.approx(twin, rel=0, abs=tolerance)


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


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (2,), (4,), (3, 1), (1, 3, 4), ()])
def test_targets_of_another_shape_are_refused(shape):
    loss = TreeSupervisionLoss(oracle.family(), rule="representative")
    with pytest.raises(NBDTError, match=r"Expected targets of shape \(3,\) or \(3, 4\), got \("):
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


def test_importing_the_loss_imports_no_trainer():
    code = (
        "import sys; from nbdt.train import TreeSupervisionLoss; "
        "print(sorted({'lightning', 'torchmetrics', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
