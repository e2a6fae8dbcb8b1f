"""Embeddings of many images: the model's own, computed once for each content, kept on the disk."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.images.dataset import iter_images
from nbdt.images.labelled import LabelledImages
from nbdt.images.sources import AHEAD, ImageSource, in_threads
from nbdt.model import features
from nbdt.model.features import embed
from nbdt.network.encoder import Encoder

TREE = Hierarchy.from_nested({"all": [{"animal": ["cat", "dog"]}, "car"]})


def photograph(path, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


@pytest.fixture
def data(tmp_path):
    """Twenty photographs in three folders, one of them broken."""
    for number in range(20):
        photograph(tmp_path / "data" / ["cat", "Dog", "CAR"][number % 3] / f"{number}.png", number)
    (tmp_path / "data" / "cat" / "3.png").write_bytes(b"no image")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nbdt" / "features"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()


@pytest.fixture
def computed(monkeypatch):
    """The number of images in each pass through a network."""
    sizes, own = [], features._pooled

    def counting(model, pixels, device):
        sizes.append(len(pixels))
        return own(model, pixels, device)

    monkeypatch.setattr(features, "_pooled", counting)
    return sizes


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_each_row_is_the_models_embedding_of_its_image(model, data, threads, computed):
    sources = [*iter_images(data)]
    found = embed(model, sources, keep=False, threads=threads)
    assert computed == [features.ON_CPU, 3]
    assert [sources[place] for place in found.places] == list(found.sources)
    assert len(found.failed) == 1
    assert "3.png" in found.failed[0]
    assert found.values.dtype == torch.float32
    for source, row in zip(found.sources, found.values, strict=True):
        with torch.inference_mode():
            expected = model.features(model.preprocess(source.open())[None])[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_a_network_without_a_head_has_the_same_embeddings(model, data, computed):
    first = embed(model, iter_images(data))
    del computed[:]
    encoder = Encoder(model.backbone, model.architecture, model.preprocess)
    assert torch.equal(embed(encoder, iter_images(data)).values, first.values)
    assert not computed


def test_equal_files_are_computed_once_whatever_their_names(model, data, cache, computed):
    embed(model, iter_images(data))
    del computed[:]
    (data / "cat" / "0.png").rename(data / "Dog" / "moved.png")
    photograph(data / "CAR" / "again.png", 7)
    photograph(data / "CAR" / "new.png", 99)
    found = embed(model, iter_images(data))
    assert computed == [1]
    rows = {source.reference.rpartition("/")[2]: row
            for source, row in zip(found.sources, found.values, strict=True)}  # fmt: skip
    assert torch.equal(rows["again.png"], rows["7.png"])
    assert len(list(cache.glob("*/*.npy"))) == 2


@pytest.mark.parametrize("what", ["weights", "preprocessing", "cut short", "other bytes", "pickle"])
def test_embeddings_of_other_things_are_not_used(model, data, cache, computed, caplog, what):
    first = embed(model, iter_images(data))
    del computed[:]
    (kept,) = cache.glob("*/*.npy")
    if what == "weights":
        next(model.backbone.parameters()).data[0] += 1
    elif what == "preprocessing":
        model.preprocess = replace(model.preprocess, mean=(0.5, 0.5, 0.5))
    elif what == "cut short":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif what == "other bytes":
        np.save(kept, np.zeros(5))
    else:
        np.save(kept, np.array([print], dtype=object), allow_pickle=True)
    again = embed(model, iter_images(data))
    assert sum(computed) == 19
    damaged = what not in {"weights", "preprocessing"}
    assert torch.equal(again.values, first.values) == damaged
    assert (kept.name in caplog.text) == damaged


def test_what_an_interrupted_run_computed_is_kept(model, data, computed):
    def broken(items, _count, _what):
        for number, item in enumerate(items):
            if number == 18:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        embed(model, iter_images(data), threads=0, progress=broken)
    assert computed == [features.ON_CPU]
    embed(model, iter_images(data))
    assert computed == [features.ON_CPU, 3]


def test_nothing_is_written_where_nothing_is_to_be_kept(model, data, cache):
    embed(model, iter_images(data), keep=False)
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_costs_only_time(model, data, cache, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file is where the folder should be")
    first, again = (embed(model, iter_images(data)).values for _ in range(2))
    assert torch.equal(first, again)
    assert str(cache) in caplog.text


def test_look_sees_each_image_kept_or_not(model, data):
    for _ in range(2):
        found = embed(model, iter_images(data), look=lambda image: image.size)
        assert list(found.seen) == [(48, 36)] * 19


def test_sources_without_bytes_are_known_by_their_pixels(model, computed):
    image = Image.new("RGB", (40, 40), "red")
    sources = [ImageSource(name, None, image.copy) for name in "ab"]
    found = embed(model, sources)
    assert torch.equal(found.values[0], found.values[1])
    assert sum(computed) == 1


def test_no_images_have_no_embeddings(model):
    assert len(embed(model, []).values) == 0


# ---- what is read ----


def test_results_come_in_order_and_not_much_too_early():
    asked = []

    def items():
        for number in range(300):
            asked.append(number)
            yield number

    results = in_threads(partial(pow, 3), items(), 4)
    for number, result in enumerate(results):
        assert result == 3**number
        assert len(asked) <= number + AHEAD + 1
        if number == 150:
            break
    results.close()
    assert len(asked) < 300


def test_labels_are_classes_or_where_wanted_groups(data):
    images = LabelledImages(data, TREE)
    assert len(images) == 20
    assert sorted(set(images.labels(images).tolist())) == [0, 1, 2]
    photograph(data / "Animal" / "x.png", 50)
    node = next(node for node in TREE.inner_nodes if TREE.names[node] == "animal")
    images = LabelledImages(data, TREE, groups=True)
    assert images.labels(s for s in images if s.class_label == "Animal").tolist() == [-1 - node]
    with pytest.raises(NBDTError, match="4 labels; 1 of them.*'Animal'.*'cat'"):
        LabelledImages(data, TREE)


def test_labels_that_are_numbers_are_those_of_the_classes(data, tmp_path):
    files = sorted(data.rglob("*.png"))[:2]
    rows = "\n".join(f"{file},{number}" for number, file in zip((2, 0), files, strict=True))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}\n")
    images = LabelledImages(tmp_path / "t.csv", TREE)
    assert images.labels(images).tolist() == [2, 0]
    (tmp_path / "t.csv").write_text(f"path,label\n{files[0]},{TREE.num_classes}\n")
    with pytest.raises(NBDTError, match="1 of them are not classes"):
        LabelledImages(tmp_path / "t.csv", TREE)
