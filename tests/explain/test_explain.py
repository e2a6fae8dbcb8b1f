"""`explain`: paths and maps agree with Captum; nothing is left behind; bad input is refused."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.explain import explain as explain_at
from nbdt.explain.result.pictures import GAP, WIDTH, overlays, picture
from nbdt.explain.result.regions import upsampled
from nbdt.model.fingerprint import model_hash

explain = partial(explain_at, level="fast")  # the maps of one forward pass
TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/road/bus",
                             "vehicle/road/van"])  # fmt: skip
RULES = ["representative", "marginal"]


def make(rule, name="small_convnet"):
    torch.manual_seed(0)
    return NBDT.from_timm(name, TREE, rule=rule).eval()


class LogOdds(torch.nn.Module):
    """log p/(1-p) of every node, written from its definition."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        logits = self.model.head.linear(self.model.features(images)).double()
        log_probs = self.model.head.rules.log_probs(logits)
        return log_probs - torch.log1p(-log_probs.exp())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "layer"), [("small_convnet", "stages"), ("resnet18", "layer4")])
def test_maps_equal_captums_gradcam_of_the_log_odds(rule, name, layer):
    model = make(rule, name)
    images = torch.randn(2, 3, 64, 64)
    captum = LayerGradCam(LogOdds(model), getattr(model.backbone, layer))
    for row, found in enumerate(explain(model, images)):
        nodes = TREE.path_of_class(found.path.class_index)[1:]
        for node, values in zip(nodes, found.maps, strict=True):
            expected = captum.attribute(images[row : row + 1], node)[0, 0]
            assert np.allclose(values, expected.detach().numpy(), atol=1e-5)


def assert_same(one, other):
    """Paths are equal but for rounding: layouts of memory add up in another order."""
    for first, second in zip(one, other, strict=True):
        assert first.log_probs == pytest.approx(second.log_probs, abs=1e-5)
        assert replace(first, log_probs=()) == replace(second, log_probs=())


def test_the_path_is_the_models_own():
    model = make("representative")
    images = torch.randn(4, 3, 32, 32)
    found = explain(model, images)
    for explanation, path in zip(found, model.paths(images), strict=True):
        assert_same(explanation.path, path)
    assert all(len(e.maps) == len(e.path) for e in found)
    assert all(e.resolution == (8, 8) for e in found)
    assert all(np.abs(values).max() > 0 for e in found for values in e.maps)


def test_the_path_to_another_class_can_be_asked_for():
    found = explain(make("marginal"), torch.randn(2, 3, 32, 32), classes=[0, 4])
    assert [e.path.class_name for e in found] == ["cat", "van"]


def test_pictures_or_tensors_give_the_same_path():
    model = make("marginal")
    image = Image.effect_noise((80, 60), 90).convert("RGB")
    from_picture = explain(model, image)[0]
    from_tensor = explain(model, model.preprocess(image)[None])[0]
    assert_same(from_picture.path, from_tensor.path)
    assert from_picture.photo is not None
    assert from_tensor.photo is None


def test_nothing_is_left_behind():
    model = make("marginal")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())
    with torch.inference_mode():
        explain(model, torch.randn(1, 3, 32, 32))
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 32, 32), "at least one image"),
        (torch.zeros(3, 32, 32), r"got \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), r"got \(1, 1, 32, 32\)"),
        (torch.full((1, 3, 32, 32), torch.nan), "not finite"),
        (torch.tensor([[[[math.inf]] * 3]]).reshape(1, 3, 1, 1), "not finite"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"got torch\.uint8"),
        ([], "no images"),
        ([torch.zeros(3, 32, 32)], r"got Tensor in a sequence; torch\.stack"),
        (np.zeros((1, 3, 32, 32)), "got ndarray in a sequence"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(NBDTError, match=message):
        explain(make("marginal"), images)


def test_training_mode_is_refused():
    with pytest.raises(NBDTError, match=r"call model\.eval\(\)"):
        explain(make("marginal").train(), torch.zeros(1, 3, 32, 32))


def test_a_part_in_training_mode_is_noticed():
    model = make("marginal")
    model.backbone.train()
    with pytest.raises(NBDTError, match=r"model's 'backbone' is in training mode; call"):
        explain(model, torch.zeros(1, 3, 32, 32))


def test_another_kind_of_model_is_refused():
    with pytest.raises(
        NBDTError, match=r"Linear has no NBDTHead inside: attach.*NBDT\.from_network"
    ):
        explain(torch.nn.Linear(2, 2), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("rule", RULES)
def test_maps_and_constants_make_the_log_odds(rule):
    for found in explain(make(rule), torch.randn(3, 3, 32, 32)):
        for decision, values, constant in zip(found.path, found.maps, found.constants, strict=True):
            p = decision.probability
            assert values.sum() + constant == pytest.approx(math.log(p / (1 - p)), abs=1e-4)
    assert found.to_dict()["constants"] == list(found.constants)


def test_the_constants_are_the_biases_where_decisions_are_linear():
    model = make("representative")
    found = explain(model, torch.randn(1, 3, 32, 32), classes=[0])[0]  # two decisions of two
    bias = model.head.linear.bias.detach()
    expected = [bias[:2].mean() - bias[2:].mean(), bias[0] - bias[1]]
    assert np.allclose(found.constants, expected, atol=1e-5)


def test_maps_cannot_be_written_to_and_are_shown_at_any_size():
    found = explain(make("marginal"), torch.randn(1, 3, 32, 32), nodes=["road"])[0]
    with pytest.raises(ValueError, match="read-only"):
        found.maps[0][0, 0] = 99
    large = upsampled(found.maps[0], 40, 60)
    assert large.shape == (40, 60)
    most = float(np.abs(found.maps[0]).max())
    assert large.mean() == pytest.approx(found.maps[0].mean(), abs=0.01 * most)


def test_a_node_that_is_asked_for_comes_with_its_childrens_maps():
    model, images = make("marginal"), torch.randn(1, 3, 32, 32)
    found = explain(model, images, nodes=["road", "van"])[0]
    road, bus = (TREE.index(name) for name in ("road", "bus"))
    assert list(found.node_child_maps) == [TREE.ids[road]]
    way = explain(model, images, classes=[TREE.classes.index("bus")])[0]
    assert np.allclose(found.node_child_maps[TREE.ids[road]], way.child_maps[-1], atol=1e-6)
    assert way.path.decisions[-1].child_ids == tuple(TREE.ids[n] for n in TREE.children[road])
    assert bus in TREE.children[road]


def test_weights_that_change_places_make_another_model():
    model = make("marginal")
    before = model_hash(model)
    with torch.no_grad():
        model.head.linear.weight.copy_(model.head.linear.weight.flip(0))
    assert model_hash(model) != before


def test_an_explanation_is_plain_data_and_says_how_it_was_made():
    found = explain(make("marginal"), torch.randn(1, 3, 32, 32))[0]
    data = json.loads(json.dumps(found.to_dict()))
    assert data["class"] == found.path.class_name
    assert np.shape(data["maps"]) == (len(found.path), 8, 8)
    assert data["made"]["hierarchy"] == TREE.hash


def test_one_overlay_a_decision_and_one_picture_of_all():
    model = make("marginal")
    photo = Image.effect_noise((50, 90), 90).convert("RGB")
    for images in (photo, torch.randn(1, 3, 32, 32)):  # a tensor is drawn on plain grey
        (found,) = explain(model, images)
        assert [tile.size for tile in overlays(found)] == [(256, 256)] * len(found.path)
        assert picture(found).width == WIDTH + 2 * GAP
