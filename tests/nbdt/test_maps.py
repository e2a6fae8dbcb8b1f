"""Node maps in closed form against automatic differentiation, Captum, and their own sum."""

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam

from nbdt.decide.maps import log_odds_coefficients, node_maps, score_coefficients
from nbdt.tree.index import TreeIndex
from tests import oracle

TREES = {
    "family": oracle.family,
    "zoo": oracle.zoo,
    "20 levels": lambda: oracle.caterpillar(20),
    "uneven of 40": lambda: oracle.random_tree(40, arity=(2, 5), uneven=True),
    "star of 70": lambda: oracle.star(70),
}
QUANTITIES = {
    "score": (score_coefficients, oracle.node_score),
    "log-odds": (log_odds_coefficients, oracle.node_log_odds),
}


class Layer:
    """A float64 feature map and a linear layer on its average."""

    def __init__(self, num_classes, spread=3.0):
        generator = torch.Generator().manual_seed(num_classes)
        shapes = [(2, 5, 3, 4), (num_classes, 5), (num_classes,)]
        draw = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        self.features, self.weight, self.bias = spread * draw[0], draw[1], draw[2]
        self.logits = self.features.mean(dim=(2, 3)) @ self.weight.T + self.bias


def all_nodes(h, batch=2):
    return torch.arange(1, h.num_nodes).expand(batch, -1)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", TREES)
def test_closed_form_equals_automatic_differentiation(tree, rule, quantity):
    h = TREES[tree]()
    layer, (coefficients, definition) = Layer(h.num_classes), QUANTITIES[quantity]
    found = coefficients(layer.logits, all_nodes(h), TreeIndex(h), rule)
    maps = node_maps(layer.features, layer.weight, found)
    assert maps.shape == (2, h.num_nodes - 1, 3, 4)
    for node in range(1, h.num_nodes):
        slow = oracle.grad_cam(
            lambda z, node=node: definition(h, z, node, rule),
            layer.features,
            layer.weight,
            layer.bias,
        )
        assert torch.allclose(maps[:, node - 1], slow, rtol=0, atol=1e-9)


def entropies(h, layer):
    """(batch, nodes - 1): of the flat softmax within each node."""
    nodes = range(1, h.num_nodes)
    return torch.tensor(
        np.stack([oracle.entropy(h, layer.logits.numpy(), node) for node in nodes], axis=1)
    )


@pytest.mark.parametrize("tree", TREES)
def test_score_maps_are_complete(tree):
    h = TREES[tree]()
    layer, compiled = Layer(h.num_classes), TreeIndex(h)
    for rule in oracle.RULES:
        found = score_coefficients(layer.logits, all_nodes(h), compiled, rule)
        total = node_maps(layer.features, layer.weight, found).sum(dim=(2, 3))
        total += found @ layer.bias
        total += entropies(h, layer) if rule == "marginal" else 0
        scores = oracle.node_scores(h, layer.logits.numpy(), rule)[:, 1:]
        assert np.abs(total.numpy() - scores).max() < 1e-9


def test_score_maps_are_complete_in_float32():
    h = oracle.zoo()
    layer, compiled = Layer(h.num_classes), TreeIndex(h)
    for rule in oracle.RULES:
        found = score_coefficients(layer.logits.float(), all_nodes(h), compiled, rule)
        maps = node_maps(layer.features.float(), layer.weight.float(), found)
        total = maps.sum(dim=(2, 3)) + found @ layer.bias.float()
        total += entropies(h, layer) if rule == "marginal" else 0
        scores = oracle.node_scores(h, layer.logits.numpy(), rule)[:, 1:]
        assert np.abs(total.numpy() - scores).max() < 1e-4


@pytest.mark.parametrize("rule", oracle.RULES)
def test_wide_logits_keep_coefficients_finite(rule):
    h = oracle.random_tree(40, arity=(2, 5), uneven=True)
    wide = torch.tensor(oracle.logits(h, scale=1e4)).float()
    for coefficients, _ in QUANTITIES.values():
        assert coefficients(wide, all_nodes(h, 3), TreeIndex(h), rule).isfinite().all()


def test_of_two_siblings_one_map_is_the_others_negative():
    h = oracle.family()
    layer = Layer(4)
    for rule in oracle.RULES:
        found = log_odds_coefficients(layer.logits, all_nodes(h), TreeIndex(h), rule)
        for first in (0, 2, 4):
            assert torch.allclose(found[:, first], -found[:, first + 1])


def test_each_image_may_ask_for_its_own_nodes():
    h = oracle.zoo()
    layer, compiled = Layer(10), TreeIndex(h)
    asked = torch.tensor([[1, 5], [7, 2]])
    for coefficients, _ in QUANTITIES.values():
        whole = coefficients(layer.logits, all_nodes(h), compiled, "marginal")
        found = coefficients(layer.logits, asked, compiled, "marginal")
        assert torch.allclose(found, torch.stack([whole[0, [0, 4]], whole[1, [6, 1]]]))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("resnet18", num_classes=10).eval()


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("rule", oracle.RULES)
def test_equal_to_captum_on_a_residual_network(network, rule, quantity):
    h, nodes = oracle.zoo(), torch.tensor([[1, 4, 9], [1, 4, 9]])
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    coefficients, definition = QUANTITIES[quantity]
    with torch.inference_mode():
        features = network.forward_features(images)
        found = coefficients(network(images), nodes, TreeIndex(h), rule)
        maps = node_maps(features, network.fc.weight, found)
    assert maps.shape == (2, 3, 3, 3)
    assert maps.abs().max() > 1e-3
    for query, node in enumerate(nodes[0].tolist()):
        captum = LayerGradCam(
            lambda x, node=node: definition(h, network(x), node, rule), network.layer4
        )
        slow = captum.attribute(images, relu_attributions=False)[:, 0]
        assert torch.allclose(maps[:, query], slow, rtol=0, atol=1e-5)
