"""Batches: any number of images in, rows and maps out."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, NBDTError
from nbdt.explain import explain
from nbdt.explain.batch.compute import computing, resolve_precision
from nbdt.explain.batch.folder import read_maps
from nbdt.explain.batch.rows import json_line, maps_of, packed_maps
from tests import oracle

from .batches import draw, rows_of, run


def test_every_image_has_one_row_and_its_maps_are_those_of_explain(small, photos, tmp_path):
    done = run(small, [photos], tmp_path / "out")
    assert (done.images, done.failed, done.repeated, done.missing_parts) == (10, 2, 0, 0)
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(10))
    assert [row["path"] for row in rows] == [
        os.fspath(photos / ("a" if i < 6 else "b") / f"{i}.png") for i in range(10)
    ]
    for index, row in enumerate(rows):
        file = Path(row["path"])
        if index in {2, 9}:
            assert row["status"] == "failed"
            assert repr(os.fspath(file)) in row["error"]
            assert row["class"] is row["decisions"] is None
            continue
        assert row["sha256"] == oracle.sha256(file)
        assert row["bytes"] == file.stat().st_size
        (alone,) = explain(small, file, level="fast")
        wanted = oracle.batch_row(alone.path)
        assert row["status"] == "ok"
        assert row["error"] is None
        assert row["class"] == wanted["class"]
        assert row["probability"] == pytest.approx(wanted["probability"], rel=1e-4)
        hard, answer = alone.made["hard_answer"], alone.answer
        assert (row["answer"], row["answer_id"]) == (answer.name, answer.node)
        assert (row["answer_depth"], row["is_class"]) == (answer.depth, answer.is_leaf)
        assert row["answer_probability"] == pytest.approx(answer.probability, rel=1e-4)
        assert row["unknown"] is answer.unknown
        assert row["hard_class"] == hard["class"]
        assert row["hard_probability"] == pytest.approx(hard["probability"], rel=1e-4)
        for got, expected in zip(row["decisions"], wanted["decisions"], strict=True):
            numbers = {name for name, value in expected.items() if isinstance(value, float)}
            assert {n: got[n] for n in numbers} == pytest.approx(
                {n: expected[n] for n in numbers}, rel=1e-3, abs=1e-4
            )
            assert all(got[name] == expected[name] for name in expected.keys() - numbers)
        maps = read_maps(tmp_path / "out", index)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, np.stack(alone.maps), rtol=2e-3, atol=1e-3)


def test_the_manifest_says_what_was_done(small, photos, tmp_path):
    run(small, [photos], tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == {"images": 10, "explained": 8, "failed": 2}
    assert manifest["hierarchy"] == small.hierarchy.hash
    assert manifest["parts"] == 3
    assert manifest["made"][0]["precision"] == "float32"
    assert manifest["made"][0]["versions"]["torch"] == torch.__version__
    left = [file for file in (tmp_path / "out").rglob(".*") if file.is_file()]
    assert not left


def test_maps_are_halved_unless_that_would_overflow(tmp_path):
    small_maps = [np.full((2, 3), value, np.float32) for value in (1.5, -2.25)]
    large = [np.full((2, 3), 1e6, np.float32)]
    for name, rows, dtype in (
        ("small", [(4, small_maps), (7, small_maps[:1])], np.float16),
        ("large", [(4, small_maps), (9, large)], np.float32),
        ("none", [], np.float16),
    ):
        (tmp_path / name).write_bytes(packed_maps(rows))
        with np.load(tmp_path / name) as stored:
            assert stored["maps"].dtype == dtype
        for row, maps in rows:
            np.testing.assert_array_equal(maps_of(tmp_path / name, row), np.stack(maps))
        with pytest.raises(KeyError):
            maps_of(tmp_path / name, 5)


def test_without_maps_the_rows_are_the_same(small, photos, tmp_path):
    run(small, [photos], tmp_path / "with")
    run(small, [photos], tmp_path / "without", maps="none")
    assert not (tmp_path / "without" / "maps").exists()
    for one, other in zip(rows_of(tmp_path / "with"), rows_of(tmp_path / "without"), strict=True):
        assert one["class"] == other["class"]
        if one["status"] == "ok":
            assert one["probability"] == pytest.approx(other["probability"], rel=1e-5)
    with pytest.raises(NBDTError, match="has no maps of row 0"):
        read_maps(tmp_path / "without", 0)
    maps = tmp_path / "with" / "maps" / "part-000000.npz"
    maps.write_bytes(b"PK" + maps.read_bytes()[2:600])
    with pytest.raises(NBDTError, match="has no maps of row 0"):
        read_maps(tmp_path / "with", 0)


def test_pictures_and_pages_are_drawn_when_asked_for(small, photos, tmp_path):
    run(small, [photos / "a"], tmp_path / "out", maps="png", pages=True)
    pictures = sorted(file.name for file in (tmp_path / "out" / "pictures").rglob("*.png"))
    assert pictures == [f"{i:09d}-{i}.png" for i in (0, 1, 3, 4, 5)]
    pages = list((tmp_path / "out" / "pages").rglob("index.html"))
    assert len(pages) == 5
    assert linked(tmp_path / "out") == set(pages)


def linked(batch):
    """The pages that a batch's overview leads to."""
    links = re.findall(r'href="([^"]*)"', (batch / "index.html").read_text())
    return {batch / link for link in links}


def test_the_overview_shows_the_least_sure_first_and_what_failed(small, tmp_path, monkeypatch):
    hostile = tmp_path / "<img onerror=alert(1)>"
    hostile.mkdir()
    for number in range(6):
        Image.effect_noise((40, 40), 20 + 30 * number).save(hostile / f"p{number}é.png")
    (hostile / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr("nbdt.explain.batch.overview.MOST", 4)
    run(small, [hostile], tmp_path / "out", pages=True, part_size=3)
    text = (tmp_path / "out" / "index.html").read_text()
    assert "The 4 least sure of 6 images" in text
    assert "1 image not explained" in text
    sure = sorted(
        (row["probability"], row["row"]) for row in rows_of(tmp_path / "out") if row["class"]
    )
    shown = [int(found) for found in re.findall(r"part-0+\d/(\d{9})-[^/]*/index", text)]
    assert shown == [row for _, row in sure[:4]]
    assert all(page.is_file() for page in linked(tmp_path / "out"))
    assert "<img onerror" not in re.sub(r'title="[^"]*"', "", text)  # text in an attribute
    Image.new("RGB", (40, 40)).save(hostile / "broken.png")
    before = (tmp_path / "out" / "index.html").stat().st_mtime_ns
    monkeypatch.setattr("nbdt.explain.batch.overview.MOST", 40)
    run(small, [hostile], tmp_path / "out", pages=True, part_size=3)
    assert "7 images; each leads" in (tmp_path / "out" / "index.html").read_text()
    again = (tmp_path / "out" / "index.html").stat().st_mtime_ns
    assert again > before
    run(small, [hostile], tmp_path / "out", pages=True, part_size=3)
    assert (tmp_path / "out" / "index.html").stat().st_mtime_ns == again


def test_an_image_that_spoils_a_pass_costs_only_itself(small, photos, tmp_path, monkeypatch):
    whole = small.head.rules.paths

    def paths(logits, classes=None):
        if len(logits) > 1:
            raise NBDTError("The logits of image 1 in the batch are not finite.")
        return whole(logits, classes)

    monkeypatch.setattr(small.head.rules, "paths", paths)
    assert run(small, [photos], tmp_path / "out").failed == 2

    def never(logits, classes=None):
        raise NBDTError("The logits are not finite.")

    monkeypatch.setattr("nbdt.explain.batch.compute._try_once", lambda *_: None)
    monkeypatch.setattr(small.head.rules, "paths", never)
    assert run(small, [photos], tmp_path / "all").failed == 10


def test_a_full_memory_ends_the_batch_and_says_what_to_do(small, photos, tmp_path, monkeypatch):
    def full(logits, classes=None):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(small.head.rules, "paths", full)
    monkeypatch.setattr("nbdt.explain.batch.compute._try_once", lambda *_: None)
    with pytest.raises(
        NBDTError, match=r"memory of cpu is full with . images in one pass; take fewer"
    ):
        run(small, [photos], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "pngs"}, "Did you mean 'png'"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"shard": (3, 2)}, "shard i of n"),
        ({"precision": "half"}, "auto, float32, bfloat16"),
        ({"counterfactuals": True}, "add --pages"),
        ({"method": "gradcam"}, "Did you mean 'grad-cam'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_written(
    options, message, small, photos, tmp_path
):
    with pytest.raises(NBDTError, match=message):
        run(small, [photos], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_model_in_training_mode_is_refused(photos, tmp_path):
    model = NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").train()
    with pytest.raises(NBDTError, match=r"model\.eval\(\)"):
        run(model, [photos], tmp_path / "out")


def test_bfloat16_is_the_backbones_alone_and_is_taken_back(small, photos, tmp_path):
    run(small, [photos], tmp_path / "out", precision="bfloat16")
    assert (
        json.loads((tmp_path / "out" / "manifest.json").read_text())["made"][0]["precision"]
        == "bfloat16"
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        exact = small.feature_map(images)
        with computing(small, "bfloat16"):
            half = small.feature_map(images)
        assert torch.equal(small.feature_map(images), exact)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0.1)
    assert resolve_precision("auto", torch.device("meta")) == "float32"


def test_memory_does_not_grow_with_the_number_of_images(photos, tmp_path):
    """The listing and the parts of 40,000 images against 4,000; see benchmarks/batch_memory.py."""
    script = Path(__file__).parents[3] / "benchmarks" / "batch_memory.py"
    done = subprocess.run(
        [sys.executable, str(script), "4000", "40000"],
        capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    few, many = (json.loads(line)["grown_mb"] for line in done.stdout.splitlines())
    assert many < few + 25, (few, many)


def test_json_lines_have_the_same_keys_for_good_and_bad(small, photos, tmp_path):
    lines = []
    run(small, [photos], tmp_path / "out", on_rows=lambda rows: lines.extend(map(json_line, rows)))
    records = [json.loads(line) for line in lines]
    assert len(records) == 10
    assert len({tuple(record) for record in records}) == 1
    assert records == rows_of(tmp_path / "out")


def test_progress_counts_every_image_once_also_after_a_stop(small, photos, tmp_path):
    class Stop(BaseException):
        pass

    seen = []

    def stop(count):
        seen.append(count)
        if sum(seen) > 5:
            raise Stop

    with pytest.raises(Stop):
        run(small, [photos], tmp_path / "out", on_images=stop)
    again = []
    run(small, [photos], tmp_path / "out", on_images=again.append)
    assert sum(again) == 10


def test_names_that_are_no_text_are_written_in_escapes(small, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        draw(folder / "x.png")
        shutil.move(folder / "x.png", folder / name)
    except OSError:
        pytest.skip("this file system takes only text")
    run(small, [folder], tmp_path / "out")
    assert rows_of(tmp_path / "out")[0]["path"].endswith("caf\\xe9.png")
    assert run(small, [folder], tmp_path / "out").repeated == 1


def test_random_parts_and_batches_give_the_same_rows(small, photos, tmp_path):
    run(small, [photos], tmp_path / "one", part_size=100, batch_size=1)
    wanted = rows_of(tmp_path / "one")
    rng = random.Random(0)
    for turn in range(4):
        sizes = {"part_size": rng.randint(1, 12), "batch_size": rng.randint(1, 12)}
        run(small, [photos], tmp_path / str(turn), workers=turn % 3, **sizes)
        found = rows_of(tmp_path / str(turn))
        assert [row["sha256"] for row in found] == [row["sha256"] for row in wanted], sizes
        assert [row["class"] for row in found] == [row["class"] for row in wanted], sizes
