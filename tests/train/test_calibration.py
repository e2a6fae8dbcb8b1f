"""One factor on all logits: found where it is known, and kept within bounds."""

import pytest
import torch
from torch.nn import functional as F

from nbdt import NBDT, Hierarchy
from nbdt.train.fit.measure import BOUND, calibrate
from tests import oracle

TREE = Hierarchy.from_paths(["a/b/one", "a/b/two", "a/three", "c/four", "c/five"])


@pytest.fixture(params=["marginal", "representative"])
def model(request):
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule=request.param).eval()


def drawn(model, scale, count=20_000):
    """Logits, and labels drawn from what the tree makes of `scale` times these."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(count, 5, generator=generator) * 2
    chances = model.head.rules(logits * scale).exp()
    return logits, torch.multinomial(chances, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_the_factor_that_made_the_labels_is_found(model, scale):
    logits, labels = drawn(model, scale)
    before = model.head.linear.weight.clone(), model.head.linear.bias.clone()
    factor = calibrate(model, logits, labels)
    assert factor == pytest.approx(scale, rel=0.05)
    assert torch.allclose(model.head.linear.weight, before[0] * factor)
    assert torch.allclose(model.head.linear.bias, before[1] * factor)


def test_no_other_factor_is_better_by_the_twin(model):
    logits, labels = drawn(model, 1.7, 40)

    def loss(factor):
        soft = oracle.leaf_log_probs(TREE, logits.double().numpy() * factor, model.rule)
        return -soft[range(len(soft)), labels].sum()

    best = calibrate(model, logits, labels)
    assert all(loss(best) <= loss(best * (1 + step)) + 1e-9 for step in (-0.1, -0.01, 0.01, 0.1))


def test_what_is_always_right_or_always_wrong_stays_within_bounds(model):
    labels = torch.arange(5)
    assert calibrate(model, 3 * F.one_hot(labels).float(), labels) == pytest.approx(BOUND, rel=0.01)
    wrong = calibrate(model, 3 * F.one_hot((labels + 3) % 5).float(), labels)
    assert wrong == pytest.approx(1 / BOUND, rel=0.01)
