"""What moved between two hierarchies: in words, as data, and complete."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy, NBDTError
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit.difference import DiffError, diff
from nbdt.tree.nodes import Node
from tests import oracle


@pytest.fixture
def zoo():
    return Hierarchy.from_nested(
        {
            "animal": [
                {"bird": ["owl", "robin", "hen"]},
                {"mammal": ["cat", "dog"]},
                {"predator": ["wolf", "fox", "lynx"]},
            ]
        }
    )


def words(before, after):
    return [str(change) for change in diff(before, after).changes]


def renumbered(h, prefix):
    """The same tree with other ids for its inner nodes."""
    new = {h.ids[node]: f"{prefix}{node}" for node in h.inner_nodes}
    nodes = [
        Node(new.get(n.id, n.id), new.get(n.parent, n.parent), n.name, n.wnid) for n in h.nodes
    ]
    return Hierarchy(tuple(nodes), h.classes)


def test_a_move(zoo):
    new, _ = edit.move(zoo, "owl", "predator")
    found = diff(zoo, new)
    assert str(found) == "moved 'owl' from 'bird' to 'predator'"
    (change,) = found.changes
    assert (change.kind, change.node) == ("moved", "owl")
    assert (change.before, change.after) == ("animal/bird/", "animal/predator/")
    assert (found.before, found.after) == (zoo.hash, new.hash)


def test_the_same_tree(zoo):
    found = diff(zoo, zoo)
    assert not found
    assert found.decisions == ()
    assert str(found) == "The two hierarchies are the same."


def test_what_only_holds_another_name_moves_nothing(zoo):
    nodes = list(edit.rename(zoo, "bird", "fowl")[0].nodes)
    place = next(i for i, node in enumerate(nodes) if node.name == "fowl")
    nodes[place] = nodes[place]._replace(wnid="n01503061")
    new = Hierarchy(tuple(nodes), zoo.classes)
    assert words(zoo, new) == [
        "renamed 'bird' to 'fowl'",
        "changed the WordNet id of 'fowl' from none to n01503061",
    ]
    assert diff(zoo, new).decisions == ()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            lambda h: edit.group(h, ["wolf", "fox"], "dogs"),
            ["added 'dogs' in 'predator', holding 'wolf', 'fox'"],
        ),
        (lambda h: edit.ungroup(h, "bird"), ["removed 'bird' from 'animal'"]),
        (
            lambda h: edit.swap(h, "owl", "fox"),
            ["moved 'owl' from 'bird' to 'predator'", "moved 'fox' from 'predator' to 'bird'"],
        ),
        (
            lambda h: edit.merge(h, "bird", "mammal"),
            [
                "removed 'mammal' from 'animal'",
                "moved 'cat' from 'mammal' to 'bird'",
                "moved 'dog' from 'mammal' to 'bird'",
            ],
        ),
        (
            lambda h: edit.split(h, "predator", ["fox", "lynx"], "small"),
            [
                "removed 'predator' from 'animal'",
                "added 'small' in 'animal', holding 'fox', 'lynx'",
            ],
        ),
        (
            lambda h: edit.move(h, "cat", "bird"),
            ["removed 'mammal' from 'animal'", "moved 'cat' from 'mammal' to 'bird'"],
        ),
    ],
    ids=["group", "ungroup", "swap", "merge", "split", "move"],
)
def test_each_edit_in_words(zoo, change, wanted):
    new, _ = change(zoo)
    assert sorted(words(zoo, new)) == sorted(wanted)


def test_a_subtree_moves_as_one(zoo):
    new, _ = edit.move(zoo, "bird", "predator")
    assert words(zoo, new) == ["moved 'bird' from 'animal' to 'predator'"]


def test_nodes_are_matched_by_their_classes_where_ids_differ(zoo):
    other = renumbered(zoo, "n")
    assert not diff(zoo, other)


def test_and_by_their_names_where_those_differ_too(zoo):
    new, _ = edit.move(zoo, "owl", "predator")
    assert words(zoo, renumbered(new, "n")) == ["moved 'owl' from 'bird' to 'predator'"]


def test_two_trees_that_number_their_nodes_alike_are_matched_by_classes():
    one = renumbered(Hierarchy.from_paths(["x/a", "x/b", "y/c", "y/d", "z/e", "z/f"]), "g")
    two = Hierarchy.from_paths(["z/a", "z/b", "x/c", "x/d", "y/e", "y/f"])
    assert words(one, renumbered(two, "g")) == [
        "renamed 'x' to 'z'",
        "renamed 'y' to 'x'",
        "renamed 'z' to 'y'",
    ]


def test_repeated_names_are_told_apart_by_id(zoo):
    h, _ = edit.rename(zoo, "mammal", "bird")
    new, _ = edit.move(h, "owl", "animal/mammal/")
    assert words(h, new) == [
        "moved 'owl' from 'bird' ('animal/bird/') to 'bird' ('animal/mammal/')"
    ]


def test_another_order_of_classes_is_a_difference():
    one, two = Hierarchy.from_paths(["a/b", "a/c"]), Hierarchy.from_paths(["a/c", "a/b"])
    assert words(one, two) == ["class 0 is 'c' instead of 'b': the order differs"]


def test_other_classes_cannot_be_compared(zoo):
    with pytest.raises(
        DiffError, match=r"only the first has 'cat', .* and 3 more.* has 'a', 'b'\."
    ):
        diff(zoo, Hierarchy.from_paths(["a", "b"]))
    assert issubclass(DiffError, NBDTError)


def test_it_is_data(zoo):
    new, _ = edit.move(zoo, "owl", "predator")
    found = json.loads(json.dumps(diff(zoo, new).to_dict()))
    assert found["changes"] == [
        {
            "kind": "moved",
            "node": "owl",
            "before": "animal/bird/",
            "after": "animal/predator/",
            "words": "moved 'owl' from 'bird' to 'predator'",
        }
    ]
    assert found["decisions"] == ["animal/", "animal/predator/", "animal/bird/"]


def test_a_deep_tree_takes_no_recursion_and_little_time():
    h = oracle.caterpillar(3000)
    new, _ = edit.move(h, "last", "g0")
    assert "moved 'last' from 'g2999' to 'g0'" in words(h, new)


def without_ids(h):
    """Everything about a tree but the ids of its inner nodes."""
    below = oracle.classes_below(h)
    sets = [frozenset(h.classes[leaf] for leaf in leaves) for leaves in below]
    return h.classes, {(sets[i], node.name, node.wnid) for i, node in enumerate(h.nodes)}


@settings(max_examples=60)
@given(oracle.trees(7), oracle.trees(7), st.integers(0, 99))
def test_no_change_is_found_exactly_where_there_is_none(one, two, seed):
    for before, after in ((one, two), (one, renumbered(one, "n")), (renumbered(one, "g"), two)):
        if {*before.classes} != {*after.classes}:
            continue
        found = diff(before, after)
        assert bool(found) == (without_ids(before) != without_ids(after))
        check_decisions(before, after, found, seed)


def check_decisions(before, after, found, seed):
    """Decisions that are not reported give the same probabilities in both trees."""
    z = torch.randn(1, before.num_classes, generator=torch.Generator().manual_seed(seed))
    for rule in oracle.RULES:
        sides = []
        for h in (before, after):
            log_probs = DecisionRules(h, rule=rule).log_probs(z)[0].tolist()
            below = oracle.classes_below(h)
            sides.append(
                {
                    frozenset(frozenset(below[c]) for c in children): (
                        h.ids[node],
                        {frozenset(below[c]): log_probs[c] for c in children},
                    )
                    for node, children in enumerate(oracle.children(h))
                    if children
                }
            )
        reported = {key for key, (node, _) in sides[1].items() if node in found.decisions}
        assert reported == sides[1].keys() - sides[0].keys()
        for key in sides[1].keys() - reported:
            assert sides[1][key][1] == pytest.approx(sides[0][key][1], abs=1e-6, rel=0)


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_a_random_move_is_found(seed):
    rng = random.Random(seed)
    h = oracle.random_tree(30, seed=seed, arity=(3, 6), uneven=True)
    node, to = rng.choice(h.classes), h.ids[rng.choice(h.inner_nodes)]
    try:
        new, record = edit.move(h, node, to)
    except edit.EditError:
        return
    moved = [change.node for change in diff(h, new).changes if change.kind == "moved"]
    assert moved == [node] or record.removed
