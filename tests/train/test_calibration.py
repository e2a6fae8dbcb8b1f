"""One factor on all logits: found where it is known, or left alone where images are few."""

import pytest
import torch

from nbdt import NBDT, Hierarchy
from nbdt.train.fit.measure import calibrate

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
    assert factor == pytest.approx(scale, rel=0.08)
    assert torch.allclose(model.head.linear.weight, before[0] * factor)
    assert torch.allclose(model.head.linear.bias, before[1] * factor)


def test_fewer_images_than_can_calibrate_change_nothing(model):
    logits, labels = drawn(model, 2.5, 19)
    assert calibrate(model, logits, labels) == 1
