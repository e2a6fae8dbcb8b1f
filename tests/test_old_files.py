"""Files that earlier releases wrote still load, and say what they said then."""

import importlib.util
import json
import math
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.__main__ import app
from nbdt.correction import picture_hash, read_corrections
from nbdt.demo.corrections.model_versions import ModelVersions, pending
from nbdt.demo.corrections.own import memory_key, view_without_bad
from nbdt.demo.corrections.submission import visitor_id
from nbdt.demo.editing.edits import in_words
from nbdt.demo.editing.versions import load as load_version
from nbdt.demo.store import Store
from nbdt.demo.visitor import Visitor
from nbdt.explain import Evidence, Explanation, explain
from nbdt.explain.batch.folder import read_maps
from nbdt.explain.batch.run import explain_all
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit import Edit, EditStack
from nbdt.hierarchies.edit.history import History
from nbdt.hierarchies.formats import read
from nbdt.images.image import open_image
from nbdt.model.fingerprint import embedding_hash, model_hash
from nbdt.model.remember import open_memory
from nbdt.train.fit.checkpoints import read_checkpoint
from nbdt.train.recipe import load_recipe, parse_recipe
from tests.demo.stores import kept_photographs

FIXTURES = Path(__file__).parent / "fixtures" / "v0.1.0"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
FORMATS = FIXTURES / "hierarchies" / "formats"
NEAR = {"rel": 1e-4, "abs": 1e-4}  # one machine's sums and another's


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """timm knows the small network that some of the files name."""
    name = "nbdt_fixtures_tiny_network"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FIXTURES / "tiny_network.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


@pytest.fixture(scope="module")
def model():
    return NBDT.load(FIXTURES / "model")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A copy of all the files, as the current folder: they name each other by relative paths."""
    root = tmp_path / "files"
    shutil.copytree(FIXTURES, root, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.chdir(root)
    return root


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def stated_input(side=32):
    rows = torch.arange(2 * 3 * side * side, dtype=torch.float64)
    return torch.sin(rows * 0.37).reshape(2, 3, side, side).float()


def log_probs(model):
    with torch.inference_mode():
        return model(stated_input()).flatten().tolist()


def flat(rows):
    return [value for row in rows for value in row]


def plain(record):
    return json.loads(json.dumps(record, default=str))


def said(correction):
    return json.loads(correction.to_json())


# ---- models --------------------------------------------------------------------------------------


def test_a_model(model):
    facts = EXPECTED["model"]
    assert list(model.hierarchy.classes) == facts["classes"]
    assert (model.rule, model.architecture) == (facts["rule"], facts["architecture"])
    assert model.hierarchy.hash == facts["hierarchy_hash"]
    assert model_hash(model) == facts["model_hash"]
    assert embedding_hash(model) == facts["embedding_hash"]
    with torch.inference_mode():
        logits = model.head.linear(model.features(stated_input()))
    assert logits.flatten().tolist() == pytest.approx(flat(facts["flat_logits"]), **NEAR)
    assert log_probs(model) == pytest.approx(flat(facts["log_probs"]), **NEAR)
    paths = [[d.child_ids[d.chosen] for d in path] for path in model.paths(stated_input())]
    assert paths == facts["paths"]


def test_a_models_reference_set_settings_and_provenance(model):
    facts = EXPECTED["model"]
    found = {name: [str(v.dtype), list(v.shape)] for name, v in model.reference.items()}
    assert found == facts["reference"]
    assert model.reference["labels"].tolist() == facts["reference_labels"]
    settings = {name: getattr(model.preprocess, name) for name in facts["preprocessing"]}
    assert plain(settings) == facts["preprocessing"]
    assert sorted(model.provenance) == facts["provenance_keys"]
    # `nbdt train --corrections` reads the data as this says.
    assert parse_recipe(model.provenance["recipe"]).held_out == 1


def test_a_model_of_the_other_rule_without_a_reference_set():
    facts = EXPECTED["model_representative"]
    found = NBDT.load(FIXTURES / "model_representative")
    assert list(found.hierarchy.classes) == facts["classes"]
    assert (found.rule, found.reference) == ("representative", {})
    assert model_hash(found) == facts["model_hash"]
    assert log_probs(found) == pytest.approx(flat(facts["log_probs"]), **NEAR)


def test_a_model_that_is_saved_again_is_the_same(model, tmp_path):
    model.save(tmp_path / "again")
    again = NBDT.load(tmp_path / "again")
    assert model_hash(again) == EXPECTED["model"]["model_hash"]
    assert again.provenance["recipe"] == model.provenance["recipe"]


# ---- hierarchies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED["formats"])
def test_a_hierarchy_of_every_format(name):
    wnids = FORMATS / "wnids.txt" if name == "original.json" else None
    found, facts = read(FORMATS / name, wnids=wnids), EXPECTED["formats"][name]
    assert list(found.classes) == facts["classes"]
    assert list(found.names) == facts["names"]
    assert found.hash == facts["hash"]


def test_a_hierarchys_own_format():
    found = Hierarchy.load(FIXTURES / "hierarchies" / "scene.json")
    assert found.hash == EXPECTED["model"]["hierarchy_hash"]
    assert Hierarchy.from_json(found.to_json()) == found


def test_records_of_every_edit():
    facts = EXPECTED["edits"]
    lines = (FIXTURES / "hierarchies" / "edits.jsonl").read_text(encoding="utf-8").splitlines()
    records = [Edit.from_dict(json.loads(line)) for line in lines]
    assert [json.dumps(record.to_dict(), ensure_ascii=False) for record in records] == lines
    assert [record.kind for record in records] == facts["kinds"]
    assert [record.summary for record in records] == facts["summaries"]
    stack = EditStack(Hierarchy.load(FIXTURES / "hierarchies" / "edits_begin.json"))
    for record in records:
        stack = stack.push(edit.apply(stack.hierarchy, record))
    end = Hierarchy.load(FIXTURES / "hierarchies" / "edits_end.json")
    assert stack.hierarchy == end
    assert stack.edits == tuple(records)
    hashes = [stack.hierarchy.hash]
    while stack.past:
        stack = stack.undo()
        hashes.append(stack.hierarchy.hash)
    assert hashes[::-1] == facts["hashes"]


def test_a_history_and_its_next_version(here):
    history, facts = History("hierarchies/history"), EXPECTED["history"]
    versions = history.versions()
    assert len(versions) == len(facts) == 5
    for version, fact in zip(versions, facts, strict=True):
        assert (version.number, version.parent, version.why) == (
            fact["number"], fact["parent"], fact["why"],
        )  # fmt: skip
        assert version.who == (fact["who"] or version.who)
        assert (version.hash, version.classes) == (fact["hash"], fact["classes"])
        assert [record.to_dict() for record in version.edits] == fact["edits"]
        tree = history.load(version.number)
        assert (list(tree.names), tree.hash) == (fact["names"], fact["hash"])
        assert Hierarchy.load(here / f"hierarchies/history/{version.number:06d}.json") == tree
        if version.edits:
            before = history.load(version.parent)
            for record in version.edits:
                before, _ = edit.apply(before, record)
            assert before == tree
    assert history.load(3).hash == facts[1]["edits"][-1]["before"]  # the undo that was saved
    run("hierarchy", "edit", "hierarchies/history", "rename", "thing", "object",
        "--history", "hierarchies/history")  # fmt: skip
    assert history.latest().number == 7  # 6 was claimed by a saver that was killed
    assert history.latest().parent == 5


# ---- explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED["explanations"])
def test_a_saved_explanation(name, tmp_path):
    found, facts = (
        Explanation.load(FIXTURES / "explanations" / name),
        EXPECTED["explanations"][name],
    )
    assert found.path.class_name == facts["class"]
    nodes = [[d.node_id, d.node, list(d.child_ids), d.chosen] for d in found.path]
    assert nodes == facts["nodes"]
    probs = flat(d.log_probs for d in found.path)
    assert probs == pytest.approx(flat(facts["log_probs"]), abs=1e-5)
    sums = [float(values.astype(np.float64).sum()) for values in found.maps]
    assert sums == pytest.approx(facts["map_sums"], abs=1e-5)
    assert [list(values.shape) for values in found.maps] == facts["map_shapes"]
    assert [list(values.shape) for values in found.child_maps] == facts["child_map_shapes"]
    assert found.constants == pytest.approx(facts["constants"], abs=1e-4)
    assert list(found.node_maps) == facts["node_maps"]
    assert (list(found.photo.size) if found.photo else None) == facts["photo"]
    assert plain(dict(found.made)) == facts["made"]
    assert found.words  # written again today, perhaps in other words
    _check_evidence(found, facts)
    _check_counterfactuals(found, facts)
    found.save(tmp_path / "again")
    again = Explanation.load(tmp_path / "again")
    assert again.path == found.path
    assert all(map(np.array_equal, again.maps, found.maps))


def _check_evidence(found, facts):
    assert len(found.evidence) == len(facts["evidence"])
    for one, fact in zip(found.evidence, facts["evidence"], strict=True):
        for side in ("chosen", "rejected"):
            neighbours = getattr(one, side)
            shown = [[n.reference, n.label, n.row, list(n.open().size)] for n in neighbours]
            assert shown == [[f[0], f[1], f[3], f[4]] for f in fact[side]]
            similarities = [n.similarity for n in neighbours]
            assert similarities == pytest.approx([f[2] for f in fact[side]], abs=1e-5)


def _check_counterfactuals(found, facts):
    shown = [
        [c.decision, c.flipped, c.becomes, round(c.share, 6), len(c.regions),
         list(c.picture.size) if c.picture else None]
        for c in found.counterfactuals
    ]  # fmt: skip
    assert shown == facts["counterfactuals"]


def test_a_saved_explanation_with_maps_of_an_inner_node():
    found = Explanation.load(FIXTURES / "explanations" / "inner_node")
    assert list(found.node_maps) == ["scene/object/", "cup"]
    assert [values.ndim for values in found.node_child_maps.values()] == [3]


# ---- batches -------------------------------------------------------------------------------------


def rows_of(folder):
    parts = sorted((Path(folder) / "rows").iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def check_rows(rows, facts):
    """Numbers nearly, everything else exactly; the photographs' dates are this copy's."""
    assert len(rows) == len(facts)
    for row, fact in zip(rows, facts, strict=True):
        found = plain({key: value for key, value in row.items() if key != "modified_ns"})
        assert set(fact) <= set(found)
        check_nearly({key: found[key] for key in fact}, fact)


def check_nearly(found, fact):
    if isinstance(fact, dict):
        assert fact.keys() <= found.keys()
        for key in fact:
            check_nearly(found[key], fact[key])
    elif isinstance(fact, list):
        assert len(found) == len(fact)
        for one, other in zip(found, fact, strict=True):
            check_nearly(one, other)
    elif isinstance(fact, float):
        assert found == pytest.approx(fact, **NEAR)
    else:
        assert found == fact


def test_a_finished_batch_is_read_and_not_done_again(here):
    facts = EXPECTED["batch"]
    check_rows(rows_of("batch"), facts["rows"])
    for row in rows_of("batch"):
        assert read_maps("batch", row["row"]).shape[0] == 2
    before = {path: path.read_bytes() for path in (here / "batch").rglob("*.*")}
    done = run("explain", "photos/test/cat", "photos/test/cup", "--model", "model", "--out", "batch",
               "--precision", "float32", "--workers", "0")  # fmt: skip
    assert "4 of 4 images explained, 4 of them before" in done.output
    after = {path: path.read_bytes() for path in (here / "batch").rglob("*.*")}
    assert after == before


def test_a_stopped_batch_goes_on(here):
    facts, folder = EXPECTED["batch_stopped"], here / "batch_stopped"
    there = sorted(path.name for path in (folder / "rows").iterdir())
    assert there == facts["parts_there"]
    assert not (folder / "manifest.json").exists()
    found = NBDT.load("model")
    done = explain_all(found, ["photos/test"], "batch_stopped", **facts["options"])
    assert (done.images, done.repeated, done.failed, done.missing_parts) == (8, 0, 0, 0)
    assert len({tuple(row) for row in rows_of(folder)}) == 1  # all with today's columns
    kept = [
        {key: value for key, value in fact.items() if not key.startswith("soft_")}
        for fact in facts["rows"]
    ]  # on these images greedy descent leads to the most probable class
    check_rows(rows_of(folder), kept)
    for row, sums in enumerate(facts["map_sums"]):
        found = [float(values.astype(np.float64).sum()) for values in read_maps(folder, row)]
        assert found == pytest.approx(sums, rel=1e-3, abs=1e-3)
    assert json.loads((folder / "manifest.json").read_text())["counts"]["explained"] == 8


# ---- evidence ------------------------------------------------------------------------------------


@pytest.fixture
def converted(here):
    """What `nbdt memory convert` makes of an index."""

    def convert(name, model):
        run("memory", "convert", name, "--model", model, "--out", f"of_{name}", "--data", "photos")
        return open_memory(NBDT.load(model), f"of_{name}")

    return convert


@pytest.mark.parametrize(
    ("name", "model"), [("evidence", "model"), ("evidence_patches", "model_representative")]
)
def test_an_evidence_index_becomes_a_memory(name, model, here, converted):
    memory, facts = converted(name, model), EXPECTED["evidence"][name]
    rows = memory.rows
    wanted = {str(here / "photos" / r): label for r, label in
              zip(facts["references"], facts["labels"], strict=True)}  # fmt: skip
    assert dict(zip(rows.references, rows.labels, strict=True)) == wanted
    excluded = [facts["references"][n] for n in facts["excluded"]]
    struck = np.flatnonzero(~rows.active)
    assert [rows.references[n] for n in struck] == [str(here / "photos" / r) for r in excluded]
    assert [rows.why[n] for n in struck] == [m[2] for m in facts["marks"] if m[0] in excluded]
    assert Evidence(memory).for_model(NBDT.load(model)).neighbour(0, 1.0).open().size == (32, 32)
    with pytest.raises(NBDTError, match="evidence index.*nbdt memory build"):
        memory.examples(NBDT.load(model).head.rules)
    run("memory", "take-back", model, rows.ids[0], "--memory", f"of_{name}")


def test_evidence_of_the_model_is_what_it_was(here, model, converted):
    memory = converted("evidence", "model")
    image = Image.open("photos/test/cat/4.png").convert("RGB")
    found = explain(model, model.preprocess(image)[None], evidence=memory)[0]
    for one, fact in zip(
        found.evidence, EXPECTED["explanations"]["evidence"]["evidence"], strict=True
    ):
        for side in ("chosen", "rejected"):
            near = {f"train/{n.reference}": n.similarity for n in getattr(one, side)}
            assert near == pytest.approx({f[0]: f[2] for f in fact[side]}, abs=1e-3)


def test_pictures_of_an_index_serve_without_the_photographs(here, converted):
    shutil.rmtree("photos/train")
    tiny, memory = (
        NBDT.load("model_representative"),
        converted("evidence_patches", "model_representative"),
    )
    found = explain(tiny, open_image("photos/test/sky/4.png"), evidence=memory)[0]
    assert found.evidence[0].chosen[0].open().size == (32, 32)
    run("memory", "show", "model_representative", "photos/test/sky/4.png", "--memory",
        "of_evidence_patches", "--out", "shown")  # fmt: skip
    assert len(list((here / "shown").glob("*.regions.png"))) == 1


# ---- the page's store ----------------------------------------------------------------------------


@pytest.fixture
def store(here):
    """A copy whose learnt model is where it is now: the table holds an absolute path."""
    with closing(sqlite3.connect(here / "store" / "corrections.sqlite")) as database:
        (kept,) = database.execute("SELECT folder FROM model_version").fetchone()
        assert Path(kept).parts[-2:] == ("learned", "model")
        place = str(here / "learned" / "model")
        database.execute("UPDATE model_version SET folder = ?", (place,))
        database.commit()
    with closing(Store.open(str(here / "store" / "corrections.sqlite"))) as opened:
        yield opened


def test_a_stores_corrections_and_photographs(store):
    facts = EXPECTED["store"]
    found = [
        {"id": s.id, "visitor": s.visitor, "photograph": s.photograph,
         "learned_by": list(s.learned_by), **said(s.correction)}
        for s in store.corrections()
    ]  # fmt: skip
    assert found == facts["corrections"]
    photos = [
        {**p._mapping, "pixels": picture_hash(store.photograph(p.id))}
        for p in kept_photographs(store)
    ]
    assert photos == facts["photographs"]


def test_a_visitor_is_known_by_the_same_token():
    assert visitor_id("a" * 43, None) == EXPECTED["store"]["visitors"]["ann"]
    assert visitor_id("b" * 43, None) == EXPECTED["store"]["visitors"]["bob"]


def test_a_stores_hierarchies_are_loaded_on_the_page(store):
    facts = EXPECTED["store"]
    found = NBDT.load("model_representative")
    history = store.history(model_hash(found))
    saved = history.versions()
    for version, fact in zip(saved, facts["hierarchies"], strict=True):
        assert version.number == fact["id"]
        assert (version.who, version.hash) == (fact["visitor"], fact["hash"])
        assert version.why == f"{fact['name']}, version {fact['version']}"
        assert list(history.load(version.number).names) == fact["names"]
        for record, edited in zip(version.edits, fact["edits"], strict=True):
            assert (record.kind, record.before, record.after) == (
                edited["kind"],
                edited["before"],
                edited["after"],
            )
    visitor = Visitor(found)
    load_version(store, visitor, {"version": saved[1].number})
    assert visitor.hierarchy.hash == facts["together"]["after"]
    assert visitor.current_model().hierarchy == history.load(saved[1].number)


def test_a_grouping_that_was_saved_as_two_records_is_one_edit(store):
    """A move whose summary ends in ", to group them there" is half of the next record."""
    facts = EXPECTED["store"]["together"]
    model = NBDT.load("model_representative")
    stack = EditStack(model.hierarchy)
    for record in store.history(model_hash(model)).version(2).edits:
        changed, _ = edit.apply(stack.hierarchy, record)
        stack = stack.push((changed, record))
    assert stack.hierarchy.hash == facts["after"]
    assert [record.kind for record in stack.edits] == facts["kinds"]
    assert len(stack.last_edits) == 2
    assert in_words(stack.last_edits) == facts["in_words"]
    before = stack.undo()
    assert before.hierarchy.hash == facts["undone"]
    assert before.redo().hierarchy.hash == facts["after"]


def test_a_stores_marks_count(store, converted):
    facts = EXPECTED["store"]
    assert [dict(mark._mapping) for mark in store.marks()] == facts["marks"]
    memory = converted("evidence_patches", "model_representative")
    assert memory_key(memory.table.facts) == facts["evidence_hash"]
    evidence, row = Evidence(memory), memory.rows.ids[memory.rows.place("rocket/0.png")]
    ann, bob = facts["visitors"]["ann"], facts["visitors"]["bob"]
    assert view_without_bad(evidence, store, ann).without == {row}
    assert view_without_bad(evidence, store, bob) is evidence


def test_a_stores_learnt_model_is_offered(store):
    facts = EXPECTED["store"]
    (version,) = store.model_versions()
    assert {**asdict(version), "folder": None} == facts["models"][0]
    found = NBDT.load("model_representative")
    versions = ModelVersions(found, store)
    assert [one.id for one in versions.offered()] == [1]
    learned = versions.load(1)
    assert log_probs(learned) == pytest.approx(flat(EXPECTED["learned"]["log_probs"]), **NEAR)
    waits = pending(version.hash, store.model_versions())
    assert [one.id for one in store.corrections(pending=waits)] == [5]


def test_a_run_that_learnt_corrections(here):
    facts = EXPECTED["learned"]
    found = NBDT.load("learned/model")
    assert plain(found.provenance["corrected"]) == facts["corrected"]
    applied = read_corrections("learned/applied.jsonl")
    assert list(map(said, applied)) == facts["applied"]


def test_an_old_store_takes_more(store):
    facts = EXPECTED["store"]
    kept = store.corrections()[0]
    number = store.add_correction(kept.correction, visitor=facts["visitors"]["bob"])
    assert number == 6
    found = NBDT.load("model_representative")
    history = store.history(model_hash(found))
    saved = history.save(history.load(1), who=facts["visitors"]["bob"], why="mine")
    assert (saved.number, saved.why) == (3, "mine, version 3")
    store.delete_corrections([2, 3, 5])
    assert [photo.id for photo in kept_photographs(store)] == [1]


def test_the_commands_read_an_old_store(store, here):
    place = ("--store", here / "store" / "corrections.sqlite")
    listed = run("corrections", "list", "--json", *place).stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == [1, 2, 3, 4, 5]
    run("corrections", "export", "--out", "again/corrections.jsonl", *place)
    assert list(map(said, read_corrections("again/corrections.jsonl"))) == EXPECTED["corrections"]


# ---- corrections ---------------------------------------------------------------------------------


def test_exported_corrections_and_their_photographs():
    place = FIXTURES / "corrections" / "corrections.jsonl"
    found = read_corrections(place)
    assert list(map(said, found)) == EXPECTED["corrections"]
    assert [one.to_json() for one in found] == place.read_text(encoding="utf-8").splitlines()
    for one in found:
        if one.reference:
            assert picture_hash(open_image(place.parent / one.reference)) == one.image
    assert sum(bool(one.reference) for one in found) == 5


def test_an_old_model_learns_from_old_corrections(here):
    run("train", "--corrections", "corrections/corrections.jsonl", "--model", "model",
        "--data", "photos", "--out", "taught")  # fmt: skip
    taught = NBDT.load("taught/model")
    assert taught.provenance["corrected"]["model"] == EXPECTED["model"]["model_hash"]
    assert taught.provenance["corrected"]["applied"] >= 1


# ---- training ------------------------------------------------------------------------------------


def test_recipes():
    assert load_recipe(FIXTURES / "recipe.toml").architecture == "test_efficientnet,size=32"
    assert load_recipe(FIXTURES / "training" / "recipe.toml").ema_decay == 0.9


def test_a_checkpoint():
    facts, root = EXPECTED["training"], FIXTURES / "training" / "run"
    found = read_checkpoint(root / "checkpoints" / "last.ckpt")
    assert set(facts["checkpoint_keys"]) <= set(found)
    assert sorted(found["nbdt"]) == facts["nbdt_keys"]
    assert (found["epoch"], found["global_step"]) == (facts["epoch"], facts["global_step"])
    assert sorted(found["state_dict"]) == facts["state_dict_keys"]
    # Lightning finds a callback's state by the name of its class.
    assert sorted(found["callbacks"]) == facts["callbacks"] == ["KeepBest"]


def _number(text):
    return float(text or -1)


def test_a_stopped_run_goes_on_to_the_weights_of_one_that_was_not(here):
    facts = EXPECTED["training"]
    done = run("train", "training/recipe.toml", "--data", "photos", "--out", "training/run",
               "--resume")  # fmt: skip
    assert "Continuing from" in done.output
    found = NBDT.load("training/run/model")
    assert found.hierarchy.hash == facts["hierarchy"]
    assert list(found.hierarchy.names) == facts["names"]
    assert log_probs(found) == pytest.approx(flat(facts["log_probs"]), abs=2e-3)
    rows = (here / "training" / "run" / "epochs.csv").read_text().splitlines()
    found_rows = [row.split(",")[:-1] for row in rows]  # without the minutes
    assert found_rows[:1] == facts["epochs"][:1]
    for row, fact in zip(found_rows[1:], facts["epochs"][1:], strict=True):
        # the losses follow from optimiser, moving average, place in the data and random state
        assert list(map(_number, row)) == pytest.approx(list(map(_number, fact)), abs=2e-3)
    again = run("train", "training/recipe.toml", "--data", "photos", "--out", "training/run",
                "--resume")  # fmt: skip
    assert "is finished already" in again.output
    assert math.isfinite(found.provenance["accuracy"]["test"]["soft"])
