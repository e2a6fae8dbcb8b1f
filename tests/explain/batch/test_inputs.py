"""Batches: everything that can name images."""

import csv
import io
import os
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nbdt import NBDTError
from nbdt.images.dataset import count_inputs, is_collection, iter_inputs
from nbdt.storage import LocalStorage

from .batches import draw, rows_of, run


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
    with pytest.raises(NBDTError, match=r"'index\.html' but no batch\.json: it is not a batch"):
        run(small, [photos], tmp_path / "other", pages=True)
    assert (tmp_path / "other" / "index.html").read_text() == "mine"


def test_strips_and_names_of_any_length_are_explained(small, tmp_path):
    Image.new("RGB", (30_000, 1), "red").save(tmp_path / "strip.png")
    draw(tmp_path / ("\U0001d538" * 60 + ".png"))
    done = run(small, [tmp_path], tmp_path.with_name("out"), pages=True)
    assert (done.images, done.failed) == (2, 0)


def test_two_processes_that_draw_one_part_both_end_well(tmp_path):
    """The slower one takes the place of what the faster one made since it looked."""
    where = LocalStorage(tmp_path / "out")
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
        ("x.csv", b"a,b\n1,2\n", "no column of paths.*path, file, filename.*'a', 'b'.*--column"),
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
