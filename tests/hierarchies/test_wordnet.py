"""WordNet's data against reference implementations, and its trees against the rules they promise."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import NBDTError
from nbdt.hierarchies.wordnet.database import (
    CORE_COLUMNS,
    DATA_FOLDER,
    FILE_NAME,
    LEXICON_COLUMNS,
    LICENSE_NAME,
    UnknownSynsetError,
    WordNet,
    WordNetDataError,
    read_columns,
    wordnet,
)
from nbdt.hierarchies.wordnet.tree import chosen_parents, from_wnids
from nbdt.tree.nodes import HierarchyError
from tests.maintainer_scripts import script

build_wordnet = script("build_wordnet")

DATA = Path(os.environ.get("NBDT_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEBIAN = Path("/usr/share/wordnet")
NET = wordnet()
synsets = st.integers(0, NET.num_synsets - 1)


def index(wnid: str) -> int:
    return NET.index(wnid)


def slow_ancestors(synset: int) -> set[int]:
    """Every way up, one step at a time."""
    found: set[int] = set()
    level = {synset}
    while level:
        level = {up for low in level for up in NET.parents[low].tolist()}
        found |= level
    return found


def test_size_and_licence():
    assert NET.num_synsets == 82_115
    assert len(NET.lexicon.lemma_number) == 117_798
    assert (DATA_FOLDER / FILE_NAME).stat().st_size <= 1_000_000
    assert "WordNet 3.0 Copyright 2006 by Princeton" in (DATA_FOLDER / LICENSE_NAME).read_text()


def test_known_synsets():
    dog = index("n02084071")
    assert NET.name(dog) == "dog"
    assert NET.lemmas(dog) == ("dog", "domestic dog", "Canis familiaris")
    assert [NET.name(up) for up in NET.parents[dog]] == ["canine", "domestic animal"]
    assert NET.wnid(dog) == "n02084071"
    assert NET.senses("Domestic Dog") == NET.senses("domestic_dog") == (dog,)
    assert NET.senses("no such lemma") == ()


def test_senses_are_ranked_and_counted():
    assert [NET.wnid(s) for s in NET.senses("crane")] == [
        "n10914447",
        "n10914331",
        "n09295455",
        "n03126707",
        "n02012849",
    ]
    counts = NET.tag_counts("dog")
    assert counts[0] == max(counts) > 0
    assert len(counts) == len(NET.senses("dog"))


def test_a_synset_is_one_sense_of_a_lemma_in_two_cases():
    moon = NET.senses("moon")
    assert len(set(moon)) == len(moon) == 6


def test_individuals_are_apart():
    paris = NET.senses("paris")[0]
    assert NET.individual[paris]
    assert NET.name(NET.parents[paris][0]) == "national capital"
    assert NET.information_content[paris] == 1.0


@given(st.lists(synsets, min_size=1, max_size=8))
def test_closure_is_the_slow_closure(rows):
    found, ancestor = NET.closure(rows)
    for row, synset in enumerate(rows):
        assert set(ancestor[found == row].tolist()) == slow_ancestors(synset) | {synset}
    assert NET.ancestors(rows[0]) == tuple(sorted(slow_ancestors(rows[0]) - {rows[0]}))


def test_hyponyms_and_information_content_are_the_slow_ones():
    graph = nx.DiGraph()
    for synset in range(NET.num_synsets):
        if not NET.individual[synset]:
            graph.add_edges_from((up, synset) for up in NET.parents[synset].tolist())
    kinds = sum(not NET.individual[synset] for synset in range(NET.num_synsets))
    for wnid in ("n02084071", "n01503061", "n10787470", "n04524313", "n00021939"):
        below = len(nx.descendants(graph, index(wnid)))
        assert NET.hyponym_counts[index(wnid)] == below
        expected = 1 - math.log(below + 1) / math.log(kinds)
        assert NET.information_content[index(wnid)] == pytest.approx(expected, abs=1e-12)


def test_information_content_lies_between_root_and_leaf():
    content = NET.information_content
    assert content[index("n00001740")] == pytest.approx(0.0, abs=1e-4)
    assert content.max() == 1.0
    child = np.repeat(np.arange(NET.num_synsets), np.diff(NET.parents.start))
    kind = NET.individual[child] == 0
    assert (content[child] >= content[NET.parents.target])[kind].all()


@given(synsets)
def test_wnids_lead_back(synset):
    assert NET.index(NET.wnid(synset)) == synset


@pytest.mark.parametrize("wnid", ["", "dog", "n0208407", "v02084071", "n02084072", "n٠٢٠٨٤٠٧١"])
def test_unknown_wnids_are_named(wnid):
    with pytest.raises(UnknownSynsetError, match="such as 'n02084071', got ") as caught:
        NET.index(wnid)
    assert repr(wnid) in str(caught.value)


def test_arrays_are_read_only():
    for array in (NET.offsets, NET.information_content, NET.parents.target):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_importing_reads_nothing():
    code = "import nbdt.hierarchies.wordnet.database as w; print(w.wordnet.cache_info().currsize)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"


def test_a_packed_file_is_the_same_every_time():
    columns = read_columns(DATA_FOLDER / FILE_NAME, CORE_COLUMNS + LEXICON_COLUMNS)
    assert build_wordnet.pack(columns) == (DATA_FOLDER / FILE_NAME).read_bytes()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_columns_are_stored_in_a_type_that_holds_them(values):
    assert build_wordnet._small(np.array(values)).tolist() == values


def test_damaged_files_are_named(tmp_path):
    whole = (DATA_FOLDER / FILE_NAME).read_bytes()
    middle = len(whole) // 2
    path = tmp_path / FILE_NAME
    with pytest.raises(WordNetDataError, match=r"Cannot read .*reinstall"):
        WordNet.load(path)
    flipped = whole[:middle] + b"\x00\xff" * 50 + whole[middle + 100 :]
    for damaged in (b"", b"\x00\xff" * 50, whole[:middle], build_wordnet.pack({}), flipped):
        path.write_bytes(damaged)
        with pytest.raises(WordNetDataError, match="damaged"):
            read_columns(path, CORE_COLUMNS + LEXICON_COLUMNS)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's wordnet-base")
@pytest.mark.slow
def test_the_data_file_is_rebuilt_byte_by_byte(tmp_path):
    assert build_wordnet.main([str(DEBIAN), str(tmp_path)]) == 0
    for name in (FILE_NAME, LICENSE_NAME):
        assert (tmp_path / name).read_bytes() == (DATA_FOLDER / name).read_bytes()


def test_building_without_wordnet_says_what_to_install(tmp_path, capsys):
    assert build_wordnet.main([str(tmp_path), str(tmp_path)]) == 1
    assert "install Debian's wordnet-base" in capsys.readouterr().err


@pytest.mark.data
def test_the_reference_closure_agrees():
    reference = json.loads((DATA / "wordnet_imagenet_closure.json").read_text())["synsets"]
    assert len(reference) == 1942
    for wnid, synset in reference.items():
        parents = {NET.wnid(up) for up in NET.parents[index(wnid)].tolist()}
        assert parents == set(synset["hypernyms"])
        assert list(NET.lemmas(index(wnid))) == synset["lemmas"]


# Trees.

kinds = st.lists(synsets, min_size=2, max_size=12, unique=True)


@given(kinds, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_synsets_make_a_tree_that_ignores_their_order(rows, random):
    wnids = [NET.wnid(row) for row in rows]
    tree = from_wnids(wnids, wnids)
    assert set(tree.classes) == set(wnids)
    shuffled = random.sample(wnids, len(wnids))
    other = from_wnids(shuffled, shuffled)
    assert edges(tree) == edges(other)


def edges(tree):
    graph = tree.to_networkx()
    return {(parent, child) for parent, child in graph.edges}


@given(kinds)
@settings(deadline=None)
def test_a_tree_holds_only_true_relations(rows):
    names = [f"class {row}" for row in rows]
    tree = from_wnids([NET.wnid(row) for row in rows], names)
    graph = tree.to_networkx()
    for row, name in zip(rows, names, strict=True):
        allowed = {NET.wnid(up) for up in slow_ancestors(row) | {row}}
        inner = nx.ancestors(graph, name)
        assert {graph.nodes[key]["wnid"] for key in inner} <= allowed


def test_an_ancestor_class_gets_a_leaf_of_its_own():
    tree = from_wnids(["n10787470", "n10129825", "n02084071"], ["woman", "girl", "dog"])
    graph = tree.to_networkx()
    assert set(graph.successors("n10787470")) == {"woman", "girl"}
    assert graph.nodes["n10787470"]["name"] == "woman"
    assert set(tree.classes) == {"woman", "girl", "dog"}


def test_classes_of_one_synset_are_siblings():
    tree = from_wnids(["n04256520", "n04256520", "n02084071"], ["sofa", "couch", "dog"])
    graph = tree.to_networkx()
    assert set(graph.successors("n04256520")) == {"sofa", "couch"}


def test_chains_leave_their_most_specific_synset():
    tree = from_wnids(["n02084071", "n02114100", "n02121620"])
    assert [NET.name(index(key)) for key in tree.to_networkx() if key not in tree.classes] == [
        "carnivore",
        "canine",
    ]


def test_the_parent_with_most_classes_wins_then_the_nearest_company():
    dog, cat, wolf, hamster = map(index, ("n02084071", "n02121808", "n02114100", "n02342885"))
    canine, domestic = map(index, ("n02083346", "n01317541"))
    assert chosen_parents([dog, wolf], NET)[dog] == canine
    assert chosen_parents([dog, cat], NET)[dog] == domestic
    assert chosen_parents([dog, hamster], NET)[dog] == canine  # both placentals, not just animals


def test_names_default_to_words_and_fall_back_on_ids():
    assert from_wnids(["n02012849", "n02008041"]).classes == ("crane", "heron")
    assert from_wnids(["n02012849", "n03126707"]).classes == ("n02012849", "n03126707")


def test_a_class_may_be_called_by_the_id_of_an_inner_node():
    wnids = ["n10787470", "n10129825"]
    assert from_wnids(wnids, wnids).classes == tuple(wnids)


@pytest.mark.parametrize(
    ("wnids", "names", "error", "message"),
    [
        (["n02012849", "n02008041"], ["crane"], NBDTError, "each of 2 ids, got 1 names"),
        (["n02012849", "n02008041"], ["a", "a"], HierarchyError, "Duplicate class 'a'"),
        (["n02012849", "crane"], None, UnknownSynsetError, "got 'crane'"),
        (["n02012849"], None, HierarchyError, "two or more classes"),
        ([], None, HierarchyError, "two or more classes"),
    ],
)
def test_trees_that_cannot_be(wnids, names, error, message):
    with pytest.raises(error, match=message):
        from_wnids(wnids, names)


@pytest.mark.data
def test_the_imagenet_tree():
    reference = json.loads((DATA / "wordnet_imagenet_closure.json").read_text())
    wnids = reference["classes"]["imagenet1k"]
    tree = from_wnids(wnids, wnids)
    assert tree.num_classes == 1000
    assert 300 < tree.num_nodes - 1000 < 600
