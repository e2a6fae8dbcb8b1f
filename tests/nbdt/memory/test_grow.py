"""Models with other classes: a new one, one split in two, two merged; the old model stays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import NBDT, Hierarchy
from nbdt.errors import NBDTError
from nbdt.memory.grow import add_class, grow, merge_classes, split_class
from nbdt.model.remember import make_memory
from tests import oracle

TREE = Hierarchy.from_nested(
    {"warm": {"reds": ["red", "pink"], "others": ["orange", "yellow"]}, "cold": ["blue", "green"]}
)


@given(tree=oracle.trees(), draw=st.data())
def test_a_label_becomes_the_smallest_node_that_holds_its_classes(tree, draw):
    kinds = ["add", "split", *(["merge"] if tree.num_classes > 2 else [])]
    kind = draw.draw(st.sampled_from(kinds))
    one, other = draw.draw(st.permutations(tree.classes))[:2]
    if kind == "add":
        growth = add_class(
            tree, "brand new", tree.ids[draw.draw(st.sampled_from(tree.inner_nodes))]
        )
        assert growth.hierarchy.classes == (*tree.classes, "brand new")
    elif kind == "split":
        growth = split_class(tree, one, ("part one", "part two"))
    else:
        growth = merge_classes(tree, one, other, draw.draw(st.sampled_from([None, other, "both"])))
    new = growth.hierarchy
    below = [{new.classes[c] for c in new.classes_under(n)} for n in range(new.num_nodes)]
    labels = growth.labels(tree)
    for node, key in enumerate(tree.ids):
        classes = [tree.classes[c] for c in tree.classes_under(node)]
        held = {new for name in classes for new in growth.became.get(name, (name,))}
        chosen = below[new.index(labels[key])]
        assert held <= chosen
        assert not any(held <= other < chosen for other in below)


def test_the_order_of_classes():
    assert split_class(TREE, "pink", ("rose", "magenta")).hierarchy.classes == (
        "red", "rose", "orange", "yellow", "blue", "green", "magenta"
    )  # fmt: skip
    merged = merge_classes(TREE, "red", "pink", "crimson").hierarchy
    assert merged.classes == ("crimson", "orange", "yellow", "blue", "green")
    assert merged.names[merged.parents[merged.index("crimson")]] == "warm"  # "reds" is gone


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda: add_class(TREE, "Red", "warm"), "'red'"),
        (lambda: add_class(TREE, "WARM", "cold"), "'warm'"),
        (lambda: add_class(TREE, "mauve", "red"), "'reds'"),
        (lambda: add_class(TREE, "mauve", "purple"), "purple"),
        (lambda: add_class(TREE, " ", "warm"), "empty"),
        (lambda: split_class(TREE, "warm", ("a", "b")), "group"),
        (lambda: split_class(TREE, "red", ("a", "A")), "twice"),
        (lambda: split_class(TREE, "red", ("red", "b")), "'red'"),
        (lambda: merge_classes(TREE, "red", "red"), "twice"),
        (lambda: merge_classes(TREE, "red", "cold"), "group"),
        (lambda: merge_classes(TREE, "red", "blue", "green"), "'green'"),
        (lambda: merge_classes(Hierarchy.from_paths(["a", "b"]), "a", "b"), "two or more"),
    ],
)
def test_what_cannot_be_grown_is_refused(change, fact):
    with pytest.raises(NBDTError, match=fact):
        change()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    made = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    place = tmp_path_factory.mktemp("grow") / "memory"
    memory, width = make_memory(made, place), made.head.linear.in_features
    draw = np.random.default_rng(0)
    labels = [*TREE.classes * 4, TREE.ids[TREE.index("reds")], TREE.ids[TREE.index("cold")]]
    centres = {label: draw.normal(size=width) for label in labels}
    records = [
        {"id": f"{n:064x}", "label": label, "reference": f"{n}.png", "active": n != 3}
        for n, label in enumerate(labels)
    ]
    features = [centres[label] + 0.3 * draw.normal(size=width) for label in labels]
    memory.table.add(records, np.array(features, np.float16))
    made.use_memory(place)
    made.refit()
    return made


@pytest.mark.parametrize("kind", ["split", "merge"])
def test_the_grown_model_has_a_memory_of_its_own(model, tmp_path, kind):
    before, weight = model.memory.rows, model.head.linear.weight.clone()
    growth = (
        split_class(TREE, "blue", ("navy", "azure")) if kind == "split"
        else merge_classes(TREE, "red", "pink", "crimson")
    )  # fmt: skip
    grown = grow(model, growth, tmp_path / "memory")
    rows, tree = grown.memory.rows, growth.hierarchy
    assert {*rows.labels} <= {*tree.ids}
    for old, new in zip(before.labels, rows.labels, strict=True):
        if old == "blue":
            assert new == ("blue" if kind == "split" else old)
            assert bool(tree.children[tree.index(new)]) == (kind == "split")
        if kind == "merge" and old in {"red", "pink", TREE.ids[TREE.index("reds")]}:
            assert new == "crimson"
    assert not rows.active[3]
    for name, row in zip(tree.classes, grown.head.linear.weight, strict=True):
        source = {"navy": "blue", "azure": "blue", "crimson": "red"}.get(name, name)
        assert torch.equal(row, weight[TREE.classes.index(source)])
    if kind == "split":
        with pytest.raises(NBDTError, match="navy"):
            grown.refit()  # no photograph has been given to either part
        blue = [key for key, label in zip(rows.ids, rows.labels, strict=True) if label == "blue"]
        grown.memory.relabel(blue[:2], "navy")
        grown.memory.relabel(blue[2:], "azure")
    grown.refit(choose=True)
    grown.save(tmp_path / "saved")
    assert NBDT.load(tmp_path / "saved").hierarchy == tree
    assert model.memory.rows.labels == before.labels
    assert torch.equal(model.head.linear.weight, weight)


def test_a_new_class_begins_at_zero_and_is_fitted(model, tmp_path):
    growth = add_class(TREE, "violet", "cold", "n04960277")
    grown = grow(model, growth, tmp_path / "memory")
    assert not grown.head.linear.weight[-1].any()
    draw, width = np.random.default_rng(5), grown.head.linear.in_features
    centre = draw.normal(size=width)
    near = [centre + 0.3 * draw.normal(size=width) for _ in range(5)]
    records = [
        {"id": f"{100 + n:064x}", "label": "violet", "reference": f"v{n}", "active": True}
        for n in range(5)
    ]
    grown.memory.table.add(records, np.array(near, np.float16))
    grown.refit(choose=True)
    with torch.inference_mode():
        answers = grown.head(torch.tensor(np.array(near)).float()).argmax(dim=1)
    assert (answers == TREE.num_classes).all()
    assert grown.hierarchy.class_wnids[-1] == "n04960277"


def test_a_model_without_a_memory_cannot_grow(tmp_path):
    bare = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    with pytest.raises(NBDTError, match="no memory"):
        grow(bare, add_class(TREE, "violet", "cold"), tmp_path / "memory")
