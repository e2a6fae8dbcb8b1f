"""Edits: what each does, what it refuses, and what no edit may ever break."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy, NBDTError
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit import Edit, EditError, EditStack
from nbdt.hierarchies.naming import relist_leaves
from tests import oracle


@pytest.fixture
def zoo():
    """A bird group of three, a mammal group of two, a vehicle group of three and a rock."""
    return Hierarchy.from_nested(
        {
            "thing": [
                {"bird": ["owl", "robin", "hen"]},
                {"mammal": ["cat", "dog"]},
                {"vehicle": ["car", "bus", "tram"]},
                "rock",
            ]
        }
    )


def shape(h, node=0):
    """The tree as nested tuples of names."""
    below = oracle.children(h)

    def walk(index):
        if not below[index]:
            return h.nodes[index].name
        return (h.nodes[index].name, *sorted(map(walk, below[index]), key=str))

    return walk(node)


def under(h, name):
    """Names of the children of one node."""
    return {h.names[child] for child in h.children[h.index(name)]}


# Each edit.


def test_move(zoo):
    new, record = edit.move(zoo, "owl", "mammal")
    assert under(new, "mammal") == {"cat", "dog", "owl"}
    assert under(new, "bird") == {"robin", "hen"}
    assert str(record) == "moved 'owl' from 'bird' to 'mammal'"
    assert (record.kind, record.nodes, record.to) == ("move", ("owl",), "thing/mammal/")
    assert (record.before, record.after) == (zoo.hash, new.hash)


def test_a_group_moves_with_all_it_holds(zoo):
    new, _ = edit.move(zoo, "mammal", "bird")
    assert under(new, "bird") == {"owl", "robin", "hen", "mammal"}
    assert under(new, "mammal") == {"cat", "dog"}


def test_a_group_left_with_one_child_gives_it_its_place(zoo):
    new, record = edit.move(zoo, "cat", "bird")
    assert under(new, "thing") == {"bird", "dog", "vehicle", "rock"}
    assert record.removed == ("thing/mammal/",)
    assert "'mammal' had one child left, 'dog', which took its place" in str(record)


def test_the_root_stays_and_its_only_child_dissolves():
    h = Hierarchy.from_paths(["a/b/c", "a/b/d", "a/e", "f"])
    new, record = edit.move(h, "f", "b")
    assert new.ids[0] == h.ids[0]
    assert shape(new) == ("root", ("b", "c", "d", "f"), "e")
    assert "'a' then held everything: its children went to 'root'" in str(record)


def test_group(zoo):
    new, record = edit.group(zoo, ["car", "bus"], "road vehicle")
    assert under(new, "vehicle") == {"road vehicle", "tram"}
    assert under(new, "road vehicle") == {"car", "bus"}
    assert record.created == "road vehicle/"
    assert str(record) == "grouped 'car', 'bus' as 'road vehicle' in 'vehicle'"


def test_new_ids_are_unique_and_those_of_other_nodes_stay(zoo):
    new, first = edit.group(zoo, ["car", "bus"], "pair")
    new, second = edit.group(new, ["owl", "hen"], "pair")
    assert (first.created, second.created) == ("pair/", "pair/2")
    assert set(zoo.ids) < set(new.ids)


def test_a_new_id_is_no_name(zoo):
    new, _ = edit.rename(zoo, "bird", "pair/")
    _, record = edit.group(new, ["car", "bus"], "pair")
    assert record.created == "pair/2"


def test_the_order_in_which_members_are_named_means_nothing(zoo):
    one, two = (edit.group(zoo, names, "x") for names in (["car", "bus"], ["bus", "car"]))
    assert one == two


def test_ungroup(zoo):
    new, record = edit.ungroup(zoo, "mammal")
    assert under(new, "thing") == {"bird", "vehicle", "rock", "cat", "dog"}
    assert record.removed == ("thing/mammal/",)
    assert str(record) == "ungrouped 'mammal': 'cat', 'dog' went to 'thing'"


def test_rename_keeps_the_id_and_drops_the_wordnet_id_of_the_old_name(zoo):
    named, _ = edit.rename(zoo, "bird", "fowl")
    new, record = edit.rename(named, "fowl", "birds")
    node = new.nodes[new.index("birds")]
    assert (node.id, node.wnid) == ("thing/bird/", None)
    assert str(record) == "renamed 'fowl' to 'birds'"


def test_swap(zoo):
    new, record = edit.swap(zoo, "owl", "mammal")
    assert under(new, "bird") == {"mammal", "robin", "hen"}
    assert under(new, "thing") == {"bird", "owl", "vehicle", "rock"}
    assert str(record) == "swapped 'owl' from 'bird' with 'mammal' from 'thing'"


def test_merge(zoo):
    new, record = edit.merge(zoo, "bird", "mammal", "animal")
    assert under(new, "animal") == {"owl", "robin", "hen", "cat", "dog"}
    assert new.ids[new.index("animal")] == "thing/bird/"
    assert record.removed == ("thing/mammal/",)
    assert str(record) == "merged 'bird' and 'mammal' as 'animal'"


def test_two_groups_that_are_all_of_their_parent_merge_into_it():
    h = Hierarchy.from_paths(["pet/cat/tom", "pet/cat/kit", "pet/dog/rex", "pet/dog/pup", "rock"])
    new, _ = edit.merge(h, "cat", "dog")
    assert shape(new) == ("root", ("pet", "kit", "pup", "rex", "tom"), "rock")
    new, _ = edit.merge(h, "cat", "dog", "pets")
    assert new.ids[new.index("pets")] == "pet/"


def test_merging_from_elsewhere_collapses_what_is_left(zoo):
    h, _ = edit.group(zoo, ["car", "bus"], "road")
    new, record = edit.merge(h, "mammal", "road")
    assert under(new, "mammal") == {"cat", "dog", "car", "bus"}
    assert under(new, "thing") == {"bird", "mammal", "tram", "rock"}
    assert set(record.removed) == {"road/", "thing/vehicle/"}


def test_split(zoo):
    new, record = edit.split(zoo, "vehicle", ["car", "bus"], "road vehicle")
    assert under(new, "thing") == {"bird", "mammal", "road vehicle", "tram", "rock"}
    assert record.created == "road vehicle/"
    assert record.removed == ("thing/vehicle/",)
    assert str(record).startswith("split 'car', 'bus' off 'vehicle' as 'road vehicle'")


def test_split_undoes_merge(zoo):
    merged, _ = edit.merge(zoo, "bird", "mammal")
    new, _ = edit.split(merged, "bird", ["cat", "dog"], "mammal")
    assert shape(new) == shape(zoo)


def test_nodes_may_be_named_by_id(zoo):
    assert edit.move(zoo, "owl", "thing/mammal/") == edit.move(zoo, "owl", "mammal")


def test_a_repeated_name_is_shown_with_its_id(zoo):
    h, _ = edit.rename(zoo, "mammal", "bird")
    _, record = edit.move(h, "owl", "thing/mammal/")
    assert str(record) == "moved 'owl' from 'bird' ('thing/bird/') to 'bird' ('thing/mammal/')"


# What is refused. Each message says why and what to do.

DECEPTIVE = "bi\u202erd"
REFUSED = {
    "own subtree": (lambda h: edit.move(h, "thing/bird/", "bird"), r"'bird' .* is itself"),
    "below itself": (
        lambda h: edit.move(edit.group(h, ["owl", "hen"], "x")[0], "bird", "x"),
        "'bird' cannot be moved into 'x', which is inside it; choose a group outside",
    ),
    "root": (lambda h: edit.move(h, "thing", "bird"), "'thing' is the root, which holds every"),
    "there already": (lambda h: edit.move(h, "owl", "bird"), "'owl' is in 'bird' already"),
    "into a class": (lambda h: edit.move(h, "owl", "cat"), "'cat' is a class.*group the two"),
    "unknown": (lambda h: edit.move(h, "owls", "bird"), "no node 'owls'. Did you mean 'owl'"),
    "unknown target": (lambda h: edit.move(h, "owl", "brid"), "Did you mean 'bird'"),
    "no text": (lambda h: edit.move(h, 3, "bird"), "id or the name of a node, got 3"),
    "endless text": (lambda h: edit.move(h, "x" * 10**6, "bird"), "id or the name of a node"),
    "ambiguous": (
        lambda h: edit.move(edit.rename(h, "mammal", "bird")[0], "bird", "vehicle"),
        "2 nodes are named 'bird'; say which id: 'thing/bird/', 'thing/mammal/'",
    ),
    "one member": (lambda h: edit.group(h, ["owl"], "x"), "two or more nodes, got 1"),
    "no members": (lambda h: edit.group(h, [], "x"), "two or more nodes, got 0"),
    "a text for a list": (lambda h: edit.group(h, "owl", "x"), "a list of nodes, got 'owl'"),
    "one member twice": (lambda h: edit.group(h, ["owl", "owl"], "x"), "'owl' is named twice"),
    "from two groups": (
        lambda h: edit.group(h, ["owl", "cat"], "x"),
        "in 2 different groups .'owl' from 'bird', 'cat' from 'mammal'.; move them into one",
    ),
    "all members": (
        lambda h: edit.group(h, ["cat", "dog"], "x"),
        "'cat', 'dog' are all that 'mammal' holds.*rename 'mammal'",
    ),
    "grouped root": (lambda h: edit.group(h, ["thing", "owl"], "x"), "'thing' is the root"),
    "ungrouped class": (lambda h: edit.ungroup(h, "owl"), "'owl' is a class"),
    "ungrouped root": (lambda h: edit.ungroup(h, "thing"), "cannot be ungrouped"),
    "renamed class": (lambda h: edit.rename(h, "owl", "o"), "'owl' is a class, and its name is"),
    "same name": (lambda h: edit.rename(h, "bird", "bird"), "'bird' has that name already"),
    "no name": (lambda h: edit.rename(h, "bird", " "), "The new name is empty"),
    "None": (lambda h: edit.rename(h, "bird", None), "The new name must be text, got None"),
    "hidden": (
        lambda h: edit.rename(h, "bird", DECEPTIVE),
        r"'bi\\u202erd' holds .* bidirectional",
    ),
    "long": (lambda h: edit.group(h, ["owl", "hen"], "x" * 501), "501 characters"),
    "swapped siblings": (lambda h: edit.swap(h, "owl", "hen"), "a swap would change nothing"),
    "swapped with itself": (lambda h: edit.swap(h, "owl", "owl"), "swapped with itself"),
    "swapped with its group": (lambda h: edit.swap(h, "owl", "bird"), "'bird' holds 'owl', so"),
    "merged class": (lambda h: edit.merge(h, "bird", "cat"), "'cat' is a class.*move it into"),
    "merged inside": (lambda h: edit.merge(h, "bird", "thing"), "'thing' holds 'bird'"),
    "split class": (lambda h: edit.split(h, "owl", ["cat", "dog"], "x"), "'owl' is a class"),
    "split root": (lambda h: edit.split(h, "thing", ["bird", "rock"], "x"), "group some of its"),
    "split strangers": (
        lambda h: edit.split(h, "bird", ["owl", "cat"], "x"),
        "'cat' cannot be split off 'bird', whose children are 'owl', 'robin', 'hen'",
    ),
    "split one": (lambda h: edit.split(h, "bird", ["owl"], "x"), "move a single one instead"),
    "last child away": (
        lambda h: edit.split(h, "bird", ["owl", "hen", "robin"], "x"),
        "would take its last child away; leave it some",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_edit_explains_itself_and_changes_nothing(zoo, case):
    attempt, message = REFUSED[case]
    before = zoo.to_json()
    with pytest.raises(EditError, match=message):
        attempt(zoo)
    assert zoo.to_json() == before


def test_an_edit_error_is_one_of_ours():
    assert issubclass(EditError, NBDTError)


def test_two_classes_leave_nothing_to_edit():
    h = Hierarchy.from_paths(["a", "b"])
    for attempt in (lambda: edit.move(h, "a", "b"), lambda: edit.group(h, ["a", "b"], "x")):
        with pytest.raises(EditError):
            attempt()


# The record.


def test_a_record_survives_json(zoo):
    for _, record in one_of_each(zoo):
        assert Edit.from_dict(json.loads(json.dumps(record.to_dict()))) == record
        assert Edit.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def one_of_each(h):
    return [
        edit.move(h, "owl", "mammal"),
        edit.group(h, ["car", "bus"], "road"),
        edit.ungroup(h, "mammal"),
        edit.rename(h, "bird", "fowl"),
        edit.swap(h, "owl", "mammal"),
        edit.merge(h, "bird", "mammal"),
        edit.split(h, "vehicle", ["car", "bus"], "road"),
    ]


def test_a_record_can_be_applied_again(zoo):
    for new, record in one_of_each(zoo):
        assert edit.apply(zoo, record) == (new, record)


def test_a_record_is_for_one_tree(zoo):
    _, record = edit.move(zoo, "owl", "mammal")
    other, _ = edit.rename(zoo, "vehicle", "machine")
    with pytest.raises(EditError, match=r"was made on the hierarchy .*, not on this one"):
        edit.apply(other, record)


def test_an_altered_record_is_noticed(zoo):
    _, record = edit.move(zoo, "owl", "mammal")
    altered = Edit.from_dict({**record.to_dict(), "to": "thing/vehicle/"})
    with pytest.raises(EditError, match="the record was altered"):
        edit.apply(zoo, altered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "delete"}, "Unknown edit 'delete'"),
        ({"kind": []}, "Unknown edit list"),
        ({"nodes": "owl"}, "'nodes' to be a list"),
        ({"nodes": [1]}, "must be text, got 1"),
        ({"nodes": ["a\0b"]}, "control"),
        ({"before": 0}, "'before' must be text, got 0"),
        ({"after": None}, "'after' must be text, got None"),
        ({"name": DECEPTIVE}, "bidirectional"),
        ({"summary": 3}, "'summary' to be text"),
        ({"summary": "x " * 5000}, "'summary' to be text"),
        ({"summary": "a\u200bb"}, "zero-width"),
        ({"removed": {}}, "'removed' to be a list"),
        ({"part_of": 1}, "'part_of' must be text, got 1"),
        ({"shell": "rm"}, "unknown fields: 'shell'"),
    ],
)
def test_a_hostile_record_is_refused(zoo, change, message):
    _, record = edit.move(zoo, "owl", "mammal")
    with pytest.raises(EditError, match=message):
        Edit.from_dict({**record.to_dict(), **change})


@pytest.mark.parametrize("data", [None, [1], "move", {"kind": "move"}])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(EditError):
        Edit.from_dict(data)


def test_an_incomplete_record_is_refused(zoo):
    record = Edit("move", (), "nothing", zoo.hash, zoo.hash)
    with pytest.raises(EditError, match="'move' takes 1 nodes, got 0"):
        edit.apply(zoo, record)


# What an edit can change.


def test_consequences_under_each_rule(zoo):
    _, record = edit.move(zoo, "owl", "mammal")
    marginal, mean = record.consequences("marginal"), record.consequences("representative")
    assert (marginal.explanation, marginal.hard_answer, marginal.soft_answer) == (True, True, False)
    assert (mean.explanation, mean.hard_answer, mean.soft_answer) == (True, True, True)
    assert "the hard answer, never the soft answer" in str(marginal)
    assert mean.to_dict()["rule"] == "representative"


def test_a_new_name_changes_no_answer(zoo):
    _, record = edit.rename(zoo, "bird", "fowl")
    for rule in oracle.RULES:
        found = record.consequences(rule)
        assert not found.hard_answer
        assert not found.soft_answer
        assert "no decision or answer" in str(found)


def test_consequences_need_a_rule(zoo):
    with pytest.raises(NBDTError, match="choose 'representative' or 'marginal'"):
        edit.ungroup(zoo, "bird")[1].consequences("mean")


# Undo and redo.


def test_undo_and_redo_are_exact(zoo):
    stack, hashes = EditStack(zoo), [zoo.hash]
    for step in (
        lambda h: edit.move(h, "owl", "mammal"),
        lambda h: edit.ungroup(h, "bird"),
        lambda h: edit.rename(h, "mammal", "beast"),
    ):
        stack = stack.push(step(stack.hierarchy))
        hashes.append(stack.hierarchy.hash)
    assert [record.kind for record in stack.edits] == ["move", "ungroup", "rename"]
    for wanted in hashes[-2::-1]:
        stack = stack.undo()
        assert stack.hierarchy.hash == wanted
    assert stack.hierarchy == zoo
    assert (bool(stack.past), bool(stack.future)) == (False, True)
    for wanted in hashes[1:]:
        stack = stack.redo()
        assert stack.hierarchy.hash == wanted
    assert (bool(stack.past), bool(stack.future)) == (True, False)


def test_a_new_edit_forgets_what_was_undone(zoo):
    stack = EditStack(zoo).push(edit.move(zoo, "owl", "mammal")).undo()
    stack = stack.push(edit.move(zoo, "hen", "mammal"))
    with pytest.raises(EditError, match="no edit to redo"):
        stack.redo()


def test_a_grouping_across_groups_is_one_step(zoo):
    stack = EditStack(zoo).push(edit.ungroup(zoo, "vehicle"))
    before, stack = stack, stack.group(["owl", "cat", "car"], "mixed")
    assert [record.part_of for record in stack.last_edits] == ["group", "group", None]
    assert stack.before_last is before.hierarchy
    undone = stack.undo()
    assert undone.past == before.past
    assert undone.next_edits == stack.last_edits
    assert undone.redo() == stack
    assert undone.undo().redo().hierarchy == before.hierarchy
    assert not stack.reset().past
    again = zoo
    for record in stack.edits:
        again, made = edit.apply(again, record)
        assert made == record
    assert again == stack.hierarchy


def test_records_of_a_grouping_by_an_earlier_release_are_still_one_step(zoo):
    stack = EditStack(zoo).group(["owl", "cat"], "night")
    old = [record.to_dict() for record in stack.edits]
    assert old[0].pop("part_of") == "group"
    old[0]["summary"] += ", to group them there"  # how it was recorded before `part_of`
    records = [Edit.from_dict(record) for record in old]
    assert records == [*stack.edits]
    loaded = EditStack(zoo)
    for record in records:
        loaded = loaded.push(edit.apply(loaded.hierarchy, record))
    assert loaded.undo() == EditStack(zoo, (), loaded.undo().future)


def test_an_empty_stack_says_so(zoo):
    with pytest.raises(EditError, match="no edit to undo"):
        EditStack(zoo).undo()


def test_a_stack_takes_only_edits_of_its_own_tree(zoo):
    other, _ = edit.rename(zoo, "bird", "fowl")
    with pytest.raises(EditError, match="while the stack is at"):
        EditStack(zoo).push(edit.ungroup(other, "fowl"))


# Any sequence of edits.


def attempt(h, rng):
    """A random edit, likely or not to be possible."""

    def node():
        return h.ids[rng.randrange(h.num_nodes)]

    def siblings():
        parent = rng.choice(h.inner_nodes)
        children = [h.ids[child] for child in h.children[parent]]
        return h.ids[parent], rng.sample(children, rng.randint(1, len(children)))

    name = rng.choice(["x", "y", "c1", "g0"])
    group, members = siblings()
    return rng.choice(
        [
            lambda: edit.move(h, node(), node()),
            lambda: edit.group(h, members, name),
            lambda: edit.ungroup(h, node()),
            lambda: edit.rename(h, node(), name),
            lambda: edit.swap(h, node(), node()),
            lambda: edit.merge(h, node(), node(), rng.choice([None, name])),
            lambda: edit.split(h, group, members, name),
        ]
    )()


def check_invariants(before, after, record):
    assert after.classes == before.classes
    assert {after.ids[node] for node in after.leaf_nodes} == set(before.classes)
    assert all(len(children) != 1 for children in oracle.children(after))
    assert len(set(after.ids)) == after.num_nodes
    assert after.nodes[0].id == before.nodes[0].id
    assert set(before.ids) - set(after.ids) == set(record.removed)
    assert set(after.ids) - set(before.ids) == {record.created} - {None}
    assert after.hash == record.after != record.before == before.hash
    renamed = {node.id for node in before.nodes if node.id in after.ids} - {
        node.id for node in before.nodes if after_name(after, node.id) == node.name
    }
    assert len(renamed) <= (record.kind in {"rename", "merge"})
    assert Hierarchy.from_json(after.to_json()) == after
    assert Edit.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert edit.apply(before, record) == (after, record)


def after_name(h, node_id):
    return h.names[h.ids.index(node_id)] if node_id in h.ids else None


def decisions(h, z, rule):
    """{children's leaf sets: {leaf set: log-probability}} of every decision, for one image."""
    log_probs = DecisionRules(h, rule=rule).log_probs(z)[0].tolist()
    below = [frozenset(leaves) for leaves in oracle.classes_below(h)]
    return {
        frozenset(below[child] for child in children): {
            below[child]: log_probs[child] for child in children
        }
        for children in oracle.children(h)
        if children
    }


def touched(before, after):
    """Ids of groups whose children, or the classes below them, are not what they were."""
    sides = []
    for h in (before, after):
        below = oracle.classes_below(h)
        sides.append(
            {
                h.ids[node]: {(h.ids[child], frozenset(below[child])) for child in children}
                for node, children in enumerate(oracle.children(h))
                if children
            }
        )
    return {node for node in sides[0] if sides[0][node] != sides[1].get(node)}


@settings(max_examples=60)
@given(oracle.trees(), st.integers(0, 2**32))
def test_any_sequence_of_edits_keeps_the_invariants_and_can_be_undone(h, seed):
    rng, stack, seen = random.Random(seed), EditStack(h), [h.hash]
    for _ in range(12):
        before = stack.hierarchy
        shown = before.to_json()
        try:
            result = attempt(before, rng)
        except EditError:
            assert before.to_json() == shown
            continue
        check_invariants(before, *result)
        stack = stack.push(result)
        seen.append(stack.hierarchy.hash)
    for wanted in reversed(seen[:-1]):
        stack = stack.undo()
        assert stack.hierarchy.hash == wanted
    assert stack.hierarchy == h
    while stack.future:
        stack = stack.redo()
    assert stack.hierarchy.hash == seen[-1]


@settings(max_examples=40)
@given(oracle.trees(), st.integers(0, 2**32), st.sampled_from(oracle.RULES))
def test_decisions_of_untouched_groups_stay_equal(h, seed, rule):
    rng = random.Random(seed)
    z = torch.randn(1, h.num_classes, generator=torch.Generator().manual_seed(seed)) * 5
    for _ in range(4):
        try:
            new, _ = attempt(h, rng)
        except EditError:
            continue
        changed = touched(h, new)
        below = oracle.classes_below(h)
        old_log_probs = decisions(h, z, rule)
        new_log_probs = decisions(new, z, rule)
        for node, children in enumerate(oracle.children(h)):
            if children and h.ids[node] not in changed:
                key = frozenset(frozenset(below[child]) for child in children)
                assert new_log_probs[key] == pytest.approx(old_log_probs[key], abs=1e-6, rel=0)
        h = new


def test_under_marginal_no_edit_changes_the_soft_answer(zoo):
    z = torch.randn(5, zoo.num_classes, generator=torch.Generator().manual_seed(0))
    for new, record in one_of_each(zoo):
        for rule in oracle.RULES:
            old, now = (DecisionRules(h, rule=rule)(z) for h in (zoo, new))
            if not record.consequences(rule).soft_answer:
                assert torch.equal(old, now)


def test_a_thousand_random_edits_of_a_large_tree():
    h = oracle.random_tree(300, seed=1, arity=(2, 5), uneven=True)
    rng, done = random.Random(0), 0
    for _ in range(1000):
        try:
            new, record = attempt(h, rng)
        except EditError:
            continue
        assert set(new.ids) ^ set(h.ids) == {*record.removed, record.created} - {None}
        h, done = new, done + 1
    assert done > 200
    assert sorted(h.classes) == sorted(h.ids[leaf] for leaf in h.leaf_nodes)


# ---- labels that list their classes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "before", "after", "expected"),
    [
        ("bird, fruit + 1", "bird fruit vehicle", "fruit vehicle", "fruit, vehicle"),
        ("cat, dog", "cat dog", "cat dog ox", "cat, dog, ox"),
        ("dog, cat + 3", "ant bee cat dog eel", "ant bee cat dog eel fox", "dog, cat + 4"),
        ("dog, cat + 3", "ant bee cat dog eel", "ant bee cat eel", "cat, ant + 2"),
        ("cat, dog (2)", "cat dog", "cat dog ox", "cat, dog, ox"),
        ("animal: bird, frog + 2", "bird frog cat dog", "bird cat dog", "animal: bird, cat, dog"),
        ("animal: bird, frog", "bird frog", "bird frog ship", "bird, frog, ship"),
        ("oak tree, elm", "oak_tree elm", "oak_tree elm ash", "oak tree, elm, ash"),
        ("dog, cat", "cat dog", "cat dog", "dog, cat"),
        ("mammal", "cat dog", "cat dog ship", None),
        ("dog: terriers", "cat dog", "cat dog ship", None),
        ("bits, pieces", "cat dog", "cat dog ship", None),
        ("cat, dog", "cat dog ox", "cat dog", None),
    ],
)
def test_a_label_lists_what_the_node_holds_now(label, before, after, expected):
    assert relist_leaves(label, before.split(), after.split()) == expected


def test_an_edit_mends_the_labels_that_it_makes_false():
    names = [f"bird, fruit + 1/{name}" for name in ("bird", "fruit", "vehicle")]
    tree = Hierarchy.from_paths([*names, "pet/cat", "pet/dog"])
    moved, record = edit.move(tree, "bird", "pet")
    assert [moved.names[node] for node in moved.children[0]] == ["pet", "fruit, vehicle"]
    assert record.summary.endswith("; 'bird, fruit + 1' is called 'fruit, vehicle' now")
    assert edit.apply(tree, record) == (moved, record)
    back, _ = edit.move(moved, "bird", "fruit, vehicle")
    assert "fruit, vehicle, bird" in back.names
    named, _ = edit.merge(tree, "bird, fruit + 1", "pet", name="bird, fruit + 1")
    assert named.names.count("bird, fruit + 1") <= 1
