"""Other people's files: what is read, and every broken one refused by name."""

import csv
import io
import json
import os
import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import Hierarchy, NBDTError
from nbdt.hierarchies import formats
from nbdt.hierarchies.formats import FormatError, read
from tests import oracle

# As the original NBDT's `nbdt-hierarchy` writes them: WordNet ids, labels, made-up inner nodes.
WNIDS = ["n02691156", "n02958343", "n01503061", "n02121620", "n02084071"]
LABELS = ["airplane", "car", "bird", "cat", "dog"]
MODEL = ["airplane", "automobile", "bird", "cat", "dog"]


def original(labels=LABELS, edges="links", **changes):
    """A graph of the original: (((cat, dog), bird), (airplane, car))."""
    nodes = [{"label": label, "id": wnid} for label, wnid in zip(labels, WNIDS, strict=True)]
    nodes += [
        {"id": "f00000005"},
        {"label": "(generated)", "id": "f00000006"},
        {"label": "vehicle", "contraction": {"n0": {"label": "x"}}, "id": "n04524313"},
        {"id": "f00000008"},
    ]
    pairs = [(5, 3), (5, 4), (6, 5), (6, 2), (7, 0), (7, 1), (8, 6), (8, 7)]
    links = [{"source": nodes[a]["id"], "target": nodes[b]["id"]} for a, b in pairs]
    graph = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, edges: links}
    return {**graph, **changes}


@pytest.fixture
def file(tmp_path):
    """A function that writes a file and returns its path."""

    def make(content, name="tree.json"):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.fixture
def id_file(file):
    return file("\n".join(WNIDS), "ids.txt")


def shape(h, node=0):
    below = oracle.children(h)

    def walk(index):
        if not below[index]:
            return h.nodes[index].name
        return {h.nodes[index].name: [walk(child) for child in below[index]]}

    return walk(node)


# The original's graphs.


def test_an_original_graph_with_its_ids(file, id_file):
    h = read(file(original()), wnids=id_file)
    assert h.classes == tuple(LABELS)
    assert shape(h) == {
        "root": [
            {"vehicle": ["airplane", "car"]},
            {"bird, cat + 1": ["bird", {"cat, dog": ["cat", "dog"]}]},
        ]
    }
    assert h.nodes[h.index("cat")].wnid == "n02121620"
    assert h.nodes[h.index("vehicle")].wnid == "n04524313"
    assert h.nodes[h.index("n04524313")].name == "vehicle"


@pytest.mark.parametrize("edges", ["links", "edges"])
def test_edges_have_two_names(file, id_file, edges):
    h = read(file(original(edges=edges)), wnids=id_file)
    assert h == read(file(original()), wnids=WNIDS)


def test_the_order_is_that_of_the_id_file(file):
    order = [3, 0, 4, 1, 2]
    h = read(file(original()), wnids=[WNIDS[i] for i in order])
    assert h.classes == tuple(LABELS[i] for i in order)


def test_names_of_the_model_are_taken_once_they_agree(file, id_file):
    h = read(file(original()), wnids=id_file, classes=MODEL)
    assert h.classes == tuple(MODEL)
    assert h.nodes[h.index("automobile")].wnid == "n02958343"


@pytest.mark.parametrize(
    "classes",
    [
        [*LABELS[1:], LABELS[0]],
        ["car", "airplane", *LABELS[2:]],
        ["automobile", "airplane", "bird", "cat", "dog"],
        ["airplane", "automobile", "bird", "domestic dog", "cat"],
        [*reversed(WNIDS)],
        ["Airplane", "CAR", "Bird", "Dog", "Cat"],
    ],
)
def test_a_contradictory_class_order_is_refused(file, id_file, classes):
    """What mislabelled the original's TinyImageNet trees."""
    with pytest.raises(
        FormatError, match=r"tree\.json': The class order contradicts.*: class \d is"
    ):
        read(file(original()), wnids=id_file, classes=classes)


def test_the_first_contradiction_is_named(file, id_file):
    with pytest.raises(FormatError, match=r"class 3 is 'cat' \('n02121620'\) .* and 'dog' "):
        read(file(original()), wnids=id_file, classes=["airplane", "car", "bird", "dog", "cat"])


def test_names_that_cannot_be_checked_are_refused_when_they_are_most(file, id_file):
    with pytest.raises(FormatError, match=r"Most of the given classes .*Leave out classes"):
        read(file(original()), wnids=id_file, classes=["c0", "c1", "c2", "c3", "dog"])


def test_without_any_order_the_file_is_refused(file):
    with pytest.raises(FormatError, match=r"class order.*classes=.*wnids="):
        read(file(original()))


@pytest.mark.parametrize("classes", [LABELS[::-1], WNIDS[::-1], [x.upper() for x in LABELS]])
def test_the_model_order_is_enough(file, classes):
    h = read(file(original()), classes=classes)
    assert h.classes == tuple(classes)
    leaf = h.nodes[h.leaf_nodes[0]]
    assert leaf.wnid == (WNIDS[0] if "AIRPLANE" in classes else WNIDS[-1])


def test_classes_are_known_by_any_of_their_words(file, id_file):
    classes = ["airplane, aeroplane, plane", "car", "bird (animal)", "Cat", "dog, Canis familiaris"]
    with_ids = read(file(original()), wnids=id_file, classes=classes)
    assert with_ids.classes == tuple(classes)
    assert read(file(original()), classes=classes) == with_ids
    assert read(file(original()), classes=classes[::-1]).nodes[0] == with_ids.nodes[0]
    with pytest.raises(FormatError, match="contradicts"):
        read(file(original()), wnids=id_file, classes=classes[::-1])


def test_names_that_are_no_leaf_are_refused(file):
    with pytest.raises(
        FormatError, match=r"not among the leaves: class 'cta'; .* Did you mean 'cat'"
    ):
        read(file(original()), classes=["airplane", "car", "bird", "cta", "dog"])


def test_repeated_labels_are_qualified_by_their_id(file):
    labels = ["screen", "car", "screen", "cat", "dog"]
    h = read(file(original(labels)), wnids=WNIDS)
    assert h.classes == ("screen (n02691156)", "car", "screen (n01503061)", "cat", "dog")
    with pytest.raises(FormatError, match="'screen' is given more than once"):
        read(file(original(labels)), classes=labels)


@pytest.mark.parametrize(
    ("wnids", "message"),
    [
        (WNIDS[:-1], "5 leaves, and 4 are given; .*not given: 'n02084071'"),
        ([*WNIDS[:-1], "n00000001"], "not among the leaves: id 'n00000001'"),
        ([*WNIDS, WNIDS[0]], "'n02691156' is given more than once"),
    ],
)
def test_ids_must_be_those_of_the_leaves(file, wnids, message):
    with pytest.raises(FormatError, match=message):
        read(file(original()), wnids=wnids)


@pytest.mark.parametrize("content", ["", "a b\nc d", b"\xff\xfe\0"])
def test_an_id_file_is_checked(file, content):
    with pytest.raises(FormatError):
        read(file(original()), wnids=file(content, "ids.txt"))


def test_an_id_file_may_come_from_anywhere(file):
    ids = file(b"\xef\xbb\xbf" + "\r\n".join(WNIDS).encode() + b"\r\n\r\n", "ids.txt")
    assert read(file(original()), wnids=ids).classes == tuple(LABELS)


def test_an_id_file_is_no_tree(file, id_file):
    with pytest.raises(FormatError, match="a list of WordNet ids.*Pass it as wnids="):
        read(id_file)


def test_ids_go_with_a_graph_only(file):
    with pytest.raises(FormatError, match="graph.*'nested'"):
        read(file({"a": ["b", "c"]}), wnids=["b", "c"])


CIFAR10 = [
    "n02691156",
    "n02958343",
    "n01503061",
    "n02121620",
    "n02430045",
    "n02084071",
    "n01639765",
    "n02374451",
    "n04194289",
    "n04490091",
]
CIFAR10_NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
CIFAR10_WORDNET = {  # the original's tree as published, parent: children
    "n00003553 whole": "n03575240 n01471682",
    "n03575240 instrumentality": "n03125870 n03791235",
    "n03125870 craft": "n02691156 n04194289",
    "n03791235 motor_vehicle": "n02958343 n04490091",
    "n01471682 vertebrate": "n01503061 n01886756 n01639765",
    "n01886756 placental": "n02075296 n02370806",
    "n02075296 carnivore": "n02121620 n02084071",
    "n02370806 ungulate": "n02430045 n02374451",
}


def test_the_published_tree_of_cifar10(file):
    labels = ["car" if name == "automobile" else name for name in CIFAR10_NAMES]
    nodes = [{"label": label, "id": wnid} for label, wnid in zip(labels, CIFAR10, strict=True)]
    links = []
    for parent, children in CIFAR10_WORDNET.items():
        wnid, label = parent.split()
        nodes.append({"label": label, "contraction": {}, "id": wnid})
        links += [{"source": wnid, "target": child} for child in children.split()]
    graph = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": links}
    h = read(file(graph), wnids=CIFAR10, classes=CIFAR10_NAMES)
    assert h.classes == tuple(CIFAR10_NAMES)
    assert [h.names[node] for node in h.path_to(h.index("horse"))] == [
        "whole", "vertebrate", "placental", "ungulate", "horse",
    ]  # fmt: skip
    with pytest.raises(FormatError, match="contradicts the given classes: class 3"):
        read(
            file(graph),
            wnids=CIFAR10,
            classes=[*CIFAR10_NAMES[:3], "deer", "cat", *CIFAR10_NAMES[5:]],
        )


# networkx.


def test_what_networkx_writes(file):
    tree = oracle.zoo()
    for edges in ("links", "edges"):
        data = nx.node_link_data(tree.to_networkx(), edges=edges)
        assert read(file(data)) == tree


def test_a_graph_with_numbers_and_names(file):
    nodes = [{"id": 0, "name": "thing"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    graph = {"nodes": nodes, "edges": [{"source": 0, "target": 1}, {"source": 0, "target": 2}]}
    h = read(file(graph), classes=["dog", "cat"])
    assert (h.classes, h.ids[0], h.names[0]) == (("dog", "cat"), "0", "thing")


def test_a_stated_order_may_not_be_contradicted(file):
    tree = oracle.family()
    path = file(nx.node_link_data(tree.to_networkx(), edges="links"))
    assert read(path, classes=list(tree.classes)) == tree
    with pytest.raises(FormatError, match="contradicts the given classes: class 0"):
        read(path, classes=list(reversed(tree.classes)))


def test_an_inner_node_may_have_the_id_of_a_class(file):
    graph = original()
    text = json.dumps(graph).replace("f00000006", "automobile")
    h = read(file(text), wnids=WNIDS, classes=MODEL)
    assert {"automobile", "automobile/"} < set(h.ids)


NODES = [{"id": "r"}, {"id": "a"}, {"id": "b"}]
LINKS = [{"source": "r", "target": "a"}, {"source": "r", "target": "b"}]
BROKEN_GRAPHS = {
    "no edges": ({"nodes": NODES, "links": None}, "list of edges under"),
    "two lists": ({"nodes": NODES, "links": LINKS, "edges": []}, "are both there and differ"),
    "undirected": ({"directed": False, "nodes": NODES, "links": LINKS}, '"directed" is False'),
    "multigraph": ({"multigraph": True, "nodes": NODES, "links": LINKS}, '"multigraph" is True'),
    "node without id": ({"nodes": [{"name": "x"}], "links": []}, 'needs an "id"; got an object'),
    "node is text": ({"nodes": ["r"], "links": []}, "needs an \"id\"; got 'r'"),
    "id is a list": ({"nodes": [{"id": []}], "links": []}, "text or a whole number, got list"),
    "id is true": ({"nodes": [{"id": True}], "links": []}, "text or a whole number, got True"),
    "id is a fraction": ({"nodes": [{"id": 1.5}], "links": []}, "a whole number, got 1.5"),
    "same id": ({"nodes": [{"id": 1}, {"id": "1"}], "links": []}, "Two nodes have the id '1'"),
    "name is a number": ({"nodes": [{"id": 1, "name": 2}], "links": []}, '"name" of node .1. is no'),
    "edge is text": ({"nodes": NODES, "links": ["ra"]}, 'An edge needs "source" and "target"'),
    "edge without end": ({"nodes": NODES, "links": [{"source": "r"}]}, "An edge needs"),
    "edge to nowhere": (
        {"nodes": NODES, "links": [{"source": "r", "target": "x"}]},
        "names the node 'x', which \"nodes\" lacks",
    ),
    "cycle": (
        {"nodes": NODES, "links": [*LINKS, {"source": "a", "target": "r"}]},
        "cycle|leaves|classes|two parents",
    ),
    "two parents": (
        {"nodes": [*NODES, {"id": "s"}, {"id": "c"}],
         "links": [*LINKS, {"source": "r", "target": "s"}, {"source": "s", "target": "b"},
                   {"source": "s", "target": "c"}]},
        "'b' appears under two parents",
    ),
    "index is text": (
        {"nodes": [{"id": "r"}, {"id": "a", "class_index": "0"}, {"id": "b"}], "links": LINKS},
        "class index of leaf 'a' is '0'",
    ),
    "index repeated": (
        {"nodes": [{"id": "r"}, {"id": "a", "class_index": 1}, {"id": "b", "class_index": 1}],
         "links": LINKS},
        "of 2 leaves should be 0 to 1, each once; they are 1, 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_GRAPHS)
def test_a_broken_graph_is_refused(file, case):
    graph, message = BROKEN_GRAPHS[case]
    classes = ["a", "b", "c"] if case == "two parents" else None if "index" in case else ["a", "b"]
    with pytest.raises(FormatError, match=rf"tree\.json': .*{message}"):
        read(file(graph), classes=classes)


# Nested groups.


def test_nested_groups(file):
    path = file({"animal": ["cat", {"bird": {"owl": None, "hen": {}}}], "vehicle": ["car", "bus"]})
    h = read(path)
    assert h.classes == ("cat", "owl", "hen", "car", "bus")
    assert read(path, classes=["bus", "car", "hen", "owl", "cat"]).classes[0] == "bus"


def test_named_children(file):
    tree = {
        "name": "thing",
        "children": [
            {"name": "animal", "children": [{"name": "cat", "value": 3}, {"name": "dog"}]},
            {"name": "car"},
        ],
    }
    assert shape(read(file(tree))) == {"thing": [{"animal": ["cat", "dog"]}, "car"]}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "Expected a mapping"),
        ({"a": 3}, "holds 3"),
        ({"a": ["b", 3]}, "must be text"),
        ({"a": ["b", "b"]}, "two parents|Duplicate"),
        ({"name": "x", "children": [{"nom": "a"}]}, 'needs a "name"'),
        ({"name": "x", "children": {}}, "is not a list"),
        ({"name": "x", "children": [{"name": "a"}, {"name": "a"}]}, "Duplicate class 'a'"),
        ({"format": "nbdt-nested", "tree": []}, 'Expected "classes"'),
        (
            {"format": "nbdt-nested", "classes": [1, 2], "tree": {"a": ["b", "c"]}},
            "must be text, got 1",
        ),
        ({"a": {"b": ["c", "d"]}}, "single child 'a/b/'.*collapse=True"),
    ],
)
def test_broken_groups_are_refused(file, tree, message):
    with pytest.raises(FormatError, match=rf"tree\.json': .*(?:{message})"):
        read(file(tree))


def test_chains_are_collapsed_on_demand(file):
    assert shape(read(file({"a": {"b": ["c", "d"]}}), collapse=True)) == {"b": ["c", "d"]}


# Lines.


def test_paths(file):
    h = read(file("animal/cat\r\n\r\nvehicle/car\nanimal / dog\nvehicle/bus\n", "tree.txt"))
    assert h == oracle.family()


def test_the_model_order_wins_over_that_of_the_lines(file):
    path = file("animal/cat\nanimal/dog\nvehicle/car\nvehicle/bus", "tree.txt")
    assert read(path, classes=["cat", "car", "dog", "bus"]) == oracle.family()


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv(file, mark):
    rows = [["animal", "cat"], ["vehicle", "car", ""], ["animal", "dog"], ["vehicle", "bus"]]
    path = file("\ufeff" + "\n".join(mark.join(row) for row in rows), "tree.csv")
    assert read(path) == oracle.family()


def test_quotes_in_csv(file):
    h = read(file('fish, "tench, Tinca tinca"\nfish,"a ""b"""\nrock\n', "tree.csv"))
    assert h.classes == ("tench, Tinca tinca", 'a "b"', "rock")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "t.txt", "empty"),
        (" \n\n", "t.txt", "empty"),
        (",,\n,,\n", "t.csv", "empty; expected a line for each class"),
        ("x/y\na//b\na/c", "t.txt", "Line 2: a name is empty"),
        ("a/b\na/b", "t.txt", "Line 2: the class 'b' is on line 1"),
        ("a\nx/y\na/b", "t.txt", "Lines 1 and 3: .*also an inner node"),
        ('a,"b\nc', "t.csv", "Line 2 is no CSV"),
        ("a,b\nc,\x07d", "t.csv", "control"),
        ("a," + "x" * 200_000 + "\na,b", "t.csv", "no CSV: field larger|characters"),
        ("('cat','dog'", "t.nwk", "This is Newick; write one path a line"),
    ],
)
def test_broken_lines_are_refused(file, text, name, message):
    with pytest.raises(FormatError, match=rf"t\.\w+': .*{message}"):
        read(file(text, name))


# Hostile files.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"a":[' * 50_000 + "1" + "]}" * 50_000, "nested too deep"),
        ('{"a": ["b", "c"], "a": ["d", "e"]}', "key 'a' occurs twice"),
        ('{"a": NaN}', "NaN is not a JSON value"),
        ('{"a": -Infinity}', "Infinity is not a JSON value"),
        ("{", "This is not JSON"),
        ("[1, 2]", "Expected groups within groups.*got 1; write one path a line"),
        ("{} {}", "This is not JSON"),
        (b"\x80\x05K\x01.", r"not UTF-8 text \(byte 0x80 at 0\)"),
        (b"\x1f\x8b\x08\x00", "not UTF-8 text"),
        (b"{\0}", "zero bytes"),
        ("{}".encode("utf-16-be"), "zero bytes"),
        ('{"a": ["b", "\\ud800"]}', "control"),
        ('{"a": ["b", "c\\u202e"]}', "bidirectional"),
        ('{"nodes": 1e999, "links": []}', "Group 'nodes' holds|Expected"),
        ('{"format": "nbdt-hierarchy", "version": 99}', "version 99 is not known"),
        ('{"format": "nbdt-hierarchy", "version": 1, "nodes": {}, "classes": []}', "two or more"),
        ('{"format": [], "nodes": 3}', "holds"),
        ("9" * 5000, "."),
    ],
)
def test_a_hostile_file_is_refused(file, content, message):
    with pytest.raises(FormatError, match=rf"(?s)tree\.json': .*(?:{message})"):
        read(file(content))


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_junk_is_refused_or_is_a_tree(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "x"
    path.write_bytes(junk)
    try:
        assert read(path).num_classes > 1
    except FormatError as error:
        assert os.fspath(path) in str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from([original(), {"a": ["b", "c"]}]), VALUES, st.integers(0, 2**32))
def test_wrong_types_anywhere_are_refused_or_harmless(tmp_path_factory, tree, value, seed):
    """A random value in one place of a good file gives the same classes in order, or an error."""
    data, rng = json.loads(json.dumps(tree)), random.Random(seed)
    place = data
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not place[key] or not isinstance(place[key], dict | list) or rng.random() < 0.3:
            break
        place = place[key]
    place[key] = value
    path = tmp_path_factory.mktemp("types") / "x.json"
    path.write_text(json.dumps(data))
    classes = LABELS if "nodes" in tree else ["b", "c"]
    try:
        found = read(path, classes=classes)
    except FormatError as error:
        assert os.fspath(path) in str(error)
    else:
        assert found.classes == tuple(classes)


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as sparse:
        sparse.truncate(formats.MAX_BYTES + 1)
    with pytest.raises(FormatError, match="more than 33,554,432 bytes"):
        read(path)


def test_many_names_are_refused(file, monkeypatch):
    monkeypatch.setattr("nbdt.tree.nodes.MAX_NODES", 10)
    names = ",".join("abcdefghijkl")
    outline = "\n".join(" " * depth + "x" + "\n" + " " * depth + "  y" for depth in range(0, 40, 2))
    for name, text in (
        ("t.txt", "a/" * 20), ("t.csv", "a," * 20), ("t.txt", outline),
        ("t.yaml", f"a: [{names}]"), ("t.json", json.dumps({"a": names.split(",")})),
        ("t.json", json.dumps({"name": "a", "children": [{"name": n} for n in names.split(",")]})),
    ):  # fmt: skip
        with pytest.raises(FormatError, match="has at most 10 "):
            read(file(text, name))


@pytest.mark.skipif(os.name != "posix", reason="devices")
def test_a_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(FormatError, match="not a regular file"):
            read(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.json")


def test_a_format_error_is_one_of_ours():
    assert issubclass(FormatError, NBDTError)


# What comes back.


def written(tree, kind):
    """Return the text of a tree as this package, or networkx, writes it."""
    if kind == "nbdt":
        return tree.to_json()
    return json.dumps(nx.node_link_data(tree.to_networkx(), edges="edges"))


@pytest.mark.parametrize("kind", ["nbdt", "node-link"])
@settings(max_examples=30)
@given(tree=oracle.trees())
def test_everything_comes_back(tmp_path_factory, kind, tree):
    path = tmp_path_factory.mktemp("out") / "x"
    path.write_text(written(tree, kind))
    assert read(path) == read(path, classes=list(tree.classes)) == tree


def names_by_class(tree):
    """The names from the root to each class."""
    return [
        [tree.names[node] for node in tree.path_of_class(index)]
        for index in range(tree.num_classes)
    ]


def nested_of(tree, node=0):
    return {tree.names[c]: nested_of(tree, c) for c in tree.children[node]} or None


def csv_of(tree):
    text = io.StringIO()
    csv.writer(text).writerows(names_by_class(tree))
    return text.getvalue()


@pytest.mark.parametrize("kind", ["nested", "paths", "csv"])
@settings(max_examples=30)
@given(tree=oracle.trees())
def test_names_and_order_are_read(tmp_path_factory, kind, tree):
    """Files as earlier releases and other people write them."""
    nested = {"format": "nbdt-nested", "classes": tree.classes}
    text = {
        "nested": json.dumps({**nested, "tree": {tree.names[0]: nested_of(tree)}}),
        "paths": "".join("/".join(row) + "\n" for row in names_by_class(tree)),
        "csv": csv_of(tree),
    }[kind]
    path = tmp_path_factory.mktemp("in") / f"x.{'csv' if kind == 'csv' else 'txt'}"
    path.write_text(text)
    found = read(path)
    assert (found.classes, found.names, found.parents) == (tree.classes, tree.names, tree.parents)


HARD_NAMES = ["tench, Tinca tinca", "a/b", 'quo"te', "semi;colon", " padded ", "it's", "ünïcode 猫"]


@pytest.mark.parametrize("kind", ["nbdt", "node-link"])
def test_hard_names_come_back(file, kind):
    tree = Hierarchy.from_paths([("x, y" if i % 2 else "z", n) for i, n in enumerate(HARD_NAMES)])
    assert read(file(written(tree, kind), "x.csv")) == tree


def test_a_deep_tree(file):
    tree = oracle.caterpillar(5000)
    for kind in ("nbdt", "node-link"):
        assert read(file(written(tree, kind), kind)) == tree


def test_a_path_of_many_parts(file):
    path = file("x/" * 20_000 + "a\nb", "t.txt")
    assert read(path, collapse=True).classes == ("a", "b")
    with pytest.raises(FormatError, match="single child"):
        read(path)


def test_a_graph_of_a_hundred_thousand_levels(file):
    depth = 100_000
    nodes = [{"id": i} for i in range(depth)] + [{"id": "a"}, {"id": "b"}]
    edges = [{"source": i, "target": i + 1} for i in range(depth - 1)]
    edges += [{"source": depth - 1, "target": "a"}, {"source": 0, "target": "b"}]
    path = file({"nodes": nodes, "edges": edges})
    assert read(path, classes=["b", "a"], collapse=True).num_nodes == 3
