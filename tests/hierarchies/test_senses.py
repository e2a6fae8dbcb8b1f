"""Names to senses: words and their forms, joint choice, repeated names, reports and errors."""

import json
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt.errors import NBDTError
from nbdt.hierarchies.wordnet.candidates import candidates
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.hierarchies.wordnet.disambiguation import (
    BACKGROUND,
    NESTED_COST,
    SPREAD,
    _log_prior,
    choose,
)
from nbdt.hierarchies.wordnet.senses import (
    OverrideError,
    RepeatedNameError,
    UnknownNamesError,
    senses,
)
from nbdt.hierarchies.wordnet.tree import from_wordnet
from nbdt.tree.nodes import HierarchyError

from .hundred_classes import NAMES, WNIDS
from .sense_lists import DEVELOPMENT, HELD_OUT, parse

DATA = Path(os.environ.get("NBDT_DATA", Path(__file__).parents[3] / "shared" / "data"))
NET = wordnet()
LEMMAS = sorted(NET.lexicon.lemma_number)
BIRD, MACHINE = "n02012849", "n03126707"


def meaning(name, *company):
    """The wnid of the first of several names."""
    return senses([name, *company]).choices[0].wnid


# Joint choice.


def test_company_decides():
    assert meaning("crane", "heron", "stork") == BIRD
    assert meaning("crane", "bulldozer", "forklift") == MACHINE
    assert meaning("bass", "trout", "salmon") == "n02565573"
    assert meaning("bishop", "rook", "pawn") == "n02844056"


@pytest.mark.parametrize(("text", "bar"), [(DEVELOPMENT, 0.95), (HELD_OUT, 0.9)])
def test_short_lists_written_by_hand(text, bar):
    right = [
        choice.wnid == row.meant[choice.given]
        for row in parse(text)
        for choice in senses(row.names).choices
        if choice.given in row.meant
    ]
    assert len(right) > 150
    assert np.mean(right) >= bar


@pytest.mark.data
def test_imagenet_labels():
    with tarfile.open(DATA / "imagenet1000_s256_q90.tar") as archive:
        stems = sorted(Path(name).stem for name in archive.getnames() if name.endswith(".jpg"))
    wnids, names = zip(*(stem.split("_", 1) for stem in stems), strict=True)
    report = senses(names)
    right = [chosen == wnid for chosen, wnid in zip(report.wnids, wnids, strict=True)]
    assert sum(right) >= 930
    # Most mistakes are among the choices the report asks people to look at.
    wrong = [c for c, ok in zip(report.choices, right, strict=True) if not ok]
    assert sum(choice.ambiguous for choice in wrong) >= 0.75 * len(wrong)
    assert len(report.ambiguous) <= 200
    assert from_wordnet(names).num_classes == 1000


def test_a_hundred_names_of_everything():
    chosen = [choice.wnid for choice in senses(NAMES).choices]
    assert sum(wnid == meant for wnid, meant in zip(chosen, WNIDS, strict=True)) >= 86


def slow_choice(names, rows, steps=40):
    """The model as its formula says it, one candidate at a time."""
    shares = [np.ones(len(row)) for row in rows]
    up = {c.synset: {c.synset, *NET.ancestors(c.synset)} for row in rows for c in row}
    sizes = {a: NET.hyponym_counts[a] + 1 + SPREAD / len(names) for s in up.values() for a in s}
    prior = [np.array([_log_prior(candidate, NET) for candidate in row]) for row in rows]
    shares = [normal(np.exp(p)) for p in prior]
    for _ in range(steps):
        new = []
        for place, row in enumerate(rows):
            density = [
                BACKGROUND * len(names) / NET.num_synsets
                + sum(heat(a, place, rows, shares, up) / sizes[a] for a in up[c.synset])
                for c in row
            ]
            nested = [expected_above(c, place, rows, shares, up) for c in row]
            weight = np.exp(prior[place] - NESTED_COST * np.array(nested)) * density
            new.append(normal(weight))
        shares = [0.5 * (old + fresh) for old, fresh in zip(shares, new, strict=True)]
    return shares


def normal(weights):
    return weights / weights.sum()


def heat(ancestor, place, rows, shares, up):
    """Expected number of other names below an ancestor."""
    return sum(
        share
        for other, row in enumerate(rows)
        if other != place
        for candidate, share in zip(row, shares[other], strict=True)
        if ancestor in up[candidate.synset]
    )


def expected_above(candidate, place, rows, shares, up):
    """Expected number of other names that are a proper ancestor of the candidate."""
    return sum(
        share
        for other, row in enumerate(rows)
        if other != place
        for above, share in zip(row, shares[other], strict=True)
        if above.synset != candidate.synset and above.synset in up[candidate.synset]
    )


@pytest.mark.parametrize(
    "names",
    [
        ["bat", "mole", "seal"],
        ["organ", "piano"],
        ["crane"],
        ["bus", "car", "truck"],
        ["kite", "bird", "woman", "girl"],
    ],
)
def test_the_choice_is_the_slow_choice(names):
    rows = [candidates(name, NET) for name in names]
    for fast, slow in zip(choose(names, rows, NET), slow_choice(names, rows), strict=True):
        np.testing.assert_allclose(fast, slow, atol=1e-3)


name_lists = st.lists(st.sampled_from(LEMMAS), min_size=2, max_size=12, unique=True)


@given(name_lists, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_known_names_make_a_hierarchy_in_any_order(names, order):
    tree = from_wordnet(names)
    assert tree.classes == tuple(names)
    report = senses(names)
    shuffled = order.sample(names, len(names))
    found = {choice.given: choice for choice in senses(shuffled).choices}
    assert all(found[choice.given] == choice for choice in report.choices)
    for choice in report.choices:
        total = sum(c.share for c in (choice.chosen, *choice.rejected))
        assert total == pytest.approx(1.0)
        assert 0.0 <= choice.margin <= 1.0


def test_a_thousand_names_in_any_order():
    names = random.Random(0).sample(LEMMAS, 1000)
    report = senses(names)
    backwards = senses(names[::-1])
    assert backwards.wnids == report.wnids[::-1]


# Words and their forms.


@pytest.mark.parametrize(
    ("name", "wnid"),
    [
        ("maple tree", "n12752205"),
        ("maple_tree", "n12752205"),
        ("maple-tree", "n12752205"),
        ("Maple Trees", "n12752205"),
        ("lawn_mower", "n03649909"),
        ("pickup_truck", "n03930630"),
        ("PickupTruck", "n03930630"),
        ("  zebra ", "n02391049"),
        ("ZEBRAS", "n02391049"),
        ("wolves", "n02114100"),
        ("wildebeests", "n02421449"),
        ("sea lions", "n02077923"),
        ("sea-lion", "n02077923"),
        ("colt's foot", "n12029635"),
        ("t-shirt", "n03595614"),
        ("teddybear", "n04399382"),
        ("carpenter's plane", "n03954731"),
        ("carpenter\u2019s plane", "n03954731"),
        ("tench, Tinca tinca", "n01440764"),
        ("crane (bird)", BIRD),
        ("crane_(machine)", MACHINE),
        ("crane (wading bird)", BIRD),
    ],
)
def test_forms_of_a_name(name, wnid):
    assert meaning(name, "oak", "bus") == wnid


def test_the_way_a_name_was_found_is_told():
    report = senses(["fox", "foxes", "maple tree", "aquarium fish", "oak"], {"oak": "elm"})
    found = [choice.match for choice in report.choices]
    assert found == ["word", "form", "compound", "head", "override"]
    assert report.choices[3].chosen.name == "fish"


def test_a_compound_needs_a_word_that_names_it():
    # A stop can be a punctuation mark, which is a sign; a stop sign is another thing.
    assert senses(["stop sign", "traffic light", "bus"]).choices[0].match == "head"
    assert senses(["puma cat", "dog"]).choices[0].chosen.name == "cougar"


def test_classes_exclude_one_another():
    assert meaning("bus", "car", "truck", "bicycle", "train") == "n02924116"


def test_the_head_is_not_guessed_for_words_that_wordnet_lacks():
    with pytest.raises(UnknownNamesError):
        senses(["xq17 fish", "dog"])


# Repeated names.


def test_repeated_names_get_distinct_senses_in_the_order_of_their_ids():
    report = senses(["crane", "heron", "crane", "bulldozer"])
    assert report.wnids[0::2] == (BIRD, MACHINE)
    assert report.labels == ("crane (bird)", "heron", "crane (lifting device)", "bulldozer")
    assert from_wordnet(["crane", "heron", "crane", "bulldozer"]).classes == report.labels


def test_qualified_labels_lead_back_to_their_senses():
    report = senses(["crane", "mouse", "crane", "mouse", "bass", "bass", "bass"])
    assert len(set(report.wnids)) == 7
    assert senses(report.labels).wnids == report.wnids
    assert senses(report.labels).labels == report.labels


def test_labels_fall_back_on_ids_where_a_class_has_that_name():
    report = senses(["crane", "crane", "crane (bird)", "bulldozer"])
    assert report.labels[:2] == (f"crane ({BIRD})", f"crane ({MACHINE})")


def test_a_name_repeated_beyond_its_senses():
    with pytest.raises(RepeatedNameError, match=r"'zebra'.* 2 classes.* 1 senses"):
        senses(["zebra", "zebra", "dog"])


# Overrides.


def test_overrides_by_name_index_and_word():
    assert senses(["crane", "heron"], {"crane": MACHINE}).wnids[0] == MACHINE
    report = senses(["crane", "heron", "crane"], {0: MACHINE})
    assert report.wnids[0::2] == (MACHINE, BIRD)
    assert senses(["b52", "dog"], {"b52": "bomber"}).choices[0].chosen.name == "bomber"
    assert senses(["crane", "dog"], {"crane": MACHINE}).choices[0].margin == 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"cat": BIRD}, "'cat' names 0 of the 3 classes"),
        ({"crane": BIRD}, "'crane' names 2 of the 3 classes"),
        ({3: BIRD}, "3 names 0 of the 3 classes"),
        ({0: "n99999999"}, "or a noun that WordNet has, got 'n99999999'"),
        ({0: "frobnik"}, "got 'frobnik'"),
    ],
)
def test_overrides_that_mean_nothing(overrides, message):
    with pytest.raises(OverrideError, match=message):
        senses(["crane", "heron", "crane"], overrides)


# Reports and errors.


def test_the_report_is_data_and_text():
    report = senses(["crane", "heron", "monitor"])
    assert json.loads(json.dumps(report.to_dict()))["choices"][0]["chosen"]["wnid"] == BIRD
    lines = str(report).splitlines()
    assert lines[0] == f"3 classes, {len(report.ambiguous)} to check (marked ?)"
    assert "crane: crane (wading bird) n02012849" in lines[1]
    assert "not crane (lifting device) n03126707" in lines[1]
    assert {choice.label for choice in report.ambiguous} <= {"crane", "monitor"}
    assert all(choice.margin < 0.5 for choice in report.ambiguous)


def test_unknown_names_are_all_listed():
    with pytest.raises(UnknownNamesError, match="no noun for 3 of the names") as caught:
        senses(["elefant", "dog", "zebrra", "qqqq"])
    assert "'elefant', 'zebrra', 'qqqq'. Did you mean 'elephant'" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["(", "()", "dog (", "dog ()", "dog (frobnik)", ",", "-", "\x00"])
def test_odd_names_are_unknown_rather_than_guessed(name):
    with pytest.raises(UnknownNamesError):
        senses([name, "dog"])


def test_very_long_names_are_refused_quickly():
    with pytest.raises(UnknownNamesError):
        senses(["x" * 100_000, "x " * 50_000 + "y", "x(" * 50_000])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("dog", "Expected a list of class names, got str: 'dog'"),
        (None, "Expected a list of class names, got NoneType"),
        ([], "Expected one or more class names, got none"),
        (["dog", 3], "to be words, got 3"),
        (["dog", " _"], "to be words, got ' _'"),
    ],
)
def test_lists_that_are_none(names, message):
    with pytest.raises(NBDTError, match=message):
        senses(names)


def test_one_class_is_no_hierarchy():
    with pytest.raises(HierarchyError, match="two or more classes"):
        from_wordnet(["dog"])
