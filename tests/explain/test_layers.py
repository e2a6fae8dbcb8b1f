"""Node maps of many families equal Captum's Grad-CAM on the layer that the explanation names."""

import gc
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import nn

from nbdt import NBDT, Hierarchy, NBDTError, NBDTHead
from nbdt.explain import explain as explain_at
from nbdt.explain.maps.layers import PLAIN_GRID, PLAIN_SIDE, map_layer
from nbdt.explain.maps.log_odds import METHODS, LogOdds
from nbdt.network.preprocessing import Preprocessing

explain = partial(explain_at, level="fast")  # the maps of one forward pass
TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/road/bus",
                             "vehicle/road/van"])  # fmt: skip
# Architecture, side in pixels, layer, and how its values are laid out.
MAPS, LAST = "channels first", "channels last"
FAMILIES = [
    ("resnet18", 64, "forward_features", MAPS),
    ("small_convnet", 32, "forward_features", MAPS),
    ("efficientnet_b0", 64, "forward_features", MAPS),
    ("regnetx_002", 64, "forward_features", MAPS),
    ("densenet121", 64, "forward_features", MAPS),
    ("pvt_v2_b0", 64, "forward_features", MAPS),
    ("convnext_atto", 64, "forward_features", MAPS),  # a norm after the pool
    ("mobilenetv3_small_050", 64, "forward_features", MAPS),  # a hidden layer after the pool
    ("poolformer_s12", 64, "forward_features", MAPS),
    ("davit_tiny", 64, "forward_features", MAPS),
    ("swin_tiny_patch4_window7_224", 224, "forward_features", LAST),
    ("mixer_s32_224", 224, "forward_features", (7, 7, 0)),
    ("vit_tiny_patch16_224,img_size=64", 64, "blocks.10", (4, 4, 1)),
    ("deit3_small_patch16_224,img_size=64", 64, "blocks.10", (4, 4, 1)),
    ("vit_wee_patch16_reg1_gap_256,img_size=64", 64, "forward_features", (4, 4, 1)),
    ("vit_base_patch16_siglip_224,img_size=64", 64, "forward_features", (4, 4, 0)),
    ("xcit_nano_12_p16_224", 64, "blocks.11", (4, 4, 0)),
]
NAMES = [family[0].partition(",")[0] for family in FAMILIES]
CLOSED = NAMES[:6]


def make(name, rule="marginal"):
    torch.manual_seed(0)
    model = NBDT.from_timm(name, TREE, rule=rule).eval()
    nn.init.normal_(model.head.linear.weight, std=0.1)  # some heads start at zero
    return model


class Shown(nn.Module):
    """Values as maps (batch, channels, height, width) at `here`, and back."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.here = layout, nn.Identity()

    def forward(self, values):
        if self.layout == MAPS:
            return self.here(values)
        if self.layout == LAST:
            return self.here(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        height, width, others = self.layout
        before, tokens = values[:, :others], values[:, others:]
        maps = tokens.transpose(1, 2).reshape(len(values), -1, height, width)
        return torch.cat([before, self.here(maps).flatten(2).transpose(1, 2)], dim=1)


class Whole(nn.Module):
    """Images to the scores of all nodes, with `Shown` put where the layer is."""

    def __init__(self, model, layer, layout, output):
        super().__init__()
        self.model, self.output, self.shown = model, output, Shown(layout)
        self.at_the_end = layer == "forward_features"
        if not self.at_the_end:
            stage, _, index = layer.rpartition(".")
            blocks = model.backbone.get_submodule(stage)
            blocks[int(index)] = _after(blocks[int(index)], self.shown)

    def forward(self, images):
        values = self.model.feature_map(images)
        values = self.shown(values) if self.at_the_end else values
        return self.output(self.model.head.linear(self.model.pool(values)))


class _after(nn.Module):  # noqa: N801
    def __init__(self, block, shown):
        super().__init__()
        self.block, self.shown = block, shown

    def forward(self, *args, **kwargs):
        return self.shown(self.block(*args, **kwargs))


@pytest.mark.parametrize(("name", "side", "layer", "layout"), FAMILIES, ids=NAMES)
def test_maps_equal_captums(name, side, layer, layout):
    images = torch.randn(2, 3, side, side)
    model = make(name)
    explanations = explain(model, images, nodes=["road", "van"])
    assert explanations[0].made["layer"] == layer
    assert ("closed" in explanations[0].made["method"]) == (
        name.partition(",")[0] in [*CLOSED, "mixer_s32_224", "swin_tiny_patch4_window7_224"]
    )

    def log_odds(logits):
        log_probs = model.head.rules.log_probs(logits)
        families = [[c for c in TREE.children[p] if c != n] if p >= 0 else [0]
                    for n, p in enumerate(TREE.parents)]  # fmt: skip
        others = [log_probs[:, family].logsumexp(dim=1) for family in families]
        return log_probs - torch.stack(others, dim=1)

    def scores(logits):  # log of the summed exponentials below each node
        below = [[c for c in range(5) if node in TREE.path_of_class(c)]
                 for node in range(TREE.num_nodes)]  # fmt: skip
        return torch.stack([logits[:, b].logsumexp(dim=1) for b in below], dim=1)

    whole = Whole(model, layer, layout, log_odds)
    gradcam = LayerGradCam(whole, whole.shown.here)
    for row, found in enumerate(explanations):
        image = images[row : row + 1]
        wanted = [TREE.ids.index(i) for i in found.node_maps]
        path = TREE.path_of_class(found.path.class_index)[1:]
        maps = [*found.maps, *found.node_maps.values()]
        whole.output = log_odds
        for node, values in zip([*path, *wanted], maps, strict=True):
            assert_close(values, gradcam.attribute(image, node))
            assert np.abs(values).max() > 0
        whole.output = scores
        for node, values in zip(path, found.child_maps, strict=True):
            for child, child_values in zip(TREE.children[TREE.parents[node]], values, strict=True):
                assert_close(child_values, gradcam.attribute(image, child))


def assert_close(values, expected):
    expected = expected[0, 0].detach().numpy()
    assert values.shape == expected.shape
    assert np.allclose(values, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("rule", ["representative", "marginal"])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224,img_size=64"])
def test_nothing_is_touched(name, rule):
    model = make(name, rule)
    model.requires_grad_(False)
    model.head.linear.weight.requires_grad_(True)
    model.head.linear.weight.grad = gradient = torch.ones_like(model.head.linear.weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = count_hooks(model)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        inside = explain(model, images)[0]
    outside = explain(model, images.requires_grad_())[0]
    assert all(np.array_equal(a, b) for a, b in zip(inside.maps, outside.maps, strict=True))
    assert torch.is_grad_enabled()
    assert not any(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()].count(True) == 1
    assert model.head.linear.weight.grad is gradient
    assert bool((gradient == 1).all())
    assert images.grad is None
    assert count_hooks(model) == hooks
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def count_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_a_failure_leaves_no_hooks():
    model = make("vit_tiny_patch16_224,img_size=64")
    with pytest.raises(NBDTError, match=r"cannot take images of 32 × 32 pixels .* 64 × 64"):
        explain(model, torch.randn(1, 3, 32, 32))
    assert count_hooks(model) == 0
    assert torch.is_grad_enabled()


def test_two_hundred_images_keep_no_memory():
    model = make("convnext_atto")
    images = torch.randn(1, 3, 32, 32)

    def alive():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    explain(model, images)
    before = alive()
    for _ in range(200):
        explain(model, images)
    assert alive() <= before


def test_a_network_without_positions_is_refused_and_what_it_is_told_works():
    model, images = make("pit_ti_224"), torch.randn(1, 3, 224, 224)
    with pytest.raises(NBDTError, match="no layer with positions.*'default'.*method='occlusion'"):
        explain(model, images)
    (plain,) = explain_at(model, images, level="default")
    assert plain.made["method"] == PLAIN_GRID
    assert plain.resolution == (PLAIN_SIDE, PLAIN_SIDE)
    assert 1 + 9 < plain.made["passes"] < 20
    assert len(plain.tested) == len(plain.path)
    found = explain(model, images, method="input x gradient", counterfactuals=True)[0]
    assert found.path == model.paths(images)[0]
    assert len(found.counterfactuals) == len(found.maps) == len(found.path)


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("tnt_s_legacy_patch16_224,img_size=64", "blocks.10", (4, 4)),  # blocks with two streams
        ("volo_d1_224", "network.4", (14, 14)),  # a class token of its own kind, added at the end
    ],
)
def test_class_tokens_of_other_kinds_leave_an_earlier_layer(name, layer, size):
    model = make(name)
    side = model.preprocess.size
    found = explain(model, torch.randn(1, 3, side, side))[0]
    assert (found.made["layer"], found.resolution) == (layer, size)
    assert all(np.abs(values).max() > 0 for values in found.maps)


# ---- networks that are nobody's ------------------------------------------------------------


class Plain(nn.Module):
    """Eight channels of a quarter of the side, and any way from there to the head."""

    def __init__(self, pool):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 8, 4, stride=4), pool

    def forward_features(self, images):
        return self.conv(images)

    def forward_head(self, values, pre_logits):
        assert pre_logits
        return self.pool(values)


def plain(pool, features=8):
    torch.manual_seed(0)
    head = NBDTHead(features, TREE, rule="representative")
    preprocess = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, 1.0, "bicubic")
    return NBDT(Plain(pool), head, "plain", preprocess).eval()


POOLS = {
    "average": lambda values: values.mean((2, 3)),
    "relu": lambda values: values.mean((2, 3)).relu(),
    "relu6": lambda values: values.mean((2, 3)).clamp(0, 6),
    "size": lambda values: values.mean((2, 3)).abs(),
    "maximum": lambda values: values.amax((2, 3)),
    "both": lambda values: torch.cat([values.mean((2, 3)), values.amax((2, 3))], dim=1),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("shape", [(64, 64), (64, 32)])  # positions (16, 16): as many as `both` has
def test_whatever_follows_the_pool_is_in_the_gradient(pool, shape):
    model = plain(POOLS[pool], 16 if pool == "both" else 8)
    images = torch.randn(1, 3, *shape)
    found = explain(model, images)[0]
    assert ("closed" in found.made["method"]) == (pool == "average")
    assert found.resolution == (shape[0] // 4, shape[1] // 4)
    values = model.feature_map(images).detach().requires_grad_()
    log_probs = model.head.rules.log_probs(model.head.linear(model.pool(values)))[0]
    first = found.path.decisions[0]
    chosen, other = (TREE.index(first.child_ids[i]) for i in (first.chosen, first.runner_up))
    (slope,) = torch.autograd.grad(log_probs[chosen] - log_probs[other], values)
    expected = (slope.mean((2, 3), keepdim=True) * values).sum(1)[0]
    assert np.allclose(found.maps[0], expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("shape", "grid"), [((128, 32), (8, 2)), ((128, 64), (8, 4))])
def test_tokens_of_a_picture_that_is_no_square_lie_as_it_does(shape, grid):
    assert explain(make("xcit_nano_12_p16_224"), torch.randn(1, 3, *shape))[0].resolution == grid


def test_the_generator_of_random_numbers_is_left_alone():
    for pool in ("average", "relu"):
        model = plain(POOLS[pool])
        before = torch.random.get_rng_state()
        explain(model, torch.zeros(1, 3, 64, 64))
        assert torch.equal(torch.random.get_rng_state(), before)


def test_autocast_and_other_floating_types_are_taken():
    model = make("resnet18")
    images = torch.randn(1, 3, 64, 64)
    expected = explain(model, images)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(explain(model, images)[0].maps[0], expected.maps[0])
    assert np.array_equal(explain(model, images.double())[0].maps[0], expected.maps[0])
    photo = Image.effect_noise((80, 60), 90).convert("RGB")
    assert explain(make("resnet18").bfloat16(), photo)[0].photo is not None


def test_half_precision_weights_give_float32_maps():
    model = make("resnet18").bfloat16()
    found = explain(model, torch.randn(1, 3, 64, 64).bfloat16())[0]
    assert found.maps[0].dtype == np.float32
    assert np.abs(found.maps[0]).max() > 0


def test_maps_and_constants_sum_to_the_score():
    model = make("resnet18", "representative")
    layer = map_layer(model, torch.randn(3, 3, 64, 64))
    weight, bias = model.head.linear.weight, model.head.linear.bias
    maps = layer.maps(weight.detach().expand(3, -1, -1))
    total = maps.sum(dim=(2, 3)) + bias
    assert torch.allclose(total, model.head.linear(layer.features), atol=1e-4)


# ---- Captum's methods by name --------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "side"), [("small_convnet", 32), ("vit_tiny_patch16_224,img_size=64", 64)]
)
def test_other_methods_by_name(name, side, method):
    model = make(name)
    with torch.no_grad():
        model.head.linear.weight *= 30  # LIME finds nothing in the log-odds of an untrained head
    needed = [p.requires_grad for p in model.parameters()]
    images = torch.randn(2, 3, side, side)
    found = explain(model, images, method=method)
    size = 8 if method in {"occlusion", "lime"} else side
    assert [e.path for e in found] == model.paths(images)
    assert all(values.shape == (size, size) for e in found for values in e.maps)
    assert any(np.abs(values).max() > 0 for e in found for values in e.maps)
    assert method in found[0].made["method"]
    assert needed == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


def test_further_nodes_can_be_asked_of_any_method():
    model, images = make("small_convnet"), torch.randn(1, 3, 32, 32)
    found = explain(model, images, nodes=["dog"], method="input x gradient")[0]
    path = explain(model, images, classes=[TREE.classes.index("dog")], method="input x gradient")
    assert list(found.node_maps) == [TREE.ids[TREE.index("dog")]]
    assert np.array_equal(*found.node_maps.values(), path[0].maps[-1])


def test_integrated_gradients_sum_to_the_difference():
    model = make("small_convnet")
    images = torch.randn(1, 3, 32, 32)
    found = explain(model, images, method="integrated gradients")[0]
    node = TREE.path_of_class(found.path.class_index)[1]
    with torch.no_grad():
        value = LogOdds(model, node)(torch.cat([images, torch.zeros_like(images)]))
    assert found.maps[0].sum() == pytest.approx(float(value[0] - value[1]), rel=0.05)


def test_occlusion_is_the_drop_when_a_square_is_hidden():
    model = make("small_convnet")
    images = torch.randn(1, 3, 32, 32)
    found = explain(model, images, method="occlusion")[0]
    node = TREE.path_of_class(found.path.class_index)[1]
    hidden = images.clone()
    hidden[:, :, 8:12, 20:24] = 0
    with torch.no_grad():
        value = LogOdds(model, node)(torch.cat([images, hidden]))
    assert found.maps[0][2, 5] == pytest.approx(float(value[0] - value[1]), abs=1e-4)


def test_unknown_names_are_refused_with_the_nearest():
    model, images = make("small_convnet"), torch.randn(1, 3, 32, 32)
    with pytest.raises(NBDTError, match=r"Unknown method 'oclusion'.*Did you mean 'occlusion'"):
        explain(model, images, method="oclusion")
    with pytest.raises(NBDTError, match=r"no node 'rod'.*Did you mean 'road'"):
        explain(model, images, nodes=["rod"])
    with pytest.raises(NBDTError, match="is the root"):
        explain(model, images, nodes=[TREE.ids[0]])


def test_a_name_that_two_nodes_share_needs_an_id():
    tree = Hierarchy.from_paths(["a/cat", "a/x/dog", "a/x/cow", "b/x/car", "b/x/van", "b/bus"])
    model = NBDT.from_timm("small_convnet", tree, rule="marginal").eval()
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(NBDTError, match="2 nodes are named 'x'; say which id"):
        explain(model, images, nodes=["x"])
    second = [i for i, name in zip(tree.ids, tree.names, strict=True) if name == "x"][1]
    assert list(explain(model, images, nodes=[second])[0].node_maps) == [second]
