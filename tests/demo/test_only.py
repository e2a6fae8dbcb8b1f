"""Answers of the page and its API with only the classes that can occur."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbdt.decide.paths import percent
from nbdt.demo.corrections.views import form_props
from nbdt.demo.editing.panel import effect_record
from nbdt.demo.views.answer import draw_answer
from nbdt.demo.views.decisions import draw_node, draw_strip
from nbdt.demo.views.tree import path_record
from nbdt.demo.visitor import Photograph, Visitor
from nbdt.errors import NBDTError
from nbdt.explain import explain
from nbdt.hierarchies import edit
from tests import oracle
from tests.demo.pages import CAT, running
from tests.demo.tiny_model import tiny_model

PHOTO = Image.open(CAT)
QUIET = pytest.mark.filterwarnings(  # Gradio's own
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting",
    "ignore:The copy keyword is deprecated",
)
WILD = ["bird", "deer", "frog", "ship"]


def allowing(model, names):
    visitor = Visitor(model)
    visitor.show(PHOTO)
    visitor.allow(names)
    return visitor


# ---- one visitor -------------------------------------------------------------------------------


def test_a_visitor_sees_what_the_restricted_model_explains(cifar10):
    visitor = allowing(cifar10, WILD)
    expected = explain(cifar10.restrict(WILD), PHOTO, level="fast")[0]
    found = visitor.explanation()
    assert str(found.path) == str(expected.path)
    for one, other in zip(found.path, expected.path, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
    for one, other in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert found.made["removed_probability"] == pytest.approx(
        expected.made["removed_probability"], abs=1e-6
    )
    visitor.allow(None)
    assert visitor.explanation().path.class_name == "cat"


def test_the_answer_says_what_was_left_out_and_how_likely_it_was(cifar10):
    visitor = allowing(cifar10, WILD)
    text = json.loads(draw_answer(visitor).props["record"])["left_out"]
    chances = cifar10.logits(cifar10.preprocess(PHOTO)[None]).detach().softmax(dim=1)[0]
    rest = [i for i, name in enumerate(cifar10.hierarchy.classes) if name not in WILD]
    assert "Only 4 of 10 classes" in text
    assert f"had {percent(float(chances[rest].sum()))}" in text
    assert f"cat, {percent(float(chances[rest].max()))}" in text
    assert "may show one of them" in text
    assert json.loads(draw_answer(allowing(cifar10, None)).props["record"])["left_out"] == ""


@given(oracle.trees(), st.sampled_from(oracle.RULES), st.data())
def test_the_trees_shares_are_those_of_the_leaves(tree, rule, data):
    names = data.draw(st.lists(st.sampled_from(tree.classes), min_size=2, unique=True))
    model, features = tiny_model(tree, rule), torch.randn(256)
    visitor = Visitor(model)
    visitor.photo = Photograph(PHOTO, "", PHOTO, features, None)
    logits = model.head.logits(features[None])[0].detach()
    visitor.allow(names)
    record = json.loads(path_record(visitor))
    possible = visitor.possible(tree)
    columns = [tree.classes.index(name) for name in possible.classes]
    expected = oracle.leaf_log_probs(possible, logits[None, columns].double().numpy(), rule)[0]
    assert [tree.names[node] for node in record["only"]] == list(possible.classes)
    for index, name in enumerate(tree.classes):
        steps = [record["p"][node] for node in tree.path_of_class(index)[1:]]
        chance = np.exp(expected[possible.classes.index(name)]) if name in names else 0
        assert np.prod(steps) == pytest.approx(chance, rel=0.01, abs=1e-6)
    assert tree.names[record["path"][-1]] == possible.classes[int(expected.argmax())]


def test_nodes_and_edits_and_the_form_keep_to_what_can_occur(cifar10):
    visitor = allowing(cifar10, ["cat", "truck", "ship"])
    for node in visitor.hierarchy.ids:
        visitor.select(node)
        record = json.loads(draw_node(visitor).props["record"])
        assert ("pictures" in record) == (node in visitor.current_model().hierarchy.ids)
    tree = visitor.hierarchy
    for step in json.loads(form_props(visitor)["record"])["steps"]:
        for child in step["children"]:  # a correction names a child of the whole hierarchy
            assert tree.parents[tree.index(child["id"])] == tree.index(step["id"])
    visitor.stack = visitor.stack.push(edit.move(tree, "frog", "vehicle"))
    record = effect_record(visitor)
    assert record["step"]["before"] == record["step"]["after"]
    assert record["step"]["reference"]["images"] < 5000
    assert visitor.explanation().path.class_name == "cat"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["catt", "dog"], "named 'catt'.*Did you mean 'cat'"),
        (["cat", "Cat"], "twice"),
        (["cat"], "at least two allowed classes, got 1"),
        ([], "at least two allowed classes, got 0"),
        ("cat", "Expected a list of names"),
        ([["cat"]], "Expected a list of names"),
        ({"cat": 1}, "Expected a list of names"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(cifar10, names, message):
    visitor = allowing(cifar10, WILD)
    with pytest.raises(NBDTError, match=message):
        visitor.allow(names)
    assert len(visitor.only) == 4


def test_where_the_answer_stops_both_children_have_a_picture(cifar10):
    visitor = Visitor(cifar10)
    visitor.show(PHOTO)
    assert "stops here" not in draw_strip(visitor).props["record"]
    visitor.show(Image.open(CAT.with_name("raccoon.jpg")))
    record = json.loads(draw_strip(visitor).props["record"])
    explanation = visitor.explanation()
    decision = explanation.path.decisions[explanation.answer.depth]
    (tile,) = [one for one in record["tiles"] if "stops here" in str(one["decisions"])]
    for shown, child in zip(tile["pictures"], (decision.chosen, decision.runner_up), strict=True):
        assert decision.children[child] in shown["caption"]
    assert len({shown["picture"] for shown in tile["pictures"]}) == 2


# ---- the API -----------------------------------------------------------------------------------


def test_the_api_answers_only_with_what_is_named(page, cifar10):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(page, verbose=False)
    record, _ = client.predict(handle_file(CAT), WILD, api_name="/explain")
    assert record["class"] in WILD
    assert record["removed_probability"] > 0.9
    whole, _ = client.predict(handle_file(CAT), api_name="/explain")
    assert whole["removed_probability"] is None
    assert whole["answer"]["name"] == "cat"
    assert "95%" in whole["promise"]
    for names, message in (
        (["catt", "dog"], "Did you mean"),
        ([], "at least two"),
        ("cat", "list"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(handle_file(CAT), names, api_name="/explain")


# ---- in a browser ------------------------------------------------------------------------------


def tick(tab, name):
    tab.locator(".nbdt-tree-name", has_text=re.compile(f"^{name}$")).first.click()


def answer_is(tab, name):
    tab.wait_for_function(
        "n => document.querySelector('ol.nbdt-trail > li:last-child .nbdt-crumb')?.textContent === n",
        arg=name,
    )


@pytest.mark.browser
@QUIET
def test_a_visitor_ticks_what_can_occur_and_allows_everything_again(visit, page):
    tab, other = visit(page), visit(page)
    for one in (tab, other):
        one.click(".nbdt-example:has-text('cat')")
        answer_is(one, "cat")
    tab.get_by_role("button", name="Only some classes").click()
    count = tab.locator(".nbdt-tree-only-count")
    assert "All 10 classes are allowed. 0 ticked." in count.inner_text()
    tab.get_by_role("button", name="Use these classes").click()
    tab.locator(".nbdt-tree-status.wrong", has_text="at least two").wait_for()
    tick(tab, "vehicle")
    tick(tab, "ship")
    assert "3 ticked" in count.inner_text()
    tab.locator(".nbdt-tree-search").fill("dog")
    tab.keyboard.press("Enter")
    tab.keyboard.press("Space")
    assert "4 ticked" in count.inner_text()
    tab.locator(".nbdt-tree-search").fill("")
    tab.wait_for_function("document.querySelectorAll('.nbdt-tree .class').length === 10")
    states = tab.eval_on_selector_all(
        ".nbdt-tree [aria-checked]", "all => all.map(e => e.getAttribute('aria-checked'))"
    )
    assert {"true", "false", "mixed"} == set(states)
    tab.get_by_role("button", name="Use these classes").click()
    answer_is(tab, "dog")
    assert "4 of 10 classes are allowed." in count.inner_text()
    assert "Only 4 of 10 classes can occur" in tab.inner_text(".nbdt-left-out")
    assert tab.locator(".nbdt-tree .left-out.class").count() == 6
    answer_is(other, "cat")
    tab.get_by_role("button", name="Allow all classes").click()
    answer_is(tab, "cat")
    assert tab.locator(".nbdt-left-out").count() == 0
    assert not count.is_visible()


@pytest.mark.browser
@QUIET
def test_where_the_answer_stops_is_on_the_page(visit, page):
    tab = visit(page)
    tab.click(".nbdt-example:has-text('raccoon')")
    stop = tab.locator(".nbdt-card", has_text="The answer stops here")
    tab.locator(".nbdt-testing", has_text="Tested").wait_for()
    boxes = [stop.locator("figure").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert "the answer stops here" in tab.inner_text(".nbdt-trail .nbdt-last")
    tab.click(".nbdt-example:has-text('cat')")
    answer_is(tab, "cat")
    stop.wait_for(state="hidden")


@pytest.mark.browser
@QUIET
def test_a_restricted_model_is_saved_and_served(cifar10, visit, tmp_path):
    cifar10.restrict(WILD).save(tmp_path / "wild")
    with running(tmp_path, "--model", tmp_path / "wild", "--store", "none") as (url, _, _):
        tab = visit(url)
        tab.click(".nbdt-example:has-text('raccoon')")
        tab.wait_for_selector(".nbdt-left-out")
        assert "cannot occur here would have had" in tab.inner_text(".nbdt-left-out")
        assert "It knows 4 classes" in tab.inner_text(".nbdt-answer")
