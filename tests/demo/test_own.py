"""Corrections that act at once: on the page in a real browser, after a kill, and for everybody."""

import signal
from contextlib import closing

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT
from nbdt.correction import Correction, picture_hash
from nbdt.demo.corrections.apply import accept_corrections
from nbdt.demo.corrections.command import app
from nbdt.demo.corrections.own import acts, memory_key, own_model, seen_features
from nbdt.demo.review.page import _Handlers
from nbdt.demo.store import Store
from nbdt.demo.visitor import Photograph, Visitor
from nbdt.memory import memory as memory_module
from nbdt.memory import refit
from nbdt.model.fingerprint import model_hash
from tests.demo.colours import ANN, BOB, PURPLE, TREE, painted, painted_file
from tests.demo.pages import SERVED, running, served

pytestmark = SERVED


@pytest.fixture
def model(folder):
    return NBDT.load(folder)


@pytest.fixture
def photo(tmp_path):
    """A file with a colour between two classes."""
    return painted_file(tmp_path, PURPLE, 1)


def answer(model, image):
    with torch.inference_mode():
        chances = model(model.preprocess(image)[None])[0]
    return TREE.classes[int(chances.argmax())]


def other(name):
    return "green" if name != "green" else "red"


def stated(store, model, image, visitor=ANN, **said):
    kind = "label" if "label" in said else "step"
    correction = Correction(kind, picture_hash(image), model=model_hash(model), **said)
    seen = seen_features(model, Photograph.of(model, image))
    return store.add_correction(correction, visitor=visitor, seen=seen)


# ---- for one visitor --------------------------------------------------------------------------


def test_a_label_acts_for_who_said_it_until_it_is_taken_back(model, store):
    seen, alike = painted(PURPLE, 1), painted(PURPLE, 2)
    before, weight = answer(model, seen), model.head.linear.weight.detach().clone()
    number = stated(store, model, seen, label=other(before))
    own = own_model(model, store, ANN)
    assert answer(own.model, seen) == answer(own.model, alike) == other(before)
    assert own_model(model, store, BOB) is None
    assert torch.equal(model.head.linear.weight, weight)
    assert len(model.memory.rows) == 32
    assert own.model.fitted.key == own.corrected.fitted.key
    store.delete_corrections([number], visitor=ANN)
    assert own_model(model, store, ANN) is None


def test_a_step_asks_for_the_group_and_a_later_group_keeps_the_class(model, store):
    seen = painted(PURPLE, 1)
    before = answer(model, seen)
    side = "cold" if before in {"red", "orange"} else "warm"
    node = TREE.ids[TREE.names.index(side)]
    stated(store, model, seen, node=TREE.ids[0], child=node)
    group = [TREE.classes[n] for n in TREE.classes_under(TREE.index(node))]
    assert answer(own_model(model, store, ANN).model, seen) in group
    name = "blue" if side == "cold" else "red"
    stated(store, model, seen, label=name)
    stated(store, model, seen, node=TREE.ids[0], child=node)
    own = own_model(model, store, ANN)
    assert [change.label for change in own.corrected.changes] == [name]
    assert answer(own.model, seen) == name


def test_a_mark_strikes_a_photograph_out_for_one_visitor(model, store):
    rows = model.memory.rows
    key = memory_key(model.memory.table.facts)
    store.mark_evidence(key, rows.ids[0], visitor=ANN, why="blurred")
    own = own_model(model, store, ANN)
    assert (~own.corrected.rows.active).nonzero()[0].tolist() == [0]
    store.mark_evidence(key, rows.ids[0], visitor=ANN, bad=False)
    assert own_model(model, store, ANN) is None
    assert model.memory.rows.active.all()


def test_a_correction_of_another_network_or_without_features_waits(model, store, cifar10):
    seen = painted(PURPLE, 1)
    correction = Correction("label", picture_hash(seen), label="red", model=model_hash(model))
    store.add_correction(correction, visitor=ANN)
    store.add_correction(correction, visitor=ANN, seen=("f" * 64, b"\0\0"))
    assert own_model(model, store, ANN) is None
    assert not acts(cifar10)
    assert seen_features(cifar10, Photograph.of(cifar10, seen)) is None


def test_an_edited_tree_and_fewer_classes_keep_the_corrections(model, store):
    seen = painted(PURPLE, 1)
    wanted = other(answer(model, seen))
    stated(store, model, seen, label=wanted)
    visitor = Visitor(model)
    visitor.show(seen)
    visitor.adapt(own_model(model, store, ANN))
    found = visitor.explanation()
    assert found.path.class_name == wanted
    assert picture_hash(seen) in {part.row for part in found.contributions[-1].supporting}
    assert len(model.memory.rows) == 32
    assert TREE.classes[int(visitor.logits(visitor.photo).argmax())] == wanted
    visitor.allow([wanted, "orange"])
    assert visitor.explanation().path.class_name == wanted
    visitor.adapt(None)
    visitor.allow(None)
    assert visitor.explanation().path.class_name == answer(model, seen)


# ---- the page ---------------------------------------------------------------------------------


def shown(tab, photo):
    tab.set_input_files("#nbdt-photo input[type=file]", photo)
    tab.wait_for_selector(".nbdt-correct-form")


def say(tab, label):
    tab.check("input[name=nbdt-correct-kind][value=label]")
    tab.fill("#nbdt-correct-this-is", label)
    tab.click(".nbdt-correct-send")


@pytest.mark.browser
def test_the_page_says_what_changed_for_this_visitor_alone_and_undoes_it(
    folder, model, tmp_path, visit, photo
):
    wanted = other(answer(model, Image.open(photo)))
    with (
        closing(Store.open(str(tmp_path / "kept.sqlite"))) as pages,
        served(NBDT.load(folder), pages, model="own") as url,
    ):
        tab = visit(url)
        shown(tab, photo)
        say(tab, wanted)
        tab.wait_for_selector(f".nbdt-correct-status:has-text('Now: {wanted}')")
        text = tab.inner_text(".nbdt-correct-status")
        assert "of 32 other photographs changed" in text
        assert "yours alone until the operator accepts it" in text
        tab.wait_for_selector("text=acts for you")
        (number,) = [saved.id for saved in pages.corrections()]
        guest = visit(url)
        shown(guest, photo)
        assert wanted not in guest.inner_text(".nbdt-answer")
        tab.click(f"button[aria-label='Undo correction {number}']")
        tab.wait_for_selector(f"text=Correction {number} is deleted. The answers are the shared")
        assert wanted not in tab.inner_text(".nbdt-answer")


@pytest.mark.browser
def test_a_correction_that_was_acknowledged_acts_after_a_kill(
    folder, model, tmp_path, visit, photo
):
    wanted = other(answer(model, Image.open(photo)))
    options = ("--model", folder, "--store", tmp_path / "kept.sqlite")
    with running(tmp_path, *options) as (url, process, _):
        tab = visit(url)
        shown(tab, photo)
        say(tab, wanted)
        tab.wait_for_selector("text=is saved.")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        port = int(url.rsplit(":", 1)[1])
        tab.seen.messages.clear()
        with running(tmp_path, *options, port=port):
            tab.goto(url)
            tab.wait_for_selector("text=acts for you")
            shown(tab, photo)
            tab.wait_for_selector(f".nbdt-answer:has-text('{wanted}')")
        tab.seen.messages.clear()


# ---- for everybody ----------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_operator_accepts_them_into_the_memory_of_a_new_version(folder, model, store, tmp_path):
    seen = painted(PURPLE, 1)
    wanted = other(answer(model, seen))
    number = stated(store, model, seen, label=wanted, note="seen at noon")
    key = memory_key(model.memory.table.facts)
    store.mark_evidence(key, model.memory.rows.ids[0], visitor=BOB, why="blurred")
    location = str(tmp_path / "kept.sqlite")
    options = ["apply", "--model", folder, "--store", location, "--out"]
    assert "model 1 learned from 1 correction" in run(*options, tmp_path / "new").output
    new, rows = NBDT.load(tmp_path / "new" / "model"), model.memory.rows
    assert answer(new, seen) == wanted
    assert new.fitted.key == new.memory.examples(new.head.rules).key
    changed = new.memory.rows
    place = changed.places[picture_hash(seen)]
    assert (changed.labels[place], changed.why[place]) == (wanted, "seen at noon")
    assert changed.by[place] == f"visitor {ANN[:8]}"
    assert not changed.active[changed.places[rows.ids[0]]]
    assert rows.active.all()
    assert len(changed) == len(rows) + 1
    (version,) = store.model_versions()
    assert (version.parent, version.hash) == (model_hash(model), model_hash(new))
    assert store.corrections(ids=[number])[0].learned_by == (version.id,)
    assert own_model(model, store, ANN) is not None  # the old version has not learned it
    assert own_model(new, store, ANN) is None
    options[2] = tmp_path / "new" / "model"
    assert "has nothing that this model" in str(run(*options, tmp_path / "newer").exception)


def test_a_mark_outside_the_sample_of_a_large_memory_is_accepted(
    folder, store, tmp_path, monkeypatch
):
    for module in (memory_module, refit):
        monkeypatch.setattr(module, "MOST", 20)  # of 32
    model = NBDT.load(folder)
    rows, sample = model.memory.rows, model.memory.fit_rows
    key = next(key for key in rows.ids if key not in sample.places)
    facts = memory_key(model.memory.table.facts)
    store.mark_evidence(facts, key, visitor=BOB, why="blurred")
    accept_corrections(store, model, tmp_path, print)
    changed = NBDT.load(tmp_path / "model").memory.rows
    place = changed.places[key]
    assert (changed.why[place], changed.by[place]) == ("blurred", f"visitor {BOB[:8]}")
    assert (~changed.active).nonzero()[0].tolist() == [place]


def test_the_review_offers_what_helps_more_and_a_shift_can_be_accepted(
    folder, model, store, tmp_path
):
    location = str(tmp_path / "kept.sqlite")
    options = ["--model", folder, "--store", location]
    assert "No correction" in run("review", *options).output
    seen = [painted(PURPLE, number) for number in range(6)]
    wanted = other(answer(model, seen[0]))
    for image in seen:
        stated(store, model, image, label=wanted)
    said = run("review", *options).output
    assert "6 corrected photographs" in said
    assert "32 other photographs" in said
    page = _Handlers(model, model.memory, str(folder), store).corrections()
    assert page.constructor_args["corrections"].startswith(said.splitlines()[0])
    first, second = [line for line in said.splitlines() if line.startswith("nbdt")]
    assert {first.split()[6], second.split()[6]} == {"memory", "shift"}
    done = run("apply", *options, "--to", "shift", "--out", tmp_path / "new")
    assert "learned from 6 corrections" in done.output
    new = NBDT.load(tmp_path / "new" / "model")
    batch = torch.stack([model.preprocess(image) for image in seen])
    with torch.inference_mode():
        before, after = (one(batch)[:, TREE.classes.index(wanted)].mean() for one in (model, new))
    assert after > before
    assert torch.equal(new.head.linear.weight, model.head.linear.weight)
    assert len(new.memory.rows) == len(model.memory.rows)
    assert not acts(new)  # its last layer is no fit on the memory


def test_a_network_without_a_fitted_layer_is_taught_by_training(store, tmp_path):
    options = ["apply", "--model", "cifar10", "--store", tmp_path / "kept.sqlite", "--out", "new"]
    assert "not fitted on a memory" in str(run(*options, "--to", "memory").exception)
    assert "--data" in run(*options).output
