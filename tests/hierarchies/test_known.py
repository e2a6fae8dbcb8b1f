"""Senses of the class names that WordNet knows: folder names, endings, fields, unknown names."""

import pytest

from nbdt import NBDTError
from nbdt.hierarchies import known_senses, senses
from nbdt.hierarchies.wordnet.senses import OverrideError


def read(*names, **options):
    """The name of each sense, or None."""
    report = known_senses(names, **options)
    words = {choice.given: choice.chosen.name for choice in report.choices}
    return [words.get(name) for name in names]


def test_names_that_wordnet_knows_are_read_as_senses_does():
    names = ["crane", "heron", "bus", "sweet_peppers"]
    assert known_senses(names).wnids == senses(names).wnids


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("001.Laysan_Albatross", "albatross"),
        ("Acura TL Sedan 2012", "sedan"),
        ("crocodile_head", "crocodile"),
        ("car_side", "car"),
        ("binocular", "binoculars"),
        ("Motorbikes", "minibike"),
        ("SKU-1234", None),
        ("\u00e9cole", None),
    ],
)
def test_folder_names_are_read_freely(name, word):
    assert read(name, "dog", "bus", "apple")[0] == word


def test_an_ending_counts_in_a_list_of_one_field_only_with_company():
    pets = ["beagle", "pug", "boxer", "Siamese", "Maine_Coon"]
    assert read(*pets) == ["beagle", "pug", "boxer", "Siamese cat", None]
    assert read(*pets, "Bornean_raccoon")[-2:] == ["common raccoon", "raccoon"]
    assert read("Ragdoll", "pug", "dalmatian", "beagle", "Siamese", *"abcd")[0] == "rag doll"
    dogs = [
        "pug",
        "beagle",
        "dalmatian",
        "collie",
        "komondor",
        "kuvasz",
        "briard",
        "basenji",
        "dhole",
    ]
    assert read("Ragdoll", *dogs)[0] is None  # ten classes, nine of them animals


def test_the_second_spelling_of_a_word_is_unknown():
    report = known_senses(["Crane", "crane", "heron"])
    assert report.unknown == ("crane",)
    assert report.wnids[0] is not None


def test_overrides_come_first_by_name_or_index():
    report = known_senses(["SKU-1", "crane", "heron"], {"SKU-1": "bolt", 1: "n03126707"})
    assert report.choices[0].chosen.name.endswith("bolt")
    assert report.choices[0].match == "override"
    assert report.wnids[1] == "n03126707"
    for wrong in ({"cat": "dog"}, {9: "dog"}, {"crane": "xyzzy"}):
        with pytest.raises(OverrideError):
            known_senses(["crane", "heron"], wrong)


def test_the_report_says_what_was_read_how_and_what_was_not():
    report = known_senses(["ok", "SKU-7", "ceiling fan", "lamp", "crane", "Laysan albatross"])
    lines = str(report).split("\n")
    assert lines[0] == "WordNet knows 5 of 6 names."
    assert any("crane" in line and "n0" in line for line in lines)
    assert "'Laysan albatross as albatross'" in str(report)
    assert "Without a sense: 'SKU-7'." in lines
    assert "Without an everyday group: 'ok'." in lines
    data = report.to_dict()
    assert data["unknown"] == ["SKU-7"]
    assert len(data["choices"]) == 5


def test_lists_without_a_known_name_and_wrong_lists():
    assert known_senses(["SKU-1", "SKU-2"]).wnids == (None, None)
    assert known_senses(["cat", "_", " ", "\u2014", "7"]).unknown == ("_", " ", "\u2014", "7")
    for wrong in ([], "cat", ["cat", 3]):
        with pytest.raises(NBDTError):
            known_senses(wrong)
