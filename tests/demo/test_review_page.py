"""The review page: decisions, their effect, and what is written; in a browser and against hostile input."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, Hierarchy
from nbdt.demo.review.page import _Handlers, build_review
from nbdt.errors import NBDTError
from nbdt.model.remember import make_memory
from tests.demo.pages import HOSTILE, served

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # Gradio leaves event loops and sockets of its own behind
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting",  # pandas 3, through Gradio's queue
    "ignore:The copy keyword is deprecated",
)

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = {"red": (220, 30, 30), "orange": (230, 140, 20), "blue": (30, 40, 220),
           "green": (20, 180, 50)}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A saved model whose memory has one red and one blue photograph swapped."""
    torch.manual_seed(0)
    model = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    model.use_memory(tmp_path / "m")
    memory = make_memory(model, tmp_path / "m")
    draw = np.random.default_rng(0)
    for number in range(8):
        for name, colour in COLOURS.items():
            pixels = np.array(colour) + draw.normal(0, 12, (40, 40, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.filename = f"{HOSTILE} {name} {number}"
            swapped = {"red": "blue", "blue": "red"}.get(name, name) if number == 0 else name
            memory.add([image], swapped, pictures=number < 4)
    model.refit()
    model.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def handlers(folder):
    model = NBDT.load(folder)
    return _Handlers(model, model.memory, str(folder))


def sent(verdicts, seq=1):
    return SimpleNamespace(_data={"verdicts": verdicts, "seq": seq})


def props(component, name):
    return json.loads(component.props[name])


def test_decisions_are_written_with_the_fit(handlers, folder):
    record = props(handlers.arrive(), "record")
    wrong = record["rows"][:2]
    assert {row["reference"][-6:].strip() for row in wrong} == {"red 0", "blue 0"}
    assert all(row["picture"].startswith("data:image/jpeg") for row in wrong)
    verdicts = [{"id": row["id"], "verdict": f"relabel {row['says']}"} for row in wrong]
    effect = props(handlers.effect(sent(verdicts)), "effect")
    assert "Of the 30 photographs" in effect["text"]
    assert handlers.memory.version == NBDT.load(folder).memory.version  # nothing is written yet
    done = handlers.write(SimpleNamespace(username="ann"), sent(verdicts, 2))
    assert props(done, "reply")["done"]
    after = NBDT.load(folder)
    assert after.fitted.key == after.memory.examples(after.head.rules).key
    for row in wrong:
        place = after.memory.rows.place(row["id"])
        assert after.memory.rows.labels[place] == row["reference"].split()[-2]
        assert after.memory.rows.by[place] == "ann"
    assert not {row["id"] for row in wrong} & {row["id"] for row in props(done, "record")["rows"]}


@pytest.mark.parametrize(
    "given",
    [None, {}, "keep", [1], [{"id": 3}, {"id": "zz", "verdict": "keep"}], [{"verdict": "strike"}],
     [{"id": "0" * 64, "verdict": HOSTILE}], [{"id": ["x"], "verdict": {"a": 1}}]],
    ids=str,
)  # fmt: skip
def test_what_no_page_sends_changes_nothing(handlers, given):
    before = handlers.memory.version
    assert props(handlers.effect(sent(given)), "effect")["text"]
    refused = props(handlers.write(SimpleNamespace(username=None), sent(given)), "reply")
    assert not refused["done"]
    assert handlers.memory.version == before


def test_a_class_that_would_have_no_photographs_is_not_written(handlers):
    rows = handlers.memory.rows
    reds = [key for key, label in zip(rows.ids, rows.labels, strict=True) if label == "red"]
    verdicts = [{"id": key, "verdict": "strike"} for key in reds]
    assert "fewer than" in props(handlers.effect(sent(verdicts)), "effect")["text"]
    before = handlers.memory.version
    refused = props(handlers.write(SimpleNamespace(username=None), sent(verdicts)), "reply")
    assert not refused["done"]
    assert "fewer than" in refused["text"]
    assert handlers.memory.version == before


def test_a_model_without_a_memory_has_nothing_to_review(cifar10):
    with pytest.raises(NBDTError, match="nbdt memory build"):
        build_review(cifar10, "cifar10")


@pytest.mark.browser
def test_a_person_goes_through_the_list(folder, visit):
    from axe_playwright_python.sync_playwright import Axe

    model = NBDT.load(folder)
    with served(model, page=partial(build_review, source=str(folder))) as address:
        tab = visit(address, ready=".nbdt-review-row")
        cards = tab.locator(".nbdt-review-row")
        for number in range(2):
            assert cards.nth(number).locator("img").is_visible()
            cards.nth(number).get_by_role("button", name="It shows").click()
        tab.locator(".nbdt-review-effect", has_text="photographs that stay").wait_for()
        found = Axe().run(tab).response["violations"]
        assert not [one["id"] for one in found if one["impact"] in {"serious", "critical"}]
        tab.reload()  # decisions are kept in the tab
        tab.wait_for_selector(".nbdt-review-row")
        assert tab.locator("[aria-pressed='true']").count() == 2
        tab.get_by_role("button", name="Write 2 decisions").click()
        tab.locator(".nbdt-review-status", has_text="Written: 2").wait_for()
        rows = model.memory.rows
        for name in ("red", "blue"):
            assert rows.labels[rows.references.index(f"{HOSTILE} {name} 0")] == name
        tab.set_viewport_size({"width": 390, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
