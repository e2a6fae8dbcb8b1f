"""Deeper levels of the explanation: they come while a visitor reads, and never delay a first answer."""

import asyncio
import json
import re
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from nbdt import NBDT, NBDTHead
from nbdt.demo import background
from nbdt.demo.background import Background, Superseded, first_answer
from nbdt.demo.photographs import examples, opened
from nbdt.demo.ui.events import FORGOTTEN
from nbdt.demo.views import levels
from nbdt.demo.views.decisions import TESTING, draw_node, draw_strip
from nbdt.demo.visitor import Visitor
from nbdt.explain.maps.levels import LEVELS, at_level
from tests.demo.pages import served
from tests.demo.test_demo import ask, event, outcome

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting",  # pandas 3, through Gradio's queue
    "ignore:The copy keyword is deprecated",
)

# ---- jobs --------------------------------------------------------------------------------------


def test_a_newer_job_ends_the_older_and_one_that_waits_never_starts():
    runner, running, ran = Background(), threading.Event(), []

    def endless(pause):
        running.set()
        try:
            while True:
                pause()
        except Superseded:
            ran.append("ended early")
            raise

    async def check():
        first = runner.job(None, "first", endless)
        await asyncio.to_thread(running.wait)
        assert runner.job(first, "first", ran.append) is first
        second = runner.job(first, "second", lambda pause: ran.append("second"))
        third = runner.job(second, "third", lambda pause: ran.append("third"))
        other = runner.job(None, "third", lambda pause: ran.append("other visitor"))
        await asyncio.wait({third.task, other.task})
        assert first.task.cancelled()
        assert second.task.cancelled()

    asyncio.run(check())
    assert ran == ["ended early", "third", "other visitor"]


def test_jobs_pause_while_someone_waits_for_a_first_answer(monkeypatch):
    monkeypatch.setattr(background, "PAUSE_S", 60)
    runner, begun, passed = Background(), threading.Event(), []

    def work(pause):
        begun.set()
        pause()
        passed.append(1)

    async def check():
        with first_answer():
            job = runner.job(None, 1, work)
            await asyncio.to_thread(begun.wait)
            await asyncio.wait({job.task}, timeout=0.3)
            assert not passed
        await asyncio.wait({job.task}, timeout=30)

    asyncio.run(check())
    assert passed


# ---- what is computed ----------------------------------------------------------------------------


def shown(model, name="cat"):
    visitor = Visitor(model)
    visitor.show(opened(str(examples()[name])))
    return visitor


def test_levels_are_those_of_explain_and_are_kept_for_the_photograph(cifar10):
    visitor = shown(cifar10)
    kept, fast = visitor.levels(), visitor.explanation()
    pauses = []
    for level in LEVELS[1:]:
        levels._compute(cifar10, visitor.photo, kept, level, lambda: pauses.append(1))
        batch = cifar10.preprocess(visitor.photo.image)[None]
        (expected,) = at_level(cifar10, batch, [fast], level)
        found = visitor.explanation()
        assert found.tested == expected.tested
        assert found.made["level"] == level
        assert found.path == fast.path
    assert len(pauses) > 5
    visitor.show(opened(str(examples()["coffee"])))
    assert [*visitor.levels()] == ["fast"]


def plain_network(cifar10):
    """A network whose layers have no positions."""
    torch.manual_seed(0)
    side = cifar10.preprocess.size
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 12))
    backbone.forward_features = backbone.forward
    backbone.forward_head = lambda features, pre_logits: features
    head = NBDTHead(12, cifar10.hierarchy, rule="marginal")
    return NBDT(backbone, head, "flat", cifar10.preprocess).eval()


def test_a_network_without_positions_answers_at_once_and_is_tested_later(cifar10):
    visitor = shown(plain_network(cifar10))
    visitor.select("ship")
    first = json.loads(draw_strip(visitor).props["record"])
    assert first["notice"] == TESTING
    levels._compute(visitor.model, visitor.photo, visitor.levels(), "default", lambda: None)
    record = json.loads(draw_strip(visitor).props["record"])
    assert record["notice"].startswith("Tested")
    steps = [step for tile in record["tiles"] for step in tile["decisions"]]
    assert len(steps) == len(visitor.explanation().path)
    assert "pictures" in json.loads(draw_node(visitor).props["record"])


# ---- what a program may send -----------------------------------------------------------------------


def sent(page, session, asked):
    """What the strip would receive."""
    body = {"data": [None], "fn_index": event(page, "deepen"), "session_hash": session}
    status, text = ask(f"{page}/gradio_api/run/predict", {**body, "event_data": asked})
    assert status == 200
    return text


def test_a_request_that_makes_no_sense_is_answered_with_the_reason(page):
    assert FORGOTTEN in sent(page, "stranger", {"level": "default"})
    outcome(page, event(page, "pick"), [None], "levels", {"name": "cat"})
    for level in ("deepest", ["default"], None):
        assert "Unknown level" in sent(page, "levels", {"level": level})
    assert "Tested" in sent(page, "levels", {"level": "default"})
    assert "Tested" in sent(page, "levels", {"level": "default"})  # it is kept


# ---- in a browser ----------------------------------------------------------------------------------


@contextmanager
def held(monkeypatch):
    """Hold every test of regions until the event is set; yields it and the levels that began."""
    gate, begun = threading.Event(), []

    def waiting(model, images, found, level):
        begun.append(level)
        while not gate.wait(0.05):
            model.logits(images)  # which pauses, or ends what is no longer wanted
        return at_level(model, images, found, level)

    monkeypatch.setattr(levels, "at_level", waiting)
    try:
        yield gate, begun
    finally:
        gate.set()


def pick(tab, name="cat"):
    tab.click(f".nbdt-example:has-text('{name}')")
    tab.wait_for_selector(".nbdt-cards .nbdt-card")


def notice(tab, start):
    tab.wait_for_function(
        "t => document.querySelector('.nbdt-testing').textContent.startsWith(t)", arg=start
    )


def pictures(tab):
    return tab.eval_on_selector_all(".nbdt-card img", "all => all.map(i => i.src)")


@pytest.mark.browser
def test_the_first_answer_is_there_before_regions_are_tested(visit, page, monkeypatch):
    with held(monkeypatch) as (gate, begun):
        tab = visit(page, width=1280, height=700)
        pick(tab)
        notice(tab, TESTING)
        tab.wait_for_timeout(1000)
        assert begun == ["default"]
        before = pictures(tab)
        tab.get_by_label("Show the grid").focus()
        form = tab.locator(".nbdt-strip-foot")
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        place = form.bounding_box()["y"]
        gate.set()
        notice(tab, "Tested")
        assert pictures(tab) != before
        assert tab.evaluate("document.activeElement.type") == "checkbox"
        assert form.bounding_box()["y"] == pytest.approx(place, abs=2)
        assert tab.locator(".nbdt-testing").get_attribute("role") == "status"
        tab.get_by_role("button", name="Test more regions").press("Enter")
        tab.wait_for_function(
            "document.querySelector('.nbdt-careful').ariaDisabled === 'true'"
            " && document.querySelector('.nbdt-testing').textContent.startsWith('Tested')"
        )
        assert begun == ["default", "careful"]
        tab.wait_for_timeout(1000)
        assert begun == ["default", "careful"]


@pytest.mark.browser
def test_another_photograph_wins_over_work_in_the_background(visit, page, monkeypatch):
    with held(monkeypatch) as (gate, begun):
        tab = visit(page)
        pick(tab)
        tab.wait_for_timeout(1000)
        old = pictures(tab)
        pick(tab, "raccoon")
        tab.wait_for_function("o => document.querySelector('.nbdt-card img').src !== o", arg=old[0])
        tab.wait_for_timeout(1500)
        assert begun == ["default", "default"]  # the first has ended, although the gate is closed
        answer = tab.inner_text(".nbdt-headline")
        gate.set()
        notice(tab, "Tested")
        assert tab.inner_text(".nbdt-headline") == answer
        assert not set(old) & set(pictures(tab))


@pytest.mark.browser
def test_an_edit_during_the_test_starts_it_again_for_the_new_path(visit, page, monkeypatch):
    with held(monkeypatch) as (gate, begun):
        tab = visit(page)
        pick(tab)
        tab.wait_for_timeout(1000)
        tab.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
        tab.keyboard.press("Shift+F10")
        tab.get_by_role("menuitem", name="Rename").click()
        tab.fill("dialog input", "beast")
        tab.keyboard.press("Enter")
        tab.locator(".nbdt-cards", has_text="beast").wait_for()
        notice(tab, TESTING)
        tab.wait_for_timeout(1500)
        assert begun == ["default", "default"]
        gate.set()
        notice(tab, "Tested")
        assert "beast" in tab.inner_text(".nbdt-cards")
        tab.get_by_role("button", name="Undo").first.click()
        tab.locator(".nbdt-cards", has_text="animal").wait_for()
        notice(tab, "Tested")


@pytest.mark.browser
def test_one_visitors_test_holds_up_no_other_visitor(visit, page, monkeypatch):
    with held(monkeypatch) as (gate, begun):
        first, second = visit(page), visit(page)
        pick(first)
        first.wait_for_timeout(1000)
        pick(second, "raccoon")
        second.wait_for_timeout(1000)
        assert begun == ["default"]  # one at a time
        notice(second, TESTING)
        gate.set()
        for tab in (first, second):
            notice(tab, "Tested")
        assert begun == ["default", "default"]


@pytest.mark.browser
def test_a_network_without_maps_is_tested_on_a_plain_grid(visit, cifar10):
    with served(plain_network(cifar10)) as url:
        tab = visit(url)
        pick(tab)
        notice(tab, "Tested")
        tab.locator(".nbdt-tree-name", has_text=re.compile("^ship$")).first.click()
        tab.wait_for_selector(".nbdt-node h3")
        assert "%" in tab.inner_text(".nbdt-node .nbdt-bars")


@pytest.mark.browser
def test_the_grid_is_laid_over_the_pictures_without_the_server(visit, page):
    tab = visit(page)
    pick(tab)
    notice(tab, "Tested")
    requests = len(tab.seen.requests)
    overlay = "e => getComputedStyle(e, '::after').content"
    frame = tab.locator(".nbdt-card .nbdt-frame").first
    assert frame.evaluate(overlay) == "none"
    tab.get_by_label("Show the grid").check()
    assert frame.evaluate(overlay) == '""'
    assert frame.evaluate("e => getComputedStyle(e).getPropertyValue('--columns')") == "8"
    assert len(tab.seen.requests) == requests
    alts = tab.eval_on_selector_all(".nbdt-card img", "all => all.map(i => i.alt)")
    assert all("photograph" in alt for alt in alts)
