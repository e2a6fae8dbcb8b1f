"""Drawing: facts of the pixels, and lines that lie where the map says."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor
from scipy.ndimage import map_coordinates

from nbdt.explain.result.drawing import (
    AGAINST,
    FOR,
    HALO,
    PLAIN,
    borders,
    contoured,
    contours,
    draw,
    outlined,
)  # fmt: skip
from nbdt.explain.result.pictures import picture
from nbdt.explain.result.regions import Region, upsampled
from nbdt.explain.result.tiles import tiles
from tests.explain.test_tiles import explained, noise, proved

SIDE = 270  # 30 pixels a cell
CELLS = tuple((r, c) for r in (3, 4) for c in range(2, 6))
REGION = Region(CELLS, (9, 9))
INSIDE, NEAR = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
INSIDE[90 + 6 : 150 - 6, 60 + 6 : 180 - 6] = True  # away from the line
NEAR[90 - 6 : 150 + 6, 60 - 6 : 180 + 6] = True


@pytest.fixture
def photo():
    """Greens, far from the colours of the lines."""
    pixels = np.random.default_rng(0).integers(30, 100, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[..., 1] += 120
    return Image.fromarray(pixels)


def distance(image, colour):
    return np.abs(np.asarray(image).astype(int) - ImageColor.getrgb(colour)).sum(axis=2)


def test_a_tested_region_keeps_its_pixels_and_the_rest_is_darker_and_grey(photo):
    found = replace(proved(), regions=(REGION,))
    explanation = explained((0.9,) * 4, noise(0, 4), tested=(found,) * 4, photo=photo)
    shown, before = (
        np.asarray(i).astype(int) for i in (draw(explanation, tiles(explanation)[0], SIDE), photo)
    )
    assert (shown[INSIDE] == before[INSIDE]).all()
    outside = shown[~NEAR]
    assert (outside == outside[:, :1]).all()  # grey
    assert (outside.max(axis=1) <= before[~NEAR].max(axis=1) * 0.56 + 1).all()
    red = distance(shown, FOR) < 20
    assert red[90, 60:180].all()  # along the cells
    assert not red[INSIDE].any()
    assert not red[~NEAR].any()


def test_an_outline_alone_leaves_the_rest_as_it_is(photo):
    shown = np.asarray(outlined(photo, (REGION,), dim=False))
    assert (shown[~NEAR] == np.asarray(photo)[~NEAR]).all()


def test_borders_are_the_sides_between_inside_and_outside():
    lines = {tuple(map(tuple, np.sort(line * 9, axis=0).round(6))) for line in borders((REGION,))}
    assert len(lines) == 2 * (2 + 4)
    mask = np.zeros((11, 11), bool)
    mask[tuple(np.array(CELLS).T + 1)] = True
    for (x, y), (right, down) in lines:
        row, column = int(y) + 1, int(x) + 1
        before = (row - 1, column) if right > x else (row, column - 1)
        assert mask[row, column] != mask[before]
        assert right - x + down - y == pytest.approx(1)


@pytest.mark.parametrize("level", [-0.4, 0.3, 0.9])
def test_contours_lie_on_their_level(level):
    values, fine = noise(3)[0], 128
    lines = contours(values, level)
    assert lines
    surface = upsampled(values, fine, fine)
    for line in lines:
        found = map_coordinates(surface, (line[:, ::-1] * fine - 0.5).T, order=1, mode="nearest")
        assert found == pytest.approx(np.full(len(line), level), abs=0.02)


def test_what_argues_against_is_drawn_from_a_tenth_of_the_scale(photo):
    values = np.ones((6, 6), dtype=np.float32)
    values[:3, :3] = -0.08
    strong = values.copy()
    strong[:3, :3] = -0.3
    weak, blue = (distance(contoured(photo, one, 1.0), AGAINST) < 120 for one in (values, strong))
    assert weak.sum() < blue.sum() / 4
    assert blue.sum() > 20
    assert (distance(contoured(photo, values, 1.0), FOR) < 20).sum() > 30


def test_the_two_of_a_close_decision_are_drawn_on_one_scale(photo):
    pair = np.zeros((2, 9, 9), dtype=np.float32)
    pair[0, 1:4, 1:4], pair[1, 6:8, 6:8] = 3, 0.4  # below a third of the larger
    explanation = explained(
        (0.99, 0.97, 0.9, 0.6), noise(1, 4), child_maps=(pair,) * 4, photo=photo
    )
    tile = tiles(explanation)[0]
    assert tile.rival
    order = explanation.path.decisions[3].chosen
    shown = [
        distance(draw(explanation, tile, SIDE, rival=rival), FOR) < 20 for rival in (False, True)
    ]
    assert shown[order].any()
    assert not shown[1 - order].any()


def test_a_runner_up_without_evidence_of_its_own_is_called_so(photo):
    pair = np.ones((2, 9, 9), dtype=np.float32)
    explanation = explained((0.99, 0.97, 0.9, 0.6), noise(1, 4), photo=photo)
    pair[explanation.path.decisions[3].chosen, 2:5, 2:5] = 4
    tile = tiles(replace(explanation, child_maps=(pair,) * 4))[0]
    assert not tile.rival
    assert "No part has clearly more evidence" in tile.words
    pair[:] = pair.max(axis=0)
    assert not tiles(replace(explanation, child_maps=(pair,) * 4))[0].rival


def test_lines_differ_for_the_colour_blind_in_grey_and_from_their_halo():
    """Machado et al. (2009), severity 1: protanopia, deuteranopia, tritanopia; and grey print."""
    kinds = [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]  # fmt: skip
    colours = np.array([ImageColor.getrgb(c) for c in (FOR, AGAINST, HALO)]) / 255
    linear = np.where(colours > 0.04045, ((colours + 0.055) / 1.055) ** 2.4, colours / 12.92)
    for matrix in kinds:
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(3, 1)]
        assert gaps.min() > 0.4
    grey = (linear @ [0.2126, 0.7152, 0.0722]) ** (1 / 2.2)
    assert min(grey[2] - grey[:2]) > 0.4  # a halo is seen beside any line


def test_cells_are_drawn_on_request(photo):
    explanation = explained((0.9,) * 4, noise(0, 4), photo=photo)
    tile = tiles(explanation)[0]
    bare, with_grid = (
        np.asarray(draw(explanation, tile, SIDE, grid=g)).astype(int) for g in (False, True)
    )
    changed = (bare != with_grid).any(axis=2)
    assert changed.mean(axis=1)[[54, 108, 162, 216]].min() > 0.9
    assert changed.mean() < 0.1


def test_a_tensor_is_drawn_on_grey():
    explanation = explained((0.9,) * 4, noise(0, 4))
    shown = draw(explanation, tiles(explanation)[0], SIDE)
    assert (distance(shown, PLAIN) == 0).mean() > 0.5


def test_captions_are_whole_and_the_first_tile_is_largest():
    long = "a_very_long_name_of_an_animal_that_no_tile_is_wide_enough_for " * 4
    explanation = explained((0.99, 0.6, 0.9, 0.8), noise(1, 4), tested=(None,) * 4)
    path = explanation.path
    children = tuple(long if c == "mammal" else c for c in path.decisions[1].children)
    changed = (
        path.decisions[0],
        replace(path.decisions[1], children=children),
        *path.decisions[2:],
    )
    named = replace(explanation, path=replace(path, decisions=changed))
    assert picture(named).height > picture(explanation).height + 5 * 20
