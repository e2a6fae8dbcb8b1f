"""Figures of merit against their slow reference implementations, and what they refuse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import NBDTError
from nbdt.decide.metrics import accuracy, calibration_error, hierarchical_distance
from tests.oracle import calibration_error as plain_calibration_error
from tests.oracle import height_of_common_ancestor, heights, trees, zoo


@given(trees())
def test_distance_is_the_height_of_the_common_ancestor(tree):
    pairs = torch.cartesian_prod(*2 * [torch.arange(tree.num_classes)])
    found = hierarchical_distance(pairs[:, 0], pairs[:, 1], tree)
    expected = [height_of_common_ancestor(tree, *pair) for pair in pairs.tolist()]
    assert found.tolist() == expected
    assert list(tree.heights) == list(heights(tree))


def test_distance_by_hand():
    tree = zoo()
    classes = {name: index for index, name in enumerate(tree.classes)}
    pairs = [("cat", "cat"), ("m", "n"), ("m", "eel"), ("heron", "m"), ("cat", "rock")]
    first, second = (
        torch.tensor([classes[name] for name in side]) for side in zip(*pairs, strict=True)
    )
    assert hierarchical_distance(first, second, tree).tolist() == [0, 1, 2, 3, 4]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 16).map(lambda n: 2 ** (n % 5)),
)
def test_calibration_error_is_its_definition(answers, bins):
    # Powers of two as numbers of bins: their edges are exact.
    probability, right = (torch.tensor(side) for side in zip(*answers, strict=True))
    found = calibration_error(probability, right, bins)
    assert found == pytest.approx(
        plain_calibration_error(*zip(*answers, strict=True), bins), abs=1e-9
    )


def test_a_model_that_is_as_right_as_it_says_is_calibrated():
    right = torch.tensor([True] * 7 + [False] * 3)
    assert calibration_error(torch.full((10,), 0.7), right) == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.full((10,), 0.9), right) == pytest.approx(0.2)


@pytest.mark.parametrize("measure", [accuracy, calibration_error])
@pytest.mark.parametrize("shapes", [((0,), (0,)), ((3,), (2,)), ((3, 1), (3, 1))])
def test_pairs_that_do_not_fit_are_refused(measure, shapes):
    with pytest.raises(NBDTError, match="two tensors of one length above 0, got shapes"):
        measure(*(torch.zeros(shape) for shape in shapes))


def test_what_cannot_be_measured_is_refused():
    tree, zero = zoo(), torch.tensor([0])
    with pytest.raises(NBDTError, match="indices of 10 classes, got 10"):
        hierarchical_distance(torch.tensor([10]), zero, tree)
    with pytest.raises(NBDTError, match="indices of 10 classes, got -1"):
        hierarchical_distance(zero, torch.tensor([-1]), tree)
    for bad in (1.2, -0.1, float("nan")):
        with pytest.raises(NBDTError, match=r"probabilities in \[0, 1\]"):
            calibration_error(torch.tensor([bad]), zero == 0)
    with pytest.raises(NBDTError, match="at least one bin, got 0"):
        calibration_error(torch.tensor([0.5]), zero == 0, bins=0)
