"""Regions that are alike: found where they were planted, paid for once, kept in files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch import nn

from nbdt import NBDT, Hierarchy, NBDTError, NBDTHead
from nbdt.explain import Explanation, explain
from nbdt.explain.evidence import regions
from nbdt.explain.evidence.regions import moving, scores, with_alike
from nbdt.explain.maps.layers import map_layer
from nbdt.explain.result import regions as made_of
from nbdt.explain.result.drawing import compared
from nbdt.explain.result.html import to_html
from nbdt.explain.result.json_record import from_record, to_record
from nbdt.explain.result.pictures import picture
from nbdt.explain.result.regions import cell_mask
from nbdt.images.sources import ImageSource
from nbdt.model.remember import make_memory
from nbdt.network.preprocessing import Preprocessing
from tests import oracle

TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
SIDE, CELL = 32, 4
PATCH = 4  # cells a side of what is planted
RED, GREEN, BLUE = (220, 40, 40), (40, 200, 40), (40, 40, 220)


class Colours(nn.Module):
    """The colours of 4 × 4 pixels; the picture's features are their mean."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward_features(self, images):
        return nn.functional.avg_pool2d(images, CELL) + 0 * self.anchor

    def forward_head(self, features, pre_logits):
        return features.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def model():
    """Red says cat, green says dog, blue says car."""
    head = NBDTHead(3, TREE, rule="representative")
    with torch.no_grad():
        head.linear.weight[:] = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [-9, -9, 0]])
        head.linear.bias.zero_()
    plain = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3, 1.0, "nearest")
    return NBDT(Colours(), head, "colours", plain).eval()


def planted(*patches):
    """A grey picture with (colour, row, column) squares of `PATCH` cells."""
    pixels = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    for colour, row, column in patches:
        top, left = CELL * row, CELL * column
        pixels[top : top + CELL * PATCH, left : left + CELL * PATCH] = colour
    return Image.fromarray(pixels)


PHOTO = planted((RED, 0, 0), (GREEN, 4, 4))
CAT, DOG = planted((RED, 3, 4)), planted((GREEN, 0, 4), (RED, 4, 1))
CAR = planted((BLUE, 2, 2))


@pytest.fixture(scope="module")
def memory(model, tmp_path_factory):
    found = make_memory(model, tmp_path_factory.mktemp("alike") / "memory")
    for label, image in (("cat", CAT), ("dog", DOG), ("car", CAR)):
        found.add([image], label, pictures=True)
    return found


@pytest.fixture(scope="module")
def found(model, memory):
    return explain(model, PHOTO, evidence=memory, accuracy=None)[0]


def inside(pieces, row, column):
    """Which share of the cells is in the square at a place."""
    cells = [cell for piece in pieces for cell in piece.cells]
    hits = [row <= r < row + PATCH and column <= c < column + PATCH for r, c in cells]
    return np.mean(hits)


def test_the_planted_patch_is_found_in_both_photographs(found):
    """At cat against dog; in the dog's photograph is a red patch, too."""
    chosen, rejected = found.alike
    assert [(one.decision, one.side) for one in found.alike] == [(1, "chosen"), (1, "rejected")]
    for one, place in ((chosen, (3, 4)), (rejected, (4, 1))):
        assert inside(one.regions, 0, 0) == 1
        assert inside(one.theirs, *place) == 1
        assert one.similarity > 0.9 > one.elsewhere + 0.3
        assert one.theirs[0].grid == (8, 8)


def test_a_tested_region_is_where_the_comparison_begins(model, memory, found):
    """With the green patch as what decided, the dog's green patch is what is alike."""
    cells = [(row, column) for row in range(4, 8) for column in range(4, 8)]
    green = made_of.TestedRegion(
        (made_of.Region(tuple(cells), (8, 8)),), (1, 0, 0), ((1, 0), (1, 0)), 0.25
    )
    plain = replace(found, tested=(None, green), alike=())
    layer = map_layer(model, model.preprocess(PHOTO)[None])
    _, rejected = with_alike(model, layer, [plain])[0].alike
    assert rejected.regions == green.regions
    assert inside(rejected.theirs, 0, 4) == 1


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 4))
def test_scores_equal_a_plain_loop(seed, rows, columns):
    draw = np.random.default_rng(seed)
    own, other = draw.normal(size=(5, 3, 2)), draw.normal(size=(5, rows, columns))
    weights = draw.random((3, 2))
    expected = oracle.likeness(own, other, weights / weights.sum())
    assert np.allclose(scores(own, other, weights / weights.sum()), expected)


def test_weights_are_of_the_region_and_sum_to_one(found):
    for index in range(2):
        mask, weights = moving(found, index)
        assert weights.sum() == pytest.approx(1)
        assert not weights[~mask].any()
    against = replace(found, maps=tuple(-np.ones_like(values) for values in found.maps), tested=())
    mask, weights = moving(against, 0)
    assert np.allclose(weights[mask], 1 / mask.sum())


def test_both_photographs_cost_one_forward_pass_together(model, memory, monkeypatch):
    batches = []

    def counted(model, batch):
        batches.append(len(batch))
        return map_layer(model, batch)

    monkeypatch.setattr(regions, "map_layer", counted)
    with_them, without, fast = (
        explain(model, PHOTO, evidence=evidence, level=level)[0]
        for evidence, level in ((memory, "default"), (False, "default"), (memory, "fast"))
    )
    assert batches == [2]
    assert with_them.made["passes"] == without.made["passes"] + 2
    assert without.alike == fast.alike == ()


def test_a_photograph_that_is_missing_is_not_compared(model, tmp_path):
    memory = make_memory(model, tmp_path / "memory")
    memory.add([CAT], "cat", pictures=True)
    memory.add([ImageSource("/gone/dog.png", "dog", DOG.copy)])
    (found,) = explain(model, PHOTO, evidence=memory)
    assert [one.side for one in found.alike] == ["chosen"]
    assert "dog.png" in found.made["not_compared"]


def test_files_keep_them_and_older_files_have_none(found, tmp_path):
    found.save(tmp_path / "saved")
    assert Explanation.load(tmp_path / "saved").alike == found.alike
    record = json.loads(json.dumps(to_record(found, ())))
    maps = {f"map_{index}": values for index, values in enumerate(found.maps)}
    wanted = {**record, "photo": None}
    assert from_record(wanted, maps, lambda _: PHOTO).alike == found.alike
    del wanted["alike"]
    assert from_record(wanted, maps, lambda _: PHOTO).alike == ()


def test_pages_and_pictures_outline_the_regions(found):
    texts, images = zip(*compared(found, 64), strict=True)
    assert [(text.count("cat"), text.count("dog")) for text in texts] == [(1, 0), (1, 0), (0, 1)]
    outlined = [found.alike[0].regions, *(one.theirs for one in found.alike)]
    for image, pieces in zip(images, outlined, strict=True):
        mask = np.kron(cell_mask(pieces), np.ones((8, 8))) > 0
        inner, outside = (
            ndimage.binary_erosion(mask, iterations=3),
            ndimage.binary_dilation(mask, iterations=4),
        )
        pixels = np.asarray(image, dtype=int)
        assert (np.ptp(pixels, axis=2)[inner] > 0).any()  # in colour
        assert not np.ptp(pixels, axis=2)[~outside].any()  # grey
    bare = replace(found, alike=())
    assert to_html(found).count("<img") == to_html(bare).count("<img") + 3
    assert all(text in to_html(found) for text in texts)
    assert picture(found).height > picture(bare).height
    assert compared(bare, 64) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"decision": 7}, "decision 7"),
        ({"side": "neither"}, "neither"),
        ({"theirs": []}, "no pieces"),
        ({"theirs": [{"cells": [[0, 9]], "grid": [8, 8]}]}, "outside 8 × 8"),
        ({"theirs": [{"cells": [[0, 0]], "grid": [9**9, 9**9]}]}, "too many"),
    ],
)
def test_files_whose_regions_fit_nothing_are_refused(found, changes, named):
    record = {**json.loads(json.dumps(to_record(found, ()))), "photo": None}
    record["alike"][1] |= changes
    maps = {f"map_{index}": values for index, values in enumerate(found.maps)}
    with pytest.raises(NBDTError, match=named):
        from_record(record, maps, lambda _: PHOTO)


@pytest.mark.parametrize("name", ["small_convnet", "test_vit"])
def test_any_network_with_positions_compares(name, tmp_path):
    torch.manual_seed(0)
    other = NBDT.from_timm(name, TREE, rule="marginal").eval()
    memory = make_memory(other, tmp_path / "memory")
    for label, image in (("cat", CAT), ("dog", DOG), ("car", CAR), ("bus", PHOTO)):
        memory.add([image], label, pictures=True)
    (found,) = explain(other, PHOTO, evidence=memory)
    assert len(found.alike) == 2
    assert all(-1 <= one.elsewhere <= one.similarity + 1e-6 <= 1 + 1e-5 for one in found.alike)
