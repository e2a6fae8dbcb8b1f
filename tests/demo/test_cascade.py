"""The page on a cascade: each photograph is explained by the model that answers it."""

import json

import numpy as np
import pytest
import torch

from nbdt.demo.corrections.own import acts, seen_features
from nbdt.demo.views import levels
from nbdt.demo.views.answer import draw_answer
from nbdt.demo.views.decisions import draw_node
from nbdt.demo.visitor import Visitor
from nbdt.explain import Evidence, explain
from nbdt.model.cascade import LARGE, SMALL
from nbdt.model.remember import make_memory
from tests.cascades import cascade, photographs
from tests.demo.pages import served


@pytest.fixture(scope="module")
def first_of_each():
    """For each model of the cascade a photograph that it answers."""
    found = explain(cascade(), photographs(), level="fast", evidence=False)
    return {
        one.made["answered_by"]["model"]: photo
        for one, photo in zip(found, photographs(), strict=True)
    }


@pytest.mark.parametrize("by", [SMALL, LARGE])
def test_what_is_shown_is_what_explain_says(first_of_each, by):
    model, photo = cascade(), first_of_each[by]
    visitor = Visitor(model)
    visitor.show(photo)
    (expected,) = explain(model, photo, level="fast")
    found = visitor.explanation()
    assert found.path == expected.path
    assert found.made["answered_by"] == expected.made["answered_by"]
    np.testing.assert_allclose(found.maps[0], expected.maps[0], atol=1e-5)
    record = json.loads(draw_answer(visitor).constructor_args["record"])
    assert f"The {by} model answered" in record["left_out"]
    with torch.inference_mode():
        logits = model.logits(model.preprocess(photo)[None])[0]
    torch.testing.assert_close(visitor.logits(visitor.photo), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by", [SMALL, LARGE])
def test_deeper_levels_nodes_and_edits(first_of_each, by):
    model = cascade()
    visitor = Visitor(model)
    visitor.show(first_of_each[by])
    done = visitor.levels()
    levels._compute(visitor.current_model(), visitor.photo, done, "default", lambda: None)
    assert done["default"].made["answered_by"]["model"] == by
    assert done["default"].tested
    visitor.select(visitor.explanation().path.decisions[0].child_ids[0])
    assert json.loads(draw_node(visitor).constructor_args["record"])["sentence"]
    visitor.allow([*model.hierarchy.classes[:3]])
    (expected,) = explain(visitor.current_model(), first_of_each[by], level="fast")
    assert visitor.explanation().path == expected.path
    assert visitor.explanation().made["answered_by"] == expected.made["answered_by"]
    assert visitor.explanation().path.class_name in model.hierarchy.classes[:3]
    assert visitor.explanation().made["answered_by"]["model"] == by


@pytest.mark.parametrize("by", [SMALL, LARGE])
def test_evidence_is_of_the_large_network(first_of_each, by, tmp_path):
    model, photos = cascade(), photographs()
    memory = make_memory(model, tmp_path / "memory")
    for index, photo in enumerate(photos):
        memory.add([photo], model.hierarchy.classes[index % 10], pictures=True)
    visitor = Visitor(model, Evidence(memory))
    visitor.show(first_of_each[by])
    found = visitor.explanation()
    (expected,) = explain(model, first_of_each[by], level="fast", evidence=memory)
    near = [[n.reference for n in side.chosen] for side in found.evidence]
    assert near == [[n.reference for n in side.chosen] for side in expected.evidence]
    done = visitor.levels()
    levels._compute(visitor.current_model(), visitor.photo, done, "default", lambda: None)
    assert bool(done["default"].alike) == (found.closest_with_evidence is not None)


def test_corrections_wait():
    """The small model would not follow."""
    visitor = Visitor(cascade())
    visitor.show(photographs()[0])
    assert not acts(visitor.model)
    assert seen_features(visitor.model, visitor.photo) is None


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore:.*no_silent_downcasting", "ignore:The copy keyword is deprecated"
)
def test_the_page_says_who_answered(visit):
    with served(cascade(), model="cascade") as address:
        tab = visit(address)
        tab.click(".nbdt-example")
        tab.wait_for_selector(".nbdt-left-out")
        assert "model answered: small_convnet" in tab.inner_text(".nbdt-left-out")
