"""The paragraph says what was measured, all of it true, and not too much."""

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy
from nbdt.decide.paths import percent
from nbdt.explain.result.explanation import Counterfactual, DecisionEvidence, Explanation, Neighbour
from nbdt.explain.result.facts import (
    FACTS,
    KINDS,
    SURE,
    facts,
    place,
    words,
)
from nbdt.explain.result.regions import Region
from nbdt.explain.result.regions import TestedRegion as Proved
from nbdt.explain.result.words import count, remark, say, with_article
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


def proved(log_odds):
    """A region at the top left that was tested."""
    region = Region(((0, 0), (0, 1), (1, 0)), (9, 9))
    return Proved((region,), log_odds, ((2.0, 0.3), (1.5, 0.2)), 3 / 81)


def near(*pairs):
    def side(values, name):
        return tuple(Neighbour(f"{i}", name, v, i, lambda: None) for i, v in enumerate(values))

    return tuple(DecisionEvidence(side(one, "a"), side(other, "b")) for one, other in pairs)


def found(explanation):
    """The facts by kind."""
    return {fact.kind: fact.values for fact in facts(explanation)}


# ---- wording: one sentence of each kind --------------------------------------------------------


def flipped(**facts):
    explanation = pets(0.97, 0.58)
    return replace(explanation, counterfactuals=(flip(explanation.path, 1, **facts),))


def compared(chosen, rejected):
    evidence = near(((0.9,), (0.1,)), ((0.2, chosen), (rejected, 0.1)))
    return pets(0.97, 0.58, evidence=evidence)


def answered(**facts):
    answer = {"node": "animal/", "name": "animal", "probability": 0.97, "is_leaf": False, "depth": 1,
              "unknown": False, "accuracy": 0.95}  # fmt: skip
    return pets(0.97, 0.58, made={"answer": answer | facts})


SENTENCES = {
    "unknown": (
        lambda: answered(unknown=True),
        (
            "This picture is unlike those that the model knows, so it may be nothing that it knows: "
            "only 5 % of known things look this strange to it."
        ),
    ),
    "stops": (
        answered,
        "To be right in 95 % of all cases, its answer commits no further than an animal.",
    ),
    "sure": (
        lambda: pets(0.97, 0.58),
        "It is 97 % sure this is an animal, and 56 % sure that it is a cat.",
    ),
    "tested": (
        lambda: pets(0.99, 0.98, tested=(None, proved((3.9, 0.3, 1.0)))),
        "With the region at the top left hidden, cat falls from 98 to 57 %; no other step moves as much.",
    ),
    "asked": (
        lambda: pets(0.97, 0.3, made={"soft_answer": {"class": "dog", "probability": 0.68}}),
        (
            "This is the path to a cat, to which it gives 29 %; the most probable class is dog, with "
            "68 %."
        ),
    ),
    "likelier": (
        lambda: pets(0.46, 0.9, made={"hard_answer": {"class": "car", "probability": 0.378}}),
        (
            "At the step to animal, vehicle was likelier, 54 % against 46 %. That way it would have "
            "ended at car, with 38 %."
        ),
    ),
    "close": (
        lambda: pets(0.97, 0.58),
        "Between cat and dog it was close: 58 to 42; the other decision was clear.",
    ),
    "none close": (lambda: pets(0.99, 0.98), "None of its two decisions was close."),
    "flip": (flipped, "Blurring two small regions (4 % of the picture) turns cat into dog."),
    "no flip": (
        lambda: flipped(flipped=False, becomes=None, regions=0),
        "Blurring up to 50 % of the picture, starting with what supports it most, changed no decision.",
    ),
    "training": (
        lambda: compared(0.83, 0.60),
        (
            "The nearest training photograph of a cat is more similar than that of a dog: 0.83 against "
            "0.60."
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fact_has_its_sentence(kind):
    explanation, sentence = SENTENCES[kind]
    assert kind in found(explanation())
    assert sentence in words(explanation())


# ---- which facts -------------------------------------------------------------------------------


def test_a_sure_answer_is_said_once():
    explanation = pets(0.99, 0.98, (EVEN, top_left()))
    assert found(explanation).keys() == {"sure", "none close"}
    assert found(explanation)["sure"]["is_answer"]
    assert words(explanation).count("sure") == 1


def test_an_answer_that_is_not_sure_or_unknown_has_no_close_call_denied():
    """Two to one at each of two decisions: none is close, and the class is unlikely."""
    unsure = pets(0.69, 0.69)
    assert unsure.headline.startswith("not sure")
    assert unsure.path.probability < 0.5
    path = pets(0.99, 0.98).path
    unknown, stopped = (
        replace(answered(probability=0.99, **facts), path=path)
        for facts in ({"unknown": True}, {"unknown": False})
    )
    assert unknown.headline.startswith("unknown")
    for explanation in (unsure, unknown, stopped):
        assert "none close" not in found(explanation)
        assert "was close" not in words(explanation)


def test_an_uncertain_answer_is_called_so():
    assert found(pets(0.8, 0.55))["sure"]["name"] == "animal"
    text = words(pets(0.8, 0.55))
    assert "only 44 %" in text
    assert "uncertain" in text


def test_a_path_to_another_class_is_not_called_the_answer():
    assert "sure" not in words(SENTENCES["asked"][0]())


def test_the_first_step_against_the_likeliest_child_is_the_one_reported():
    assert found(pets(0.05, 0.001))["likelier"]["names"] == ("animal", "vehicle")
    assert "95 % against 5 %" in words(pets(0.05, 0.001))
    assert "ended" not in words(pets(0.05, 0.001))
    assert (
        remark(pets(0.05, 0.5).path.decisions[0]) == "vehicle was likelier here, 95 % against 5 %"
    )
    assert remark(pets(0.6, 0.5).path.decisions[0]) == ""


def test_shares_never_round_to_certainty():
    assert "more than 99 % against less than 1 %" in words(pets(0.97, 0.001))


def test_an_equally_probable_class_leaves_the_answer_as_it_is():
    explanation = pets(0.6, 0.51)
    chance = explanation.path.probability * (1 + 1e-7)
    reported = replace(explanation, made={"soft_answer": {"class": "car", "probability": chance}})
    assert "asked" not in found(reported)


def test_a_region_that_was_not_tested_is_never_a_reason():
    """Maps that are positive at one place only, with nothing tested or nothing found."""
    for tested in ((), (None, None)):
        text = words(pets(0.97, 0.58, (top_left(), top_left()), tested=tested))
        assert "region" not in text
        assert "because" not in text


def test_a_greedy_path_of_an_earlier_version_names_the_most_probable_class():
    """It has no step against the likeliest child, and another class is more probable."""
    made = {"soft_answer": {"class": "car", "probability": 0.45}}
    old = pets(0.51, 0.51, made=made)
    assert found(old).keys() >= {"asked", "close"}
    assert "likelier" not in found(old)
    assert "the most probable class is car, with 45 %" in words(old)


def test_what_would_change_it():
    assert "small" not in words(flipped(share=0.31, regions=1))
    assert "one region (31 %" in words(flipped(share=0.31, regions=1))
    explanation = pets(0.97, 0.58)
    none = tuple(flip(explanation.path, i, flipped=False, becomes=None, regions=0) for i in (0, 1))
    tried = replace(explanation, counterfactuals=none)
    assert found(tried)["no flip"] == {"share": 0.5, "tried": 2}
    overtaken = replace(explanation, counterfactuals=(none[0], replace(none[1], overtaken=True)))
    assert "no flip" not in found(overtaken)


def test_the_closest_decision_that_flips_is_the_one_told():
    explanation = pets(0.6, 0.9)
    both = (flip(explanation.path, 1), flip(explanation.path, 0, becomes="vehicle", share=0.2))
    change = found(replace(explanation, counterfactuals=both))["flip"]
    assert (change["before"], change["after"]) == ("animal", "vehicle")


@pytest.mark.parametrize(
    ("pair", "relation"),
    [
        ((0.83, 0.81), "of a dog is almost as similar as that of a cat: 0.81 against 0.83."),
        ((0.831, 0.829), "of a cat is just as similar as that of a dog: 0.83."),
        ((0.60, 0.83), "of a dog is even more similar than that of a cat: 0.83 against 0.60."),
    ],
)
def test_training_photographs_are_compared_at_the_closest_decision(pair, relation):
    assert found(compared(*pair))["training"]["similarities"] == pair
    assert words(compared(*pair)).endswith(relation)
    one_sided = near(((0.9,), ()), ((), (0.3,)))
    assert "training" not in found(pets(0.97, 0.58, evidence=one_sided))


def test_deep_trees_get_no_longer_paragraph():
    tree = oracle.caterpillar(30)
    torch.manual_seed(0)
    path = DecisionRules(tree, rule="marginal").paths(torch.randn(1, 31))[0]
    explanation = Explanation(path, (EVEN,) * len(path))
    assert len(facts(explanation)) <= FACTS
    assert len(words(explanation)) < 600


# ---- only what was measured --------------------------------------------------------------------


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
        ends = {"soft_answer": best, "hard_answer": int(rules.hard(z))}
        made = {
            kind: {"class": tree.classes[end], "probability": float(rules(z)[0, end].exp())}
            for kind, end in ends.items()
        }
    if draw(st.booleans()):
        depth = draw(st.integers(0, len(path)))
        route = [tree.names[node] for node in tree.path_of_class(path.class_index)]
        made["answer"] = {
            "node": "?", "name": route[depth], "probability": 0.5, "is_leaf": depth == len(path),
            "depth": depth, "unknown": draw(st.booleans()), "accuracy": 0.95,
        }  # fmt: skip
    tested = draw(st.sampled_from([(), (None,) * len(path)]))
    if draw(st.booleans()):
        ends = [float(noise.normal()) for _ in path]
        tested = tuple(
            proved((d.log_odds, d.log_odds - abs(end) - 0.3, end)) if end < 1 else None
            for d, end in zip(path, ends, strict=True)
        )
    return Explanation(
        path, maps, evidence=evidence, counterfactuals=changes, made=made, tested=tested
    )


@given(explanations())
def test_every_number_is_a_fact(explanation):
    text = re.sub("“[^”]*”", "", words(explanation))
    assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= oracle.numbers_of(explanation)


def check_lead(explanation, values):
    path = explanation.path
    running = np.cumsum([d.log_probs[d.chosen] for d in path])
    sure = [i for i, value in enumerate(running) if math.exp(value) >= SURE]
    index = sure[-1] if sure else 0
    assert values["name"] == path.decisions[index].children[path.decisions[index].chosen]
    assert values["probability"] == pytest.approx(math.exp(running[index]))
    assert ("uncertain" in words(explanation)) == (path.probability < 0.5)


def check_other_kinds(explanation, kinds):
    path, changes = explanation.path, explanation.counterfactuals
    close = [d for d in path if 0 <= d.margin < math.log(2)]
    if "close" in kinds:
        assert len(kinds["close"]["pairs"]) == len(close) > 0
        clear = [d for d in path if d not in close]
        assert kinds["close"]["clear"] in (0, len(clear))
        assert not kinds["close"]["clear"] or all(d.probability >= SURE for d in clear)
    if "none close" in kinds:
        assert not close
        assert all(decision.is_likeliest for decision in path)
        assert not explanation.headline.startswith(("not sure", "unknown"))
    if "likelier" in kinds:
        assert not all(decision.is_likeliest for decision in path)
    answer = explanation.answer
    assert ("unknown" in kinds) == bool(answer and answer.unknown)
    stops = answer and not answer.is_leaf and not answer.unknown
    assert ("stops" in kinds) == bool(stops)
    if stops:
        assert kinds["stops"]["name"] == (answer.name if answer.depth else None)
    if "flip" in kinds:
        assert any(found.flipped for found in changes)
    if "no flip" in kinds:
        assert not any(found.flipped for found in changes if found.margin >= 0)
    if "asked" in kinds:
        assert kinds["asked"]["other_probability"] > path.probability
    if "tested" in kinds:
        falls = [1 / (1 + math.exp(-t.log_odds[0])) - 1 / (1 + math.exp(-t.log_odds[1]))
                 for t in explanation.tested if t]  # fmt: skip
        whole, blurred, _ = kinds["tested"]["log_odds"]
        assert 1 / (1 + math.exp(-whole)) - 1 / (1 + math.exp(-blurred)) == pytest.approx(
            max(falls)
        )
    if "training" in kinds:
        pairs = [(e.chosen[0].similarity, e.rejected[0].similarity) for e in explanation.evidence]
        assert kinds["training"]["similarities"] in pairs
    if close and len(kinds) < FACTS:  # only more important facts hide a close decision
        assert "close" in kinds


def test_facts_are_few_and_follow_from_the_explanation():
    """In any explanation; and every kind of fact was there to be checked."""
    seen = Counter()

    @settings(max_examples=400)
    @given(explanations())
    def check(explanation):
        kinds = found(explanation)
        assert 1 <= len(kinds) <= FACTS
        assert list(kinds) == sorted(kinds, key=KINDS.index)
        assert ("sure" in kinds) != ("asked" in kinds)
        if "sure" in kinds:
            check_lead(explanation, kinds["sure"])
        check_other_kinds(explanation, kinds)
        seen.update(list(kinds))

    check()
    assert set(KINDS) <= seen.keys(), seen


# ---- places ------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999), st.sampled_from([1, 4, 12]))
def test_a_place_is_the_ninth_with_the_centre_of_what_is_positive(height, width, seed, power):
    values = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32) ** power
    assert place(values) == oracle.centre(values)


def test_every_ninth_has_its_name_and_nothing_has_none():
    spots = np.eye(9, dtype=np.float32).reshape(9, 3, 3)
    names = list(map(place, spots))
    assert len(set(names)) == 9
    assert (names[0], names[4], names[5]) == (
        "at the top left",
        "in the centre",
        "at the middle right",
    )
    assert place(-EVEN) == place(0 * EVEN) == ""


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
