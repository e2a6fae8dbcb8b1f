"""The paragraph says what was measured, all of it true, and not too much."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy
from nbdt.decide.paths import percent
from nbdt.explain.result.explanation import Counterfactual, DecisionEvidence, Explanation, Neighbour
from nbdt.explain.result.regions import Region
from nbdt.explain.result.wording import count, say, with_article
from nbdt.explain.result.words import (
    AGAINST,
    EVERYWHERE,
    MOSTLY,
    MOSTLY_BAND,
    MOSTLY_HALF,
    SENTENCES,
    SPREAD,
    place,
    words,
)
from tests import oracle

PETS = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
EVEN = np.ones((6, 6), dtype=np.float32)


def top_left():
    values = np.zeros((6, 6), dtype=np.float32)
    values[:2, :2] = 1
    return values


def pets(animal, cat, maps=None, **fields):
    """An explanation of the cat's path with the given probabilities."""
    z = torch.log(torch.tensor([[animal * cat, animal * (1 - cat), (1 - animal) * 0.7,
                                 (1 - animal) * 0.3]], dtype=torch.float64))  # fmt: skip
    path = DecisionRules(PETS, rule="marginal").paths(z, [0])[0]
    return Explanation(path, maps or (EVEN, EVEN), **fields)


def flip(path, decision, **facts):
    regions = tuple(Region(((i, i),), (9, 9)) for i in range(0, 2 * facts.pop("regions", 2), 2))
    known = {"margin": path.decisions[decision].margin, "runner_up_path": path, "flipped": True,
             "becomes": "dog", "log_odds": (0.3, -0.1), "share": 0.04, "searched": 0.5,
             "passes": 9, "baseline": "blur", "regions": regions, **facts}  # fmt: skip
    return Counterfactual(decision=decision, **known)


def near(*pairs):
    def side(values, name):
        return tuple(Neighbour(f"{i}", name, v, i, lambda: None) for i, v in enumerate(values))

    return tuple(DecisionEvidence(side(one, "a"), side(other, "b")) for one, other in pairs)


# ---- what is said when -------------------------------------------------------------------------


def test_the_sentences_of_a_plain_case():
    found = pets(0.97, 0.58, (top_left(), EVEN))
    assert words(found) == (
        "It is 97 % sure this is an animal, mostly because of the region at the top left, and 56 % "
        "sure that it is a cat. Between cat and dog it was close: 58 to 42; the other decision was "
        "clear."
    )


def test_a_sure_answer_is_said_once():
    text = words(pets(0.99, 0.98, (EVEN, top_left())))
    assert text == (
        "It is 97 % sure this is a cat, mostly because of the region at the top left. None of its "
        "two decisions was close."
    )


def test_an_uncertain_answer_is_called_so():
    text = words(pets(0.8, 0.55))
    assert "It is 80 % sure this is an animal" in text
    assert "but only 44 % sure that it is a cat, so its answer is uncertain." in text


def test_a_path_that_was_asked_for_is_not_called_the_answer():
    text = words(pets(0.97, 0.3))
    assert text.startswith(
        "This is the way to a cat, to which it gives 29 %; left to itself it would have taken dog "
        "rather than cat, 70 to 30."
    )
    assert "sure" not in text


def test_the_first_step_that_it_would_not_take_is_the_one_told():
    text = words(pets(0.05, 0.001))
    assert "left to itself it would have taken vehicle rather than animal, 95 to 5." in text


def test_odds_never_round_to_certainty():
    text = words(pets(0.97, 0.001))
    assert "dog rather than cat, more than 99 to less than 1." in text


def test_equal_answers_are_no_other_answer():
    found = pets(0.6, 0.51)
    chance = found.path.probability * (1 + 1e-7)
    told = replace(found, made={"soft_answer": {"class": "car", "probability": chance}})
    assert "likelier" not in words(told)


def test_a_place_is_no_reason_if_the_constant_is():
    """The map of the sure decision sums to 4; its log-odds are larger than twice that."""
    made = {"method": "closed form (average pool, linear head)"}
    sure = pets(0.9999, 0.58, (top_left(), EVEN), made=made)
    assert "region" not in words(sure)
    assert "region at the top left" in words(pets(0.97, 0.58, (top_left(), EVEN), made=made))


def test_hard_and_soft_answers_that_differ_are_told_apart():
    found = pets(0.6, 0.51)
    told = replace(found, made={"soft_answer": {"class": "car", "probability": 0.45}})
    sentence = "Step by step it arrives at cat, yet car is the likelier class over all paths: "
    assert sentence + "45 % against 31 %." in words(told)
    agreed = replace(found, made={"soft_answer": {"class": "cat", "probability": 0.31}})
    assert "Step by step" not in words(agreed)
    z = torch.log(torch.tensor([[0.306, 0.294, 0.38, 0.02]]))
    rival = DecisionRules(PETS, rule="marginal").paths(z, [2])[0]
    tried = replace(found, counterfactuals=(flip(found.path, 0, runner_up_path=rival),))
    assert sentence + "38 % against 31 %." in words(tried)


def test_a_map_against_its_own_decision_is_reported_and_not_called_a_reason():
    against = -np.ones((6, 6), dtype=np.float32)
    against[:2, :2] = 1
    text = words(pets(0.97, 0.9, (against, top_left())))
    assert "because" not in text.split(".")[0]
    assert "At the step to animal, 89 % of its map speaks against it." in text


def test_what_would_change_it():
    found = pets(0.97, 0.58)
    small = replace(found, counterfactuals=(flip(found.path, 1),))
    assert words(small).endswith(
        "Blurring two small regions (4 % of the picture) turns cat into dog."
    )
    large = replace(found, counterfactuals=(flip(found.path, 1, share=0.31, regions=1),))
    assert "Blurring one region (31 % of the picture) turns cat into dog." in words(large)
    none = tuple(flip(found.path, i, flipped=False, becomes=None, regions=0) for i in (0, 1))
    assert (
        "Blurring up to 50 % of the picture, what spoke most for each first, changed none of two "
        "decisions." in words(replace(found, counterfactuals=none))
    )


def test_the_closest_decision_that_flips_is_the_one_told():
    found = pets(0.6, 0.9)
    both = (flip(found.path, 1), flip(found.path, 0, becomes="vehicle", share=0.2))
    assert "turns animal into vehicle" in words(replace(found, counterfactuals=both))


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ((0.83, 0.81), "of a dog is almost as similar as that of a cat: 0.81 against 0.83."),
        ((0.83, 0.60), "of a cat is more similar than that of a dog: 0.83 against 0.60."),
        ((0.831, 0.829), "of a cat is just as similar as that of a dog: 0.83."),
        ((0.60, 0.83), "of a dog is even more similar than that of a cat: 0.83 against 0.60."),
    ],
)
def test_training_photographs_are_compared_at_the_closest_decision(pair, sentence):
    evidence = near(((0.9,), (0.1,)), ((0.2, pair[0]), (pair[1], 0.1)))
    text = words(pets(0.97, 0.58, evidence=evidence))
    assert text.endswith("The nearest training photograph " + sentence)
    assert "training" not in words(pets(0.97, 0.58, evidence=near(((0.9,), ()), ((), (0.3,)))))


def test_deep_trees_get_no_longer_paragraph():
    tree = oracle.caterpillar(30)
    torch.manual_seed(0)
    path = DecisionRules(tree, rule="marginal").paths(torch.randn(1, 31))[0]
    text = words(Explanation(path, (EVEN,) * len(path)))
    assert sentences(text) <= SENTENCES
    assert len(text) < 600


# ---- only what was measured --------------------------------------------------------------------


def sentences(text):
    return len(re.findall(r"\.(?= |$)", text))


@st.composite
def explanations(draw):
    tree = draw(oracle.trees(max_classes=9))
    seed, scale = draw(st.integers(0, 2**16)), draw(st.sampled_from([0.1, 1, 5, 30]))
    noise = np.random.default_rng(seed)
    z = torch.from_numpy(noise.normal(size=(1, tree.num_classes)) * scale)
    rules = DecisionRules(tree, rule=draw(st.sampled_from(oracle.RULES)))
    asked = draw(st.none() | st.integers(0, tree.num_classes - 1))
    path = rules.paths(z, None if asked is None else [asked])[0]
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    shift, power = draw(st.sampled_from([-1, -0.2, 0, 1])), draw(st.sampled_from([1, 3, 9]))
    maps = tuple(
        (noise.normal(size=shape) ** power + shift).astype(np.float32) for _ in range(len(path))
    )
    changes, evidence, made = (), (), {}
    if draw(st.booleans()):
        changes = tuple(
            flip(path, i, share=float(noise.random() / 2), flipped=bool(noise.random() < 0.5),
                 runner_up_path=rules.paths(z, [int(noise.integers(tree.num_classes))])[0],
                 becomes=d.children[d.runner_up])
            for i, d in enumerate(path)
        )  # fmt: skip
    if draw(st.booleans()):
        evidence = near(*(((float(noise.random()),), (float(noise.random()),)) for _ in path))
    if draw(st.booleans()):
        best = int(rules(z).argmax())
        chance = float(rules(z)[0, best].exp())
        made = {"soft_answer": {"class": tree.classes[best], "probability": chance}}
    return Explanation(path, maps, evidence=evidence, counterfactuals=changes, made=made)


@given(explanations())
def test_every_number_is_a_fact(explanation):
    text = re.sub("“[^”]*”", "", words(explanation))
    assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= oracle.numbers_of(explanation)


@given(explanations())
def test_mostly_because_is_said_only_where_it_holds(explanation):
    text = words(explanation)
    path = explanation.path
    running = np.cumsum([d.log_probs[d.chosen] for d in path])
    sure = [i for i, value in enumerate(running) if math.exp(value) >= 0.9]
    values = explanation.maps[sure[-1] if sure else 0]
    against = np.maximum(-values, 0).sum() / np.abs(values).sum()
    if found := re.search(r"mostly because of the region ([a-z ]+?)(?:,|\.)", text):
        share = oracle.place_share(values, found[1])
        band = found[1].split()[0] in ("along", "across", "down")
        least = MOSTLY_HALF if found[1].endswith("half") else MOSTLY_BAND if band else MOSTLY
        assert share > least
        assert against <= AGAINST
    if "all over the picture" in text:
        ninths = oracle.shared_out(np.maximum(values, 0), 3, 3, steps=3)
        assert ninths.max() / ninths.sum() <= SPREAD + 1e-9
        thirds = [*ninths.sum(0), *ninths.sum(1)]
        assert min(thirds) / ninths.sum() >= EVERYWHERE - 1e-9


@given(explanations())
def test_it_is_short_and_claims_follow_from_the_facts(explanation):
    text, path = words(explanation), explanation.path
    assert 1 <= sentences(text) <= SENTENCES
    asked = any(d.margin < 0 for d in path)
    assert text.startswith("This is the way to") == asked
    if not asked:
        assert ("uncertain" in text) == (path.probability < 0.5)
    if "it was close" in text:
        close = [d for d in path if 0 <= d.margin < math.log(2)]
        assert len(close) == 1
    if "was clear" in text or "were clear" in text:
        assert all(d.margin < math.log(2) or d.probability >= 0.9 for d in path)
    if "turns" in text:
        assert any(found.flipped for found in explanation.counterfactuals)
    if "changed no" in text:
        assert not any(found.flipped for found in explanation.counterfactuals if found.margin >= 0)


@given(explanations())
def test_close_calls_are_never_hidden_by_less(explanation):
    """Unless all five sentences are taken by warnings and evidence, a close call is told."""
    text = words(explanation)
    close = [d for d in explanation.path if 0 <= d.margin < math.log(2)]
    if close and sentences(text) < SENTENCES:
        assert "close" in text


# ---- places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (6, 6), (7, 7), (14, 14), (5, 8)])
def test_every_ninth_has_its_name(shape):
    names = set()
    for row in range(3):
        for column in range(3):
            values = np.zeros(shape, dtype=np.float32)
            centre = (int((row + 0.5) * shape[0] / 3), int((column + 0.5) * shape[1] / 3))
            values[centre] = 1
            name, share = place(values)
            assert share == pytest.approx(oracle.place_share(values, name))
            names.add(name)
    assert len(names) == 9
    assert {"in the centre", "at the top left", "at the bottom right"} <= names


def test_bands_and_everywhere_and_nowhere():
    band = np.zeros((9, 9), dtype=np.float32)
    band[:3] = 1
    assert place(band) == ("along the top", pytest.approx(1))
    assert place(band.T)[0] == "along the left side"
    half = np.zeros((8, 8), dtype=np.float32)
    half[:4] = 1
    assert place(half) == ("in the upper half", pytest.approx(1))
    assert place(half.T)[0] == "in the left half"
    assert place(half[::-1].copy())[0] == "in the lower half"
    assert place(EVEN)[0] == "all over the picture"
    assert place(-EVEN) is None
    assert place(np.ones((2, 9), dtype=np.float32)) is None
    uneven = np.diag([1.0, 1, 1]).astype(np.float32)
    spot = np.array([[0.05, 0.25, 0.03], [0.21, 0.23, 0.12], [0.01, 0.09, 0.01]], dtype=np.float32)
    assert place(spot) is None  # no ninth holds much, and the edges hold next to nothing
    assert place(uneven) is None  # a third of the mass in each of three ninths


@given(st.integers(3, 9), st.integers(3, 9), st.integers(0, 999), st.sampled_from([1, 4, 12]))
def test_a_place_holds_the_share_it_names(height, width, seed, power):
    values = np.random.default_rng(seed).random((height, width), dtype=np.float32) ** power
    found = place(values)
    if found and found[0] != "all over the picture":
        assert found[1] == pytest.approx(oracle.place_share(values, found[0]))


# ---- wording -----------------------------------------------------------------------------------


def test_percent_never_rounds_to_certainty():
    assert [percent(p) for p in (0.974, 0.9999, 1, 0.0001, 0, 0.5)] == [
        "97 %", "more than 99 %", "100 %", "less than 1 %", "0 %", "50 %"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "a cat"),
        ("animal", "an animal"),
        ("Egyptian cat", "an Egyptian cat"),
        ("hourglass", "an hourglass"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("SUV", "an SUV"),
        ("crane (bird)", "a crane (bird)"),
        ("vehicles", "vehicles"),
        ("furniture", "furniture"),
        ("bus", "a bus"),
        ("aquarium_fish", "an aquarium fish"),
        ("class 0", "“class 0”"),
        ("animal: bird, frog", "“animal: bird, frog”"),
        ("<b>", "“<b>”"),
        ("猫", "a 猫"),
        ("x" * 60, f"“{'x' * 60}”"),
    ],
)
def test_names_are_used_as_they_are_and_odd_ones_quoted(name, expected):
    assert with_article(name) == expected
    assert say(name) in expected


def test_counts_are_words_up_to_ten():
    assert [count(n) for n in (0, 1, 10, 11)] == ["no", "one", "ten", "11"]
