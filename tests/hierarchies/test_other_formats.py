"""Files of other tools: tables of ranks, outlines, YAML, categories; read or refused by line."""

import json
import unicodedata

import pytest

from nbdt import Hierarchy
from nbdt.correction import Correction
from nbdt.errors import nearest
from nbdt.hierarchies.formats import FormatError, from_text
from nbdt.hierarchies.library import class_list
from nbdt.hierarchies.oddities import remarks
from nbdt.tree.class_names import check_same_classes, class_of_name
from tests.oracle import family

PLANTS = "phylum,class,species\nMosses,Andreaeopsida,alpine rock moss\nVascular,Pines,fir\nVascular,Palms,date\n"
FAMILY = [("animal", "cat"), ("vehicle", "car"), ("animal", "dog"), ("vehicle", "bus")]


def classes_and_groups(tree):
    return tree.classes, {tree.names[node] for node in tree.inner_nodes}


@pytest.mark.parametrize("mark", ["/", " > ", " -> ", " → ", "\\", "::", "|", "\t", ";", ","])
def test_any_common_separator(mark):
    assert from_text("\n".join(mark.join(row) for row in FAMILY), ".txt") == family()


@pytest.mark.parametrize(
    "text",
    [
        "animal\n  cat\n  dog\nvehicle\n  car\n  bus",
        "animal\n\tcat\n\tdog\nvehicle\n\tcar\n\tbus",
        "- animal\n  - cat\n  - dog\n- vehicle\n  - car\n  - bus",
        "all\n├── animal\n│   ├── cat\n│   └── dog\n└── vehicle\n    ├── car\n    └── bus",
        "animal: [cat, dog]\nvehicle:\n  - car\n  - bus\n",
        "---\n# made by hand\nanimal:  # two\n- 'cat'\n- \"dog\"\nvehicle: [car, bus]\n",
        "animal:\n  cat:\n  dog: ~\nvehicle:\n  car:\n  bus:\n",
        "| group | name |\n|---|---|\n|animal|cat|\n|animal|dog|\n|vehicle|car|\n|vehicle|bus|\n",
        "# made by hand\nanimal/cat\nanimal/dog\nvehicle/car\nvehicle/bus",
        "class,superclass\ncat,animal\ndog,animal\ncar,vehicle\nbus,vehicle\n",
        "id;name;parent_id\n1;animal;\n2;cat;1\n3;dog;1\n4;vehicle;\n5;car;4\n6;bus;4\n",
        '["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"]',
        json.dumps(
            {
                "text": "x",
                "nodes": [
                    {"text": "animal", "nodes": ["cat", "dog"]},
                    {"text": "vehicle", "nodes": ["car", "bus"]},
                ],
            }
        ),
        "animal/cat/\nanimal/dog/\nvehicle/car/\nvehicle/bus/",
    ],
)
def test_every_shape_gives_the_same_tree(text):
    tree = from_text(text)
    assert tree.classes == ("cat", "dog", "car", "bus")
    assert {"animal", "vehicle"} < {tree.names[node] for node in tree.inner_nodes}
    assert tree.names[tree.parents[tree.index("dog")]] == "animal"


def test_a_header_of_ranks_is_no_class_and_says_so():
    notes = []
    tree = from_text(PLANTS, ".csv", notes=notes)
    assert classes_and_groups(tree) == (("alpine rock moss", "fir", "date"), {"root", "Vascular"})
    assert any("line 1 is a header" in note for note in notes)
    assert any("single child" in note and note.endswith(" 4") for note in notes)


def test_a_table_from_the_narrowest_rank_to_the_broadest_is_turned_round():
    text = "species,genus,family,photos\nlion,Panthera,cats,3\ntiger,Panthera,cats,1\nwolf,Canis,dogs,2\n"
    notes = []
    tree = from_text(text, notes=notes)
    assert classes_and_groups(tree) == (("lion", "tiger", "wolf"), {"root", "Panthera"})
    assert "columns left out: 'photos'" in notes


def test_missing_ranks_and_repeated_observations():
    text = "family,genus,species\ncats,,lion\ncats,Felis,cat\nNA,,fern\ncats,,lion\n"
    notes = []
    tree = from_text(text, ".csv", notes=notes)
    assert classes_and_groups(tree) == (("lion", "cat", "fern"), {"root", "cats"})
    assert "3 of 4 lines lack a level" in notes
    assert "1 lines repeat an earlier one" in notes


def test_an_observation_of_a_genus_alone_is_no_class_where_the_genus_is_a_group():
    notes = []
    tree = from_text(
        "family,genus,species\nH,Ardea,heron\nH,Ardea,\nH,Ardea,egret\nG,Grus,\n", notes=notes
    )
    assert tree.classes == ("heron", "egret", "Grus")
    assert any("line 3, Ardea" in note for note in notes)


def test_lists_of_names_in_json_are_class_lists(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"id2label": {"1": "dog", "0": "cat"}, "model_type": "vit"}'
    )
    assert class_list(str(tmp_path / "config.json")) == (["cat", "dog"], None)


def test_levels_by_number_and_names_beside_ranks():
    levels = "Level 2,Level 1,id\napple,fruit,7\npear,fruit,8\nleek,vegetable,9\n"
    assert from_text(levels).classes == ("apple", "pear", "leek")
    named = "order,common name\nowls,barn owl\nowls,tawny owl\nhens,hen\n"
    assert from_text(named).classes == ("barn owl", "tawny owl", "hen")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("order,family,species\na,b,c\nd,e,f,g\n", "Line 3 has 4 cells; the header has 3"),
        ("order,species\na,c\n,\n,NA\n", "Line 4 names no order or species"),
        ("genus,species\nArdea,alba\nArdea,cinerea\nEgretta,alba\n", "Line 4: .*'alba'.* line 2"),
        ("a/b\nc>d\na/e\n", "Line 2, 'c>d', holds '>' where others hold '/'"),
        ('[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]', "2 class names without"),
        ("Reihe;Ding;Sache\nx;y;a\nx;y;b\nx;z;c\n", "single child.*line 1 shares no name"),
        ("a: &x [b, c]\nd: [*x, *x]\n", "Line 1, .*is YAML that is not read"),
        ("a:\n  b:\n  b:\n", "Line 3: the class 'b' is on line 2"),
        ("a: [b, c\n", "Line 1, .*YAML that is not read; write a name, 'group:'"),
        ("a:\n  b: c\n  d:\n", "Line 2, 'b: c', is YAML that is not read"),
        ("---\na: [b]\n---\nc: [d]\n", "Line 3, '---', is YAML that is not read"),
        ("<phyloxml/>", "XML"),
        ("((cat,dog)animal,(car,bus)vehicle);", "Newick; write one path a line"),
        ("#NEXUS\nbegin trees;", "NEXUS"),
        ('{"id2label": {"0": "cat", "1": "dog"}, "model_type": "vit"}', "2 class names without"),
        ('{"0": ["n02123045", "tabby"], "1": ["n02099601", "retriever"]}', "'tabby', 'retriever'"),
        ('{"cat": 1, "dog": 0}', "'dog', 'cat'"),
        ("path: x\nnc: 2\nnames: [person, car]\n", "Line 1, 'path: x', is YAML"),
        ('[{"parent": 1}]', "got an object with the keys 'parent'; write one path a line"),
        ('{"categories": [{"name": "kite", "supercategory": "toy"}]}', "supercategory.*one path a"),
        ('[["animal", "cat"], ["animal", "dog"]]', "Expected groups .*got list; write one path"),
        ('{"cat": "animal", "dog": "animal"}', "holds 'animal'"),
        ('{"cat": {"supercategory": "animal"}, "dog": {"supercategory": "animal"}}', "'animal'"),
        ('a: ["\ud800", b]\n', "Line 1: a name"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text, message):
    with pytest.raises(FormatError, match=message):
        from_text(text)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "[" * 50_000),
        (".yaml", "{a: " * 50_000 + "}" * 50_000),
        (".json", "[" * 50_000),
    ],
)
def test_deep_nesting_is_one_line(suffix, text):
    with pytest.raises(FormatError, match=r"YAML that is not read|nested too deep") as caught:
        from_text(text, suffix)
    assert "\n" not in str(caught.value)


def test_toml_is_refused_and_not_taken_for_lines():
    with pytest.raises(FormatError, match="TOML; write it as YAML or JSON"):
        from_text('vehicle = ["car", "bus"]\n[animal]\ncat = {}\ndog = {}\n', ".toml")


def test_yaml_keeps_words_that_look_like_values():
    assert from_text("a: [no, 2024-01-01]\nb: [1.50, 'null']\n").classes == (
        "no", "2024-01-01", "1.50", "null",
    )  # fmt: skip


def test_open_images_hierarchy_and_bare_strings_as_children():
    leaf = [{"LabelName": "/m/1"}, {"LabelName": "/m/2"}]
    tree = {"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/9", "Subcategory": leaf, "Part": []},
                                                 {"LabelName": "/m/3"}]}  # fmt: skip
    assert from_text(json.dumps(tree)).classes == ("/m/1", "/m/2", "/m/3")
    named = {"name": "x", "children": [{"name": "a", "children": ["b", "c"]}, "d"]}
    assert from_text(json.dumps(named)).classes == ("b", "c", "d")


# What `check` remarks on.


@pytest.mark.parametrize(
    ("paths", "remark"),
    [
        (["cat", "dog"], "one level"),
        (["a/genus", "a/cat", "dog"], "like a rank.*'genus'"),
        ([["a", "T-shirt/top"], ["a", "b"], ["c"]], "separator.*T-shirt/top"),
        (["a/Cat", "a/cat_", "dog"], "case, spaces or marks only: 'Cat and cat_'"),
        (["a/bell pepper", "a/bell-pepper", "dog"], "bell pepper and bell-pepper"),
        (["a/0", "a/1", "2"], "numbers"),
        (["animal.cat", "animal.dog", "thing.car"], "every class holds '.'"),
    ],
)
def test_check_reports_what_looks_odd(paths, remark):
    import re

    assert re.search(remark, "; ".join(remarks(Hierarchy.from_paths(paths))))


def test_an_ordinary_tree_gets_no_remark():
    assert not [*remarks(family())]


# Unicode: names are compared in the form NFC.

WORDS = ["bird/Grünspecht", "bird/Möwe", "fish/Blöcker"]
DECOMPOSED = [unicodedata.normalize("NFD", word) for word in WORDS]


def test_names_are_the_same_in_every_form_of_unicode():
    tree = Hierarchy.from_paths([*WORDS, "fish/x"])
    assert Hierarchy.from_paths([*DECOMPOSED, "fish/x"]) == tree
    assert from_text("\n".join([*DECOMPOSED, "fish/x"])) == tree
    leaf = DECOMPOSED[0].split("/")[1]
    assert tree.index(leaf) == tree.index("Grünspecht")
    assert class_of_name(tree)[unicodedata.normalize("NFC", leaf).casefold()] == 0
    check_same_classes(tree.classes, [unicodedata.normalize("NFD", name) for name in tree.classes])
    assert "Möwe" in nearest(unicodedata.normalize("NFD", "Mövve"), ["Möwe"])
    said = Correction("label", "0" * 64, label=leaf)
    assert said.label == "Grünspecht"


def test_two_forms_of_one_name_are_one_class():
    with pytest.raises(FormatError, match="Grünspecht"):
        from_text("\n".join([WORDS[0], DECOMPOSED[0], "x/y", "x/z"]))


def test_a_file_of_an_earlier_release_keeps_its_names_and_hash():
    text = Hierarchy.from_paths(["a/e", "a/o", "b"]).to_json().replace('"o"', '"o\u0308"')
    tree = Hierarchy.from_json(text)
    assert from_text(text).hash == tree.hash
    assert tree.index("ö") == tree.index("o\u0308")


def test_nearest_is_bounded():
    assert nearest("x" * 10_000, ["x" * 10_000]) == ""
    many = [f"{letter}{number:05}" for letter in "ab" for number in range(50_000)]
    assert "'b0" in nearest("b0007", many)
