"""What would change a decision: the regions are the right ones, none is spare, and they flip it."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import NBDT, NBDTHead
from nbdt.explain import explain
from nbdt.explain.counterfactual import _prefix, counterfactuals
from nbdt.explain.maps.candidates import cell_grid
from nbdt.explain.maps.hiding import BLUR, blurred, gaussian_blur, hidden, hidden_logits
from nbdt.explain.maps.tested import Search
from nbdt.explain.result.regions import Region, connected, regrid
from tests import oracle
from tests.explain.stripes import CELL, SIDE, TREE, Stripes, model_of


def striped_model(rule="representative", needed=0.5):
    """Animal while the first channel has more than `needed` stripes; cat while the second has any.

    One full cell of stripes has a mean of about 1/64 over the picture.
    """
    weight = torch.tensor([[640.0, 160], [640, -160], [-640, 0], [-640, 0]])
    least = torch.tensor([1.0, 1, -1, -1]) * (640 * needed / 64)
    return model_of(weight, torch.tensor([0.0, 0.4, 0, 0]) - least, rule)


def striped_image(cells, channel=0):
    image = torch.zeros(3, SIDE, SIDE)
    for row, column in cells:
        area = image[channel, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        area[:, 1::2] = 1
    return image


def found_for(model, image, maps=None):
    path = model.paths(image[None])[0]
    features = model.feature_map(image[None])[0].detach().numpy()
    maps = [features[0], features[1]][: len(path)] if maps is None else maps
    return path, counterfactuals(model, image, path, maps)


def model_says(model, image, cells, grid, path, index):
    """The decision's margin after blurring, by the reference implementations and the plain path of the model."""
    replaced = np.stack([oracle.gaussian_blur(c, BLUR * SIDE) for c in image.numpy()])
    mask = oracle.cell_mask(cells, grid, SIDE, SIDE)
    mixed = torch.from_numpy(image.numpy() * (1 - mask) + replaced * mask).float()
    log_probs = model.head(model.features(mixed[None]))[0].detach().double().numpy()
    return oracle.class_margin(TREE, log_probs, path.class_index, index)


# ---- a network whose reason is known -----------------------------------------------------------


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("patch", [[(2, 5)], [(2, 5), (2, 6)], [(1, 1), (6, 6)]])
def test_the_region_is_the_patch_that_the_decision_rests_on(rule, patch):
    model = striped_model(rule)
    _, (found, _) = found_for(model, striped_image(patch))
    assert found.flipped
    assert found.becomes == "vehicle"
    assert sorted(cell for region in found.regions for cell in region.cells) == sorted(patch)
    assert found.share == len(patch) / 64
    assert found.log_odds[0] > 0 > found.log_odds[1]


@settings(max_examples=10)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=4), st.data())
def test_every_flip_is_real_and_no_cell_of_it_can_be_spared(patch, data):
    """Whatever the map proposes: here it is noise, so that the search meets useless cells."""
    model, image = striped_model(), striped_image(patch)
    seed = data.draw(st.integers(0, 2**16))
    noise = np.random.default_rng(seed).random((8, 8), dtype=np.float32)
    path = model.paths(image[None])[0]
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("nbdt.explain.counterfactual.MOST", 1)
        found = counterfactuals(model, image, path, [noise, noise])[0]
    cells = [cell for region in found.regions for cell in region.cells]
    assert found.flipped == bool(cells)
    assert found.flipped or found.margin < 0
    if not cells:
        return
    assert patch & set(cells)
    assert model_says(model, image, cells, (8, 8), path, 0) < 0
    for left_out in cells:
        rest = [cell for cell in cells if cell != left_out]
        assert model_says(model, image, rest, (8, 8), path, 0) >= 0


@pytest.mark.parametrize("rule", oracle.RULES)
def test_a_flip_that_an_earlier_one_hides_is_not_claimed(rule):
    """What makes it an animal and what makes it a cat are in the same cell."""
    image = striped_image([(2, 5)]) + striped_image([(2, 5)], channel=1)
    path, (animal, cat) = found_for(striped_model(rule), image)
    assert path.class_name == "cat"
    assert (animal.flipped, animal.becomes) == (True, "vehicle")
    assert (cat.flipped, cat.becomes, cat.regions) == (False, None, ())
    assert (animal.overtaken, cat.overtaken) == (False, True)  # nothing is known of cat then


def test_of_a_few_cells_every_number_is_tried():
    """Two cells flip nothing, three do, four do not: doubling would miss it."""
    margins = {1: 1.0, 2: 1.0, 3: -1.0, 4: 1.0}
    places = np.arange(4).reshape(2, 2)
    found = _prefix(places, 4, lambda sets: np.array([margins[int(one.sum())] for one in sets]))
    assert np.array_equal(found, places < 3)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_the_model_takes_the_way_that_is_claimed(rule):
    image = striped_image([(2, 5)]) + striped_image([(6, 1)], channel=1)
    model = striped_model(rule)
    with torch.no_grad():
        model.head.linear.bias[1] += 2  # a cat by most of a cell, not by any stripe
    path, found = found_for(model, image)
    assert [one.becomes for one in found] == ["vehicle", "dog"]
    for index, one in enumerate(found):
        pixels = torch.from_numpy(np.asarray(one.picture, dtype=np.float32) / 255)
        seen = (pixels.permute(2, 0, 1) - 0.5) / 0.5
        taken = model.paths(seen[None])[0].decisions[index]
        assert taken.node_id == path.decisions[index].node_id
        assert taken.children[taken.chosen] == one.becomes


def test_cells_that_the_map_wrongly_prefers_are_given_back():
    patch = [(3, 3), (3, 4)]
    misled = np.zeros((8, 8), dtype=np.float32)
    misled[0, :5] = 9  # five empty cells first
    for row, column in patch:
        misled[row, column] = 5
    _, (found, _) = found_for(striped_model(), striped_image(patch), [misled, misled])
    assert [region.cells for region in found.regions] == [tuple(patch)]
    assert found.passes > 7


def test_what_nothing_flips_is_said_to_stay(monkeypatch):
    cells = list(itertools.product(range(8), range(8)))
    model = striped_model()
    _, (found, _) = found_for(model, striped_image(cells))
    assert not found.flipped
    assert found.becomes is None
    assert found.regions == ()
    assert found.picture is None
    assert found.searched == 0.5
    assert found.log_odds[0] == found.log_odds[1]
    path = model.paths(striped_image(cells)[None])[0]
    half = np.ones((8, 8), dtype=np.float32)
    monkeypatch.setattr("nbdt.explain.counterfactual.MOST", 0.1)
    (tenth, _) = counterfactuals(model, striped_image(cells), path, [half, half])
    assert tenth.searched == 6 / 64


def test_a_decision_off_the_shown_path_is_left_as_it_is():
    model, image = striped_model(), striped_image([(2, 5)])
    path = model.head.paths(model.features(image[None]), [3])[0]
    flat = np.ones((8, 8), dtype=np.float32)
    found = counterfactuals(model, image, path, [flat, flat])[0]
    assert found.margin < 0
    assert not found.flipped
    assert found.passes == 0


# ---- what is reported --------------------------------------------------------------------------


@settings(max_examples=20)
@given(oracle.trees(max_classes=8), st.sampled_from(oracle.RULES), st.integers(0, 99))
def test_the_runner_up_path_turns_off_at_its_decision_and_ends_at_the_likeliest_class(
    tree, rule, seed
):
    torch.manual_seed(seed)
    backbone = Stripes()
    model = NBDT(backbone, NBDTHead(2, tree, rule=rule), "s", striped_model().preprocess).eval()
    image = striped_image([(2, 5)]) + striped_image([(4, 4)], 1)
    path = model.paths(image[None])[0]
    maps = [np.ones((2, 2), dtype=np.float32)] * len(path)
    z = model.head.linear(model.features(image[None])).double().detach().numpy()
    chances = oracle.leaf_log_probs(tree, z, rule)[0]
    for index, found in enumerate(counterfactuals(model, image, path, maps)):
        decision, rival = path.decisions[index], found.runner_up_path
        assert found.decision == index
        margin = oracle.class_margin(tree, chances, path.class_index, index)
        assert found.margin == pytest.approx(margin, abs=1e-5)
        assert found.margin >= 0
        assert found.log_odds[0] == pytest.approx(decision.log_odds, abs=1e-4)
        assert rival.decisions[:index] == path.decisions[:index]
        assert rival.decisions[index].chosen != decision.chosen
        assert chances[path.class_index] - chances[rival.class_index] == pytest.approx(
            margin, abs=1e-5
        )


def test_the_picture_is_what_the_model_saw():
    model, image = striped_model(), striped_image([(2, 5)])
    _, (found, _) = found_for(model, image)
    mask = oracle.cell_mask([(2, 5)], (8, 8), SIDE, SIDE)
    replaced = np.stack([oracle.gaussian_blur(c, BLUR * SIDE) for c in image.numpy()])
    seen = (image.numpy() * (1 - mask) + replaced * mask) * 0.5 + 0.5
    shown = np.asarray(found.picture).transpose(2, 0, 1)
    assert np.abs(shown - 255 * seen.clip(0, 1)).max() <= 1
    assert "Gaussian blur" in found.baseline


@pytest.mark.parametrize("name", ["small_convnet", "test_vit", "test_convnext"])
def test_any_network_and_map_will_do(name):
    torch.manual_seed(0)
    model = NBDT.from_timm(name, TREE, rule="marginal").eval()
    side = model.preprocess.size
    image = torch.randn(3, side, side)
    path = model.paths(image[None])[0]
    for shape in [(1, 1), (5, 9), (side, side)]:
        maps = [np.random.default_rng(0).random(shape, dtype=np.float32)] * len(path)
        for found in counterfactuals(model, image, path, maps):
            assert 0 <= found.share <= max(0.5, found.searched)
            for region in found.regions:
                assert all(0 <= side <= 1 for side in region.box)
                assert region.grid == cell_grid(shape)


def test_nothing_is_left_behind():
    model = striped_model()
    image = striped_image([(2, 5)])
    before = image.clone()
    found_for(model, image)
    assert torch.equal(image, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_explain_gives_them_when_asked():
    torch.manual_seed(0)
    model = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    images = torch.randn(2, 3, 32, 32)
    assert explain(model, images)[0].counterfactuals == ()
    explained = explain(model, images, counterfactuals=True, level="fast")
    for found, image in zip(explained, images, strict=True):
        assert found.counterfactuals == counterfactuals(model, image, found.path, found.maps)


@pytest.mark.parametrize("level", ["fast", "default"])
def test_no_picture_runs_twice_and_every_one_is_counted(level, monkeypatch):
    """What the level tried and what an earlier decision tried is known; the outcome is checked again."""
    seen = []

    def recorded(model, images, baseline, rows, masks, **options):
        seen.extend((float(baseline.std()), mask.numpy().tobytes()) for mask in masks)
        return hidden_logits(model, images, baseline, rows, masks, **options)

    for place in ("hiding", "tested"):
        monkeypatch.setattr(f"nbdt.explain.maps.{place}.hidden_logits", recorded)
    model, image = striped_model(), striped_image([(2, 5), (2, 6), (6, 1)])
    (found,) = explain(model, image[None], level=level, counterfactuals=True)
    assert len(seen) == len(set(seen)) == found.made["passes"] - 1
    first = found.counterfactuals[0]
    assert first.flipped
    cells = [cell for region in first.regions for cell in region.cells]
    assert model_says(model, image, cells, (8, 8), found.path, 0) < 0
    for left_out in cells:
        rest = [cell for cell in cells if cell != left_out]
        assert model_says(model, image, rest, (8, 8), found.path, 0) >= 0


def test_a_region_that_the_level_tried_is_where_the_search_begins():
    """The map is wrong everywhere, so that only the candidate can flip the decision."""
    model, patch = striped_model(), [(6, 6), (6, 7)]
    image, path = striped_image(patch), model.paths(striped_image(patch)[None])[0]
    wrong = -model.feature_map(image[None])[0, 0].detach().numpy()
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 5:, 5:] = True
    logits = hidden_logits(
        model, image[None], blurred(image[None]), torch.zeros(1, dtype=int), torch.from_numpy(masks)
    )
    search = Search(*[np.zeros(())] * 3, masks, np.zeros((1, 2)), logits)
    (found, _) = counterfactuals(model, image, path, [wrong, wrong], search)
    (without, _) = counterfactuals(model, image, path, [wrong, wrong])
    assert not without.flipped
    assert [region.cells for region in found.regions] == [tuple(patch)]


# ---- blur, masks, regions ----------------------------------------------------------------------


def test_blur_and_masks_equal_their_twins():
    image = torch.rand(3, 9, 13)
    found = gaussian_blur(image, 2.5)
    for channel, row in zip(image, found, strict=True):
        assert np.allclose(row.numpy(), oracle.gaussian_blur(channel.numpy(), 2.5), atol=1e-6)
    cells = [(0, 1), (2, 0)]
    masks = torch.zeros(1, 3, 2, dtype=torch.bool)
    for cell in cells:
        masks[0][cell] = True
    pair = torch.zeros(1, 3, 11, 7), torch.ones(1, 3, 11, 7)
    assert np.array_equal(hidden(*pair, masks)[0, 0], oracle.cell_mask(cells, (3, 2), 11, 7))


def test_a_blur_brings_in_no_colour_from_outside():
    flat = torch.full((3, 20, 12), 0.7)
    assert torch.allclose(gaussian_blur(flat, 3.0), flat)


def test_masks_of_all_cells_cover_the_picture_evenly():
    single = torch.eye(6).reshape(6, 2, 3).bool()
    pair = torch.zeros(6, 1, 17, 19), torch.ones(6, 1, 17, 19)
    assert (hidden(*pair, single).sum(dim=0) == 1).all()


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]), st.integers(0, 99))
@settings(max_examples=30)
def test_a_coarser_grid_shares_by_area_and_loses_nothing(height, width, parts, seed):
    values = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    found = regrid(values, parts, parts)
    assert np.allclose(found, oracle.shared_out(values, parts, parts), atol=1e-5)
    assert found.sum() == pytest.approx(values.astype(np.float64).sum(), abs=1e-6)


def test_cells_that_touch_by_a_side_are_one_region():
    cells = [(0, 0), (0, 1), (1, 1), (2, 2), (3, 0)]
    random.Random(0).shuffle(cells)
    found = connected(cells, (4, 6))
    assert [region.cells for region in found] == [((0, 0), (0, 1), (1, 1)), ((2, 2),), ((3, 0),)]
    assert found[0].bounds == (0, 0, 2, 2)
    assert Region(((2, 3),), (4, 6)).box == (0.5, 0.5, 4 / 6, 0.75)
    assert connected([], (4, 6)) == ()
