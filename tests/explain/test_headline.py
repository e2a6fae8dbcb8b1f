"""The answer in everyday words: real names, all levels, and only groups that add something."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy
from nbdt.decide.paths import Decision, Path
from nbdt.explain.result.headline import LEVELS, headline, level, rungs
from nbdt.hierarchies import load
from tests import oracle

READABLE = load("imagenet1k-readable")


def path_to(name, *chances, tree=READABLE):
    """A path to a class: the probabilities of coming to its nodes, those before the last repeated."""
    nodes = tree.path_of_class(tree.classes.index(name))
    reach = [1.0, *[chances[0]] * (len(nodes) - 1 - len(chances)), *chances]
    decisions = []
    for parent, child, share, below in zip(nodes, nodes[1:], reach, reach[1:], strict=False):
        siblings = tree.children[parent]
        other = siblings.start + (child == siblings.start)
        pair = (child, other)
        decisions.append(Decision(
            tree.names[parent], tree.ids[parent], tuple(tree.names[n] for n in pair),
            tuple(tree.ids[n] for n in pair),
            (math.log(below / share), math.log(max(1 - below / share, 1e-12))), 0,
        ))  # fmt: skip
    return Path(tuple(decisions), name, tree.classes.index(name), math.log(reach[-1]))


SPOKEN = [
    (("Egyptian cat", 0.99, 0.98, 0.55), "Egyptian cat, 55 %: an animal for sure, a house cat for sure, which house cat is less sure"),
    (("cheetah", 0.99, 0.99, 0.97), "cheetah, 97 %: for sure"),
    (("cheetah", 0.99, 0.97, 0.94), "cheetah, 94 %: an animal for sure, a big cat for sure, probably a cheetah"),
    (("lion", 0.98, 0.96, 0.9, 0.76), "lion, 76 %: an animal for sure, one of the cat family for sure, probably a lion"),
    (("cougar", 0.99, 0.98, 0.6), "cougar, 60 %: an animal for sure, one of the cat family for sure, which one of the cat family is less sure"),
    (("beagle", 0.99, 0.8, 0.6, 0.22), "not sure: an animal for sure, probably a dog, perhaps a scent hound; best guess beagle, 22 %"),
    (("espresso", 0.97, 0.9, 0.8), "espresso, 80 %: food or drink for sure, probably an espresso"),
    (("espresso", 0.97, 0.7, 0.55), "espresso, 55 %: food or drink for sure, which kind of food or drink is less sure"),
    (("plate", 0.3, 0.1), "not sure: best guess plate, 10 %"),
    (("cowboy boot", 0.99, 0.97, 0.7), "cowboy boot, 70 %: clothing or accessory for sure, a shoe or sock for sure, which shoe or sock is less sure"),
    (("sunglasses", 0.96, 0.9, 0.8), "sunglasses, 80 %: clothing or accessory for sure, probably sunglasses"),
    (("hammer", 0.99, 0.8, 0.3), "not sure: a tool or device for sure, probably a hand tool; best guess hammer, 30 %"),
    (("street sign", 0.9, 0.6), "street sign, 60 %: probably a sign, book or paper, which sign, book or paper is less sure"),
    (("minibus", 0.999, 0.998, 0.62), "minibus, 62 %: a vehicle for sure, a bus for sure, which bus is less sure"),
    (("red wine", 0.8, 0.78, 0.76), "red wine, 76 %: probably"),
    (("dumbbell", 0.6, 0.56, 0.52), "dumbbell, 52 %: not very sure"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "sentence"), SPOKEN, ids=lambda value: str(value)[:24])
def test_real_answers_read_aloud(made, sentence):
    assert str(headline(path_to(*made))) == sentence


def test_a_class_below_the_root_has_no_groups_to_name():
    flat = Hierarchy.from_paths(["cat", "dog", "bus"])
    said = [str(headline(path_to("cat", chance, tree=flat))) for chance in (0.97, 0.8, 0.6, 0.3)]
    assert said == [
        "cat, 97 %: for sure", "cat, 80 %: probably", "cat, 60 %: not very sure",
        "not sure: best guess cat, 30 %",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rifle, suit", "rifle + 12", "other dog", "dog like beagle"])
def test_groups_whose_names_say_nothing_are_left_out(name):
    tree = Hierarchy.from_paths([f"thing/{name}/a", f"thing/{name}/b", "thing/c", "rest"])
    said = str(headline(path_to("a", 0.99, 0.98, 0.6, tree=tree)))
    assert said == "a, 60 %: a thing for sure, which thing is less sure"


@given(oracle.trees(), st.integers(0, 99), st.sampled_from([1, 4, 20]))
def test_every_level_is_the_one_that_the_probability_reaches(tree, seed, scale):
    torch.manual_seed(seed)
    (path,) = DecisionRules(tree, rule="marginal").paths(scale * torch.randn(1, tree.num_classes))
    found, answer = rungs(path), headline(path)
    reach = 1.0
    for rung, decision in zip(found, path, strict=True):
        reach *= decision.probability
        assert rung.probability == pytest.approx(reach)
        assert rung.level == level(rung.probability)
    assert answer.level == found[-1].level
    assert ("not sure" in answer.title) == (path.probability < LEVELS[-1][0])
    for rung in found[:-1]:
        if f"“{rung.name}” for sure" in answer.text:
            assert rung.probability >= 0.95
