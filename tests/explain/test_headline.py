"""The answer in everyday words: real names, all levels, and only groups that add something."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import DecisionRules
from nbdt.decide.answer import Answer
from nbdt.decide.paths import Decision, Path
from nbdt.explain.result.headline import LEVELS, headline, level, rungs
from nbdt.explain.result.words import with_article
from nbdt.hierarchies import load
from tests import oracle

CAT = "animal/cat family/house cat/Egyptian cat"


def path_to(route, *chances):
    """A path by its names below the root, with the probabilities of reaching them."""
    names, decisions, above = route.split("/"), [], 1.0
    for parent, child, chance in zip(["all things", *names], names, chances, strict=False):
        pair = (child, f"not {child}")
        share = math.log(chance / above)
        rest = math.log(max(1 - chance / above, 1e-12))
        decisions.append(Decision(parent, parent, pair, pair, (share, rest), 0))
        above = chance
    assert len(decisions) == len(names)
    return Path(tuple(decisions), names[-1], 0, math.log(above))


SPOKEN = [  # routes of the shipped tree of ImageNet
    ((CAT, 0.99, 0.99, 0.98, 0.55), "Egyptian cat, 55 %: an animal for sure, a house cat for sure, which house cat is less sure"),
    (("animal/cat family/big cat/cheetah", 0.99, 0.99, 0.99, 0.97), "cheetah, 97 %: for sure"),
    (("animal/cat family/big cat/cheetah", 0.99, 0.99, 0.97, 0.94), "cheetah, 94 %: an animal for sure, a big cat for sure, probably a cheetah"),
    (("animal/cat family/big cat/lion", 0.98, 0.96, 0.9, 0.76), "lion, 76 %: an animal for sure, one of the cat family for sure, probably a lion"),
    (("animal/cat family/cougar", 0.99, 0.98, 0.6), "cougar, 60 %: an animal for sure, one of the cat family for sure, which one of the cat family is less sure"),
    (("animal/dog/scent hound/beagle", 0.99, 0.8, 0.6, 0.22), "not sure: an animal for sure, probably a dog, perhaps a scent hound; best guess beagle, 22 %"),
    (("food or drink/drink/espresso", 0.97, 0.9, 0.8), "espresso, 80 %: food or drink for sure, probably an espresso"),
    (("food or drink/drink/espresso", 0.97, 0.7, 0.55), "espresso, 55 %: food or drink for sure, which kind of food or drink is less sure"),
    (("food or drink/meal/plate of food", 0.3, 0.2, 0.1), "not sure: best guess plate of food, 10 %"),
    (("food or drink/meal/plate of food", 0.99, 0.97, 0.8), "plate of food, 80 %: food or drink for sure, a meal for sure, probably a plate of food"),
    (("clothing or accessory/shoe or sock/cowboy boot", 0.99, 0.97, 0.7), "cowboy boot, 70 %: clothing or accessory for sure, a shoe or sock for sure, which one is less sure"),
    (("clothing or accessory/mask or glasses/sunglasses", 0.96, 0.9, 0.8), "sunglasses, 80 %: clothing or accessory for sure, probably sunglasses"),
    (("tool or device/hand tool/hammer", 0.99, 0.8, 0.3), "not sure: a tool or device for sure, probably a hand tool; best guess hammer, 30 %"),
    (("book, paper or pen/comic book", 0.9, 0.6), "comic book, 60 %: probably a book, paper or pen, which one is less sure"),
    (("vehicle/bus/minibus", 0.999, 0.998, 0.62), "minibus, 62 %: a vehicle for sure, a bus for sure, which bus is less sure"),
    (("household item/kitchen appliance/toaster", 0.97, 0.96, 0.9), "toaster, 90 %: a household item for sure, a kitchen appliance for sure, probably a toaster"),
    (("food or drink/drink/red wine", 0.8, 0.78, 0.76), "red wine, 76 %: probably"),
    (("sport or toy/gym or sports equipment/dumbbell", 0.6, 0.56, 0.52), "dumbbell, 52 %: not very sure"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "sentence"), SPOKEN, ids=lambda value: str(value)[:24])
def test_real_answers_read_aloud(made, sentence):
    assert str(headline(path_to(*made))) == sentence


def test_no_name_of_the_shipped_tree_needs_quotes():
    names = load("imagenet1k-readable").names
    assert [name for name in names if with_article(name).startswith("“")] == []
    said = {name: with_article(name) for name in names}
    assert {said[name] for name in ("animal", "hourglass", "clothing or accessory", "cat family")} == {
        "an animal", "an hourglass", "clothing or accessory", "one of the cat family",
    }  # fmt: skip


def test_a_class_below_the_root_has_no_groups_to_name():
    said = [str(headline(path_to("cat", chance))) for chance in (0.97, 0.8, 0.6, 0.3)]
    assert said == [
        "cat, 97 %: for sure", "cat, 80 %: probably", "cat, 60 %: not very sure",
        "not sure: best guess cat, 30 %",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rifle, suit", "rifle + 12", "other dog", "dog like beagle"])
def test_groups_whose_names_say_nothing_are_left_out(name):
    said = str(headline(path_to(f"thing/{name}/a", 0.99, 0.98, 0.6)))
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


def stopped(path, depth, **facts):
    chances = [1.0, *(rung.probability for rung in rungs(path))]
    name = path.decisions[depth].node if depth < len(path) else path.class_name
    given = {"unknown": False, "accuracy": 0.95} | facts
    is_leaf = depth == len(path)
    return Answer(name, name, chances[depth], is_leaf, path, depth, **given)


WOLF = Path(
    (
        Decision("all things", "/", ("animal", "vehicle"), ("a", "v"), (math.log(0.95), math.log(0.05)), 0),
        Decision("animal", "a", ("dog", "wolf", "owl"), ("d", "w", "o"),
                 (math.log(0.5), math.log(0.4), math.log(0.1)), 0),
    ),
    "dog", 0, math.log(0.475),
)  # fmt: skip
MANY = replace(
    WOLF,
    decisions=(
        WOLF.decisions[0],
        replace(WOLF.decisions[1], log_probs=(math.log(0.4), math.log(0.3), math.log(0.3))),
    ),
)


@pytest.mark.parametrize(
    ("path", "depth", "facts", "sentence"),
    [
        (WOLF, 1, {}, "an animal, 95 %: a dog or a wolf, which I cannot tell apart here"),
        (MANY, 1, {}, "an animal, 95 %: perhaps a dog, but I cannot tell which kind it is"),
        (WOLF, 0, {}, "not sure: it could be many things; best guess dog, 48 %"),
        (WOLF, 2, {}, "not sure: an animal for sure; best guess dog, 48 %"),
        (WOLF, 1, {"unknown": True}, "unknown: this may be nothing I know; best guess dog, 48 %"),
    ],
)
def test_answers_that_stop_read_aloud(path, depth, facts, sentence):
    assert str(headline(path, stopped(path, depth, **facts))) == sentence
