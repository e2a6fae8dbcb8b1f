"""Tested regions and levels: right where the answer is known, and never claimed without two tests."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nbdt import NBDT, NBDTError, NBDTHead
from nbdt.explain import Explanation, explain
from nbdt.explain.maps.candidates import beyond_others, cell_grid, grown, windows
from nbdt.explain.maps.hiding import blurred, hidden_logits
from nbdt.explain.maps.integrated import PLACE, STEPS, finer_layer, integrated
from nbdt.explain.maps.layers import PLAIN_GRID, PLAIN_SIDE
from nbdt.explain.maps.levels import LEVELS
from nbdt.explain.maps.tested import LEAST, LENGTH, NOISE, STEADY, Search, fitted
from nbdt.explain.result.regions import connected
from nbdt.network.preprocessing import Preprocessing
from tests import oracle
from tests.explain.stripes import CELL, SIDE, TREE, model_of

RNG = np.random.default_rng(0)


def striped_model():
    """Stripes of the first channel say animal, those of the second say cat."""
    return model_of(100 * torch.tensor([[1.0, 1], [1, -1], [-1, 0], [-1, 0]]), torch.zeros(4))


def striped_image(animal, cat):
    """Stripes in windows of 4 × 4 cells whose top left cells are given, for each channel."""
    image = torch.zeros(3, SIDE, SIDE)
    for channel, place in enumerate((animal, cat)):
        if place:
            rows, columns = (slice(CELL * at, CELL * (at + 4)) for at in place)
            image[channel, rows, columns][:, 1::2] = 1
    return image


def hidden_by_oracle(model, image, cells, grid, baseline):
    """The log-odds of every node, with cells hidden by reference implementations."""
    mask = oracle.cell_mask(cells, grid, *image.shape[1:])
    replaced = image.numpy().mean(axis=(1, 2), keepdims=True)
    if baseline == "blur":
        sigma = min(image.shape[1:]) / 4
        replaced = np.stack([oracle.gaussian_blur(c, sigma) for c in image.numpy()])
    mixed = torch.from_numpy(image.numpy() * (1 - mask) + replaced * mask).float()
    scores = oracle.node_scores(
        model.hierarchy, model.logits(mixed[None]).detach().double().numpy(), model.rule
    )
    return oracle.log_odds(model.hierarchy, scores)[0]


# ---- regions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["default", "careful"])
def test_each_decision_has_the_region_that_it_rests_on(level):
    model, image = striped_model(), striped_image((0, 0), (4, 4))
    (found,) = explain(model, image[None], level=level)
    assert found.path.class_name == "cat"
    for region, top in zip(found.tested, (0, 4), strict=True):
        cells = [cell for piece in region.regions for cell in piece.cells]
        inside = [cell for cell in cells if all(top <= at < top + 4 for at in cell)]
        assert len(inside) >= 0.6 * len(cells)
        (own, other), (own_again, other_again) = region.changes
        assert own > other
        assert own_again > other_again
        assert region.log_odds[0] > max(region.log_odds[1:])


def test_what_moves_every_decision_alike_is_no_decisions_own_region():
    model, image = striped_model(), striped_image((2, 2), (2, 2))
    (found,) = explain(model, image[None])
    assert len(found.path) == 2
    assert any(region is None for region in found.tested)


def test_nothing_is_found_in_a_plain_picture():
    (found,) = explain(striped_model(), torch.zeros(1, 3, SIDE, SIDE))
    assert found.tested == (None, None)


@pytest.mark.parametrize("name", ["small_convnet", "resnet10t", "test_vit"])
@pytest.mark.parametrize("rule", oracle.RULES)
def test_every_shown_region_passes_both_tests_by_the_reference(name, rule):
    torch.manual_seed(1)
    model = NBDT.from_timm(name, TREE, rule=rule).eval()
    with torch.no_grad():
        model.head.linear.weight *= 20
    side = max(64, model.preprocess.size if "vit" in name else 0)
    image = torch.randn(3, side, side)
    (found,) = explain(model, image[None])
    nodes = TREE.path_of_class(found.path.class_index)[1:]
    before = [decision.log_odds for decision in found.path]
    assert len(found.tested) == len(nodes)
    assert found.made["level"] == "default"
    for index, region in enumerate(found.tested):
        if region is None:
            continue
        assert len(region.regions) <= 2
        cells = [cell for piece in region.regions for cell in piece.cells]
        for way, baseline in enumerate(("blur", "mean")):
            after = hidden_by_oracle(model, image, cells, region.regions[0].grid, baseline)[nodes]
            falls = np.array(before) - after
            others = np.abs(np.delete(falls, index)).max()
            assert region.log_odds[way + 1] == pytest.approx(after[index], abs=2e-3)
            assert region.changes[way] == pytest.approx((falls[index], others), abs=2e-3)
            assert falls[index] > others
            assert falls[index] >= LEAST - 2e-3


def made(after, verified, spread=(1.0, 1.0)):
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, :2, :2] = masks[1, 2:, 2:] = True
    search = Search(
        np.array([4.0, 4.0]),
        np.array(spread),
        np.zeros((2, 4, 4)),
        masks,
        np.array(after),
        torch.zeros(2, 4),
    )
    return search, search.regions(np.array(verified).reshape(-1, 2))


def test_a_region_that_fails_where_it_was_not_chosen_is_not_shown():
    good = [[1.0, 3.5], [3.5, 1.0]]
    _, shown = made(good, good)
    assert [region.regions[0].cells[0] for region in shown] == [(0, 0), (2, 2)]
    search, shown = made(good, [[3.9, 1.0], [3.5, 1.0]])  # the first one moves the other decision
    assert search.claims == [0, 1]
    assert shown[0] is None
    assert shown[1].changes == ((3.0, 0.5), (3.0, 0.5))


def test_only_what_was_claimed_is_verified():
    search, shown = made([[1.0, 0.5], [3.9, 3.0]], [[3.0, 1.0]])
    assert search.best[1] == 1  # 3 − 1 against a change of 0.1
    assert search.claims == [1]  # hiding the first moves the second decision more
    assert shown[0] is None


def test_falls_are_compared_in_spreads():
    after = [[1.0, 3.0], [3.9, 3.9]]
    assert made(after, [[1.0, 3.0]], (1.0, 1.0))[0].best[0] == 0
    search, _ = made(after, [[1.0, 3.0]], (10.0, 1.0))
    assert search.claims == [0]  # for the second decision only: 1 spread against 0.3
    assert search.best == [0, 0]


# ---- candidates --------------------------------------------------------------------------------


@given(st.integers(4, 16), st.integers(4, 16), st.integers(2, 6))
@settings(max_examples=15)
def test_windows_are_compact_and_cover_the_picture(rows, columns, along):
    found = windows((rows, columns), along)
    assert found.any(axis=0).all() or along < 3
    assert len({mask.tobytes() for mask in found}) == len(found) <= along**2
    for mask in found:
        assert len(connected(map(tuple, np.argwhere(mask)), mask.shape)) == 1
        assert 0.1 <= mask.mean() <= 0.32


@given(st.integers(4, 16), st.integers(4, 16), st.integers(0, 99))
@settings(max_examples=15)
def test_a_grown_region_is_one_piece_around_the_maximum(rows, columns, seed):
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    values[1, 2] = 50
    mask = grown(values)
    assert mask[1, 2]
    assert mask.sum() == round(0.2 * rows * columns)
    assert len(connected(map(tuple, np.argwhere(mask)), mask.shape)) == 1


def test_a_map_beyond_the_others_is_its_own_part():
    maps = RNG.normal(size=(3, 4, 4))
    found = beyond_others(maps)
    expected = maps[1] - (np.abs(maps[0]) + np.abs(maps[2])) / 2
    assert np.allclose(found[1], expected)
    assert np.array_equal(beyond_others(maps[:1]), maps[:1])


def test_the_grid_is_the_maps_within_limits():
    assert cell_grid((9, 9)) == (9, 9)
    assert cell_grid((1, 260)) == (4, 16)


def test_a_fitted_map_is_the_posterior_mean_of_a_gaussian_process():
    prior, masks = RNG.normal(size=(3, 4)), RNG.random((6, 3, 4)) < 0.4
    falls = RNG.normal(size=6)
    expected = oracle.fitted_map(prior, masks, falls, LENGTH, NOISE)
    assert np.allclose(fitted(prior, masks, falls), expected, atol=1e-8)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
@settings(max_examples=40)
def test_regions_are_chosen_as_by_the_reference_in_any_unit_and_order(decisions, sets, seed):
    rng = np.random.default_rng(seed)
    before, spread = rng.normal(size=decisions), rng.uniform(0.5, 2, decisions)
    after, masks = rng.normal(size=(sets, decisions)), rng.random((sets, 4, 4)) < 0.3
    zeros = np.zeros((decisions, 4, 4))

    def best(before, spread, after):
        return Search(before, spread, zeros, masks, after, torch.zeros(sets, 4)).best

    found = best(before, spread, after)
    assert found == oracle.chosen_regions(before, after, spread, STEADY)
    assert best(2 * before, 2 * spread, 2 * after) == found
    order = rng.permutation(sets)
    assert [int(order[row]) for row in best(before, spread, after[order])] == found


def test_hidden_logits_do_not_depend_on_how_pictures_are_grouped(monkeypatch):
    torch.manual_seed(0)
    model = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    images, rows = torch.randn(2, 3, 32, 32), torch.tensor([0, 1, 1, 0, 1])
    masks = torch.rand(5, 8, 8) < 0.3
    pair = images, blurred(images)
    together = hidden_logits(model, *pair, rows, masks)
    monkeypatch.setattr("nbdt.explain.maps.log_odds.CPU_PIXELS_AT_ONCE", 1)
    assert torch.allclose(together, hidden_logits(model, *pair, rows, masks), atol=1e-5)
    assert hidden_logits(model, *pair, rows[:0], masks[:0]).shape == (0, 4)


# ---- maps --------------------------------------------------------------------------------------


def test_integrated_gradients_of_a_layer_sum_to_the_difference(monkeypatch):
    torch.manual_seed(0)
    model = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    image = torch.randn(3, 64, 64)
    layer = finer_layer(model, image[None], 2)
    assert layer.startswith("layer3")
    monkeypatch.setattr("nbdt.explain.maps.integrated.STEPS", 64)
    nodes = [1, 2, 4]
    found = integrated(model, image, nodes, layer)
    blurred = np.stack([oracle.gaussian_blur(channel, 64 / 12) for channel in image.numpy()])
    pictures = torch.stack([image, torch.from_numpy(blurred).float()])
    logits = model.logits(pictures).detach().double().numpy()
    scores = oracle.node_scores(TREE, logits, "marginal")
    whole, start = oracle.log_odds(TREE, scores)[:, nodes]
    assert found.sum(axis=(1, 2)) == pytest.approx(
        whole - start, abs=0.05 * abs(whole - start).max()
    )


class Fine(nn.Module):
    """A finer layer of 8 × 8 cells, a smooth function of it on 4 × 4, and their mean."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(3, 2, 4, stride=4), nn.Conv2d(2, 6, 2, stride=2)

    def forward_features(self, images):
        return self.late(torch.tanh(self.early(images))).tanh()

    def forward_head(self, features, pre_logits):
        return features.mean(dim=(2, 3))


def test_integrated_gradients_equal_central_differences():
    torch.manual_seed(0)
    plain = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3, 1.0, "bicubic")
    model = NBDT(Fine(), NBDTHead(6, TREE, rule="marginal"), "fine", plain).eval()
    image, nodes = torch.randn(3, SIDE, SIDE), [1, 3]
    assert finer_layer(model, image[None], 4) == "early"
    found = integrated(model, image, nodes, "early")
    pictures = torch.stack([image, blurred(image, 1 / 12)])
    with torch.no_grad():
        whole, start = model.backbone.early(pictures).double().flatten(1).numpy()
        model.double()
        for node, values in zip(nodes, found, strict=True):

            def log_odds(layer, node=node):
                cells = torch.from_numpy(layer).view(1, 2, 8, 8)
                pooled = model.backbone.late(cells.tanh()).tanh().mean(dim=(2, 3))
                scores = oracle.node_scores(TREE, model.head.linear(pooled).numpy(), "marginal")
                return oracle.log_odds(TREE, scores)[0, node]

            shares = [(step + PLACE) / STEPS for step in range(STEPS)]
            expected = oracle.integrated_gradients(log_odds, whole, start, shares)
            expected = expected.reshape(2, 8, 8).sum(axis=0)
            assert np.allclose(values, expected, atol=1e-4 * np.abs(expected).max())


def test_maps_are_sharpened_where_there_is_a_finer_layer():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    model = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    fast, default = explain(model, images, level="fast"), explain(model, images)
    for one, other in zip(fast, default, strict=True):
        assert one.path == other.path
        assert not np.allclose(one.maps[0], other.maps[0])
        assert "sharpened" in other.made["method"]
        assert [m.shape for m in one.maps] == [m.shape for m in other.maps]
    plain = striped_model()
    images = torch.stack([striped_image((0, 0), (4, 4))] * 2)
    (one, _), (other, _) = explain(plain, images, level="fast"), explain(plain, images)
    assert np.array_equal(one.maps[0], other.maps[0])
    assert one.made["method"] == other.made["method"]


def test_other_threads_may_use_the_network_while_it_is_mapped(monkeypatch):
    torch.manual_seed(0)
    model = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    images, logits = torch.randn(1, 3, 64, 64), model.logits
    expected, seen = logits(images), []

    def logits_beside_another_thread(pictures):
        with ThreadPoolExecutor(1) as other:
            seen.append(other.submit(logits, images).result())
        return logits(pictures)

    monkeypatch.setattr(model, "logits", logits_beside_another_thread)
    explain(model, images)
    assert seen
    assert all(torch.equal(one, expected) for one in seen)


def test_a_network_without_positions_gets_maps_fitted_to_a_plain_grid():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 6))
    backbone.forward_features = backbone.forward
    backbone.forward_head = lambda features, pre_logits: features
    preprocess = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3, 1.0, "bicubic")
    model = NBDT(backbone, NBDTHead(6, TREE, rule="marginal"), "flat", preprocess).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    found = explain(model, images)
    for one, path in zip(found, model.paths(images), strict=True):
        assert one.path == path
        assert one.made["method"] == PLAIN_GRID
        assert one.resolution == (PLAIN_SIDE, PLAIN_SIDE)
        assert one.child_maps == ()
        assert all(values.any() for values in one.maps)
    with pytest.raises(NBDTError, match="no layer with positions"):
        explain(model, images, level="fast")


@pytest.mark.parametrize("level", LEVELS)
def test_a_batch_gives_what_each_image_gives_and_leaves_nothing_behind(level):
    torch.manual_seed(0)
    model = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    images = torch.randn(3, 3, 64, 64)
    kept, hooks = images.clone(), sum(len(m._forward_hooks) for m in model.modules())
    with torch.inference_mode():
        together = explain(model, images, level=level)
    for image, found in zip(images, together, strict=True):
        (alone,) = explain(model, image[None], level=level)
        for one, other in zip(found.maps, alone.maps, strict=True):
            assert np.allclose(one, other, atol=1e-4)
        shown = [[region and region.regions for region in e.tested] for e in (found, alone)]
        assert shown[0] == shown[1]
    assert torch.equal(images, kept)
    assert hooks == sum(len(m._forward_hooks) for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_an_unknown_level_is_refused_with_the_nearest():
    with pytest.raises(NBDTError, match=r"Unknown level 'kareful'.*fast.*Did you mean 'careful'"):
        explain(striped_model(), torch.zeros(1, 3, SIDE, SIDE), level="kareful")


def test_other_methods_keep_their_maps_and_get_regions():
    model, image = striped_model(), striped_image((0, 0), (4, 4))[None]
    fast, found = (
        explain(model, image, method="occlusion", level=k)[0] for k in ("fast", "default")
    )
    assert fast.tested == ()
    assert np.array_equal(fast.maps[0], found.maps[0])
    assert all(found.tested)


def test_regions_are_saved_and_old_folders_load(tmp_path):
    (found,) = explain(striped_model(), striped_image((0, 0), (4, 4))[None])
    assert all(found.tested)
    replace(found, tested=(found.tested[0], None)).save(tmp_path / "new")
    assert Explanation.load(tmp_path / "new").tested == (found.tested[0], None)
    record = json.loads((tmp_path / "new" / "explanation.json").read_text())
    assert record["tested"][1] is None
    assert math.isclose(record["tested"][0]["share"], 0.2, abs_tol=0.05)
    replace(found, tested=()).save(tmp_path / "fast")
    assert Explanation.load(tmp_path / "fast").tested == ()


def test_a_tested_region_may_be_where_a_smaller_flip_is_found():
    model, image = striped_model(), striped_image((0, 0), (4, 4))
    (found,) = explain(model, image[None], level="careful", counterfactuals=True)
    (plain,) = explain(model, image[None], level="fast", counterfactuals=True)
    for one, other in zip(found.counterfactuals, plain.counterfactuals, strict=True):
        assert one.share <= other.share or not other.flipped
