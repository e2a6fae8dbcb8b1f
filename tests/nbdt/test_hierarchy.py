"""Hierarchies: constructors, canonical order, identity, round trips, and every broken input."""

import copy
import dataclasses
import json
import os
import random
import tracemalloc
from collections import UserDict

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdt import Hierarchy, HierarchyError, NBDTError
from nbdt.errors import listed, nearest
from nbdt.files import write_atomic
from nbdt.tree.building import FORMAT, VERSION
from nbdt.tree.hierarchy import MAX_FILE
from nbdt.tree.nodes import Node
from tests import oracle

PATHS = ["animal/cat", "vehicle/car", "animal/dog", "vehicle/bus"]
CLASSES = ["cat", "car", "dog", "bus"]


def nested_groups(h):
    """The nested form of a hierarchy whose names are unique."""
    below = oracle.children(h)
    built = {}
    for node in reversed(range(h.num_nodes)):
        inner = {h.names[child]: built[child] for child in below[node]}
        built[node] = inner if below[node] else None
    return {h.names[0]: built[0]}


def name_paths(h):
    """For each class the names from the root to it."""
    return [[h.names[0], *(h.names[node] for node in path)] for path in oracle.paths(h)]


def record(**changes):
    """A small valid file's data, changed."""
    nodes = [{"id": "r", "parent": None}, {"id": "a", "parent": "r"}, {"id": "b", "parent": "r"}]
    data = {"format": FORMAT, "version": VERSION, "classes": ["a", "b"], "nodes": nodes}
    return json.dumps({**data, **changes})


# Constructors.


def test_constructors_agree():
    h = Hierarchy.from_paths(["thing/" + path for path in PATHS])
    lists = {"thing": [{"animal": ["cat", "dog"]}, {"vehicle": ["car", "bus"]}]}
    mappings = {"thing": {"vehicle": {"bus": None, "car": {}}, "animal": ["dog", "cat"]}}
    assert Hierarchy.from_nested(lists, CLASSES) == h
    assert Hierarchy.from_nested(mappings, CLASSES) == h
    assert Hierarchy.from_nested(UserDict(mappings), CLASSES) == h
    assert Hierarchy.from_paths([("thing", *path.split("/")) for path in PATHS]) == h
    assert Hierarchy.from_networkx(h.to_networkx(), CLASSES) == h
    assert Hierarchy.from_json(h.to_json()) == h
    assert Hierarchy(h.nodes[::-1], CLASSES) == h


@given(oracle.trees())
def test_constructors_agree_on_any_tree(h):
    assert Hierarchy.from_paths(name_paths(h)) == h
    assert Hierarchy.from_nested(nested_groups(h), h.classes) == h


def test_a_root_is_added_unless_all_paths_share_their_first_part():
    assert Hierarchy.from_paths(PATHS).names[0] == "root"
    assert Hierarchy.from_paths(["a/x", "a/y"]).names[0] == "a"
    assert Hierarchy.from_paths(["x", "y"]).names == ("root", "x", "y")
    assert Hierarchy.from_nested({"a": ["x"], "y": None}, collapse=True).names[0] == "root"
    assert Hierarchy.from_nested({"a": ["x", "y"]}).names[0] == "a"


def test_class_order_is_the_order_of_paths_and_by_default_of_appearance():
    assert Hierarchy.from_paths(PATHS).classes == tuple(CLASSES)
    nested = {"animal": ["cat", "dog"], "vehicle": ["car", "bus"]}
    assert Hierarchy.from_nested(nested).classes == ("cat", "dog", "car", "bus")
    assert Hierarchy.from_nested(nested, CLASSES) == Hierarchy.from_paths(PATHS)


def test_a_graph_may_name_its_classes_by_key_or_by_attribute():
    graph = nx.DiGraph([(0, 1), (0, 2), (2, 3), (2, 4)])
    for key, name in {0: "thing", 1: "cat", 2: "vehicle", 3: "car", 4: "bus"}.items():
        graph.nodes[key]["name"] = name
    graph.nodes[1]["wnid"] = "n02121808"
    h = Hierarchy.from_networkx(graph, ["bus", "car", "cat"])
    assert h.ids == ("0", "2", "cat", "bus", "car")
    assert h.names == ("thing", "vehicle", "cat", "bus", "car")
    assert h.nodes[h.index("cat")].wnid == "n02121808"
    assert h.to_networkx().nodes["cat"] == {"name": "cat", "wnid": "n02121808", "class_index": 2}
    assert Hierarchy.from_networkx(h.to_networkx(), h.classes) == h


def test_collapse_removes_chains_and_keeps_the_ids_of_the_rest():
    paths = ["r/s/a/b/cat", "r/s/a/b/dog", "r/s/t/car", "r/s/u/v/w/bus"]
    h = Hierarchy.from_paths(paths, collapse=True)
    assert h.ids == ("r/s/", "r/s/a/b/", "car", "bus", "cat", "dog")
    assert Hierarchy.from_networkx(h.to_networkx(), h.classes, collapse=True) == h


def test_groups_of_one_name_under_two_parents_are_two_nodes():
    h = Hierarchy.from_paths(["a/other/x", "a/other/y", "a/z", "b/other/u", "b/other/v", "b/w"])
    assert h.names.count("other") == 2
    assert h.index("b/other/") != h.index("a/other/")
    with pytest.raises(HierarchyError, match="2 nodes are named 'other'; say which id: 'a/other/'"):
        h.index("other")


def test_long_names_that_differ_only_at_their_end_are_two_nodes():
    long, stem = "x" * 150, "y" * 150
    paths = [[long, stem + end, stem + end + leaf] for end in "ab" for leaf in "cd"]
    h = Hierarchy.from_paths(paths)
    assert h.num_nodes == 7
    assert all(len(node_id) < 200 for node_id in h.ids)


# Canonical order.


@given(oracle.trees(max_classes=20))
def test_canonical_order(h):
    parents = h.parents
    assert parents[0] == -1
    assert all(-1 < parent < node for node, parent in enumerate(parents) if node)
    assert list(h.depths) == sorted(h.depths)
    assert all(h.depths[node] == h.depths[parents[node]] + 1 for node in range(1, h.num_nodes))
    assert [list(children) for children in h.children] == oracle.children(h)
    assert [node for children in h.children for node in children] == list(range(1, h.num_nodes))
    below = oracle.classes_below(h)
    for children in h.children:
        assert [min(below[c]) for c in children] == sorted(min(below[c]) for c in children)


@given(oracle.trees(max_classes=20))
def test_structure_equals_the_slow_twin(h):
    below, paths = oracle.classes_below(h), oracle.paths(h)
    assert h.num_classes == len(h.classes)
    assert h.num_nodes == len(h.nodes)
    assert h.depth == max(map(len, paths)) == h.depths[-1]
    assert h.inner_nodes == tuple(node for node in range(h.num_nodes) if len(below[node]) > 1)
    for index, leaf in enumerate(h.leaf_nodes):
        assert h.class_indices[leaf] == index
        assert h.names[leaf] == h.ids[leaf] == h.classes[index]
        assert h.path_to(leaf) == [0, *paths[index]]
    assert all(h.class_indices[node] == -1 for node in h.inner_nodes)
    assert [sorted(h.classes_under(node)) for node in range(h.num_nodes)] == [*map(sorted, below)]


@given(oracle.trees(), st.randoms())
def test_the_order_of_nodes_does_not_matter(h, rng):
    nodes = list(h.nodes)
    rng.shuffle(nodes)
    again = Hierarchy(tuple(nodes), h.classes)
    assert again == h
    assert again.nodes == h.nodes
    assert again.hash == h.hash


def test_the_order_of_classes_does():
    h, other = oracle.family(), Hierarchy.from_paths(sorted(PATHS))
    assert set(h.nodes) == set(other.nodes)
    assert h != other
    assert h.hash != other.hash


# Identity.


def test_ids_are_stable():
    """Saved edits and corrections use them: they must never change."""
    assert Hierarchy.from_paths(PATHS).ids == (
        "/", "animal/", "vehicle/", "cat", "dog", "car", "bus",
    )  # fmt: skip


def test_hash_is_stable():
    """Saved models contain it: it must never change."""
    assert oracle.family().hash == (
        "adfb92d295385b82cdd5357a5b9d9155be918cde353f3e4b1d01c1c914195d3f"
    )


def test_equal_trees_have_equal_hashes_and_others_not():
    h = oracle.family()
    assert hash(h) == hash(oracle.family())
    assert len({h, oracle.family(), oracle.zoo()}) == 2
    assert h != "family"
    renamed = [node._replace(name="beast") if node.name == "animal" else node for node in h.nodes]
    known = [node._replace(wnid="n00015388") if node.name == "animal" else node for node in h.nodes]
    hashes = {
        h.hash,
        Hierarchy(tuple(renamed), h.classes).hash,
        Hierarchy(tuple(known), h.classes).hash,
    }
    assert len(hashes) == 3


def test_frozen():
    h = oracle.family()
    for field in ("nodes", "classes", "names"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(h, field, ())
    assert isinstance(h.nodes, tuple)
    assert isinstance(h.classes, tuple)
    classes = ["a", "b"]
    star = Hierarchy([Node("r", None, "r"), Node("a", "r", "a"), Node("b", "r", "b")], classes)
    classes.append("c")
    assert star.classes == ("a", "b")


def test_copies_are_equal():
    h = oracle.zoo()
    assert copy.deepcopy(h) == copy.copy(h) == h
    assert copy.deepcopy(h).hash == h.hash


# Round trips.


@given(oracle.trees())
def test_spans_list_the_leaves_under_every_node(h):
    below = oracle.classes_below(h)
    for node, span in enumerate(h.spans):
        assert [h.leaf_order[position] for position in span] == below[node]
        assert h.classes_under(node) == below[node]


@given(oracle.trees())
def test_the_path_of_a_class_starts_at_the_root(h):
    assert [h.path_of_class(index)[1:] for index in range(h.num_classes)] == oracle.paths(h)
    assert {h.path_of_class(index)[0] for index in range(h.num_classes)} == {0}


def test_wordnet_ids_are_in_class_order():
    nodes = [("r", None, "r"), ("b", "r", "b", "n02084071"), ("a", "r", "a", "n02121620")]
    h = Hierarchy(tuple(Node(*node) for node in [*nodes, ("c", "r", "c")]), ("a", "b", "c"))
    assert h.class_wnids == ("n02121620", "n02084071", None)


@given(oracle.trees())
def test_round_trips(h):
    assert Hierarchy.from_json(h.to_json()) == h
    assert Hierarchy.from_json(h.to_json().encode()) == h
    assert Hierarchy.from_json(json.dumps(json.loads(h.to_json()))) == h
    assert Hierarchy.from_networkx(h.to_networkx(), h.classes) == h


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6))
def test_any_names_round_trip_or_are_refused(names):
    try:
        h = Hierarchy.from_paths([[name] for name in names])
    except HierarchyError as error:
        assert str(error).isprintable()  # a message shows a hostile name escaped
        return
    assert Hierarchy.from_json(h.to_json()) == h
    assert h.classes == tuple(names)


def test_save_and_load(tmp_path):
    h = Hierarchy.from_paths(["größer/猫", "größer/🦩", 'x "quoted" \\', "<b>&amp;"])
    h.save(tmp_path / "tree.json")
    assert Hierarchy.load(tmp_path / "tree.json") == h
    assert Hierarchy.load(str(tmp_path / "tree.json")).hash == h.hash
    assert (tmp_path / "tree.json").read_text(encoding="utf-8") == h.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["tree.json"]


def test_the_file_is_readable():
    text = oracle.family().to_json()
    data = json.loads(text)
    assert (data["format"], data["version"]) == (FORMAT, VERSION)
    assert data["classes"] == CLASSES
    assert '  {"id": "animal/", "parent": "/", "name": "animal"},\n' in text


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "tree.json"
    oracle.family().save(target)
    old = target.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space left"):
                oracle.zoo().save(target)
        assert target.read_bytes() == old
        assert list(tmp_path.iterdir()) == [target]


def test_a_write_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        oracle.family().save(tmp_path / "missing" / "tree.json")
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "atomic", b"\x00\xff")
    assert (tmp_path / "atomic").read_bytes() == b"\x00\xff"
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Broken trees.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Hierarchy.from_paths([]), "needs two or more classes, got 0"),
        (lambda: Hierarchy.from_paths(["a/cat"]), "needs two or more classes, got 1"),
        (lambda: Hierarchy.from_paths("a/cat"), "Expected a list of paths, got the text 'a/cat'"),
        (lambda: Hierarchy.from_paths([1, 2]), "Expected a path such as 'animal/cat', got 1"),
        (lambda: Hierarchy.from_paths([["a", 7]]), "A part of the path list must be text, got 7"),
        (lambda: Hierarchy.from_paths([[], []]), "Expected a path such as 'animal/cat'"),
        (
            lambda: Hierarchy.from_paths(["a/cat", "b/cat", "a/x", "b/y"]),
            r"Duplicate class 'cat': class names are unique; qualify them",
        ),
        (lambda: Hierarchy.from_paths(["a/cat", "a/cat"]), "Duplicate class 'cat'"),
        (
            lambda: Hierarchy.from_paths(["animal", "animal/cat", "animal/dog"]),
            "Class 'animal' is also an inner node; a class is a leaf: write a path below it",
        ),
        (
            lambda: Hierarchy.from_paths(["x", "animal/cat", "animal/dog", "animal"]),
            "Class 'animal' is also an inner node",
        ),
        (
            lambda: Hierarchy.from_nested({"g": ["animal", {"animal": ["cat", "dog"]}]}),
            "Class 'animal' is also an inner node",
        ),
        (lambda: Hierarchy.from_paths(["a//cat", "b"]), r"the path 'a//cat' is empty \(''\); give it"),
        (lambda: Hierarchy.from_paths(["a/ ", "b"]), r"the path 'a/ ' is empty \(' '\); give it a"),
        (
            lambda: Hierarchy.from_paths(["a/cat", "b/x", "b/y"]),
            ("Inner node 'a/' has the single child 'cat', which decides nothing; remove it, or build "
            "with collapse=True"),
        ),
        (
            lambda: Hierarchy.from_nested({"a": ["cat", "dog"]}, ["cat", "dgo"]),
            "The tree has no leaf for class 'dgo'. Did you mean 'dog'",
        ),
        (
            lambda: Hierarchy.from_nested({"a": ["cat", "dog", "eel"]}, ["cat", "dog"]),
            "Leaf 'eel' is not among the 2 classes.* Add the class or remove the leaf",
        ),
        (
            lambda: Hierarchy.from_nested({"a": ["cat", "dog"]}, ["a", "cat", "dog"]),
            "Class 'a' is also an inner node; a class is a leaf: give it a leaf of its own",
        ),
        (lambda: Hierarchy.from_nested({}), "Expected a mapping of groups, got dict"),
        (lambda: Hierarchy.from_nested(["cat"]), "Expected a mapping of groups, got list"),
        (lambda: Hierarchy.from_nested({"a": "cat"}), "Group 'a' holds 'cat'; expected a mapping"),
        (lambda: Hierarchy.from_nested({"a": []}), "Group 'a' holds list; expected a mapping or"),
        (lambda: Hierarchy.from_nested({"a": 5, "b": None}), "Group 'a' holds 5; expected"),
        (lambda: Hierarchy.from_nested({"a": [1, 2]}), "name in the nested groups must be text, got 1"),
        (lambda: Hierarchy.from_nested({3: ["a", "b"]}), "must be text, got 3"),
        (lambda: Hierarchy.from_nested({"a": ["b", ""]}), r"nested groups is empty \(''\)"),
        (lambda: Hierarchy.from_nested({"a": ["b", "c"]}, ["b", None]), "must be text, got None"),
    ],
)  # fmt: skip
def test_broken_paths_and_groups(build, message):
    with pytest.raises(HierarchyError, match=message):
        build()


@pytest.mark.parametrize(
    ("edges", "classes", "message"),
    [
        (["rx", "xa", "xy", "yx"], "ab", "Node 'x' appears under two parents, 'r' and 'y'; a tree"),
        (
            ["ra", "rb", "xy", "yz", "zx", "xc"],
            "abc",
            "The parents form a cycle: 'z' → 'x' → 'y' → 'z';",
        ),
        (["xy", "yx", "xa", "yb"], "ab", "cycle: .*; remove one of these edges"),
        (["ra", "rb", "xx"], "ab", "The parents form a cycle: 'x' → 'x'"),
        (["ra", "rb", "sc", "sd"], "abcd", "2 roots: 'r', 's'; put them under one node"),
        (["ra", "rb", "rx", "xa", "xc"], "abc", "Node 'a' appears under two parents, 'r' and 'x'"),
        (["ra", "rb"], "abc", "The tree has no leaf for class 'c'"),
        (["ra", "rb", "rc"], "ab", "Leaf 'c' is not among the 2 classes"),
        (["ra", "ax", "ay"], "axy", "Class 'a' is also an inner node.*such as 'a \\(other\\)'"),
        (["ra", "rb", "rx", "xc"], "abc", "Inner node 'x' has the single child 'c'"),
        ([], "ab", "The tree has no leaf for class 'a', 'b'"),
        (["ra", "rb"], "aab", "Duplicate class 'a'"),
    ],
)
def test_broken_graphs(edges, classes, message):
    with pytest.raises(HierarchyError, match=message):
        Hierarchy.from_networkx(nx.DiGraph(edges), list(classes))


@pytest.mark.parametrize(
    "edges", [["rx", "xa", "xy", "yx"], ["ra", "rb", "xy", "yz", "zx"], ["aa", "rb"]]
)
def test_collapse_never_hides_a_cycle(edges):
    with pytest.raises(HierarchyError, match="cycle|two parents"):
        Hierarchy.from_networkx(nx.DiGraph(edges), ["a", "b"], collapse=True)


def test_a_long_cycle_is_shown_in_part():
    graph = nx.DiGraph(
        [("r", "a"), ("r", "b"), *((f"n{i}", f"n{(i + 1) % 999}") for i in range(999))]
    )
    with pytest.raises(HierarchyError, match="cycle: .* → … → .*; remove one") as caught:
        Hierarchy.from_networkx(graph, ["a", "b"])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "graph", [nx.Graph([("r", "a"), ("r", "b")]), nx.MultiDiGraph(), {"r": "a"}]
)
def test_only_directed_graphs(graph):
    with pytest.raises(
        HierarchyError, match=f"Expected a networkx.DiGraph .* got {type(graph).__name__}"
    ):
        Hierarchy.from_networkx(graph, ["a", "b"])


def test_graphs_with_odd_labels_are_refused_without_a_crash():
    graph = nx.DiGraph([("r", "a"), ("r", "b")])
    graph.nodes["a"]["name"] = ["a", "list"]
    with pytest.raises(HierarchyError, match="A class name must be text, got list"):
        Hierarchy.from_networkx(graph, [["a"], "b"])
    with pytest.raises(HierarchyError, match="no leaf for class 'c'"):
        Hierarchy.from_networkx(graph, ["c", "b"])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [("r", None, "r"), ("a", "r", "a"), ("b", "q", "b")],
            "Node 'b' names an unknown parent 'q'",
        ),
        (
            [("r", None, "r"), ("a", "r", "A"), ("b", "r", "b")],
            "Leaf 'a' is named 'A'; a leaf is named",
        ),
        (
            [("r", None, "r"), ("a", 3, "a"), ("b", "r", "b")],
            "parent of node 'a' must be an id or null",
        ),
        ([("r", None, "r"), ("a", "r", "a"), (7, "r", "b")], "A node id must be text, got 7"),
        (
            [("r", None, None), ("a", "r", "a"), ("b", "r", "b")],
            "name of node 'r' must be text, got None",
        ),
        ([("r", None, "r"), ("a", "r", "a", "n123"), ("b", "r", "b")], "'a' has WordNet id 'n123'"),
        (
            [("r", None, "r"), ("a", "r", "a", "n٠٢٠٨٤٠٧١"), ("b", "r", "b")],
            "expected a form like 'n02",
        ),
        ([("r", None, "r"), ("a", "r", "a", 5), ("b", "r", "b")], "'a' has WordNet id 5"),
    ],
)
def test_broken_nodes(nodes, message):
    with pytest.raises(HierarchyError, match=message):
        Hierarchy(tuple(Node(*node) for node in nodes), ("a", "b"))


# Hostile names.

HOSTILE = [
    "a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\u0085b",  # control
    "a\u202eb", "\u2066a\u2069", "a\u200eb", "a\u061cb",  # bidirectional
    "a\u200bb", "\ufeffa", "a\u2060b", "a\u00adb", "ca\u200dt", "ca\u200ct", "a\U000e0041b",  # unseen
    "a\u2028b", "a\ud800b", "a\u3164b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused_everywhere_and_shown_escaped(name):
    attempts = [
        lambda: Hierarchy.from_paths([[name], ["b"]]),
        lambda: Hierarchy.from_paths([[name, "a"], [name, "b"]]),
        lambda: Hierarchy.from_nested({name: ["a", "b"]}),
        lambda: Hierarchy.from_nested({"r": ["a", name]}),
        lambda: Hierarchy.from_networkx(nx.DiGraph([("r", "a"), ("r", name)]), ["a", name]),
        lambda: Hierarchy.from_json(record(classes=["a", name])),
        lambda: Hierarchy.from_json(record(nodes=[{"id": "r", "parent": None, "name": name}])),
    ]
    for attempt in attempts:
        with pytest.raises(
            HierarchyError, match="holds control, bidirectional or zero-wi"
        ) as caught:
            attempt()
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["می\u200cخواهم", "👩\u200d🔬", "क\u094d\u200dष", "naïve café", "猫"]
)
def test_names_in_any_script_are_welcome(name):
    assert Hierarchy.from_json(Hierarchy.from_paths([name, "b"]).to_json()).classes == (name, "b")


def test_over_long_names_are_refused_and_cut_in_the_message():
    with pytest.raises(HierarchyError, match="has 1,000,000 characters .* at most 500") as caught:
        Hierarchy.from_paths(["x" * 1_000_000, "b"])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, 3, 2.5, True, b"cat", ("cat",), {"cat"}, object()])
def test_names_that_are_no_text_are_refused(value):
    for attempt in (
        lambda: Hierarchy.from_paths([["a", value], ["a", "b"]]),
        lambda: Hierarchy((Node("r", None, "r"),), ("a", value)),
        lambda: Hierarchy.from_nested({"r": ["a", value]}),
    ):
        with pytest.raises(HierarchyError, match="must be text, got"):
            attempt()


# Broken files.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be parsed"),
        ("{", "cannot be parsed"),
        (b"\xff\xfe\x00", "cannot be parsed"),
        ("null", f'Expected a JSON object with "format": "{FORMAT}", got None'),
        ("[1]", "Expected a JSON object .* got list"),
        ('{"a": 1}', "Expected a JSON object .* got dict.*`nbdt hierarchy convert`"),
        (
            record(version=VERSION + 1),
            f"version {VERSION + 1} is not known to this release, which reads",
        ),
        (record(version="1"), "version '1' is not known"),
        (record(version=None), "version None is not known"),
        (record(version={}), "version dict is not known"),
        (record(nodes=None), "The hierarchy is damaged: TypeError"),
        (record(nodes=[1]), "The hierarchy is damaged"),
        (record(nodes=[{"id": "r"}]), "The hierarchy is damaged: KeyError 'parent'"),
        (record(nodes=[{"parent": None}]), "damaged: KeyError 'id'"),
        (record(nodes=[]), "The tree has no leaf for class 'a', 'b'"),
        (record(nodes=[{"id": [], "parent": None}]), "A node id must be text, got list"),
        (record(nodes=[{"id": "r", "parent": {}}]), "parent of node 'r' must be an id or null"),
        (record(classes="ab"), '"classes" is no list'),
        (record(classes={"a": 0, "b": 1}), '"classes" is no list'),
        (record(classes=[1, 2]), "A class name must be text, got 1"),
        (record(classes=[["a"], "b"]), "A class name must be text, got list"),
    ],
)
def test_broken_files(text, message, tmp_path):
    with pytest.raises(HierarchyError, match=message):
        Hierarchy.from_json(text)
    file = tmp_path / "broken.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HierarchyError, match=f"broken.json.*{message}"):
        Hierarchy.load(file)


JUNK = {
    "random bytes": lambda: random.Random(0).randbytes(10_000_000),
    "spaces": lambda: b" " * 10_000_000,
    "brackets": lambda: b"[" * 10_000_000,
    "braces": lambda: b'{"a":' * 2_000_000,
    "digits": lambda: b"9" * 10_000_000,
    "a string": lambda: b'"' + b"x" * 10_000_000 + b'"',
    "zeros": lambda: bytes(10_000_000),
    "a long version": lambda: record(version="x" * 10_000_000).encode(),
    "a long format": lambda: record(format="x" * 10_000_000).encode(),
}


@pytest.mark.parametrize("kind", JUNK)
def test_ten_megabytes_of_junk_get_one_short_line(kind, tmp_path):
    file = tmp_path / "junk.json"
    file.write_bytes(JUNK[kind]())
    with pytest.raises(HierarchyError, match=r"junk\.json") as caught:
        Hierarchy.load(file)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused_unread(tmp_path):
    file = tmp_path / "huge.json"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_FILE + 1)
    with pytest.raises(
        HierarchyError, match=f"has {MAX_FILE + 1:,} bytes; .* at most {MAX_FILE:,}"
    ):
        Hierarchy.load(file)


def test_missing_files_and_folders_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        Hierarchy.load(tmp_path / "missing.json")
    with pytest.raises(OSError, match="directory"):
        Hierarchy.load(tmp_path)


# Very deep.

DEEP = 100_000


@pytest.mark.parametrize("text", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP])
def test_deep_json_text(text):
    deep_field = record(nodes=[]).replace("[]", text)
    for broken in (text, deep_field):
        with pytest.raises(HierarchyError, match="cannot be parsed .RecursionError"):
            Hierarchy.from_json(broken)


def test_deep_mapping_of_single_children():
    nested = ["cat", "dog"]
    for _ in range(DEEP):
        nested = {"g": nested}
    with pytest.raises(HierarchyError, match="Inner node 'g/' has the single child") as caught:
        Hierarchy.from_nested(nested)
    assert len(str(caught.value)) < 300
    assert Hierarchy.from_nested(nested, collapse=True).classes == ("cat", "dog")


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,)])
def test_deep_lists_are_no_names(wrap):
    deep = ()
    for _ in range(DEEP):
        deep = wrap(deep)
    for attempt in (
        lambda: Hierarchy.from_nested({"a": deep, "b": None}),
        lambda: Hierarchy.from_paths([deep, deep]),
        lambda: Hierarchy((Node("r", None, "r"),), ("a", deep)),
    ):
        with pytest.raises(HierarchyError, match="must be text, got"):
            attempt()


def test_a_deep_tree_is_a_tree_and_prints_in_bounds():
    nested = ["last", "d0"]
    for level in range(1, 5_000):
        nested = [f"d{level}", {"g": nested}]
    h = Hierarchy.from_nested({"root": nested})
    assert h.depth == 5_000
    assert h.hash == Hierarchy.from_json(h.to_json()).hash
    assert len(h.path_to(h.index("last"))) == h.depth + 1
    tracemalloc.start()
    try:
        text, page = str(h), h._repr_html_()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "…" in text
    assert "d0" not in text
    assert page.endswith("more nodes</pre>")


# For people.


def test_printing():
    h = oracle.family()
    assert repr(h) == "Hierarchy(4 classes, 3 inner nodes, depth 2)"
    assert str(h).splitlines() == [
        "root",
        "├── animal",
        "│   ├── cat",
        "│   └── dog",
        "└── vehicle",
        "    ├── car",
        "    └── bus",
    ]


@given(oracle.trees(max_classes=30))
def test_printing_shows_every_node_once(h):
    lines = str(h).splitlines()
    assert sorted(line.split(" ")[-1] for line in lines) == sorted(h.names)
    assert html_lines(h)[1:] == lines


def html_lines(h):
    return h._repr_html_().removeprefix("<pre>").removesuffix("</pre>").splitlines()


def test_html_is_escaped_and_short():
    page = Hierarchy.from_paths(["<script>alert(1)<", '"onload="x', "&amp;"])._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert "&amp;amp;" in page
    long = html_lines(oracle.star(1000))
    assert len(long) == 202
    assert long[-1] == "… 801 more nodes"


def test_index_takes_ids_then_names_and_suggests():
    h = oracle.family()
    assert h.names[h.index("animal")] == h.names[h.index("animal/")] == "animal"
    assert h.ids[h.index("cat")] == "cat"
    with pytest.raises(HierarchyError, match="There is no node 'cta'. Did you mean 'cat'"):
        h.index("cta")


def test_errors_are_one_family():
    assert issubclass(HierarchyError, NBDTError)
    assert issubclass(NBDTError, ValueError)
    assert listed(["a"]) == "'a'"
    assert listed("abcdefgh", limit=2) == "'a', 'b' and 6 more"
    assert nearest("cta", ["cat", "dog"]) == " Did you mean 'cat'?"
    assert nearest("zebra", ["cat", "dog"]) == ""
