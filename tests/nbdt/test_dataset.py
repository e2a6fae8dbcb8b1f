"""The reader of data sets: everything that can name images, and labelled data."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import re
import tarfile
import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbdt import NBDTError
from nbdt.images.archives import iter_tar
from nbdt.images.dataset import DataSet, count_inputs, is_collection, iter_images, iter_inputs
from nbdt.images.folders import SOFTWARE
from nbdt.images.image import ImageError
from nbdt.images.report import Report


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


def test_a_parquet_table_of_pictures_and_class_numbers(photos, tmp_path):
    """As Hugging Face's datasets write it: bytes, and the names of the classes in the metadata."""
    files = [photos / "a" / "0.png", photos / "b" / "7.png"]
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": pictures, "label": [1, 0]})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert [source.read() for source in iter_inputs([tmp_path / "t.parquet"])] == [
        file.read_bytes() for file in files
    ]
    sources = list(iter_images(tmp_path / "t.parquet"))
    assert [source.label for source in sources] == ["dog", "cat"]
    for source in reversed(sources):
        assert pickle.loads(pickle.dumps(source)).open().size == (8, 6)
    bare = pa.table({"image": [files[0].read_bytes(), b"no image"], "label": ["x", "y"]})
    pq.write_table(bare, tmp_path / "bare.parquet")
    good, bad = iter_images(tmp_path / "bare.parquet")
    assert good.open().size == (8, 6)
    with pytest.raises(ImageError, match=r"bare\.parquet, row 2"):
        bad.open()


def test_a_zip_archive_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    (source,) = iter_inputs([tmp_path / "a.zip"])
    with pytest.raises(ImageError, match="got a zip archive; unpack it"):
        source.open()


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
    with pytest.raises(NBDTError, match="has no split 'val'; it has 'test', 'train'"):
        list(iter_images(table, "val"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", "|"])
def test_a_table_as_any_program_writes_it(photos, tmp_path, encoding, separator):
    (photos / "Käfer").mkdir()
    draw(photos / "Käfer" / "a b.png")
    rows = [
        ["Path", "fold", "Label"],
        ["photos\\Käfer\\a b.png", "3", "Käfer"],
        ["photos/a/0.png", "0", "x"],
    ]
    text = "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    names = [os.fspath(photos / "Käfer" / "a b.png"), os.fspath(photos / "a" / "0.png")]
    assert references(tmp_path / "t.csv") == names
    found = [(source.reference, source.label) for source in iter_images(tmp_path / "t.csv")]
    assert found == list(zip(names, ["Käfer", "x"], strict=True))
    assert [source.label for source in iter_images(tmp_path / "t.csv", "3")] == ["Käfer"]


def test_names_are_found_in_either_form_of_unicode(tmp_path):
    """A folder from a Mac, a table typed elsewhere."""
    folder = tmp_path / "Gru\u0308nspecht"
    folder.mkdir()
    draw(folder / "1.png")
    (tmp_path / "t.csv").write_text("path,label\nGr\u00fcnspecht/1.png,Gr\u00fcnspecht\n", "utf-8")
    (source,) = iter_images(tmp_path / "t.csv")
    assert source.open().size == (8, 6)
    draw_in(tmp_path, "other/1.png")
    labels = {source.label for source in iter_images(tmp_path)}
    assert labels == {"Gr\u00fcnspecht", "other"}


def draw_in(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw(root / name, len(name))


def packed(root, target):
    with tarfile.open(target, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.add(file, file.relative_to(root))
    return target


def both(root):
    """The same data as a folder and as an archive, which must be read alike."""
    archive = packed(root, root.with_name("data.tar"))
    read = [Counter(s.label for s in iter_images(data)) for data in (root, archive)]
    assert read[0] == read[1]
    found = [DataSet(data) for data in (root, archive)]
    assert found[0].splits == found[1].splits
    assert len(found[0].layout.notes) == len(found[1].layout.notes)
    return found[0]


def test_images_below_a_class_folder_belong_to_the_class(tmp_path):
    root = tmp_path / "data"
    draw_in(
        root, "oak/1.png", "oak/2019/2.png", "oak/2019/may/3.png", "elm/2019/4.png", "stray.png"
    )
    found = both(root)
    assert found.labels() == {"oak": 3, "elm": 1}
    assert "4 used; left out: 1 in no class folder" in str(found.report())
    assert "5 images found" in str(found.report())
    (root / "oak" / "1.png").unlink()
    found = both(root)
    assert found.labels() == {"oak": 2, "elm": 1}
    assert "the classes are 'elm', 'oak', and each holds folders" in found.report().notes[0]
    assert DataSet(root / "*" / "*").labels() == {"2019": 3}
    assert DataSet(f"{root}.tar!*/*").labels() == {"2019": 3}


@pytest.mark.parametrize(
    ("files", "splits", "labels"),
    [
        (["train/1.png", "ship/2.png"], {}, {"train": 1, "ship": 1}),
        (["train/a/1.png", "ship/b/2.png"], {}, {"train": 1, "ship": 1}),
        (["train/1.png", "test/2.png"], {}, {"train": 1, "test": 1}),
        (["Train/a/1.png", "valid/a/2.png"], {"Train", "valid"}, {"a": 2}),
        (["train/a/1.png", "train/x.png", "val/a/2.png", "more/3.png"], {"train", "val"}, {"a": 2}),
        (["train/a/1.png", "train/b/1.png", "test/2.png"], {"train"}, {"a": 1, "b": 1}),
        (["top/train/a/1.png", "top/val/b/2.png"], {"train", "val"}, {"a": 1, "b": 1}),
        (["top/a/1.png", "top/b/c/2.png"], {}, {"a": 1, "b": 1}),
        (["only/1.png"], {}, {"only": 1}),
        (["n01440764_1.png", "n02123159_2.png"], {}, {"n01440764": 1, "n02123159": 1}),
        (["val/n01440764_1.png", "val/n02123159_2.png"], {}, {"n01440764": 1, "n02123159": 1}),
    ],
)  # fmt: skip
def test_the_structure_says_what_is_a_split_and_what_a_class(tmp_path, files, splits, labels):
    draw_in(tmp_path / "data", *files)
    found = both(tmp_path / "data")
    assert found.splits.keys() == set(splits)
    assert found.labels() == labels
    notes = "".join(found.report().notes)
    if any(file.lower().startswith("train") for file in files):
        assert "--data '" in notes or "it holds images itself" in notes
    for other in re.findall(r"--data '(.*?)'", notes):  # the remedy works
        assert DataSet(other).labels() != labels


def test_what_systems_and_this_package_add_is_left_out_and_counted(tmp_path):
    root = tmp_path / "data"
    draw_in(root, "a/1.png", "b/2.png", "a/.hidden.png", "@eaDir/a/1.png", "__MACOSX/b/2.png")
    draw_in(root, "eval/picture.png", "a/run/x/3.png", "evaluation/c/4.png", "runs/one/5.png")
    draw_in(root, "a/6.nbdt.png")
    for name in ("a/Thumbs.db", "b/notes.txt"):
        (root / name).write_bytes(b"x")
    (root / "eval" / "evaluation.json").write_text('{"format": "nbdt-evaluation", "version": 1}')
    (root / "a" / "run" / "run.json").write_text('{\n "format": "nbdt-run"}')
    (root / "runs" / "one" / "config.json").write_text('{"format": "nbdt-model"}')
    (root / "evaluation" / "evaluation.json").write_text('{"format": "of another program"}')
    for name in ("_versions", "_transactions", "data"):
        (root / "memory" / "photographs.lance" / name).mkdir(parents=True)
    own = PngInfo()
    own.add_text("Software", SOFTWARE)
    (root / "shown").mkdir()
    Image.new("RGB", (9, 7)).save(root / "shown" / "7.nbdt.png", pnginfo=own)
    found = both(root)
    assert found.labels() == {"a": 2, "b": 1, "evaluation": 1}
    assert found.classes() == {"a", "b", "evaluation"}
    line = str(found.report())
    assert "6 images found, 4 used; left out: " in line
    for part in ("1 hidden", "1 written by nbdt", "2 folders of a system",
                 "3 files of other kinds (.db, .txt, .json"):  # fmt: skip
        assert part in line, line
    names = [name.removeprefix(os.fspath(root)) for name in references(root)]
    assert names == ["/a/1.png", "/a/6.nbdt.png", "/b/2.png", "/evaluation/c/4.png"]
    assert references(root / "**" / "*.png") == references(root)
    assert references(root / "*" / "*.png") == references(root)[:3]


def test_a_web_dataset_is_labelled_by_the_texts_beside_its_images(tmp_path):
    root = tmp_path / "data"
    draw_in(root, "000.png", "001.png", "shard/002.png", "003.left.png")
    for name, label in (("000", "cat"), ("001", "dog\n"), ("shard/002", "cat"), ("003", "dog")):
        (root / f"{name}.cls").write_text(label)
    found = DataSet(packed(root, tmp_path / "data.tar"))
    assert found.labels() == {"cat": 2, "dog": 2}


def test_a_list_is_labelled_by_its_folders(photos, tmp_path):
    (tmp_path / "list.txt").write_text("photos/a/0.png\nphotos/b/7.png\n")
    found = DataSet(tmp_path / "list.txt")
    assert found.labels() == {"a": 1, "b": 1}
    assert [source.open().size for source in found.images()] == [(8, 6)] * 2


def test_commands_say_what_was_left_out(photos, caplog):
    draw_in(photos, ".git/x.png", "a/.y.png")
    with caplog.at_level("INFO", "nbdt.images"):
        assert len(references(photos)) == 10
    (line,) = caplog.messages
    assert "11 images found, 10 used; left out: 1 hidden, 1 folder hidden ('.git')." in line
    caplog.clear()
    with caplog.at_level("INFO", "nbdt.images"):
        references(photos / "a" / "0.png")
    assert not caplog.messages


def test_a_folder_that_a_batch_wrote_is_no_data(photos):
    (photos / "b" / "batch.json").write_text('{"format": "nbdt-batch"}')
    assert len(references(photos)) == 6
    assert len(references(photos / "b")) == 4  # named itself


def test_folders_that_are_left_out_are_named_or_counted():
    report = Report("data")
    for number in range(5):
        report.leave_out("written by nbdt", f"run{number}", is_folder=True)
    assert "5 folders written by nbdt ('run0', 'run1', 'run2' and 2 more)" in str(report)


def test_a_pattern_asks_nothing_of_the_folders_above_it(photos, monkeypatch):
    """A marker beside the folder that is named, or a folder above that cannot be listed."""
    (photos.parent / "batch.json").write_text('{"format": "nbdt-batch"}')
    (photos / "a" / "run").mkdir()
    draw(photos / "a" / "run" / "x.png")
    (photos / "a" / "run" / "run.json").write_text('{"format": "nbdt-run"}')
    listed = os.listdir

    def denied(folder):
        if os.path.basename(folder) != "run":
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", denied)
    assert len(references(photos / "a" / "*.png")) == 6
    assert len(references(photos / "**" / "*.png")) == 10


def linked(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def test_class_folders_may_be_links_at_any_depth(tmp_path):
    draw_in(tmp_path / "shared", "a/1.png", "a/deep/2.png", "b/3.png", "more/4.png")
    root = tmp_path / "data"
    for split in ("train", "val"):
        for name in "ab":
            linked(root / split / name, tmp_path / "shared" / name)
    linked(tmp_path / "shared" / "b" / "more", tmp_path / "shared" / "more")
    found = DataSet(root)
    assert found.labels("train") == {"a": 2, "b": 2}
    assert found.labels("val")["a"] == 2
    assert len(references(root)) == 7  # the link below a link is followed once


def test_links_lead_into_no_circle_and_do_not_multiply(tmp_path):
    root, shared = tmp_path / "data", tmp_path / "shared"
    draw_in(root, "train/b/1.png")
    draw_in(shared, "a/deep/2.png")
    linked(root / "train" / "a", shared / "a")
    circles = {root / "train" / "b" / "up": root, shared / "a" / "deep" / "back": root / "train",
               shared / "a" / "deep" / "up": shared, shared / "a" / "again": shared / "a" / "deep",
               root / "train" / "b" / "a": root / "train"}  # fmt: skip
    for place, target in circles.items():
        linked(place, target)
    assert len(references(root)) == 2
    assert DataSet(root / "train").report().folders["reached by links"] == len(circles)
    levels = tmp_path / "levels"
    for level in range(24):  # 2^24 ways to the last folder
        for name in "xy":
            linked(levels / str(level) / name, levels / str(level + 1))
    draw_in(levels, "24/1.png")
    assert len(references(levels / "0")) == 1


def test_rows_without_a_split_are_counted_where_others_name_one(photos, tmp_path):
    rows = ["path,label,split", "photos/a/0.png,a,train", "photos/b/7.png,b,test"]
    rows += [f"photos/a/{number}.png,a," for number in (1, 2, 3)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    found = DataSet(tmp_path / "t.csv")
    assert found.report().used == 5
    line = str(found.report("train"))
    assert "1 used" in line
    assert "1 of other splits" in line
    assert "3 without a split" in line
