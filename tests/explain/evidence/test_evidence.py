"""Evidence: the nearest photographs equal a plain loop's; regions, pictures, what is refused."""

import hashlib
import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.explain import Evidence, explain
from nbdt.explain.evidence import search as searching
from nbdt.explain.evidence.pictures import Pictures, tile
from nbdt.explain.evidence.search import ExactSearch, RowOrder
from nbdt.images.dataset import iter_images
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource
from nbdt.model.remember import make_memory, open_memory
from tests import oracle

TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
COLOURS = {"cat": (200, 60, 40), "dog": (150, 110, 30), "car": (40, 60, 200), "bus": (30, 160, 160)}
EACH = 6  # images of a class


def drawn(label, number):
    """A noisy square of the class's colour with a shape in it."""
    noise = np.random.default_rng([*label.encode(), number]).integers(-40, 40, (40, 48, 3))
    pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).ellipse([4 * number, 8, 4 * number + 16, 24], fill="white")
    return image


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders; the files have EXIF with a place."""
    root = tmp_path_factory.mktemp("evidence") / "data"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        for number in range(EACH):
            exif = Image.Exif()
            exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.6)}  # GPS
            exif[0x010F] = "SECRETCAMERA"
            drawn(label, number).save(root / label / f"{number}.jpg", exif=exif, quality=95)
    return root


def remembered(model, data, place, **options):
    """A memory of labelled photographs, or of a data set."""
    memory = make_memory(model, place)
    sources = (
        data if isinstance(data, list) else list(iter_images(data, options.pop("split", None)))
    )
    assert not memory.add(sources, **options).failed
    return memory


@pytest.fixture(scope="module")
def memory(model, data, tmp_path_factory):
    return remembered(model, data, tmp_path_factory.mktemp("memory"), pictures=True)


@pytest.fixture(scope="module")
def near(model, memory):
    return Evidence(memory).for_model(model)


@pytest.fixture
def own(model, memory, tmp_path):
    """A memory of its own for a test that changes it."""
    place = shutil.copytree(memory.table.place, tmp_path / "memory")
    return open_memory(model, place)


@pytest.fixture(scope="module")
def query(model):
    """A photograph's features and path."""
    image = model.preprocess(drawn("dog", 99))[None]
    with torch.inference_mode():
        feature_map = model.feature_map(image)
        features = model.pool(feature_map)
        return features[0], model.head.paths(features)[0]


def rows_and_values(side):
    return [neighbour.row for neighbour in side], [neighbour.similarity for neighbour in side]


# ---- the nearest images, against a plain loop ----------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 100])
def test_both_sides_of_every_decision_equal_a_plain_loop(memory, near, query, k):
    features, path = query
    labels = memory.rows.labels
    embeddings = memory.rows.features.astype(np.float64)
    found = replace(near, k=k).for_path(features, path)
    assert len(found) == len(path)
    for decision, evidence in zip(path, found, strict=True):
        for child, side in (
            (decision.chosen, evidence.chosen),
            (decision.runner_up, evidence.rejected),
        ):
            node = TREE.index(decision.child_ids[child])
            expected = oracle.nearest_below(
                TREE, node, embeddings, labels, features.double().tolist(), k
            )
            rows, values = rows_and_values(side)
            assert rows == [row for row, _ in expected]
            assert values == pytest.approx([value for _, value in expected], abs=1e-3)
            below = {TREE.classes[c] for c in TREE.classes_under(node)}
            assert {neighbour.label for neighbour in side} <= below


@settings(max_examples=40)
@given(
    tree=oracle.trees(),
    seed=st.integers(0, 1000),
    k=st.integers(1, 7),
    rows=st.integers(1, 60),
    chunk=st.sampled_from([4, 1 << 20]),
)
def test_any_tree_any_labels_any_exclusion(tree, seed, k, rows, chunk):
    """Also labels that are groups, a side fewer than k, and a product that runs in pieces."""
    draw = np.random.default_rng(seed)
    embeddings = draw.standard_normal((rows, 8)).astype(np.float16)
    nodes = draw.integers(0, tree.num_nodes, rows)
    query = draw.standard_normal(8).astype(np.float32)
    active, without = draw.random(rows) < 0.8, np.flatnonzero(draw.random(rows) < 0.2)
    order = RowOrder.of([tree.ids[node] for node in nodes], active, tree)
    search = ExactSearch(embeddings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "CHUNK", 32 * chunk)
        patch.setattr(searching, "IN_MEMORY", 0 if chunk == 4 else 1 << 30)
        found = search.nearest(query, order.order, list(order.spans), k, without)
    counts = active & ~np.isin(np.arange(rows), without)
    for node, (own, values) in enumerate(found):
        allowed = [r for r in range(rows) if counts[r] and node in tree.path_to(int(nodes[r]))]
        exact = embeddings.astype(np.float64)
        products = exact @ query.astype(np.float64) / np.linalg.norm(exact, axis=1)
        best = sorted(products[allowed], reverse=True)[:k]
        assert set(own.tolist()) <= set(allowed)
        assert len(own) == min(k, len(allowed))
        assert np.allclose(values, best, atol=1e-4)
        assert np.allclose(products[own], values, atol=1e-4)


def test_an_edited_hierarchy_uses_the_same_memory(model, memory, query):
    edited = Hierarchy.from_paths(["a/cat", "b/dog", "a/car", "b/bus"])
    other = NBDT(model.backbone, type(model.head).from_linear(
        model.head.linear, edited, rule="marginal"), model.architecture, model.preprocess)  # fmt: skip
    other.eval()
    features, _ = query
    with torch.inference_mode():
        path = other.head.paths(features[None])[0]
    root = Evidence(memory, k=100).for_model(other).for_path(features, path)[0]
    chosen = {"a": {"cat", "car"}, "b": {"dog", "bus"}}[
        path.decisions[0].children[path.decisions[0].chosen]
    ]
    assert {neighbour.label for neighbour in root.chosen} == chosen
    assert {neighbour.label for neighbour in root.rejected} == set(COLOURS) - chosen


def test_a_photograph_of_the_memory_finds_itself_first(model, near, data):
    with Image.open(data / "car" / "3.jpg") as picture, torch.inference_mode():
        features = model.features(model.preprocess(picture)[None])
        path = model.head.paths(features, classes=[2])[0]
    first = near.for_path(features[0], path)[-1].chosen[0]
    assert first.reference == "car/3.jpg"
    assert first.similarity == pytest.approx(1, abs=1e-3)


def test_the_vote_counts_the_nearest_of_both_sides(near, query):
    features, path = query
    evidence = near.for_path(features, path)[0]
    pool = [(n.similarity, n in evidence.chosen) for n in evidence.chosen + evidence.rejected]
    expected = sum(chosen for _, chosen in sorted(pool, reverse=True)[:5]) / 5
    assert evidence.vote == expected
    assert replace(evidence, chosen=(), rejected=()).vote is None
    assert json.loads(json.dumps(evidence.to_dict()))["vote"] == expected


def test_the_models_own_memory_is_the_default(model, own, near, query):
    _, path = query
    assert explain(model, drawn("dog", 99))[0].evidence == ()
    model.use_memory(own.table.place)
    try:
        found = explain(model, drawn("dog", 99))[0].evidence
        assert [n.reference for n in found[0].chosen] == [
            n.reference for n in near.for_path(query[0], path)[0].chosen
        ]
        assert explain(model, drawn("dog", 99), evidence=False)[0].evidence == ()
        assert explain(model, drawn("dog", 99), evidence=own)[0].evidence == found
    finally:
        model.memory_place = model._memory = None


def test_rows_that_are_struck_out_or_relabelled_change_what_is_shown(model, own, query):
    features, path = query
    evidence = Evidence(own)
    before = evidence.for_model(model).for_path(features, path)
    gone = before[0].chosen[0]
    own.strike(gone.reference, "blurred")
    after = evidence.for_model(model).for_path(features, path)
    assert gone.reference not in shown(after)
    assert evidence.hash != Evidence(own).view([own.rows.ids[0]]).hash
    own.take_back(gone.reference)
    assert evidence.for_model(model).for_path(features, path) == before
    group = path.decisions[0].child_ids[path.decisions[0].chosen]
    own.relabel(gone.reference, group)
    found = Evidence(own, k=100).for_model(model).for_path(features, path)
    assert gone.reference in {n.reference for n in found[0].chosen}
    assert gone.reference not in shown(found[1:])


def shown(found):
    return {n.reference for one in found for n in one.chosen + one.rejected}


def test_a_view_leaves_rows_out_for_one_person(model, memory, near, query):
    features, path = query
    first = near.for_path(features, path)[0].chosen[0]
    view = Evidence(memory).view([memory.rows.ids[first.row]])
    assert first.reference not in shown(view.for_model(model).for_path(features, path))
    assert first.reference in shown(near.for_path(features, path))


def test_a_restricted_model_sees_the_rows_of_its_classes(model, memory):
    small = model.restrict(["cat", "car", "bus"])
    photo = small.preprocess(drawn("cat", 99))[None]
    found = explain(small, photo, evidence=memory)[0].evidence
    labels = {n.label for one in found for n in one.chosen + one.rejected}
    assert labels <= {"cat", "car", "bus"}


def test_tar_archives_work_too(model, data, tmp_path):
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(data, "train")
    found = remembered(model, tmp_path / "data.tar.gz", tmp_path / "m", split="train")
    assert {*found.rows.names} == {f"{c}/{n}.jpg" for c in COLOURS for n in range(EACH)}
    opened = Evidence(found).for_model(model).neighbour(0, 1).open()
    assert opened.size == (32, 32)
    (tmp_path / "data.tar.gz").rename(tmp_path / "moved.tar.gz")
    moved = Evidence(found, data=tmp_path / "moved.tar.gz").for_model(model).neighbour(0, 1)
    assert moved.open().size == (32, 32)


# ---- refusals --------------------------------------------------------------------------------


def test_another_networks_memory_is_refused(memory):
    torch.manual_seed(1)
    other = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    with pytest.raises(NBDTError, match="another network"):
        Evidence(memory).for_model(other)


def test_a_memory_without_a_label_of_the_model_is_refused(model, memory):
    tree = Hierarchy.from_paths(["tree/oak", "tree/elm", "stone/flint", "stone/chalk"])
    head = type(model.head).from_linear(model.head.linear, tree, rule="marginal")
    other = NBDT(model.backbone, head, model.architecture, model.preprocess).eval()
    with pytest.raises(NBDTError, match="None of the 24.*'dog'"):
        Evidence(memory).for_model(other)


def test_bad_queries_are_refused(near, memory, query):
    features, path = query
    with pytest.raises(NBDTError, match=r"of shape \(256,\), got \(1, 256\)"):
        near.for_path(features[None], path)
    with pytest.raises(NBDTError, match="not finite"):
        near.for_path(features * torch.nan, path)
    with pytest.raises(NBDTError, match="k of at least 1, got 0"):
        Evidence(memory, k=0)


def test_damaged_numbers_are_noticed_when_used():
    values = np.ones((3, 4), np.float16)
    values[1, 2] = np.nan
    with pytest.raises(NBDTError, match="not finite numbers"):
        ExactSearch(values).similarities(np.ones(4, np.float32))


# ---- pictures --------------------------------------------------------------------------------


def colour_of(picture):
    return np.asarray(picture.convert("RGB"), dtype=float).mean(axis=(0, 1))


def test_pictures_are_the_original_the_kept_one_or_a_clear_error(
    model, memory, near, data, tmp_path
):
    place = memory.rows.place("bus/2.jpg")
    original = near.neighbour(place, 1).open()
    assert original.size == (32, 32)
    copied = shutil.copytree(data, tmp_path / "data")
    bare = remembered(model, copied, tmp_path / "bare")
    kept = remembered(model, copied, tmp_path / "kept", pictures=True)
    copied.rename(tmp_path / "moved")
    gone = Evidence(kept).for_model(model).neighbour(place, 1).open()
    assert np.abs(colour_of(gone) - colour_of(original)).max() < 4
    lost = Evidence(bare).for_model(model).neighbour(place, 1)
    with pytest.raises(ImageError, match=r"bus/2.jpg': expected the original photo.*--pictures"):
        lost.open()
    assert tile(lost, 96).size == (96, 96)
    found = Evidence(bare, data=tmp_path / "moved").for_model(model).neighbour(place, 1)
    assert np.array_equal(np.asarray(found.open()), np.asarray(original))


def test_a_file_of_other_content_is_never_shown(model, own, tmp_path):
    """A memory that someone else made may name any file of this machine."""
    drawn("cat", 0).save(tmp_path / "secret.png")
    names = [str(tmp_path / "secret.png"), "../secret.png", "//host/share/secret.png"]
    records = [
        {"id": f"{n:064x}", "label": "cat", "reference": name, "active": True}
        for n, name in enumerate(names)
    ]
    own.table.add(records, np.ones((3, 256), np.float16))
    near = Evidence(own, data=tmp_path).for_model(model)
    for name in names:
        with pytest.raises(ImageError, match="expected the original photograph"):
            near.neighbour(own.rows.place(name), 1).open()


def test_originals_are_looked_for_only_where_the_user_says(model, own, tmp_path):
    """Even a file of the right content is not shown from outside of the data that was named."""
    outside, named = tmp_path / "outside", tmp_path / "named"
    for folder in (outside, named):
        folder.mkdir()
    drawn("cat", 0).save(outside / "cat.png")
    drawn("dog", 0).save(outside / "dog.png")
    with tarfile.open(outside / "photos.tar", "w") as archive:
        archive.add(outside / "cat.png", "cat.png")
    key = hashlib.sha256((outside / "cat.png").read_bytes()).hexdigest()
    texts = [outside / "cat.png", named / "../outside/cat.png", f"{outside}/photos.tar!cat.png"]
    free, bound = (Pictures(own.table, lambda image: image, data) for data in (None, named))
    for text, shown in zip(map(str, texts), (True, False, True), strict=True):
        with pytest.raises(ImageError):
            bound.open(key, text)
        if shown:
            assert free.open(key, text).size == drawn("cat", 0).size
        else:
            with pytest.raises(ImageError):
                free.open(key, text)
        with pytest.raises(ImageError):  # an archive's member is compared, too
            free.open("0" * 64, text)
    shutil.copy(outside / "cat.png", named)
    assert bound.open(key, str(texts[0])).size == drawn("cat", 0).size


def test_names_do_not_show_folders_of_this_machine(model, data, tmp_path):
    sources = [
        ImageSource(f"/home/ann/{folder}/cat/{n}.jpg", "cat", lambda n=n, f=folder: drawn("cat", n + 3 * f))
        for folder in (0, 1) for n in range(2 - folder)
    ]  # fmt: skip
    rows = remembered(model, sources, tmp_path / "m").rows
    assert sorted(len(name) for name in rows.names) == [9, 12, 12]
    assert not any("ann" in name for name in rows.names)
    assert sorted(rows.place(name) for name in rows.names) == [0, 1, 2]
