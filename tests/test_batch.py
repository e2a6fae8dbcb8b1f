"""Batches: any number of images in, rows and maps out, killed and continued, on several machines."""

import csv
import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image

from nbdt import NBDT, NBDTError
from nbdt.explain import explain
from nbdt.explain.batch import explain_all
from nbdt.explain.batch.device import computing, resolve_precision
from nbdt.explain.batch.folder import read_maps
from nbdt.explain.batch.inputs import count_inputs, is_collection, iter_inputs
from nbdt.explain.batch.places import Disk
from nbdt.explain.batch.rows import json_line, maps_of, packed_maps
from nbdt.explain.command import _share

from . import oracle


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval()


def tiny(model):
    """The model with a small input: what is tested here is not the network."""
    from dataclasses import replace

    model.preprocess = replace(model.preprocess, size=64, crop_pct=1.0)
    return model


@pytest.fixture(scope="module")
def small(model):
    return tiny(model)


def draw(file, seed=0):
    """A different picture for every seed."""
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize((40, 30), Image.Resampling.BICUBIC).save(file)


@pytest.fixture
def photos(tmp_path):
    """Ten pictures in two folders, the third and the last broken."""
    root = tmp_path / "photos"
    for index in range(10):
        folder = root / ("a" if index < 6 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / f"{index}.png", index)
    (root / "a" / "2.png").write_bytes(b"no image")
    (root / "b" / "9.png").write_bytes(b"")
    return root


def rows_of(out):
    return pq.read_table(Path(out) / "rows").sort_by("row").to_pylist()


def content(out):
    """Every file of a batch, by its place."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(Path(out).rglob("*"))
        if file.is_file()
    }


def run(model, inputs, out, **options):
    given = {"part_size": 4, "batch_size": 3, "workers": 2, "precision": "float32", **options}
    return explain_all(model, [os.fspath(item) for item in inputs], out, **given)


# ---- what is written ----


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
        (alone,) = explain(small, file)
        wanted = oracle.batch_row(alone.path)
        assert row["status"] == "ok"
        assert row["error"] is None
        assert row["class"] == wanted["class"]
        assert row["probability"] == pytest.approx(wanted["probability"], rel=1e-4)
        assert row["soft_class"] == alone.made["soft_answer"]["class"]
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

    monkeypatch.setattr("nbdt.explain.batch.job._try", lambda *_: None)
    monkeypatch.setattr(small.head.rules, "paths", never)
    assert run(small, [photos], tmp_path / "all").failed == 10


def test_a_full_memory_ends_the_batch_and_says_what_to_do(small, photos, tmp_path, monkeypatch):
    def full(logits, classes=None):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(small.head.rules, "paths", full)
    monkeypatch.setattr("nbdt.explain.batch.job._try", lambda *_: None)
    with pytest.raises(
        NBDTError, match=r"memory of cpu is full with . images in one pass; take fewer"
    ):
        run(small, [photos], tmp_path / "out")


# ---- inputs ----


def references(*arguments, column=None):
    return [source.reference for source in iter_inputs([os.fspath(a) for a in arguments], column)]


def test_the_same_images_come_from_everything_that_can_name_them(photos, tmp_path, monkeypatch):
    files = [os.fspath(photos / ("a" if i < 6 else "b") / f"{i}.png") for i in range(10)]
    (tmp_path / "list.txt").write_text("\n".join(files[:5]) + "\r\n\n" + "\n".join(files[5:]))
    pq.write_table(pa.table({"label": range(10), "path": files}), tmp_path / "table.parquet")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["where", "n"], *([name, 0] for name in files)])
    assert references(photos) == files
    assert references(*files) == files
    assert references(photos / "*" / "*.png") == files
    assert references(photos / "**" / "*.png") == files
    assert references(tmp_path / "list.txt") == files
    assert references(tmp_path / "table.parquet") == files
    assert references(tmp_path / "table.csv", column="where") == files
    assert references(tmp_path / "*.parquet") == files  # a pattern may name collections
    assert count_inputs([os.fspath(photos), *files]) == 20


def test_no_pattern_gives_an_image_twice_or_walks_in_circles(photos, tmp_path):
    (photos / "a" / "loop").symlink_to(photos)
    (photos / ".hidden").mkdir()
    draw(photos / ".hidden" / "x.png")
    files = references(photos)
    assert len(files) == 10
    for pattern in ("**", "**/*.png", "*", "*/*.png", "a/../**/*.png"):
        found = [os.path.normpath(name) for name in references(photos / pattern)]
        assert found == files, pattern


def test_what_a_batch_drew_is_not_explained_in_turn(small, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    for _ in range(2):
        done = run(small, ["."], "explained", maps="png", pages=True)
        assert (done.images, done.failed) == (10, 2)
    assert done.repeated == 10
    assert len(references("**/*.png")) == len(references(".")) == 10
    with pytest.raises(NBDTError, match="is both the photographs' folder and --out"):
        run(small, ["."], photos, maps="png")


def test_lists_as_windows_writes_them(photos, tmp_path):
    names = [os.fspath(photos / "a" / "0.png"), os.fspath(photos / "a" / "1.png")]
    (tmp_path / "bom.txt").write_bytes("\r\n".join(["\ufeff" + names[0], "  ", names[1]]).encode())
    assert references(tmp_path / "bom.txt") == names
    (tmp_path / "short.txt").write_bytes(b"x")
    assert references(tmp_path / "short.txt") == ["x"]
    (tmp_path / "wide.txt").write_bytes("\n".join(names).encode("utf-16"))
    with pytest.raises(NBDTError, match="a list in UTF-16; write it again in UTF-8"):
        references(tmp_path / "wide.txt")


def test_large_members_wait_on_the_disk_and_zstandard_is_read(photos, tmp_path, small):
    large = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(large).save(photos / "a" / "large.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    packed = tmp_path / "photos.tar.zst"
    with pa.CompressedOutputStream(os.fspath(packed), "zstd") as stream:
        stream.write((tmp_path / "photos.tar").read_bytes())
    sources = list(iter_inputs([os.fspath(packed)]))
    assert len(sources) == 11
    for source in sources[:-1]:  # the last is empty
        data = (tmp_path / source.reference.partition("!")[2]).read_bytes()
        assert source.read() == source.read() == pickle.loads(pickle.dumps(source)).read() == data
    done = run(small, [packed], tmp_path / "out")
    assert (done.images, done.failed) == (11, 2)


def test_an_archive_takes_no_more_memory_than_a_few_of_its_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for index in range(40):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = 4 << 20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    tracemalloc.start()
    sources = list(iter_inputs([os.fspath(tmp_path / "a.tar")]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(sources), len(sources[-1].read())) == (40, 4 << 20)
    assert most < 40 << 20  # of 160


def test_a_link_in_an_archive_is_an_image_that_failed(photos, tmp_path, small):
    os.link(photos / "a" / "0.png", photos / "a" / "same.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos / "a" / "0.png", "0.png")
        archive.add(photos / "a" / "same.png", "same.png")
    done = run(small, [tmp_path / "photos.tar"], tmp_path / "out")
    assert (done.images, done.failed) == (2, 1)
    assert "got a link; pack what it leads to" in rows_of(tmp_path / "out")[1]["error"]


def test_a_page_of_the_users_own_is_left_alone(small, photos, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    run(small, [photos], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("mine")
    with pytest.raises(NBDTError, match=r"'index\.html' but no batch\.json: it is no batch"):
        run(small, [photos], tmp_path / "other", pages=True)
    assert (tmp_path / "other" / "index.html").read_text() == "mine"


def test_strips_and_names_of_any_length_are_explained(small, tmp_path):
    Image.new("RGB", (30_000, 1), "red").save(tmp_path / "strip.png")
    draw(tmp_path / ("\U0001d538" * 60 + ".png"))
    done = run(small, [tmp_path], tmp_path.with_name("out"), pages=True)
    assert (done.images, done.failed) == (2, 0)


def test_two_processes_that_draw_one_part_both_end_well(tmp_path):
    """The slower one takes the place of what the faster one made since it looked."""
    where = Disk(tmp_path / "out")
    with where.folder("pages/part-000000") as mine:
        (mine / "x").write_text("mine")
        with where.folder("pages/part-000000") as other:
            (other / "x").write_text("other")
    assert (tmp_path / "out" / "pages" / "part-000000" / "x").read_text() == "mine"
    assert where.names("pages") == ["part-000000"]


def test_an_archive_gives_its_members_bytes(photos, tmp_path, small):
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "photos")
    assert count_inputs([os.fspath(tmp_path / "photos.tar.gz")]) is None
    run(small, [photos], tmp_path / "folder")
    done = run(small, [tmp_path / "photos.tar.gz"], tmp_path / "tar")
    assert done.images == 10
    of_folder = {Path(row["path"]).name: row for row in rows_of(tmp_path / "folder")}
    for row in rows_of(tmp_path / "tar"):
        twin = of_folder[row["path"].rpartition("/")[2]]
        assert "photos.tar.gz!photos/" in row["path"]
        assert row["sha256"] == twin["sha256"]
        assert row["class"] == twin["class"]
    again = run(small, [tmp_path / "photos.tar.gz"], tmp_path / "tar")
    assert again.repeated == 10


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.parquet", b"PAR1 not", "cannot be read as paths"),
        ("x.csv", b"a,b\n1,2\n", "has no column 'path', 'file', 'filename'"),
        ("x.txt", b"a" * 40_000, "expected a path a line"),
        ("no.csv", None, "There is no file"),
        ("*.nothing", None, "No file matches"),
    ],
)
def test_what_cannot_be_listed_is_fatal_and_says_why(name, data, message, tmp_path, small):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(NBDTError, match=message):
        run(small, [tmp_path / name], tmp_path / "out")


def test_a_column_of_pictures_is_no_column_of_paths(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a.png"}]}), tmp_path / "t.parquet")
    with pytest.raises(NBDTError, match="expected paths in column 'image', got struct<bytes"):
        references(tmp_path / "t.parquet")


def test_a_wrong_column_names_the_nearest(tmp_path):
    pq.write_table(pa.table({"images": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(NBDTError, match="Did you mean 'images'"):
        references(tmp_path / "t.parquet", column="image")


def test_an_empty_cell_and_a_damaged_archive_are_rows_that_failed(photos, tmp_path, small):
    good = os.fspath(photos / "a" / "0.png")
    pq.write_table(pa.table({"path": [good, None]}), tmp_path / "t.parquet")
    with tarfile.open(tmp_path / "cut.tar", "w") as archive:
        archive.add(photos / "a", "a")
    data = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    run(small, [tmp_path / "t.parquet", tmp_path / "cut.tar"], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows[:3]] == ["ok", "failed", "ok"]
    assert "row 2" in rows[1]["error"]
    assert rows[-1]["status"] == "failed"
    assert "cut.tar" in rows[-1]["error"]


def test_what_is_a_collection(tmp_path):
    (tmp_path / "odd[1].png").touch()
    found = [str(tmp_path), "*.png", "list.txt", "a.TAR.GZ", "b.parquet", "c.csv"]
    assert all(map(is_collection, found))
    assert not any(map(is_collection, ["photo.jpg", "missing", str(tmp_path / "odd[1].png")]))


# ---- resuming ----


def test_finished_work_is_not_repeated(small, photos, tmp_path):
    run(small, [photos], tmp_path / "out")
    before = {
        name: (tmp_path / "out" / name).stat().st_mtime_ns for name in content(tmp_path / "out")
    }
    done = run(small, [photos], tmp_path / "out")
    assert done.repeated == done.images == 10
    assert done.failed == 2
    assert before == {
        name: (tmp_path / "out" / name).stat().st_mtime_ns for name in content(tmp_path / "out")
    }


def test_a_changed_file_is_noticed_by_its_hash(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    before = rows_of(out)
    os.utime(photos / "a" / "0.png")  # touched, not changed
    assert run(small, [photos], out).repeated == 10
    assert rows_of(out) == before
    draw(photos / "a" / "1.png", 77)
    done = run(small, [photos], out)
    assert done.repeated == 6  # its part is made again
    assert rows_of(out)[1]["sha256"] == oracle.sha256(photos / "a" / "1.png")
    run(small, [photos], tmp_path / "fresh")
    assert content(out) == content(tmp_path / "fresh")


def test_a_change_behind_length_and_date_is_found_by_reading(small, photos, tmp_path):
    file = photos / "a" / "0.png"
    run(small, [photos], tmp_path / "out")
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(small, [photos], tmp_path / "out").repeated == 10
    assert run(small, [photos], tmp_path / "out", verify=True).repeated == 6


def test_mended_added_and_removed_files_end_in_the_rows_of_a_fresh_run(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    draw(photos / "b" / "9.png", 9)
    draw(photos / "a" / "05.png", 5)
    assert run(small, [photos], out).failed == 1
    for name in ("1.png", "3.png", "4.png", "5.png"):
        (photos / "a" / name).unlink()
    done = run(small, [photos], out)
    assert done.images == 7
    run(small, [photos], tmp_path / "fresh")
    assert content(out) == content(tmp_path / "fresh")


def test_a_slash_that_the_shell_completes_is_no_other_batch(small, photos, tmp_path):
    first = run(small, [f"{photos}/"], tmp_path / "out")
    assert run(small, [photos], tmp_path / "out").repeated == first.images


def test_another_batchs_folder_is_refused_with_what_differs(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    with pytest.raises(NBDTError, match='maps: "npz" there, "none" now'):
        run(small, [photos], out, maps="none")
    with pytest.raises(NBDTError, match="inputs: .* there, .* now"):
        run(small, [photos / "a"], out)
    torch.manual_seed(1)
    other = tiny(NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval())
    with pytest.raises(NBDTError, match=r"\(model: \w{12}… there, \w{12}… now\)"):
        run(other, [photos], out)
    before = content(out)
    other = NBDT(small.backbone, small.head, "resnet10t", small.preprocess).eval()
    other.head = type(small.head).from_linear(small.head.linear, oracle.star(4), rule="marginal")
    with pytest.raises(NBDTError, match="hierarchy: "):
        run(other.eval(), [photos], out)
    assert content(out) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ("{}", 'no JSON object with "format": "nbdt-batch"'),
        ('{"format": "nbdt-batch", "version": 2}', "format version 2"),
    ],
)
def test_a_damaged_record_is_refused(text, message, small, photos, tmp_path):
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises(NBDTError, match=message):
        run(small, [photos], tmp_path)


def test_a_folder_with_rows_of_something_else_is_left_alone(small, photos, tmp_path):
    (tmp_path / "out" / "rows").mkdir(parents=True)
    with pytest.raises(NBDTError, match="it is no batch"):
        run(small, [photos], tmp_path / "out")


def test_a_damaged_or_missing_part_is_made_again(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    whole = content(out)
    (out / "rows" / "part-000001.parquet").write_bytes(b"PAR1")
    (out / "maps" / "part-000002.npz").unlink()
    (out / "rows" / ".part-000001.parquet.left").write_bytes(b"half")
    assert run(small, [photos], out).repeated == 4
    assert content(out) == whole


# Children of a process that has imported everything start at once, so that many can be killed.
KILLER = """
import json, os, random, signal, sys, time, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[3])
from tests import oracle, test_batch
from nbdt import NBDT

photos, root = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
model = test_batch.tiny(NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval())

def start(out):
    pid = os.fork()
    if pid == 0:
        try:
            test_batch.run(model, [photos], out)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid

begun = time.monotonic()
status = os.waitpid(start(root / "whole"), 0)[1]
assert status == 0, status
took, rng, killed, kept = time.monotonic() - begun, random.Random(), [], {}
rows = root / "broken" / "rows"
for turn in range(20):
    pid, delay = start(root / "broken"), rng.uniform(0, took / 6)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, status
    there = {f.name: f.stat().st_mtime_ns for f in rows.glob("part-*")}
    assert all(there.get(name) == age for name, age in kept.items()), "repeated or lost"
    kept = there
    killed.append((round(delay, 3), os.WIFSIGNALED(status), len(there)))
status = os.waitpid(start(root / "broken"), 0)[1]
assert status == 0, (status, killed)
print(json.dumps(killed))
"""


def test_what_a_killed_start_left_is_gone_in_the_end(model, photos, tmp_path):
    (tmp_path / "out").mkdir()
    left = [tmp_path / "out" / f".{name}.8p6ypw4y" for name in ("batch.json", "manifest.json")]
    for path in left:
        path.write_bytes(b"")
    run(model, [photos], tmp_path / "out")
    assert not any(path.exists() for path in left)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_twenty_times_it_ends_in_the_very_bytes_of_an_uninterrupted_run(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(64):
        draw(photos / f"{index:02}.png", index)
    (photos / "17.png").write_bytes(b"no image")
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(photos), str(tmp_path), str(Path(__file__).parents[1])],
        capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout.splitlines()[-1])
    assert sum(signalled for _, signalled, _ in killed) >= 5, killed
    assert content(tmp_path / "broken") == content(tmp_path / "whole"), killed
    rows = rows_of(tmp_path / "broken")
    assert [row["row"] for row in rows] == list(range(64))
    assert len({row["path"] for row in rows}) == 64


# ---- several machines ----


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_make_the_files_of_one_machine(order, small, photos, tmp_path):
    run(small, [photos], tmp_path / "one")
    missing = [
        run(small, [photos], tmp_path / "many", shard=(number, 3)).missing_parts for number in order
    ]
    assert missing == [2, 1, 0]
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_a_lost_shard_is_made_up_for_by_a_run_without_shards(small, photos, tmp_path):
    assert run(small, [photos], tmp_path / "out", shard=(2, 2)).missing_parts == 2
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = run(small, [photos], tmp_path / "out")
    assert (done.repeated, done.missing_parts) == (4, 0)
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "²/3"])
def test_a_shard_is_i_of_n(text):
    with pytest.raises(typer.BadParameter, match="Expected --shard i/n"):
        _share(text)
    assert _share("3/8") == (3, 8)


# ---- options ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "pngs"}, "Did you mean 'png'"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"shard": (3, 2)}, "shard i of n"),
        ({"precision": "half"}, "auto, float32 and bfloat16"),
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
    script = Path(__file__).parents[1] / "benchmarks" / "batch_memory.py"
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
