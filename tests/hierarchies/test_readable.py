"""Everyday groups: their promises on ImageNet and CIFAR-100, on hard lists, and their errors."""

import json

import numpy as np
import pytest

from nbdt import NBDTError
from nbdt.hierarchies import load, readable
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.hierarchies.wordnet.readable import MOST_CHILDREN, everyday_name
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
    bird = net.senses("bird")[0]
    kinds = [
        synset
        for synset in range(net.num_synsets)
        if net.hyponym_counts[synset] == 0 and bird in net.ancestors(synset)
    ][:count]
    return [f"{net.name(kind)} {kind}" for kind in kinds], [net.wnid(kind) for kind in kinds]


@pytest.mark.parametrize("with_weights", [False, True])
def test_many_classes_of_one_kind_are_divided(with_weights):
    names, wnids = birds(200)
    weights = np.random.default_rng(0).standard_normal((200, 8)) if with_weights else None
    tree = readable(names, wnids, weights)
    check(tree)
    assert tree.names[0] == "bird"


def test_everyday_names_are_those_of_people():
    net = wordnet()
    car, oscine = net.senses("car")[0], net.senses("oscine")[0]
    assert everyday_name(car, net) == "car"
    assert everyday_name(oscine, net) is None


@pytest.mark.parametrize(
    ("names", "wnids", "weights", "facts"),
    [
        (["a"], ["n02084071", "n02121620"], None, ("1 names", "2 ids")),
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

    from nbdt.hierarchies.wordnet.data_file import DATA_FOLDER
    from nbdt.hierarchies.wordnet.readable import FILE

    groups = json.loads(lzma.decompress((DATA_FOLDER / FILE).read_bytes()))["groups"]
    assert all(parent < index for index, (_, parent, _) in enumerate(groups))
    assert sum(parent < 0 for _, parent, _ in groups) <= MOST_CHILDREN
