"""Everyday groups: their promises on ImageNet and CIFAR-100, on hard lists, and their errors."""

import json

import numpy as np
import pytest

from nbdt import NBDTError
from nbdt.hierarchies import load, readable
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.hierarchies.wordnet.everyday import FILE, everyday_name
from nbdt.hierarchies.wordnet.readable import MOST_CHILDREN
from tests.hierarchies.hundred_classes import NAMES, WNIDS

ABSTRACT = {"entity", "object", "whole", "artifact", "instrumentality", "conveyance", "vertebrate"}


def classes_of(tree):
    return [tree.names[leaf] for leaf in tree.leaf_nodes], list(tree.class_wnids)


def check(tree, depth=7):
    """What every readable hierarchy promises."""
    assert tree.depth <= depth
    for node in tree.inner_nodes:
        children = [tree.names[child] for child in tree.children[node]]
        assert 2 <= len(children) <= MOST_CHILDREN
        assert len(set(children)) == len(children)
        assert tree.names[node] not in ABSTRACT
        assert not any(mark in tree.names[node] for mark in "+:")


@pytest.mark.parametrize(
    ("names", "wnids"),
    [classes_of(load("imagenet1k-wordnet")), (NAMES, WNIDS)],
    ids=["1000", "100"],
)
def test_known_lists_need_no_group_of_leftovers(names, wnids):
    tree = readable(names, wnids)
    check(tree, depth=5)
    assert tree.classes == tuple(names)
    groups = [tree.names[node] for node in tree.inner_nodes]
    assert not [group for group in groups if group.startswith("other") or " like " in group]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("espresso", ["food or drink", "drink"]),
        ("Egyptian cat", ["animal", "cat family", "house cat"]),
        ("radiator grille", ["vehicle", "car", "car part"]),
        ("rocket or projectile", ["vehicle", "aircraft or rocket"]),
        ("eraser", ["book, paper or pen", "pen or desk item"]),
        ("cup", ["household item", "cup, bowl or dish"]),
    ],
)
def test_the_shipped_tree_puts_classes_where_people_look(name, path):
    tree = load("imagenet1k-readable")
    nodes = tree.path_of_class(tree.classes.index(name))
    assert [tree.names[node] for node in nodes] == ["all things", *path, name]


def test_groups_and_classes_of_the_shipped_tree_have_a_name_each():
    tree = load("imagenet1k-readable")
    check(tree, depth=5)
    assert len(set(tree.names)) == tree.num_nodes


def birds(count):
    """The first kinds of bird in WordNet that have no kinds below them."""
    net = wordnet()
    ends = np.flatnonzero(net.hyponym_counts == 0)
    row, ancestor = net.closure(ends)
    kinds = ends[row[ancestor == net.senses("bird")[0]]][:count].tolist()
    return [f"{net.name(kind)} {kind}" for kind in kinds], [net.wnid(kind) for kind in kinds]


@pytest.mark.parametrize("with_weights", [False, True])
def test_many_classes_of_one_kind_are_divided(with_weights):
    names, wnids = birds(200)
    weights = np.random.default_rng(0).standard_normal((200, 8)) if with_weights else None
    tree = readable(names, wnids, weights)
    check(tree)
    assert tree.names[0] == "bird"


def tree_over(names, seed=None, **options):
    """The tree with random weights or none, checked, with its groups as a mapping."""
    weights = None if seed is None else np.random.default_rng(seed).standard_normal((len(names), 8))
    tree = readable(names, weights=weights, **options)
    check(tree)
    assert tree == readable(names, weights=weights, **options)
    assert tree.classes == tuple(names)
    paths = (tree.path_of_class(index) for index in range(len(names)))
    return tree, {tree.names[path[-1]]: [tree.names[node] for node in path[:-1]] for path in paths}


def test_plain_names_are_enough():
    names = ["crane", "heron", "Motorbikes", "school_bus", "car_side", "tulips", "001.Blue_Jay"]
    _, groups = tree_over(names)
    assert groups["car_side"] == groups["school_bus"] == ["all things", "vehicle"]
    assert groups["001.Blue_Jay"] == ["all things", "bird"]
    assert groups["crane"][-1] == groups["heron"][-1] == "shore or wading bird"
    _, groups = tree_over(["crane", "bus", "car", "heron"], overrides={"crane": "n03126707"})
    assert "bird" not in groups["crane"]


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("count", [2, 15, 60, 300])
def test_names_that_nobody_knows_have_a_tree_too(count, seed):
    names = [f"SKU-{number}" for number in range(count)]
    tree, _ = tree_over(names, seed)
    groups = [tree.names[node] for node in tree.inner_nodes]
    assert groups[0] == "all things"
    assert not [name for name in groups if "other" in name]
    if seed is None and count == 60:
        assert groups[1:3] == ["SKU-0 to SKU-8", "SKU-9 to SKU-17"]  # not "SKU-10" after "SKU-1"


def test_unknown_names_join_the_group_with_the_most_similar_weights():
    names = ["beagle", "pug", "Zorb", "bus", "truck", "canoe"]
    weights = np.eye(6)
    weights[2] = weights[3] + weights[4]
    tree = readable(names, weights=weights)
    paths = [{tree.names[node] for node in tree.path_of_class(index)} for index in range(6)]
    assert "vehicle" in paths[2]
    assert "vehicle" not in paths[1]
    check(tree)


# One class of each group of the first level, so that the root has no room for more.
FULL = [
    "dog",
    "hat",
    "violin",
    "hammer",
    "car",
    "church",
    "pillow",
    "football",
    "book",
    "laptop",
    "volcano",
    "pizza",
    "tree",
    "nurse",
]


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("unknown", [0, 1, 20])
def test_a_full_root_has_room_for_unknown_names(unknown, seed):
    more = "cat coat cello saw bus castle bed volleyball newspaper phone mountain bread daisy actor"
    names = [*FULL, *more.split(), *(f"X{number}" for number in range(unknown))]
    _, groups = tree_over(names, seed)
    assert groups["dog"][1] == groups["cat"][1] == "animal"


@pytest.mark.parametrize("seed", [None, 2])
@pytest.mark.parametrize("extra", [["scratch", "dent", "ok"], ["dog", "animal", "Dog"]])
def test_any_mixture_keeps_the_promises(extra, seed):
    tree_over([*birds(20)[0], *(f"part {number}" for number in range(30)), *extra], seed)


def test_everyday_names_are_those_of_people():
    net = wordnet()
    car, oscine = net.senses("car")[0], net.senses("oscine")[0]
    assert everyday_name(car, net) == "car"
    assert everyday_name(oscine, net) is None


@pytest.mark.parametrize(
    ("names", "wnids", "weights", "facts"),
    [
        (["a"], ["n02084071", "n02121620"], None, ("1 classes", "got 2")),
        (["a", "b"], ["n02084071", "n02121620"], np.ones((3, 2)), ("(3, 2)",)),
        (["a", "b"], ["n02084071", "x"], None, ("'x'",)),
        (["a", "a"], ["n02084071", "n02121620"], None, ("'a'",)),
    ],
)
def test_what_does_not_fit_is_refused(names, wnids, weights, facts):
    with pytest.raises(NBDTError) as refusal:
        readable(names, wnids, weights)
    assert all(fact in str(refusal.value) for fact in facts)


def test_groups_of_the_data_are_covered_by_their_parents_order():
    import lzma

    from nbdt.hierarchies.wordnet.database import DATA_FOLDER

    groups = json.loads(lzma.decompress((DATA_FOLDER / FILE).read_bytes()))["groups"]
    assert all(parent < index for index, (_, parent, _) in enumerate(groups))
    assert sum(parent < 0 for _, parent, _ in groups) <= MOST_CHILDREN
