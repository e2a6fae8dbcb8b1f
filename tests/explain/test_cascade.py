"""Explanations of a cascade: each image by the model that answers it, in files and pages too."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nbdt.explain import Explanation, explain
from nbdt.explain.batch.cluster import _loaded, _saved
from nbdt.explain.batch.folder import read_maps
from nbdt.explain.batch.rows import json_line
from nbdt.explain.batch.run import explain_all
from nbdt.explain.command import app
from nbdt.hierarchies import edit
from nbdt.model.cascade import LARGE, SMALL, members
from nbdt.model.fingerprint import model_hash
from nbdt.model.remember import make_memory
from tests.cascades import batch, cascade, large, photographs


def alone(model, images, found):
    """What each member says alone of its images, in the order of the images."""
    both = members(model)
    rows = []
    for index, one in enumerate(found):
        own = both[one.made["answered_by"]["model"]]
        given = images[index : index + 1]
        rows.append((own, own.preprocess.reduce(given) if own is both[SMALL] else given))
    return rows


@pytest.mark.parametrize("level", ["fast", "default"])
def test_each_image_is_explained_by_the_model_that_answers_it(level):
    model, images = cascade(), batch()
    found = explain(model, images, level=level)
    with torch.inference_mode():
        paths = model.paths(images)
    assert [one.path.class_name for one in found] == [path.class_name for path in paths]
    assert {one.made["answered_by"]["model"] for one in found} == {SMALL, LARGE}
    for one, (own, given) in zip(found, alone(model, images, found), strict=True):
        (expected,) = explain(own, given, level=level, evidence=False)
        assert one.path.class_name == expected.path.class_name
        assert one.maps[0].shape == expected.maps[0].shape
        np.testing.assert_allclose(one.maps[0], expected.maps[0], atol=1e-4)
        assert one.made["answer"] == pytest.approx(expected.made["answer"], abs=1e-4)
        assert [bool(t) for t in one.tested] == [bool(t) for t in expected.tested]
        assert one.made["model"] == model_hash(model)


def test_an_ordinary_model_says_nothing_of_it():
    (found,) = explain(large(), batch(1), level="fast")
    assert found.answered_by == ""
    assert "answered_by" not in found.made


@pytest.mark.parametrize("method", ["integrated gradients", "occlusion"])
def test_other_methods_and_counterfactuals(method):
    found = explain(cascade(), batch(), level="fast", method=method)
    assert all(len(one.maps) == len(one.path) for one in found)
    (flipped,) = explain(cascade(0.0), batch(1), level="fast", counterfactuals=True)
    assert len(flipped.counterfactuals) == len(flipped.path)


def test_evidence_is_of_the_large_network(tmp_path):
    model, photos = cascade(), photographs()
    memory = make_memory(model, tmp_path / "memory")
    names = model.hierarchy.classes
    for index, photo in enumerate(photos):
        memory.add([photo], names[index % len(names)], pictures=True)
    for level in ("fast", "default"):
        found = explain(model, photos, evidence=memory, level=level)
        others = explain(large(), photos, evidence=memory, level="fast")
        assert {one.made["answered_by"]["model"] for one in found} == {SMALL, LARGE}
        for one, other in zip(found, others, strict=True):
            same = one.path.class_name == other.path.class_name
            near = [n.similarity for side in one.evidence for n in (*side.chosen, *side.rejected)]
            assert near
            if same:
                expected = [n.similarity for s in other.evidence for n in (*s.chosen, *s.rejected)]
                assert near == pytest.approx(expected, abs=1e-4)
    assert any(one.alike for one in found if one.made["answered_by"]["model"] == SMALL)


def test_saved_explanations_and_pages_say_who_answered(tmp_path):
    model, photos = cascade(), photographs()
    for index, one in enumerate(explain(model, photos, level="fast")):
        by = one.made["answered_by"]
        assert by["pixels"] == (24 if by["model"] == SMALL else 32)
        assert f"The {by['model']} model answered" in one.answered_by
        one.save(tmp_path / str(index))
        assert one.answered_by in (tmp_path / str(index) / "index.html").read_text()
        assert Explanation.load(tmp_path / str(index)).answered_by == one.answered_by


def _written(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, photo in enumerate(photographs()):
        photo.save(folder / f"{index:02}.png")
    return folder


def test_batches_say_who_answered_and_keep_all_maps(tmp_path):
    model, folder, rows = cascade(), _written(tmp_path), []
    options = {"part_size": 5, "precision": "float32"}
    done = explain_all(model, [str(folder)], tmp_path / "out", on_rows=rows.extend, **options)
    assert (done.images, done.failed) == (12, 0)
    found = explain(model, photographs(), level="fast")
    for index, (row, one) in enumerate(zip(rows, found, strict=True)):
        by = one.made["answered_by"]
        assert json.loads(json_line(row))["answered_by"] == by["model"]
        assert row["answered_by_network"] == by["network"]
        assert row["class"] == one.path.class_name
        maps = read_maps(tmp_path / "out", index)
        sums = [values.sum() for values in one.maps]
        assert maps.sum(axis=(1, 2)) == pytest.approx(sums, rel=1e-2, abs=1e-2)
    again = explain_all(model, [str(folder)], tmp_path / "out", **options)
    assert again.repeated == 12


def test_a_batch_that_was_stopped_goes_on(tmp_path):
    model, folder = cascade(), _written(tmp_path)
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = {"part_size": 5, "precision": "float32"}
    explain_all(model, [str(folder)], whole, **options)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_all(model, [str(folder)], part, on_rows=stop, **options)
    explain_all(model, [str(folder)], part, **options)
    for file in (whole / "rows").iterdir():
        assert (part / "rows" / file.name).read_bytes() == file.read_bytes()


def test_the_precision_is_that_of_both_models(tmp_path):
    model, folder = cascade(), _written(tmp_path)
    done = explain_all(model, [str(folder)], tmp_path / "out", precision="bfloat16")
    assert done.failed == 0
    assert "feature_map" not in vars(model)
    assert "feature_map" not in vars(model.cascade.small)


def test_the_command_explains_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = _written(tmp_path)
    cascade().save(tmp_path / "m")
    given = ["--model", "m", "--level", "fast", "--json"]
    files = sorted(map(str, folder.iterdir()))[:4]
    done = CliRunner().invoke(app, [*files, *given])
    assert done.exit_code == 0, done.output
    said = [json.loads(line)["answered_by"]["model"] for line in done.stdout.splitlines()]
    assert set(said) <= {SMALL, LARGE}
    done = CliRunner().invoke(app, [str(folder), "--model", "m", "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["answered_by"] for row in rows[:4]] == said
    assert {row["answered_by"] for row in rows} == {SMALL, LARGE}


def test_an_edited_tree_is_explained_by_the_same_model():
    model = cascade()
    again = model.with_hierarchy(edit.rename(model.hierarchy, model.hierarchy.ids[1], "renamed")[0])
    found, expected = (explain(one, batch(), level="fast") for one in (again, model))
    assert [one.path.class_index for one in found] == [one.path.class_index for one in expected]
    assert [one.answered_by for one in found] == [one.answered_by for one in expected]


def test_workers_of_a_cluster_get_both_models():
    model = cascade()
    again = _loaded(_saved(model), model_hash(model))
    assert again.cascade.gate == model.cascade.gate
