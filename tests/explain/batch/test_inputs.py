"""Batches of everything that can name images."""

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nbdt import NBDTError
from nbdt.images.dataset import count_inputs, iter_inputs

from .batches import draw, rows_of, run


def test_what_a_batch_drew_is_not_explained_in_turn(small, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    for _ in range(2):
        done = run(small, ["."], "explained", maps="png", pages=True)
        assert (done.images, done.failed) == (10, 2)
    assert done.repeated == 10
    assert count_inputs(["**/*.png"]) == count_inputs(["."]) == 10
    with pytest.raises(NBDTError, match="is both the photographs' folder and --out"):
        run(small, ["."], photos, maps="png")


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
    with pytest.raises(NBDTError, match=r"'index\.html' but no batch\.json: it is not a batch"):
        run(small, [photos], tmp_path / "other", pages=True)
    assert (tmp_path / "other" / "index.html").read_text() == "mine"


def test_strips_and_names_of_any_length_are_explained(small, tmp_path):
    Image.new("RGB", (30_000, 1), "red").save(tmp_path / "strip.png")
    draw(tmp_path / ("\U0001d538" * 60 + ".png"))
    done = run(small, [tmp_path], tmp_path.with_name("out"), pages=True)
    assert (done.images, done.failed) == (2, 0)


def test_an_archive_gives_its_members_bytes(photos, tmp_path, small):
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "photos")
    assert count_inputs([os.fspath(tmp_path / "photos.tar.gz")]) is None
    run(small, [photos], tmp_path / "folder")
    done = run(small, [tmp_path / "photos.tar.gz"], tmp_path / "tar")
    assert done.images == 10
    of_folder = {Path(row["path"]).name: row for row in rows_of(tmp_path / "folder")}
    for row in rows_of(tmp_path / "tar"):
        expected = of_folder[row["path"].rpartition("/")[2]]
        assert "photos.tar.gz!photos/" in row["path"]
        assert row["sha256"] == expected["sha256"]
        assert row["class"] == expected["class"]
    again = run(small, [tmp_path / "photos.tar.gz"], tmp_path / "tar")
    assert again.repeated == 10


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
