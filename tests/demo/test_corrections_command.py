"""``nbdt corrections``: from corrections in a store to a model that learned from them."""

import copy
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, NBDTError
from nbdt.correction import Correction, picture_hash, read_corrections
from nbdt.demo.corrections.apply import apply_corrections
from nbdt.demo.corrections.command import app
from nbdt.demo.corrections.model_versions import ModelVersions, descendants, lineage, pending
from nbdt.demo.corrections.own import memory_key, view_without_bad
from nbdt.demo.store import Store
from nbdt.demo.store.place import StoreError
from nbdt.explain import Evidence, explain
from nbdt.images.dataset import iter_images
from nbdt.images.image import open_image
from nbdt.model.fingerprint import model_hash
from nbdt.model.remember import make_memory
from tests.demo.colours import ANN, BOB
from tests.demo.stores import kept_photographs


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "kept.sqlite")


@pytest.fixture
def store(place):
    opened = Store.open(place)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model():
    return NBDT.load("cifar10")


def picture(seed, size=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run(*arguments, status=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def whole(*arguments):
    """As a user types it, with the messages of the command `nbdt`."""
    return subprocess.run(
        [sys.executable, "-m", "nbdt", "corrections", *map(str, arguments)],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wrong_step(model, image, **more):
    """That the first decision should have gone the other way."""
    first = explain(model, image)[0].path.decisions[0]
    child = first.child_ids[first.runner_up]
    return Correction(
        "step",
        picture_hash(image),
        node=first.node_id,
        child=child,
        model=model_hash(model),
        **more,
    )


# ---- list, delete, photographs ---------------------------------------------------------------


def test_corrections_are_listed_for_people_and_for_programs(store, place):
    image = picture(0)
    said = Correction("label", picture_hash(image), label="cat", note="\x1b[31mred\n")
    number = store.add_correction(said, visitor=ANN, photo=image)
    shown = run("list", "--store", place)
    assert shown.stdout.startswith(
        f"{number}  {said.time}  This is: cat ('\\x1b[31mred\\n'), photo"
    )
    assert "1 correction in" in shown.stderr
    record = json.loads(run("list", "--json", "--store", place).stdout)
    assert (record["id"], record["visitor"], record["photograph"]) == (number, ANN, 1)
    fields = {
        k: v for k, v in record.items() if k not in ("id", "visitor", "photograph", "learned_by")
    }
    assert Correction.from_json(json.dumps(fields)) == said
    assert run("list", "--visitor", BOB, "--store", place).stdout == ""


def test_corrections_and_photographs_are_deleted_one_by_one_or_by_visitor(store, place):
    for seed, visitor in enumerate([ANN, ANN, BOB]):
        image = picture(seed)
        said = Correction("label", picture_hash(image), label="cat")
        store.add_correction(said, visitor=visitor, photo=image)
    assert run("delete", 1, "--store", place).stdout == "deleted: 1\n"
    assert [s.photograph for s in store.corrections()] == [2, 3]
    assert run("delete", "--visitor", BOB, "--store", place).stdout.startswith("deleted: 2 ")
    assert [s.id for s in store.corrections()] == [2]
    assert [photo.id for photo in kept_photographs(store)] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete", "7"], "There is no correction with the number 7; nothing was deleted."),
        (["delete", "--visitor", "x"], "The store has nothing of visitor 'x'"),
    ],
)
def test_what_cannot_be_deleted_is_an_error(place, arguments, message):
    assert message in str(run(*arguments, "--store", place, status=1).exception)


@pytest.mark.parametrize("arguments", [["delete"], ["delete", "1", "--visitor", ANN], ["export"]])
def test_unclear_wishes_are_usage_errors(place, arguments):
    run(*arguments, "--store", place, status=2)


# ---- export ------------------------------------------------------------------------------------


def test_an_export_names_photographs_where_training_finds_them(store, place, tmp_path):
    kept, lost, named = picture(1), picture(2), picture(3)
    for image, photo, reference in ((kept, kept, ""), (lost, None, ""), (named, None, "old/x.png")):
        said = Correction("label", picture_hash(image), label="cat", reference=reference)
        store.add_correction(said, visitor=ANN, photo=photo)
    out = tmp_path / "new" / "said.jsonl"
    shown = run("export", "--out", out, "--store", place)
    assert "written" in shown.stdout
    assert "1 of them have no photograph" in shown.stderr
    first, second, third = read_corrections(out)
    assert picture_hash(open_image(out.parent / first.reference)) == first.image
    assert (second.reference, third.reference) == ("", "old/x.png")
    assert first.reference.startswith("said_photographs/")
    elsewhere = tmp_path / "photos"
    run("export", "--out", out, "--photos", elsewhere, "--store", place)
    assert read_corrections(out)[0].reference.startswith(str(elsewhere))


# ---- apply -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model):
    """A folder with the model, without the recipe that holds 500 images of each class out."""
    folder = tmp_path_factory.mktemp("models") / "first"
    other = copy.deepcopy(model)
    other.provenance = {}
    other.save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, model):
    """Class folders with a few pictures each."""
    root = tmp_path_factory.mktemp("data")
    for index, name in enumerate(model.hierarchy.classes):
        (root / name).mkdir()
        for number in range(8):
            picture(1000 + 10 * index + number, 32).save(root / name / f"{number}.png")
    return root


@pytest.mark.slow
def test_applying_teaches_records_and_offers_a_new_model(
    store, place, data, tmp_path, model, saved
):
    photos = [picture(20), picture(21)]
    said = [wrong_step(model, photo) for photo in photos]
    numbers = [
        store.add_correction(said[0], visitor=ANN, photo=photos[0]),
        store.add_correction(said[1], visitor=BOB),  # no photograph: cannot be learnt from
    ]
    arguments = ("--model", saved, "--data", data, "--store", place, "--set", "strength=5")
    result = whole("apply", "--out", tmp_path / "better", *arguments)
    assert result.returncode == 0, result.stderr
    assert "model 1 learned from 1 correction; 1 left out" in result.stdout
    (version,) = store.model_versions()
    assert version.parent == model_hash(model)
    assert {*version.accuracy} == {"before", "after"}
    assert f"{version.accuracy['after']['soft']:.2%} after" in result.stdout
    assert "the record names no photograph" in result.stderr  # as the training process reported
    assert [s.learned_by for s in store.corrections()] == [(version.id,), ()]
    assert not list((tmp_path / "better").glob(".photographs-*"))

    offered = ModelVersions(model, store)
    assert [v.id for v in offered.offered()] == [version.id]
    better = offered.load(version.id)
    assert offered.load(version.id) is better  # shared
    assert offered.load(0) is model
    node, child = said[0].node, said[0].child
    before, after = (explain(m, photos[0])[0].path.decisions[0] for m in (model, better))
    assert before.node_id == after.node_id == node
    place_of = before.child_ids.index(child)
    assert after.log_probs[place_of] > before.log_probs[place_of]

    # The one that is not learnt yet is all that a second round takes.
    waits = pending(version.hash, store.model_versions())
    assert [s.id for s in store.corrections(pending=waits)] == [numbers[1]]
    again = run("apply", "--out", tmp_path / "better", *arguments, status=1)
    assert "exists already; name a new folder" in str(again.exception)


@pytest.mark.slow
def test_a_training_that_fails_leaves_corrections_unapplied(store, place, data, tmp_path, model):
    photo = picture(30)
    store.add_correction(wrong_step(model, photo), visitor=ANN, photo=photo)
    result = run("apply", "--model", "cifar10", "--data", tmp_path / "nothing",
                 "--out", tmp_path / "out", "--store", place, status=1)  # fmt: skip
    for fact in ("There is no data folder or file", "No correction was applied", "--out"):
        assert fact in str(result.exception)
    assert store.model_versions() == []
    assert store.corrections()[0].learned_by == ()
    assert not list((tmp_path / "out").glob(".photographs-*"))


@pytest.mark.slow
def test_a_killed_training_process_leaves_nothing_recorded(store, place, data, tmp_path, model):
    photo = picture(31)
    store.add_correction(wrong_step(model, photo), visitor=ANN, photo=photo)
    events = apply_corrections(store, model, data, tmp_path / "out", source="cifar10")
    assert next(events).event == "progress"
    (child,) = training_processes()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(NBDTError, match=r"exit status -9.* No correction was applied"):
        list(events)
    assert store.model_versions() == []
    assert store.corrections()[0].learned_by == ()
    assert not (tmp_path / "out" / "model").exists()
    assert not list((tmp_path / "out").glob(".photographs-*"))


def training_processes():
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "--corrections" in line]


def test_nothing_to_learn_is_said(store, place, data, tmp_path):
    store.add_correction(Correction("label", "c" * 64, label="cat", model="d" * 64), visitor=ANN)
    result = run("apply", "--model", "cifar10", "--data", data, "--out", tmp_path / "out",
                 "--store", place, status=1)  # fmt: skip
    assert "has nothing that this model" in str(result.exception)
    assert not (tmp_path / "out").exists()


# ---- who descends from who --------------------------------------------------------------------


def test_a_family_of_models(store):
    """a -> b -> d, a -> c; x -> y. Each learns from the corrections of the family before it was made."""
    taught = {"b": ("a", [1]), "c": ("a", [2]), "y": ("x", []), "d": ("b", [])}
    for model in "aabxd":
        said = Correction("label", "e" * 64, label="cat", model=named(model))
        store.add_correction(said, visitor=ANN)
    for made, (parent, numbers) in taught.items():
        store.add_model_version(
            "/m", named(made), parent=named(parent), learned=numbers, left_out=0, accuracy={}
        )
    versions = store.model_versions()
    assert lineage(named("d"), versions) == [named("d"), named("b"), named("a")]
    assert lineage(named("a"), versions) == [named("a")]
    assert [v.hash for v in descendants(named("a"), versions)] == [*map(named, "bcd")]
    assert [v.hash for v in descendants(named("c"), versions)] == []
    wanted = {"a": [1, 2, 3, 5], "b": [2, 3, 5], "c": [1, 3, 5], "d": [2, 3, 5], "x": [4]}
    for model, numbers in wanted.items():
        waits = pending(named(model), versions)
        assert [s.id for s in store.corrections(pending=waits)] == numbers, model
        assert store.count_pending(waits) == len(numbers)
        applied = {s.id for s in store.corrections() if waits.is_applied(s)}
        assert applied.isdisjoint(numbers)
        assert applied | set(numbers) == {
            s.id for s in store.corrections() if s.correction.model in waits.family
        }


def named(letter):
    """A hash for each letter."""
    return f"{ord(letter):064x}"


def test_only_what_the_store_recorded_is_loaded_and_only_unchanged(store, tmp_path, model):
    other = tmp_path / "other"
    model.save(other)
    store.add_model_version(
        other, "9" * 64, parent=model_hash(model), learned=[], left_out=0, accuracy={}
    )
    store.add_model_version(
        tmp_path / "gone", "8" * 64, parent=model_hash(model), learned=[], left_out=0, accuracy={}
    )
    store.add_model_version(other, "7" * 64, parent="6" * 64, learned=[], left_out=0, accuracy={})
    versions = ModelVersions(model, store)
    with pytest.raises(StoreError, match=r"Version 1 has changed: .* expected 999999999999…"):
        versions.load(1)
    with pytest.raises(StoreError, match="Version 2 cannot be loaded: There is no saved model"):
        versions.load(2)
    with pytest.raises(StoreError, match="no version 3 of this model"):
        versions.load(3)  # another family's


# ---- evidence ----------------------------------------------------------------------------------


def test_bad_evidence_changes_the_own_view_at_once(store, place, data, tmp_path, model):
    memory = make_memory(model, tmp_path / "memory")
    memory.add(list(iter_images(data)))
    evidence, key = Evidence(memory), memory_key(memory.table.facts)
    photo = picture(40)
    before = explain(model, photo, evidence=evidence)[0].evidence[0].chosen
    bad = memory.rows.ids[before[0].row]
    store.mark_evidence(key, bad, visitor=ANN, why="a watermark")
    view = view_without_bad(evidence, store, ANN)
    after = explain(model, photo, evidence=view)[0].evidence[0].chosen
    assert [n.reference for n in after[:4]] == [n.reference for n in before[1:5]]
    assert view_without_bad(evidence, store, BOB) is evidence
    assert memory.rows.active.all()
    shown = run("marks", "--store", place)
    assert shown.stdout.rstrip().endswith(f"{bad} bad: a watermark")
    store.mark_evidence(key, bad, visitor=ANN, bad=False)
    assert view_without_bad(evidence, store, ANN) is evidence
