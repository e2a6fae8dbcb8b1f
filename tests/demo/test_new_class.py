"""A class that the model does not know: added on the page for one visitor, undone, accepted for all."""

import pytest
import torch
from typer.testing import CliRunner

from nbdt import NBDT
from nbdt.correction import picture_hash
from nbdt.demo.corrections.command import app
from nbdt.demo.corrections.new_class import add_photographs, place_record, same_class, save_class
from nbdt.demo.corrections.own import own_model
from nbdt.demo.editing.edits import edited
from nbdt.demo.visitor import Visitor
from nbdt.errors import NBDTError
from tests.demo.colours import ANN, BOB, COLOURS, PURPLE, TREE, adapt, painted, painted_file
from tests.demo.pages import SERVED, served

pytestmark = SERVED


@pytest.fixture
def visitor(folder):
    """Someone with three purple photographs in the session, and one that is shown."""
    found = Visitor(NBDT.load(folder))
    found.id = ANN
    found.show(painted(PURPLE, 0))
    for number in (1, 2):
        found.remember(painted(PURPLE, number))
    return found


def said(visitor, name="purple", parent=TREE.ids[0]):
    photos = [photo.hash for photo in visitor.recent]
    return {"kind": "class", "label": name, "node": parent, "photos": photos, "seq": 1}


def test_a_new_class_acts_for_one_visitor_and_undo_is_exact(visitor, store):
    before, tree = visitor.explanation().path, visitor.hierarchy
    numbers = save_class(store, visitor, said(visitor))
    assert len(numbers) == 3
    adapt(visitor, store)
    assert visitor.explanation().path.class_name == "purple"
    assert visitor.hierarchy.classes == (*TREE.classes, "purple")
    for name, colour in COLOURS.items():  # the old classes hold
        visitor.show(painted(colour, 30))
        assert visitor.explanation().path.class_name == name
    visitor.show(painted(PURPLE, 9))  # another one
    assert visitor.explanation().path.class_name == "purple"
    parts = visitor.explanation().contributions[-1]
    assert parts.supporting[0].label == "purple"
    assert own_model(visitor.model, store, BOB) is None
    assert len(visitor.model.memory.rows) == 32
    store.delete_corrections(same_class(store, ANN, numbers[1]), visitor=ANN)
    adapt(visitor, store)
    visitor.show(painted(PURPLE, 0))
    after = visitor.explanation().path
    assert visitor.hierarchy is tree
    assert after == before
    assert torch.equal(visitor.answering.head.linear.weight, visitor.model.head.linear.weight)


def test_the_place_is_proposed_and_another_can_be_chosen(visitor, store):
    place = place_record(visitor, said(visitor, "zzyzx"))
    groups = {one["id"]: one["beside"] for one in place["groups"]}
    assert groups.keys() == {TREE.ids[node] for node in TREE.inner_nodes}
    assert place["parent"] in groups
    assert any(name in place["reason"] for name in TREE.classes)
    cold = TREE.ids[TREE.names.index("cold")]
    save_class(store, visitor, said(visitor, parent=cold))
    adapt(visitor, store)
    tree = visitor.hierarchy
    assert tree.ids[tree.parents[tree.index("purple")]] == cold


def test_an_edited_tree_takes_the_class_and_loses_it_again(visitor, store):
    visitor.stack = edited(visitor.stack, {"kind": "rename", "nodes": ["warm"], "name": "hot"})
    numbers = save_class(store, visitor, said(visitor, parent=TREE.ids[TREE.names.index("warm")]))
    adapt(visitor, store)
    assert "hot" in visitor.hierarchy.names
    assert visitor.explanation().path.class_name == "purple"
    store.delete_corrections(numbers, visitor=ANN)
    adapt(visitor, store)
    assert "hot" in visitor.hierarchy.names
    assert visitor.hierarchy.classes == TREE.classes


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"label": "Red"}, "'red'"),
        ({"label": " "}, "empty"),
        ({"label": "a\u202eb"}, "remove"),
        ({"label": 3}, "name"),
        ({"node": "red"}, "class"),
        ({"node": "nowhere"}, "nowhere"),
        ({"photos": []}, "2 photographs"),
        ({"photos": ["f" * 64] * 3}, "2 photographs"),
        ({"photos": 7}, "2 photographs"),
    ],
)
def test_what_is_no_new_class_is_refused_and_nothing_is_kept(visitor, store, change, fact):
    with pytest.raises(NBDTError, match=fact):
        save_class(store, visitor, said(visitor) | change)
    assert not store.corrections()


def test_a_photograph_too_few_is_kept_aside_with_the_reason(visitor, store):
    numbers = save_class(store, visitor, said(visitor))
    store.delete_corrections(numbers[:2], visitor=ANN)
    adapt(visitor, store)
    assert visitor.hierarchy.classes == TREE.classes
    assert "purple" in visitor.own.reason(store.corrections()[0].correction.image)


def test_uploads_join_the_session_and_what_is_none_is_named(visitor, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    text = add_photographs(
        visitor, [str(painted_file(tmp_path, PURPLE, 5)), str(tmp_path / "text.png")]
    )
    assert text.startswith("1 photograph added.")
    assert picture_hash(painted(PURPLE, 5)) in {photo.hash for photo in visitor.recent}
    assert visitor.photo is visitor.recent[0]


def test_the_operator_accepts_a_new_class_for_everybody(visitor, folder, store, tmp_path):
    save_class(store, visitor, said(visitor))
    options = ["apply", "--model", folder, "--store", tmp_path / "kept.sqlite", "--out"]
    done = CliRunner().invoke(app, [*map(str, options), str(tmp_path / "new")])
    assert "learned from 3 corrections" in done.output
    new = NBDT.load(tmp_path / "new" / "model")
    assert new.hierarchy.classes == (*TREE.classes, "purple")
    with torch.inference_mode():
        answer = new.answer(new.preprocess(painted(PURPLE, 9))[None], accuracy=None)[0]
    assert answer.name == "purple"
    assert new.fitted.key == new.memory.examples(new.head.rules).key
    assert own_model(new, store, ANN) is None


@pytest.mark.browser
def test_three_photographs_make_a_class_on_the_page(folder, store, tmp_path, visit):
    files = [painted_file(tmp_path, PURPLE, number) for number in range(3)]
    with served(NBDT.load(folder), store, model="own") as url:
        tab = visit(url)
        tab.set_input_files("#nbdt-photo input[type=file]", files[0])
        tab.wait_for_selector(".nbdt-correct-form")
        before = tab.inner_text(".nbdt-answer")
        tab.check("input[name=nbdt-correct-kind][value=class]")
        tab.wait_for_selector("input[name=nbdt-correct-photo]:checked")
        with tab.expect_file_chooser() as chooser:
            tab.click(".nbdt-correct-more")
        chooser.value.set_files(files[1:])
        tab.wait_for_function(
            "document.querySelectorAll('input[name=nbdt-correct-photo]:checked').length === 3"
        )
        tab.fill("#nbdt-correct-what-is-it-", "purple")
        tab.click(".nbdt-correct-send:has-text('Where does it belong?')")
        tab.wait_for_selector("text=Proposed:")
        tab.click(".nbdt-correct-send:has-text('Add the class')")
        tab.wait_for_selector(".nbdt-correct-status:has-text('Now: purple')")
        assert "purple" in tab.inner_text(".nbdt-answer")
        guest = visit(url)
        guest.set_input_files("#nbdt-photo input[type=file]", files[0])
        guest.wait_for_selector(".nbdt-correct-form")
        assert guest.inner_text(".nbdt-answer") == before
        tab.click("button[aria-label^='Undo correction'] >> nth=0")
        tab.wait_for_selector("text=3 corrections of the class are deleted")
        assert tab.inner_text(".nbdt-answer") == before
    assert not store.corrections()
