"""Data from every layout people have, the class order, the report, and views that never change."""

import csv
import os
import pickle
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from nbdt import Hierarchy, NBDTError
from nbdt.network.preprocessing import Preprocessing
from nbdt.train.data.augment import random_view, seeded
from nbdt.train.data.class_order import class_order
from nbdt.train.data.dataset import (
    Images,
    PlainBatches,
    TrainingBatches,
    hold_out,
)
from nbdt.train.data.inspection import inspect, scan
from nbdt.train.data.splits import find_splits
from nbdt.train.recipe import Recipe

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
RECIPE = Recipe(architecture="small_convnet", image_size=8, batch_size=4, held_out=1, workers=0)
SEEN = Preprocessing(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1.0, "bilinear")


def photo(colour, index=0):
    image = Image.new("RGB", (14, 10), colour)
    ImageDraw.Draw(image).rectangle((index % 9, 2, index % 9 + 4, 6), "white")
    return image


def write(folder, count=5, names=COLOURS):
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            photo(COLOURS.get(name, (9, 9, 9)), index).save(folder / name / f"{index}.png")
    return folder


def read(path, recipe=RECIPE, given=None):
    """Order, images by split."""
    scans = {name: scan(part, recipe) for name, part in find_splits(path, recipe).items()}
    return inspect(scans, recipe, given)


def colours(data, order):
    """The class that each image's colour says."""
    means = [np.asarray(data.open(index)).mean((0, 1)) for index in range(len(data.labels))]
    said = [order.names[int(label)] for label in data.labels]
    assert [max(COLOURS, key=lambda n: np.dot(m, COLOURS[n])) for m in means] == said
    return said


def counts(images):
    return {name: len(part.labels) for name, part in images.items()}


# ---- layouts ----


def archive(folder, path, mode="w"):
    with tarfile.open(path, mode) as file:
        for item in sorted(folder.rglob("*.png")):
            file.add(item, item.relative_to(folder))
    return path


def table(folder, path, separator=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["Path", "label", "split"])
        for item in sorted(folder.rglob("*.png")):
            split, label, _ = item.relative_to(folder).parts
            writer.writerow([item.relative_to(path.parent), label, split])
    return path


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    root = tmp_path_factory.mktemp("layouts")
    splits = root / "splits"
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write(splits / split, count)
    table(splits, root / "table.csv")
    table(splits, root / "table.tsv", "\t")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        archive(splits, root / name, mode)
    return root


@pytest.mark.parametrize("augment", ["shift", "crop"])
@pytest.mark.parametrize(
    "name", ["splits", "table.csv", "table.tsv", "a.tar", "a.tar.gz", "a.tar.xz"]
)
def test_splits_of_every_layout(layouts, name, augment):
    order, images = read(layouts / name, replace(RECIPE, augment=augment))
    assert order.names == ("blue", "green", "red")
    assert counts(images) == {"train": 15, "validation": 6, "test": 9}
    for part in images.values():
        assert (part.pixels is not None) == (augment == "shift")
        colours(part, order)


def test_a_plain_folder_is_for_training_and_a_lone_val_is_the_test(tmp_path):
    write(tmp_path / "plain")
    assert counts(read(tmp_path / "plain")[1]) == {"train": 15}
    for split in ("train", "val"):
        write(tmp_path / "two" / split)
    assert counts(read(tmp_path / "two")[1]) == {"train": 15, "test": 15}


def test_patterns_name_folders_and_archives(layouts, tmp_path):
    write(tmp_path / "learn")
    archive(layouts / "splits" / "test", tmp_path / "check.tar.gz", "w:gz")
    recipe = replace(RECIPE, train="nothing|learn", test="check*")
    assert counts(read(tmp_path, recipe)[1]) == {"train": 15, "test": 9}
    with pytest.raises(NBDTError, match="nothing that matches 'exam'.*'check.tar.gz', 'learn'"):
        read(tmp_path, replace(recipe, test="exam"))


def test_more_than_fits_in_memory_is_streamed(layouts):
    small = replace(RECIPE, memory_gigabytes=1e-6)  # 1,000 bytes: five images
    order, images = read(layouts / "splits", small)
    assert images["train"].pixels is None
    colours(images["train"], order)


def test_a_parquet_table(layouts, tmp_path):
    files = sorted((layouts / "splits" / "train").rglob("*.png"))
    columns = {"file": list(map(str, files)), "class": [file.parent.name for file in files]}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    assert counts(read(tmp_path / "table.parquet")[1]) == {"train": 15}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column of paths: expected one of path, file.*got no columns"),
        ("path,label\n", "has no rows"),
        ("where,label\na.png,x\n", "no column of paths.*one of path, file.*got 'where', 'label'"),
        ("path,where\na.png,x\n", "no column of labels.*one of label, class.*got 'path', 'where'"),
        ("path,label\na.png,\n", "row 2: expected a path and a label, got 'a.png' and ''"),
        ("path,label,split\na.png,x,trian\nb.png,x,test\n", "unknown split 'trian'"),
        ("path,label,split\na.png,x,test\n", "no images of the split 'train', only of 'test'"),
    ],
)
def test_bad_tables_are_explained(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(NBDTError, match=message):
        read(tmp_path / "t.csv")


def test_pickles_stay_closed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (tmp_path / "cifar-100-python").mkdir()
    for name in ("train", "test", "meta"):
        (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(NBDTError):
        read(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_imagenet_folders_get_wordnets_names(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split, names={"n02084071": 0, "n02121620": 0})
    order, images = read(tmp_path)
    assert order.names == ("dog", "cat")
    assert order.wnids == ("n02084071", "n02121620")
    assert counts(images) == {"train": 10, "test": 10}


# ---- the class order ----


def test_the_order_is_the_hierarchys(tmp_path):
    tree = Hierarchy.from_nested(
        {"cold": ["green", "blue"], "warm": ["red", "grey"]}, ["red", "green", "blue", "grey"]
    )
    order = class_order((), (), tree)
    _, images = read(write(tmp_path / "data", names=[*COLOURS, "grey"]), given=order)
    assert order.origin == "the hierarchy"
    assert images["train"].labels.tolist() == [c for c in (2, 1, 3, 0) for _ in range(5)]


def test_folders_may_be_spelt_otherwise_or_by_wordnet_id(tmp_path):
    tree = Hierarchy.from_networkx(
        Hierarchy.from_paths(["Grey Wolf", "tabby_cat"]).to_networkx(), ["tabby_cat", "Grey Wolf"]
    )
    write(tmp_path, names={"grey_wolf": 0, "Tabby Cat": 0})
    _, images = read(tmp_path, given=class_order((), (), tree))
    assert images["train"].labels.bincount().tolist() == [5, 5]


def test_a_hierarchy_that_contradicts_the_recipe_is_refused():
    tree = Hierarchy.from_paths(["a/x", "a/y", "b"])
    with pytest.raises(
        NBDTError, match="another order: class 0 is 'x' instead of 'y'.*classes=\\[\\]"
    ):
        class_order((), ["y", "x", "b"], tree)
    with pytest.raises(NBDTError, match="lacks 'z' and also has 'b'"):
        class_order((), ["x", "y", "z"], tree)


# ---- what is wrong with the data ----


def test_everything_wrong_is_in_one_report(tmp_path):
    root = write(tmp_path / "data")
    (root / "red" / "0.png").write_bytes(b"")
    (root / "red" / "1.png").write_bytes((root / "red" / "2.png").read_bytes()[:40])
    (root / "blue").rename(root / "bleu")
    write(root, 2, ["gren"])
    order = class_order((), ["red", "green", "blue", "grey"])
    with pytest.raises(NBDTError) as caught:
        read(root, replace(RECIPE, held_out=4, held_out_test=1), given=order)
    message = str(caught.value)
    assert "(17 train images; 4 classes, from the recipe)" in message
    assert "2 of 17 train images cannot be read" in message
    assert "0.png" in message
    assert "--set skip_corrupt=true" in message
    assert "7 images of 2 unknown classes 'bleu', 'gren'. Did you mean 'blue'?" in message
    assert "no image of 2 classes 'blue', 'grey'" in message
    assert "Too few images of 2 classes" in message
    assert "'red' (3, at least 6 needed)" in message


@pytest.mark.parametrize("augment", ["shift", "crop"])
def test_unreadable_images_may_be_left_out(tmp_path, augment):
    root = write(tmp_path)
    (root / "red" / "0.png").write_bytes(b"nothing")
    with pytest.raises(NBDTError, match="1 of 15 train images cannot be read"):
        read(root, replace(RECIPE, augment=augment))
    _, images = read(root, replace(RECIPE, augment=augment, skip_corrupt=True))
    assert counts(images) == {"train": 14}


def test_one_class_no_class_and_no_data_are_explained(tmp_path):
    with pytest.raises(NBDTError, match="no data folder or file"):
        read(tmp_path / "missing")
    with pytest.raises(NBDTError, match=r"expected class folders .*got none"):
        read(tmp_path)
    write(tmp_path / "one", names={"red": 0})
    with pytest.raises(NBDTError, match=r"1 class \('red'\); a classifier needs two or more"):
        read(tmp_path / "one")
    write(tmp_path / "two", names={"red": 0, "blue": 0})
    (tmp_path / "two" / "empty").mkdir()
    (tmp_path / "two" / ".thumbnails").mkdir()
    with pytest.raises(NBDTError, match="no image of 1 class 'empty'. Add images of them"):
        read(tmp_path / "two")
    with pytest.raises(NBDTError, match="no image of 1 class 'empty'"):
        read(tmp_path / "two", given=class_order((), ["red", "blue", "empty"]))
    (tmp_path / "two" / "empty").rmdir()
    order, _ = read(tmp_path / "two")
    assert order.names == ("blue", "red")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(NBDTError, match="neither a folder of class folders nor a file"):
        read(tmp_path / "notes.md")


@pytest.mark.parametrize("augment", ["shift", "crop"])
def test_no_class_is_lost_without_a_word(tmp_path, augment):
    """Photographs of a kind that is not read, in folders of their own, or broken."""
    recipe = replace(RECIPE, augment=augment)
    root = write(tmp_path)
    (root / "phone").mkdir()
    (root / "years" / "2024").mkdir(parents=True)
    for index in range(3):
        (root / "phone" / f"{index}.HEIC").write_bytes(b"x")
    with pytest.raises(NBDTError, match="no image of 2 classes 'phone', 'years'.* Their folders hold "
                                        "3 .heic files. Add"):  # fmt: skip
        read(root, recipe)
    shutil.rmtree(root / "years")
    shutil.rmtree(root / "phone")
    for file in (root / "red").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(
        NBDTError, match=r"(?s)5 of 15 train images cannot .*no image of 1 class 'red'"
    ):
        read(root, recipe)
    with pytest.raises(
        NBDTError,
        match="no image of 1 class 'red'. Their folders hold 5 images that cannot be read",
    ):
        read(root, replace(recipe, skip_corrupt=True, check_images=False))


@pytest.mark.parametrize("augment", ["shift", "crop"])
def test_a_test_split_that_cannot_be_read_is_reported(tmp_path, augment):
    write(tmp_path / "train")
    for file in write(tmp_path / "test", count=1).rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(NBDTError, match="no test image can be read"):
        read(tmp_path, replace(RECIPE, augment=augment, skip_corrupt=True))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_class_whose_name_is_no_utf8_is_refused_by_name(tmp_path):
    write(tmp_path, names=["red", os.fsdecode(b"gr\xfcn")])
    with pytest.raises(NBDTError, match=r"class name 'gr.udcfcn' holds"):
        read(tmp_path)


def test_labels_that_differ_by_case_alone_are_one_class(tmp_path):
    write(tmp_path, names=["heron", "Heron", "crane"])
    with pytest.raises(NBDTError, match="'Heron' and 'heron' are the same class"):
        read(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "validation"):
        write(tmp_path / name)
    with pytest.raises(NBDTError, match="two folders of validation images, 'val' and 'validation'"):
        read(tmp_path)


def test_large_images_are_measured_in_small_batches():
    for size, expected in ((8, 500), (224, 20), (448, 5)):
        found = PlainBatches(Images(torch.zeros(0)), replace(SEEN, size=size))
        assert found.batch_size == expected


def test_an_image_that_vanishes_during_training_is_named(tmp_path):
    root = write(tmp_path)
    _, images = read(root, replace(RECIPE, augment="crop"))
    (root / "blue" / "0.png").unlink()
    with pytest.raises(NBDTError, match="training image cannot be read.*0.png.*--resume"):
        images["train"].open(0)


# ---- held out ----


@pytest.mark.parametrize(("amount", "expected"), [(4, 4), (0.25, 3), (0.01, 1), (1, 1)])
def test_held_out_images_are_balanced_disjoint_and_the_same_every_time(amount, expected):
    labels = torch.arange(3).repeat_interleave(10)
    images = torch.arange(30).view(30, 1, 1, 1).expand(30, 3, 2, 2).to(torch.uint8)
    kept, out = hold_out(Images(labels, pixels=images), amount, seed=1)
    assert torch.bincount(out.labels).tolist() == [expected] * 3
    ids = [set(part.pixels[:, 0, 0, 0].tolist()) for part in (kept, out)]
    assert len(ids[0] | ids[1]) == 30
    assert not ids[0] & ids[1]
    streamed = hold_out(Images(labels, list(range(30))), amount, seed=1)
    assert [set(part.sources) for part in streamed] == ids


def test_two_images_of_a_class_are_never_held_out():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    kept, out = hold_out(Images(labels, pixels=torch.zeros(10, 3, 2, 2)), 2, seed=0)
    assert torch.bincount(kept.labels).tolist() == [2, 2, 3]
    assert torch.bincount(out.labels).tolist() == [0, 1, 2]


# ---- views and batches ----


def random_images(count=22):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(torch.arange(count), pixels=images)


KINDS = {
    "memory": replace(RECIPE, crop_padding_pixels=1),
    "one by one": replace(RECIPE, crop_padding_pixels=1, erase_probability=0.5),
    "crop": replace(RECIPE, augment="crop", auto_augment="rand-m5-mstd0.5"),
}


def epochs(recipe, count=2, start=None, skip=0):
    """Batches of some epochs, begun as Lightning does; from the middle of one if asked."""
    batches = TrainingBatches(random_images(), recipe, SEEN)
    found = []
    if start is not None:
        batches.load_state_dict({"epoch": start, "position": skip})
    for epoch in range(start or 0, count):
        batches.set_epoch(epoch)
        found.append(list(batches))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_the_same_in_every_run_and_differ_between_epochs(kind):
    recipe = KINDS[kind]
    one, two = epochs(recipe), epochs(recipe)
    for first, second in zip(one, two, strict=True):
        assert len(first) == 5
        for (x, y), (again, same) in zip(first, second, strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, same)
    ordered = [torch.cat([x for x, _ in e])[torch.cat([y for _, y in e]).argsort()] for e in one]
    assert not torch.equal(*ordered)
    other = epochs(replace(recipe, seed=1))
    assert not torch.equal(one[0][0][0], other[0][0][0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [0, 1, 4, 5])
def test_batches_go_on_where_they_were_interrupted(kind, skip):
    whole = epochs(KINDS[kind], 3)
    rest = epochs(KINDS[kind], 3, start=1, skip=skip)
    if skip == 5:  # a whole epoch: the trainer begins the next
        rest = epochs(KINDS[kind], 3, start=2)
        whole = whole[1:]
    assert len(rest[0]) == (5 if skip == 5 else 5 - skip)
    for (x, y), (again, same) in zip(
        [*whole[1][-len(rest[0]) :], *whole[-1]], [b for e in rest for b in e], strict=False
    ):
        assert torch.equal(x, again)
        assert torch.equal(y, same)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
def test_workers_change_nothing(tmp_path):
    recipe = replace(KINDS["crop"], erase_probability=0.5)
    _, images = read(write(tmp_path), recipe)
    alone = TrainingBatches(images["train"], recipe, SEEN)
    shared = TrainingBatches(images["train"], replace(recipe, workers=2), SEEN)
    for epoch in range(2):
        alone.set_epoch(epoch)
        shared.set_epoch(epoch)
        for (x, y), (again, same) in zip(alone, shared, strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, same)


def test_drawing_leaves_the_generators_as_they_were():
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with seeded(1, 2, 3):
        first = torch.rand(3), np.random.rand()  # noqa: NPY002
    with seeded(1, 2, 3):
        assert torch.equal(torch.rand(3), first[0])
        assert np.random.rand() == first[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002


def test_plain_batches_are_what_the_model_sees_later(tmp_path):
    order, images = read(write(tmp_path), replace(RECIPE, augment="crop"))
    batches = PlainBatches(images["train"], SEEN)
    batches.batch_size = 4
    assert len(batches) == 4
    seen = torch.cat([x for x, _ in batches])
    expected = torch.stack([SEEN(images["train"].open(i)) for i in range(15)])
    assert torch.allclose((seen.float() / 255 - 0.5) / 0.25, expected)
    assert torch.cat([y for _, y in batches]).tolist() == images["train"].labels.tolist()
    assert order.names[0] == "blue"


def test_a_bad_auto_augment_is_explained():
    with pytest.raises(NBDTError, match="auto_augment = 'rand-x9' cannot be read by timm"):
        random_view(replace(RECIPE, augment="crop", auto_augment="rand-x9"), SEEN)


def test_flips_alternate_so_that_views_repeat_less():
    recipe = replace(RECIPE, crop_padding_pixels=0)
    seen = []
    for found in epochs(recipe, 4):
        images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        seen.append(dict(zip(labels.tolist(), images, strict=True)))
    for label, image in enumerate(random_images().pixels):
        for even, odd in zip(seen[::2], seen[1::2], strict=True):
            if label in even and label in odd:
                assert {bool(torch.equal(view[label], image)) for view in (even, odd)} == {
                    True,
                    False,
                }
                assert torch.equal(even[label], odd[label].flip(-1))


def test_fewer_images_than_a_batch_are_one_batch():
    batches = TrainingBatches(random_images(3), replace(RECIPE, batch_size=250), SEEN)
    assert [len(y) for _, y in batches] == [3]
