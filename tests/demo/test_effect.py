"""Contributions on the page: asked about, struck out, taken back; in a real browser and as weights."""

import json

import pytest
import torch

from nbdt import NBDT
from nbdt.demo.corrections.own import memory_key, own_model
from nbdt.demo.views.answer import FITTED_ON, draw_answer
from nbdt.demo.views.effect import effect_without, struck_rows
from nbdt.demo.visitor import Visitor
from nbdt.errors import NBDTError
from nbdt.explain import Evidence
from nbdt.memory.preview import with_head
from tests.demo.colours import ANN, BOB, COLOURS, PURPLE, adapt, painted, painted_file
from tests.demo.pages import SERVED, served

pytestmark = SERVED


@pytest.fixture(scope="module")
def model(folder):
    return NBDT.load(folder)


@pytest.fixture
def visitor(model):
    seen = Visitor(model)
    seen.id = ANN
    seen.show(painted(COLOURS["red"], 40))
    return seen


def weights(visitor):
    head = visitor.current_model().head.linear
    return torch.cat([head.weight.detach().flatten(), head.bias.detach()])


def test_a_strike_acts_for_one_visitor_and_undo_gives_the_same_weights(model, visitor, store):
    before, version = weights(visitor), model.memory.version
    key = memory_key(model.memory.table.facts)
    parts = visitor.explanation().contributions[0].supporting
    after = effect_without(visitor, parts[0].row).after

    def mark(row, bad=True):
        store.mark_evidence(key, row, visitor=ANN, bad=bad)
        adapt(visitor, store)

    mark(parts[0].row)
    once = weights(visitor)
    assert torch.allclose(once, torch.cat([after.weight.flatten(), after.bias]), atol=1e-4)
    assert not torch.equal(once, before)
    sums = visitor.explanation()
    assert parts[0].row not in {one.row for found in sums.contributions for one in found.supporting}
    assert sums.contributions[0].log_odds == pytest.approx(
        sums.path.decisions[0].margin, rel=1e-3, abs=1e-3
    )
    mark(parts[1].row)
    assert {one["row"] for one in struck_rows(visitor)} == {one.row for one in parts[:2]}
    mark(parts[0].row, bad=False)
    assert [one["row"] for one in struck_rows(visitor)] == [parts[1].row]
    mark(parts[1].row, bad=False)
    assert torch.equal(weights(visitor), before)
    assert model.memory.version == version
    assert own_model(model, store, BOB) is None


@pytest.mark.parametrize("row", [None, 3, "nowhere", ["a"]])
def test_a_row_that_is_none_is_refused(visitor, row):
    with pytest.raises(NBDTError):
        effect_without(visitor, row)


def test_a_model_without_memory_refuses(cifar10):
    seen = Visitor(cifar10)
    seen.show(painted(COLOURS["red"], 1))
    with pytest.raises(NBDTError, match="memory"):
        effect_without(seen, "a" * 64)


def test_a_photograph_that_the_model_was_fitted_on_gets_no_promise(model):
    visitor = Visitor(model, Evidence(model.memory))
    for colour, is_known in ((COLOURS["red"], True), (PURPLE, False)):
        visitor.show(painted(colour, 0))
        record = json.loads(draw_answer(visitor).props["record"])
        assert (FITTED_ON in record["cautions"]) == is_known
        assert bool(record["promise"]) == (not is_known)


@pytest.mark.browser
@pytest.mark.parametrize("kept", [False, True])
def test_a_person_asks_strikes_out_and_takes_back(model, visit, tmp_path, store, kept):
    own = with_head(model, model.fitted)
    with served(
        own, store=store if kept else None, index=Evidence(own.memory), model="own"
    ) as address:
        tab = visit(address)
        photo = painted_file(tmp_path, COLOURS["red"], 40)
        tab.set_input_files("#nbdt-photo input[type=file]", photo)
        part = tab.locator(".nbdt-part").first
        part.wait_for()
        part.get_by_text("What if it were struck out?").click()
        tab.locator(".nbdt-effect").first.wait_for()
        tested = "document.querySelector('.nbdt-testing').textContent.startsWith('Tested')"
        tab.wait_for_function(tested)
        tab.click(".nbdt-careful")
        tab.wait_for_function(f"document.querySelector('.nbdt-careful').ariaDisabled && {tested}")
        assert tab.locator(".nbdt-effect").count()  # the deeper level has drawn the steps again
        assert "Of +" in tab.locator(".nbdt-sum p").first.text_content()
        assert "not what would happen" in tab.locator(".nbdt-strip-foot").text_content()
        row = part.get_attribute("data-row")
        part.get_by_text("What if it were struck out?").click()
        box = part.locator(".nbdt-effect")
        box.wait_for()
        assert "before" in box.text_content()
        assert "31 other photographs" in box.text_content()
        if not kept:  # on a page without a store nothing can be marked
            assert not box.get_by_role("button").count()
            return
        box.get_by_text("Strike it out").click()
        struck = tab.locator(".nbdt-struck")
        struck.wait_for()
        assert tab.locator(f'.nbdt-part[data-row="{row}"]').count() == 0
        struck.get_by_text("Take back").click()
        tab.locator(f'.nbdt-part[data-row="{row}"]').first.wait_for()
        assert struck.count() == 0
    assert own.memory.rows.active.all()
