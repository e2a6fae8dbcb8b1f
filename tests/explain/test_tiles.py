"""Tiles: one for each reason, the closest decision's first, with words that are the measurement."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from nbdt import DecisionRules, Hierarchy
from nbdt.explain.result.explanation import Explanation
from nbdt.explain.result.regions import Region
from nbdt.explain.result.regions import TestedRegion as Proved
from nbdt.explain.result.tiles import AGREE, LEVELS, agree, ranked, tiles
from nbdt.explain.result.words import effect
from tests import oracle

DEEP = Hierarchy.from_nested({"animal": {"mammal": {"cat": {"lynx": {}, "wild_cat": {}}, "dog": {}}, "bird": {}}, "car": {}})  # fmt: skip


def explained(chances, maps, **fields):
    """An explanation of the wild cat's path with these probabilities of the steps."""
    rest, logits = 1.0, {}
    for chance, other in zip(chances, ("car", "bird", "dog", "lynx"), strict=True):
        logits[other], rest = rest * (1 - chance), rest * chance
    logits["wild_cat"] = rest
    z = torch.log(torch.tensor([[logits[name] for name in DEEP.classes]], dtype=torch.float64))
    path = DecisionRules(DEEP, rule="marginal").paths(z, [DEEP.classes.index("wild_cat")])[0]
    return Explanation(path, tuple(maps), **fields)


def noise(seed, count=1):
    return np.random.default_rng(seed).normal(size=(count, 5, 5)).astype(np.float32)


def proved(log_odds=(2.75, -1.5, 0.1), pieces=1):
    regions = tuple(Region(((3 * i, 0),), (9, 9)) for i in range(pieces))
    return Proved(regions, log_odds, ((2.0, 0.3), (1.5, 0.2)), 0.2)


ALIKE = (noise(0)[0],) * 4


@pytest.mark.parametrize("found", [(), (None,) * 4])
def test_steps_that_rest_on_the_same_parts_are_one_tile(found):
    explanation = explained((0.99, 0.6, 0.9, 0.8), ALIKE, tested=found)
    (tile,) = tiles(explanation)
    assert tile.decisions == (0, 1, 2, 3)
    assert tile.shown == 1  # the closest
    assert all(name in tile.title for name in ("animal", "mammal", "cat", "wild cat"))
    assert "four" in tile.words
    assert ("hidden to test" in tile.words) == (not found)


def test_a_step_with_a_tested_region_has_a_tile_of_its_own():
    found = (None, proved(), None, None)
    explanation = explained((0.99, 0.97, 0.9, 0.8), ALIKE, tested=found)
    assert [tile.decisions for tile in tiles(explanation)] == [(2, 3), (1,), (0,)]


def test_the_closest_decision_comes_first():
    explanation = explained((0.99, 0.6, 0.9, 0.8), noise(1, 4), tested=(None,) * 4)
    assert [tile.shown for tile in tiles(explanation)] == [1, 3, 2, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 15), st.floats(0, 1))
def test_tiles_cover_the_path_and_join_only_what_agrees(seed, found, mixed):
    maps = mixed * noise(seed) + (1 - mixed) * noise(seed + 1, 4)
    regions = tuple(proved() if found >> i & 1 else None for i in range(4))
    explanation = explained((0.9, 0.7, 0.8, 0.6), maps, tested=regions)
    made = sorted(tiles(explanation), key=lambda tile: tile.decisions)
    assert [i for tile in made for i in tile.decisions] == [0, 1, 2, 3]
    assert [tile.decisions for tile in made] == oracle.grouped(maps, regions, AGREE, LEVELS[0])


def test_maps_agree_where_their_contours_do_whatever_is_below_them():
    peak = np.zeros((7, 7), dtype=np.float32)
    peak[1:4, 2:5] = np.arange(11, 20).reshape(3, 3)
    small = np.random.default_rng(0).normal(size=(2, 7, 7))
    one, other = (peak + (peak == 0) * values for values in small)
    assert agree(one, other)
    assert not agree(one, one[::-1, ::-1])


@given(arrays(np.float32, (3, 4), elements=st.integers(-3, 3).map(float)))
def test_ranks_are_scipys(values):
    assert np.array_equal(ranked(values), rankdata(values))


def test_maps_without_ranks_agree_with_each_other_alone():
    flat = np.zeros((3, 3), dtype=np.float32)
    assert agree(flat, flat + 1)
    assert not agree(flat, noise(3)[0, :3, :3])


@given(st.floats(-8, 18), st.floats(0.3, 12))
def test_the_words_have_the_measured_numbers(whole, fall):
    found = proved((whole, whole - fall, 0.0))
    text = effect(explained((0.9, 0.9, 0.9, 0.9), ALIKE).path, 3, found, "this")
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
    odds = [math.exp(value) for value in found.log_odds[:2]]
    if "log-odds" in text:
        assert numbers == pytest.approx(found.log_odds[:2], abs=0.0051)
    else:
        shares = [100 * one / (1 + one) for one in odds]
        assert numbers == pytest.approx(shares, abs=1.01)
    assert "wild cat" in text


def test_a_close_step_has_its_runner_up_beside_it_where_there_are_maps_of_both():
    maps = noise(5, 4)
    close = explained((0.99, 0.97, 0.6, 0.9), maps, tested=(None, None, proved(pieces=2), None))
    assert not any(tile.rival for tile in tiles(close))
    both = replace(close, child_maps=tuple(noise(i, 2) for i in range(4)))
    assert [tile.rival for tile in tiles(both)] == ["not dog 40 %", "", "", ""]
    assert tiles(both)[0].words.startswith("With these hidden, cat falls from 94 to 18 %; no other")
    assert "the runner-up has more" in tiles(both)[0].words
    untested = replace(both, tested=(None,) * 4)
    assert "the same scale, their own" in tiles(untested)[0].words
