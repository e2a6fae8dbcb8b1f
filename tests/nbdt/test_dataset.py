"""The reader of data sets: everything that can name images, and labelled data."""

import bz2
import csv
import gzip
import io
import lzma
import os
import pickle
import tarfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nbdt import NBDTError
from nbdt.images.archives import is_compressed, iter_tar
from nbdt.images.dataset import count_inputs, is_collection, iter_images, iter_inputs
from nbdt.images.image import ImageError


def draw(file, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(file)


@pytest.fixture
def photos(tmp_path):
    """Ten pictures in two folders."""
    root = tmp_path / "photos"
    for index in range(10):
        folder = root / ("a" if index < 6 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / f"{index}.png", index)
    return root


def references(*arguments, column=None):
    return [source.reference for source in iter_inputs([os.fspath(a) for a in arguments], column)]


def test_the_same_images_come_from_everything_that_can_name_them(photos, tmp_path):
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


def test_lists_as_windows_writes_them(photos, tmp_path):
    names = [os.fspath(photos / "a" / "0.png"), os.fspath(photos / "a" / "1.png")]
    (tmp_path / "bom.txt").write_bytes("\r\n".join(["\ufeff" + names[0], "  ", names[1]]).encode())
    assert references(tmp_path / "bom.txt") == names
    (tmp_path / "short.txt").write_bytes(b"x")
    assert references(tmp_path / "short.txt") == ["x"]
    (tmp_path / "wide.txt").write_bytes("\n".join(names).encode("utf-16"))
    with pytest.raises(NBDTError, match="a list in UTF-16; write it again in UTF-8"):
        references(tmp_path / "wide.txt")


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
def test_what_cannot_be_listed_is_fatal_and_says_why(name, data, message, tmp_path):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(NBDTError, match=message):
        references(tmp_path / name)


def test_a_column_of_pictures_is_no_column_of_paths(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a.png"}]}), tmp_path / "t.parquet")
    with pytest.raises(NBDTError, match="expected paths in column 'image', got struct<bytes"):
        references(tmp_path / "t.parquet")


def test_a_wrong_column_names_the_nearest(tmp_path):
    pq.write_table(pa.table({"images": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(NBDTError, match="Did you mean 'images'"):
        references(tmp_path / "t.parquet", column="image")


def test_what_is_a_collection(tmp_path):
    (tmp_path / "odd[1].png").touch()
    found = [str(tmp_path), "*.png", "list.txt", "a.TAR.GZ", "b.parquet", "c.csv"]
    assert all(map(is_collection, found))
    assert not any(map(is_collection, ["photo.jpg", "missing", str(tmp_path / "odd[1].png")]))


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tbz2", "txz", "tar.zst"])
def test_the_content_of_an_archive_decides_how_it_is_read(photos, tmp_path, ending):
    """Sources can be read at any time, in any order, and sent to another process."""
    with tarfile.open(tmp_path / "plain", "w") as archive:
        archive.add(photos, "photos")
    data = (tmp_path / "plain").read_bytes()
    packed = {
        "tar": bytes,
        "tar.gz": gzip.compress,
        "tbz2": bz2.compress,
        "txz": lzma.compress,
        "tar.zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    }[ending](data)
    for name in (f"photos.{ending}", "misnamed.tar"):
        path = tmp_path / name
        path.write_bytes(packed)
        assert is_compressed(path) == (ending != "tar")
        sources = list(iter_inputs([path]))
        assert len(sources) == 10
        for source in reversed(sources):
            file = tmp_path / source.reference.partition("!")[2]
            assert pickle.loads(pickle.dumps(source)).read() == file.read_bytes()
            assert source.open().size == (8, 6)
            assert source.state()[0] is None
            assert source.state()[1] == path.stat().st_mtime_ns


def test_a_source_of_a_plain_archive_holds_no_bytes(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for index in range(40):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = 1 << 16
            archive.addfile(member, io.BytesIO(bytes([index]) * member.size))
    tracemalloc.start()
    sources = list(iter_tar(tmp_path / "a.tar"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 19  # of 2.6 MB
    assert [source.read()[0] for source in sources] == list(range(40))
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ImageError, match="empty file"):
        sources[0].read()


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_labelled_table(photos, tmp_path, ending):
    """Paths start at the table's folder; the column is the first of the usual names, in any case."""
    table = tmp_path / f"table.{ending}"
    rows = [(f"photos/a/{i}.png", "x.png", "cat", "Train") for i in range(2)]
    rows += [("photos/b/7.png", "x.png", "dog", "test")]
    names = ("FILE_NAME", "image", "Label", "split")
    if ending == "parquet":
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), table)
    else:
        with table.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if ending == "tsv" else ",").writerows([names, *rows])
    found = [(os.path.relpath(s.reference, photos), s.label) for s in iter_images(table)]
    assert found == [("a/0.png", "cat"), ("a/1.png", "cat"), ("b/7.png", "dog")]
    assert [source.open().size for source in iter_images(table, "TRAIN")] == [(8, 6)] * 2
    with pytest.raises(NBDTError, match="no rows of the split 'val'"):
        list(iter_images(table, "val"))


def test_a_label_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,label\na.png,Käfer\n".encode("cp1252"))
    with pytest.raises(NBDTError, match=r"t\.csv' cannot be read"):
        list(iter_images(tmp_path / "t.csv"))
    assert references(tmp_path / "t.csv") == ["a.png"]  # without labels it can be


def test_a_folder_that_a_batch_wrote_is_no_data(photos):
    (photos / "b" / "batch.json").write_text("{}")
    assert len(references(photos)) == 6
    assert len(references(photos / "b")) == 4  # named itself
