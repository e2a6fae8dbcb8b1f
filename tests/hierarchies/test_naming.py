"""Names of inner nodes: the concepts against a slow reference implementation, distinct labels, honest fallbacks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import Hierarchy
from nbdt.errors import NBDTError
from nbdt.hierarchies import names, rename
from nbdt.hierarchies.naming import leaf_label, plural
from nbdt.hierarchies.wordnet.concepts import (
    MIN_CONTENT,
    MIN_PRECISION,
    VAGUE,
    fitting_concepts,
    leaf_synsets,
)
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.tree.nodes import Node
from tests.oracle import caterpillar, random_tree

NET = wordnet()
ANIMALS = ["n02084071", "n02121620", "n02374451", "n02430045", "n01503061", "n01639765"]
THINGS = ["n02958343", "n04490091", "n02691156", "n04194289", "n03001627", "n04379243"]
CIFAR10 = Hierarchy.from_nested(
    {
        "1": [
            {"2": [{"3": ["airplane", "ship"]}, {"4": ["automobile", "truck"]}]},
            {
                "5": [
                    {"6": ["bird", "frog"]},
                    {"7": [{"8": ["cat", "dog"]}, {"9": ["deer", "horse"]}]},
                ]
            },
        ]
    },
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
)


def under(tree, node):
    return set(tree.classes_under(node))


def labels(tree, wnids=None):
    """Label by the class names under each inner node."""
    named = rename(tree, wnids)
    return {
        frozenset(tree.classes[i] for i in tree.classes_under(node)): named.names[node]
        for node in tree.inner_nodes
    }


def relabelled(tree, classes):
    """The same tree over other class names."""
    new = dict(zip(tree.classes, classes, strict=True))
    nodes = [Node(new.get(n.id, n.id), n.parent, new.get(n.id, n.name)) for n in tree.nodes]
    return Hierarchy(tuple(nodes), tuple(classes))


# Concepts.


def slow_concepts(tree, synsets, node):
    """(synset, precision, recall) of every concept that fits, from the definition."""
    leaves = under(tree, node)
    above = [set() if s is None else {s, *NET.ancestors(s)} for s in synsets]
    found = set()
    for concept in set().union(*above):
        if NET.information_content[concept] < MIN_CONTENT or NET.name(concept) in VAGUE:
            continue
        members = {index for index, kinds in enumerate(above) if concept in kinds}
        both = len(members & leaves)
        if both >= 2 and both / len(leaves) >= MIN_PRECISION:
            found.add((concept, both / len(leaves), both / len(members)))
    return found


@given(
    st.lists(
        st.one_of(
            st.none(), st.integers(0, NET.num_synsets - 1), st.sampled_from(range(14000, 16000))
        ),
        min_size=2,
        max_size=14,
    ).filter(lambda row: 2 * sum(s is not None for s in row) >= len(row)),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_concepts_are_those_of_the_definition(synsets, seed):
    tree = random_tree(len(synsets), seed=seed, arity=(2, 3), uneven=True)
    for node, row in fitting_concepts(tree, synsets).items():
        found = {(concept.synset, concept.precision, concept.recall) for concept in row}
        assert found == slow_concepts(tree, synsets, node)
        for concept in row:
            p, r = concept.precision, concept.recall
            assert concept.fit == pytest.approx(2 * p * r / (p + r))
        assert row == sorted(row, key=lambda concept: concept.rank)


def test_broad_concepts_never_name():
    tree = rename(CIFAR10, [*ANIMALS[:3], *THINGS, None])
    broad = {"entity", "whole", "object", "physical entity", "artifact", "organism", "thing"}
    assert not broad & set(tree.names)


# Labels.


def test_cifar10_reads_well():
    found = rename(CIFAR10)
    assert found.names[: 1 + 2 + 4] == (
        "all classes",
        "vehicle",
        "animal",
        "craft",
        "motor vehicle",
        "animal: bird, frog",
        "mammal",
    )
    assert found.names[found.index("1/5/7/8/")] == "carnivore"
    assert found.names[found.index("1/5/7/9/")] == "ungulate"


def test_structure_classes_and_ids_stay_and_named_nodes_carry_their_wnid():
    found = rename(CIFAR10)
    assert found.ids == CIFAR10.ids
    assert found.parents == CIFAR10.parents
    assert found.classes == CIFAR10.classes
    assert found.nodes[found.index("1/2/")].wnid == "n04524313"
    assert found.nodes[found.index("1/5/6/")].wnid is None
    assert rename(found) == found


def test_the_report_gives_the_fit():
    report = names(CIFAR10)
    row = next(row for row in report if row.node == "1/5/6/")
    assert (row.label, row.name, row.named) == ("animal: bird, frog", "animal", False)
    assert (row.precision, row.recall, row.fit) == pytest.approx((1.0, 1 / 3, 0.5))
    assert len(report) == 9
    assert sum(row.named for row in report) == 7
    assert sum(row.wnid is not None for row in report) == 8
    assert report[5].label == "animal: bird, frog"


def test_the_best_fit_has_the_plain_word_and_others_are_qualified():
    tree = Hierarchy.from_nested(
        {
            "all": [
                {
                    "a": [
                        "sofa",
                        {"b": ["beagle", {"c": ["Airedale", "fox terrier", "Yorkshire terrier"]}]},
                    ]
                },
                {"d": ["truck", "car"]},
            ]
        }
    )
    found = labels(tree)
    dogs = {"beagle", "Airedale", "fox terrier", "Yorkshire terrier"}
    assert found[frozenset(dogs)] == "dog"
    assert found[frozenset(dogs - {"beagle"})] == "terrier"
    assert found[frozenset({*dogs, "sofa"})] not in ("dog", "terrier")


def test_a_concept_that_repeats_says_what_sets_the_branch_apart():
    wnids = {"pug": "n02110958", "beagle": "n02088364", "husky": "n02109961", "boxer": "n02108089"}
    tree = Hierarchy.from_nested(
        {"a": ["boxer", {"b": ["husky", {"c": ["beagle", "pug"]}]}]}, list(wnids)
    )
    found = labels(tree, list(wnids.values()))
    assert found[frozenset(wnids)] == "dog"
    assert found[frozenset({"husky", "beagle", "pug"})] == "dog: pug, beagle, husky"
    assert found[frozenset({"beagle", "pug"})] == "dog: pug, beagle"


def test_a_word_that_a_class_has_is_not_used_again():
    tree = Hierarchy.from_nested({"a": [{"b": ["dog", "beagle", "pug"]}, {"c": ["car", "truck"]}]})
    named = rename(tree)
    assert len(set(named.names)) == named.num_nodes
    assert named.names[named.index("a/b/")] == "domestic dog"


@given(st.integers(2, 40), st.integers(0, 999), st.booleans())
@settings(max_examples=40)
def test_all_labels_differ_and_none_is_broader_than_one_above(size, seed, near):
    rng = np.random.default_rng(seed)
    pool = [NET.index(ANIMALS[0]), NET.index(THINGS[0])]
    low, high = (pool[0] - 60, pool[0] + 60) if near else (0, NET.num_synsets)
    synsets = rng.integers(low, high, size=size)
    tree = random_tree(size, seed=seed, arity=(2, 4), uneven=True)
    report = names(tree, [NET.wnid(synset) for synset in synsets])
    words = [row.label for row in report]
    assert len({*words, *tree.classes}) == tree.num_nodes
    plain = {row.node: row for row in report if row.named and ":" not in row.label}
    for node in tree.inner_nodes:
        path = [plain[tree.ids[n]].wnid for n in tree.path_to(node) if tree.ids[n] in plain]
        for high, low in itertools.pairwise(path):
            assert NET.index(low) not in NET.ancestors(NET.index(high))


# Classes without meaning.


def test_unknown_classes_get_honest_labels():
    classes = ["PN-1042", "PN-1043", "PN-2200", "PN-2201", "PN-3000"]
    tree = relabelled(random_tree(5, seed=1), classes)
    assert set(labels(tree).values()) <= {
        "all classes",
        *(f"{a}, {b}" for a in classes for b in classes),
        *(", ".join(three) for three in itertools.permutations(classes, 3)),
        *(f"{a}, {b} + 2" for a in classes for b in classes),
    }
    assert all(row.wnid is None and not row.named and row.fit == 0 for row in names(tree))


def test_a_few_unknown_classes_only_do_not_take_part():
    tree = Hierarchy.from_nested(
        {"a": [{"b": ["cat", "dog", "horse", "xyzzy-7"]}, {"c": ["car", "truck"]}]}
    )
    found = names(tree)
    row = next(row for row in found if row.node == "a/b/")
    assert row.precision == 0.75
    assert row.named


def test_ids_on_the_leaves_are_preferred_and_foreign_ones_ignored():
    synsets = leaf_synsets(("crane", "bulldozer", "heron"), ("n03126707", None, "n99999999"))
    assert NET.wnid(synsets[0]) == "n03126707"  # the machine, though "crane" suits "heron" too
    assert [NET.name(synset) for synset in synsets[1:]] == ["bulldozer", "heron"]


def test_repeated_spellings_and_wordless_names_are_no_error():
    tree = Hierarchy.from_nested({"a": [{"b": ["Rose", "rose"]}, {"c": ["tulip", "_"]}]})
    assert len(set(rename(tree).names)) == tree.num_nodes


@pytest.mark.parametrize("wnids", [[None], ["n02084071"] * 11])
def test_wnids_are_one_for_each_class(wnids):
    with pytest.raises(NBDTError, match="for each of 10 classes"):
        rename(CIFAR10, wnids)


def test_leaf_labels():
    assert leaf_label(["cat"]) == "cat"
    assert leaf_label(["oak_tree", "tench, Tinca tinca"]) == "oak tree, tench"
    assert leaf_label(["cat", "dog"]) == "cat, dog"
    assert leaf_label(["cat", "dog", "cow", "ox", "ass"]) == "cat, dog + 3"
    assert leaf_label(["tench, Tinca tinca", "x" * 99], total=1200) == f"tench, {'x' * 59}… + 1,198"


def test_labels_of_long_class_names_stay_short():
    classes = [f"{letter * 400}" for letter in "abcdef"]
    assert all(len(label) < 200 for label in labels(relabelled(random_tree(6), classes)).values())


def test_labels_that_would_look_alike_show_more_or_are_numbered():
    classes = [f"{'x' * 80}{index}" for index in range(8)]
    named = rename(relabelled(random_tree(8), classes))
    assert len(set(named.names)) == named.num_nodes


@pytest.mark.parametrize(
    ("word", "many"),
    [
        ("terrier", "terriers"),
        ("piece of cloth", "pieces of cloth"),
        ("domestic fox", "domestic foxes"),
        ("finch", "finches"),
        ("canary", "canaries"),
        ("monkey", "monkeys"),
        ("salesman", "salesmen"),
        ("food fish", "food fish"),
        ("glasses", "glasses"),
    ],
)
def test_plurals(word, many):
    assert plural(word) == many


def test_a_very_deep_tree_is_named_in_time():
    tree = caterpillar(3000)
    rng = np.random.default_rng(0)
    wnids = [NET.wnid(synset) for synset in rng.integers(0, NET.num_synsets, tree.num_classes)]
    assert len(names(tree, wnids)) == 3000
