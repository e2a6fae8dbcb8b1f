"""Evidence: the nearest images equal a plain loop's; what is stored, marked, damaged, refused."""

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.evidence import EvidenceError, blob
from nbdt.explain import EvidenceIndex
from nbdt.explain.evidence import search as searching
from nbdt.explain.evidence.command import app
from nbdt.explain.evidence.index import vote_changes
from nbdt.explain.evidence.pictures import linked, sheet, tile
from nbdt.explain.evidence.regions import (
    box,
    feature_grid,
    late_interactions,
    region_vectors,
    strongest,
)
from nbdt.explain.evidence.search import ExactSearch, RowOrder, path_changes
from nbdt.images.image import ImageError, refusal, refuse
from nbdt.images.sources import ImageSource
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
    """Class folders; one file has EXIF with a place, one is no image."""
    root = tmp_path_factory.mktemp("evidence") / "data"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        for number in range(EACH):
            exif = Image.Exif()
            exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.6)}  # GPS
            exif[0x010F] = "SECRETCAMERA"
            drawn(label, number).save(root / label / f"{number}.jpg", exif=exif, quality=95)
    (root / "dog" / "broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def built(model, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "evidence"
    return EvidenceIndex.build(model, data, folder, thumbnails=True)


@pytest.fixture
def index(built, tmp_path):
    """A copy of its own for a test that marks or damages."""
    shutil.copytree(built.folder, tmp_path / "index")
    return EvidenceIndex.load(tmp_path / "index")


@pytest.fixture(scope="module")
def query(model):
    """A photograph's features, feature map and path."""
    image = model.preprocess(drawn("dog", 99))[None]
    with torch.inference_mode():
        feature_map = model.feature_map(image)
        features = model.pool(feature_map)
        return features[0], feature_map[0], model.head.paths(features)[0]


def rows_and_values(side):
    return [neighbour.row for neighbour in side], [neighbour.similarity for neighbour in side]


# ---- the nearest images, against a plain loop ----------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 100])
def test_both_sides_of_every_decision_equal_a_plain_loop(model, built, query, k):
    features, _, path = query
    labels = [built.label(row) for row in range(len(built))]
    embeddings = np.array(built.column("embeddings"), dtype=np.float64)
    found = built.for_model(model).for_path(features, path, k)
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
    """Also where a class has no image, a side fewer than k, and the product runs in pieces."""
    draw = np.random.default_rng(seed)
    embeddings = draw.standard_normal((rows, 8)).astype(np.float16)
    labels = draw.integers(0, tree.num_classes, rows)
    query = draw.standard_normal(8).astype(np.float32)
    without = np.flatnonzero(draw.random(rows) < 0.2)
    rows_in_order = RowOrder.of(tree.classes, labels, tree)
    search = ExactSearch(embeddings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "CHUNK", 32 * chunk)
        patch.setattr(searching, "IN_MEMORY", 0 if chunk == 4 else 1 << 30)
        found = search.nearest(query, rows_in_order.order, list(rows_in_order.spans), k, without)
    names = [tree.classes[label] for label in labels]
    for node, (own, values) in enumerate(found):
        below = {tree.classes[c] for c in tree.classes_under(node)}
        allowed = [r for r in range(rows) if names[r] in below and r not in set(without.tolist())]
        exact = embeddings.astype(np.float64)
        products = exact @ query.astype(np.float64) / np.linalg.norm(exact, axis=1)
        best = sorted(products[allowed], reverse=True)[:k]
        assert set(own.tolist()) <= set(allowed)
        assert len(own) == min(k, len(allowed))
        assert np.allclose(values, best, atol=1e-4)
        assert np.allclose(products[own], values, atol=1e-4)


def test_an_edited_hierarchy_uses_the_same_index(model, built, query):
    edited = Hierarchy.from_paths(["a/cat", "b/dog", "a/car", "b/bus"])
    other = NBDT(model.backbone, type(model.head).from_linear(
        model.head.linear, edited, rule="marginal"), model.architecture, model.preprocess)  # fmt: skip
    other.eval()
    features, _, _ = query
    with torch.inference_mode():
        path = other.head.paths(features[None])[0]
    root = built.for_model(other).for_path(features, path, k=100)[0]
    chosen = {"a": {"cat", "car"}, "b": {"dog", "bus"}}[
        path.decisions[0].children[path.decisions[0].chosen]
    ]
    assert {neighbour.label for neighbour in root.chosen} == chosen
    assert {neighbour.label for neighbour in root.rejected} == set(COLOURS) - chosen


def test_an_image_of_the_index_finds_itself_first(model, built, data):
    with Image.open(data / "car" / "3.jpg") as picture, torch.inference_mode():
        features = model.features(model.preprocess(picture)[None])
        path = model.head.paths(features, classes=[2])[0]
    first = built.for_model(model).for_path(features[0], path)[-1].chosen[0]
    assert first.reference == "car/3.jpg"
    assert first.similarity == pytest.approx(1, abs=1e-3)


def test_the_vote_counts_the_nearest_of_both_sides(model, built, query):
    features, _, path = query
    evidence = built.for_model(model).for_path(features, path, k=5)[0]
    pool = [(n.similarity, n in evidence.chosen) for n in evidence.chosen + evidence.rejected]
    expected = sum(chosen for _, chosen in sorted(pool, reverse=True)[:5]) / 5
    assert evidence.vote == expected
    assert replace(evidence, chosen=(), rejected=()).vote is None
    assert json.loads(json.dumps(evidence.to_dict()))["vote"] == expected


def test_memory_and_disk_hold_the_same(model, data, built, query):
    features, _, path = query
    memory = EvidenceIndex.build(model, data)
    assert memory.folder is None
    assert memory.for_model(model).for_path(features, path) == built.for_model(model).for_path(
        features, path
    )
    again = EvidenceIndex.load(built.folder)
    assert again.for_model(model).for_path(features, path) == built.for_model(model).for_path(
        features, path
    )


# ---- what is stored --------------------------------------------------------------------------


def test_an_unreadable_image_is_left_out_and_named(built):
    assert len(built) == EACH * len(COLOURS)
    assert len(built.failed) == 1
    assert "broken.jpg" in built.failed[0]
    assert built.manifest["failed"] == 1


def test_columns_are_what_the_network_gave(model, built, data):
    embeddings = built.column("embeddings")
    assert isinstance(embeddings, np.memmap)
    assert embeddings.dtype == np.float16
    for row in (0, 7, 23):
        with Image.open(data / built.reference(row)) as picture, torch.inference_mode():
            expected = model.features(model.preprocess(picture)[None])[0].numpy()
        expected /= np.linalg.norm(expected)
        assert np.allclose(embeddings[row], expected, atol=1e-3)
        assert built.reference(row).startswith(built.label(row) + "/")


def test_thumbnails_carry_no_metadata(built):
    for row in range(len(built)):
        stored = blob(built.column("thumbnails"), built.column("thumbnail_ends"), row)
        assert b"SECRETCAMERA" not in stored
        with Image.open(io.BytesIO(stored)) as picture:
            assert not picture.getexif()
            assert picture.size == (32, 32)


def test_nothing_stored_is_pickled_or_private(built):
    for path in built.folder.iterdir():
        assert path.suffix in {".npy", ".json"}
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False) is not None
        assert b"SECRETCAMERA" not in path.read_bytes()


def test_tar_archives_and_sequences_work_too(model, data, built, tmp_path):
    (data / "dog" / "broken.jpg").rename(tmp_path / "broken.jpg")
    try:
        with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
            archive.add(data, "train")
    finally:
        (tmp_path / "broken.jpg").rename(data / "dog" / "broken.jpg")
    found = EvidenceIndex.build(model, tmp_path / "data.tar.gz", split="train")
    references = {found.reference(row) for row in range(len(found))}
    assert references == {f"train/{built.reference(row)}" for row in range(len(built))}
    assert found.neighbour(0, 1).open().size == (32, 32)
    sources = [ImageSource(f"{n}", "cat", lambda n=n: drawn("cat", n)) for n in range(3)]
    assert len(EvidenceIndex.build(model, sources)) == 3


def test_labels_may_be_wordnet_ids(model):
    nodes = [replace(node, wnid="n02121620") if node.id == "cat" else node for node in TREE.nodes] \
        if hasattr(TREE.nodes[0], "__dataclass_fields__") \
        else [node._replace(wnid="n02121620") if node.id == "cat" else node for node in TREE.nodes]  # fmt: skip
    head = type(model.head).from_linear(
        model.head.linear, Hierarchy(tuple(nodes), TREE.classes), rule="marginal"
    )
    other = NBDT(model.backbone, head, model.architecture, model.preprocess).eval()
    source = ImageSource("photos/n02121620_7.jpg", None, lambda: drawn("cat", 0))
    assert EvidenceIndex.build(other, [source]).label(0) == "cat"


def test_no_folder_remains_of_a_build_that_fails(model, data, tmp_path):
    def interrupted(sources, _count, _what):
        yield next(iter(sources))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EvidenceIndex.build(model, data, tmp_path / "out", progress=interrupted)
    assert not list(tmp_path.iterdir())


# ---- late interaction ------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    images=st.integers(1, 3),
)
def test_late_interaction_equals_a_plain_loop(seed, grid, images):
    draw = np.random.default_rng(seed)
    maps = torch.from_numpy(draw.standard_normal((1 + images, 6, *grid)))
    vectors = region_vectors(maps)
    weights = draw.random(grid[0] * grid[1]).astype(np.float32)
    weights /= weights.sum()
    found = late_interactions(vectors[0], vectors[1:], grid, weights)
    plain = maps.flatten(2).transpose(1, 2).numpy()
    for interaction, image in zip(found, plain[1:], strict=True):
        score, best = oracle.late_interaction(plain[0], image, weights.tolist())
        assert interaction.score == pytest.approx(score, abs=1e-5)
        for match in interaction.matches:
            place = next(i for i in range(len(best)) if box(i, grid) == match.query)
            assert match.evidence == box(best[place][0], grid)
            assert match.similarity == pytest.approx(best[place][1], abs=1e-5)


def test_an_image_resembles_itself_region_by_region():
    vectors = region_vectors(torch.randn(1, 8, 3, 5))
    (found,) = late_interactions(vectors[0], vectors, (3, 5))
    assert found.score == pytest.approx(1, abs=1e-5)
    assert all(match.query == match.evidence for match in found.matches)


def test_a_planted_region_is_found_where_it_is():
    """The same vector at another place in the other image, and nothing else alike."""
    one, other = (
        torch.eye(40)[:16].T.reshape(1, 40, 4, 4),
        torch.eye(40)[16:32].T.reshape(1, 40, 4, 4),
    )
    other = other.clone()
    other[0, :, 3, 0] = one[0, :, 1, 2]
    weights = strongest(np.eye(16, dtype=np.float32)[6].reshape(4, 4), 5)
    (found,) = late_interactions(region_vectors(one)[0], region_vectors(other), (4, 4), weights)
    assert found.score == pytest.approx(1)
    assert [(match.query, match.evidence) for match in found.matches] == [
        (box(6, (4, 4)), box(12, (4, 4)))
    ]


def test_weights_look_where_the_map_speaks_for_the_child():
    values = np.array([[3, -9, 1], [0, 1, 2]], dtype=np.float32)
    assert strongest(values, 2).tolist() == pytest.approx([0.6, 0, 0, 0, 0, 0.4])
    assert strongest(-np.ones((2, 2), np.float32)).tolist() == [0.25] * 4


def test_boxes_tile_the_picture():
    boxes = [box(place, (2, 4)) for place in range(8)]
    assert (boxes[0].left, boxes[0].top) == (0, 0)
    assert (boxes[7].right, boxes[7].bottom) == (1, 1)
    assert sum((b.right - b.left) * (b.bottom - b.top) for b in boxes) == pytest.approx(1)


def test_regions_of_originals_and_thumbnails_agree(model, built, data, query, tmp_path):
    """Regions from the original files, and from thumbnails of 32 pixels."""
    features, feature_map, path = query
    near = built.for_model(model).for_path(features, path)[0].chosen
    originals = built.for_model(model).look_closer(feature_map, near)
    moved = EvidenceIndex.load(built.folder, data=tmp_path)
    thumbnails = moved.for_model(model).look_closer(
        feature_map, [moved.neighbour(n.row, n.similarity) for n in near]
    )
    assert [v.score for v in originals] == pytest.approx([v.score for v in thumbnails], abs=0.03)


def test_stored_regions_of_an_older_release_are_ignored(model, index, query):
    """0.1.0 could store them as two more columns."""
    path = index.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["columns"]["patches"] = {"dtype": "|i1", "shape": [24, 64, 256]}
    manifest["columns"]["projection"] = {"dtype": "<f4", "shape": [256, 256]}
    path.write_text(json.dumps(manifest))
    features, _, photo_path = query
    opened = EvidenceIndex.load(index.folder)
    assert opened.column("patches") is None
    assert opened.for_model(model).for_path(features, photo_path) == index.for_model(
        model
    ).for_path(features, photo_path)


@pytest.mark.parametrize(
    ("architecture", "size"), [("vit_tiny_patch16_224,img_size=64", 64), ("swin_s3_tiny_224", 224)]
)
def test_transformers_have_regions_too(architecture, size):
    other = NBDT.from_timm(architecture, TREE, rule="marginal").eval()
    with torch.inference_mode():
        feature_map = other.feature_map(torch.randn(1, 3, size, size))
    grid = feature_grid(other, feature_map)
    assert grid.shape[:2] == (1, other.backbone.num_features)
    tokens = feature_map.flatten(1, -2) if feature_map.ndim == 4 else feature_map[:, 1:]
    assert torch.equal(grid.flatten(2).transpose(1, 2), tokens)
    with pytest.raises(NBDTError, match="grid of positions"):
        feature_grid(other, feature_map.flatten(1))


# ---- marks -----------------------------------------------------------------------------------


def test_a_mark_excludes_from_then_on_and_can_be_taken_back(model, index, query):
    features, _, path = query
    before = index.for_model(model).for_path(features, path)
    columns = {p.name: p.read_bytes() for p in index.folder.iterdir()}
    worst = before[0].chosen[0]
    mark = index.mark(worst.reference, why="blurred")
    after = index.for_model(model).for_path(features, path)
    assert worst not in [n for e in after for n in e.chosen + e.rejected]
    again = EvidenceIndex.load(index.folder)
    assert again.marks == (mark,)
    assert again.for_model(model).for_path(features, path) == after
    again.mark(worst.reference, bad=False)
    third = EvidenceIndex.load(index.folder)
    assert third.for_model(model).for_path(features, path) == before
    assert [m.bad for m in third.marks] == [True, False]
    assert {p.name: p.read_bytes() for p in index.folder.iterdir() if p.name in columns} == columns


def test_an_unfinished_line_is_no_mark_and_blocks_nothing(index):
    index.mark("cat/0.jpg")
    file = index.folder / "marks.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"reference": "cat/1.j')
    again = EvidenceIndex.load(index.folder)
    assert len(again.marks) == 1
    again.mark("cat/2.jpg")
    assert file.read_bytes().startswith(whole)
    assert [m.reference for m in EvidenceIndex.load(index.folder).marks] == [
        "cat/0.jpg",
        "cat/2.jpg",
    ]


@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", "no json", '{"reference": "a", "rows": [99999], "bad": true, "why": null, "when": ""}',
     '{"reference": "a", "rows": [true], "bad": true, "why": null, "when": ""}',
     '{"reference": "a", "rows": [0], "bad": 1, "why": null, "when": ""}'],
)  # fmt: skip
def test_lines_that_are_no_marks_are_refused_by_number(index, line):
    (index.folder / "marks.jsonl").write_text(f"{line}\n")
    with pytest.raises(EvidenceError, match=r"marks\.jsonl', line 1: expected a mark"):
        EvidenceIndex.load(index.folder)


def test_unknown_and_ambiguous_images_are_not_marked(index):
    with pytest.raises(EvidenceError, match=r"no image 'kat/0.jpg'.* Did you mean 'cat/0.jpg'"):
        index.mark("kat/0.jpg")
    with pytest.raises(EvidenceError, match=r"4 images end in '0.jpg'.*'bus/0.jpg'"):
        index.mark("0.jpg")
    with pytest.raises(EvidenceError, match="at most 2,000 characters"):
        index.mark("cat/0.jpg", why="x" * 2001)
    assert not index.marks


def test_what_a_mark_changes_on_a_path(model, index, query):
    features, _, path = query
    near = index.for_model(model)
    before = near.for_path(features, path)
    gone = before[-1].chosen[0]
    for _ in range(2):  # the same before and after it is marked
        changes = path_changes(near, features, path, {gone.row})
        assert changes[-1].decision == path.decisions[-1]
        assert all(change.before in before for change in changes)
        for change in changes:
            names = [n.row for n in change.after.chosen + change.after.rejected]
            assert gone.row not in names
        index.mark(gone.reference)
    expected = [d for d, e in zip(path, before, strict=True) if gone in e.chosen + e.rejected]
    assert [change.decision for change in changes] == expected
    assert near.for_path(features, path)[-1] == changes[-1].after


@pytest.mark.parametrize("marked_before", [False, True])
def test_what_a_mark_changes_for_other_images_equals_a_plain_loop(index, marked_before):
    rows, k = {2}, 3
    if marked_before:
        index.mark(index.reference(2))
    index.mark(index.reference(11))
    embeddings = np.array(index.column("embeddings"), dtype=np.float64)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = {}
    for row in range(len(index)):
        others = [r for r in range(len(index)) if r not in {row, 11}]
        others.sort(key=lambda r: -units[r] @ units[row])
        if row not in {2, 11} and 2 in others[:k]:
            without = [r for r in others if r != 2][:k]
            expected[index.reference(row)] = tuple(
                tuple(index.label(r) for r in side) for side in (others[:k], without)
            )
    found = vote_changes(index, rows, k)
    assert expected
    assert {change.reference: (change.before, change.after) for change in found} == expected
    for change in found:
        assert change.votes[0] in change.before


# ---- refusals --------------------------------------------------------------------------------


def test_another_networks_evidence_is_refused(built, query):
    torch.manual_seed(1)
    other = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    with pytest.raises(
        EvidenceError, match=r"another network .embedding hash \w{12}….*Build it ag"
    ):
        built.for_model(other).for_path(query[0], query[2])


def test_classes_the_model_does_not_know_are_refused(model, built):
    tree = Hierarchy.from_paths(["animal/cat", "animal/wolf", "vehicle/car", "vehicle/bus"])
    head = type(model.head).from_linear(model.head.linear, tree, rule="marginal")
    other = NBDT(model.backbone, head, model.architecture, model.preprocess).eval()
    with pytest.raises(EvidenceError, match="1 classes .*'dog'"):
        built.for_model(other)


def test_the_hash_says_what_is_in_it_and_what_counts(model, data):
    index, again = EvidenceIndex.build(model, data), EvidenceIndex.build(model, data)
    assert index.hash == again.hash
    index.mark(index.reference(0))
    assert index.hash != again.hash
    index.mark(index.reference(0), bad=False)
    assert index.hash == again.hash


def test_bad_builds_are_refused(model, data, built, tmp_path):
    with pytest.raises(NBDTError, match="exists already"):
        EvidenceIndex.build(model, data, built.folder)
    with pytest.raises(EvidenceError, match="holds none"):
        EvidenceIndex.build(model, [])
    broken = partial_source("cat", "x")
    with pytest.raises(EvidenceError, match=r"None of the 1 images can be read; the first: 'x'"):
        EvidenceIndex.build(model, [broken], tmp_path / "none")
    wrong = ImageSource("a", "caat", lambda: drawn("cat", 0))
    with pytest.raises(NBDTError, match=r"1 of them.*'caat'. Did you mean 'cat'\?"):
        EvidenceIndex.build(model, [wrong])
    model.train()
    try:
        with pytest.raises(NBDTError, match=r"call model\.eval\(\)"):
            EvidenceIndex.build(model, data)
    finally:
        model.eval()
    assert not list(tmp_path.iterdir())


def partial_source(label, name):
    error = refusal(name, "an image", "nothing", "try again")
    return ImageSource(name, label, lambda: refuse(error))


def test_bad_queries_are_refused(model, built, query):
    features, feature_map, path = query
    near = built.for_model(model)
    with pytest.raises(EvidenceError, match=r"of shape \(256,\), got \(1, 256\)"):
        near.for_path(features[None], path)
    with pytest.raises(EvidenceError, match="not finite"):
        near.for_path(features * torch.nan, path)
    with pytest.raises(EvidenceError, match="k of at least 1, got 0"):
        near.for_path(features, path, k=0)
    found = near.for_path(features, path)[0].chosen
    with pytest.raises(EvidenceError, match=r"\(8, 8\) positions, got \(7, 7\)"):
        near.look_closer(feature_map, found, np.zeros((7, 7), np.float32))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def set_in_manifest(**values):
    def change(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def with_column(name, change):
    def damage(folder):
        values = np.array(np.load(folder / f"{name}.npy"))
        change(values)
        np.save(folder / f"{name}.npy", values)

    return damage


def put(place, value):
    def change(values):
        values[place] = value

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "There is no evidence index at"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json' is damaged"),
        (lambda f: (f / "manifest.json").write_text("{}"), r'is no JSON object with "format": "nbdt-evidence"'),
        (set_in_manifest(version=9), "format version 9; this release reads version 1"),
        (set_in_manifest(classes=None), "missing or wrong: classes"),
        (set_in_manifest(classes=[1]), "missing or wrong: classes"),
        (set_in_manifest(count=0), "is empty; build it again"),
        (set_in_manifest(count=3), "not of 3 rows"),
        (set_in_manifest(columns={}), "without embeddings"),
        (set_in_manifest(columns={"../x": {}}), "unknown column"),
        (set_in_manifest(preprocessing={"size": "x"}), "preprocessing is damaged"),
        (lambda f: (f / "labels.npy").unlink(), "labels.npy' is damaged"),
        (lambda f: cut(f / "embeddings.npy"), "embeddings.npy' is damaged"),
        (lambda f: (f / "labels.npy").write_bytes(b""), "labels.npy' is damaged"),
        (lambda f: np.save(f / "labels.npy", np.zeros(3)), "where the manifest says"),
        (with_column("labels", put(0, 77)), "labels outside the classes"),
        (with_column("reference_ends", put(3, 10**9)), "ends that do not fit"),
        (with_column("thumbnail_ends", put(-1, 3)), "ends that do not fit"),
    ],
)  # fmt: skip
def test_damaged_indexes_are_refused(index, damage, message):
    damage(index.folder)
    with pytest.raises(EvidenceError, match=re.escape(message)):
        EvidenceIndex.load(index.folder)


def test_a_pickled_column_is_not_unpickled(index):
    np.save(index.folder / "labels.npy", np.array([{}] * len(index)), allow_pickle=True)
    with pytest.raises(EvidenceError, match=r"labels.npy' is damaged"):
        EvidenceIndex.load(index.folder)


def test_damaged_numbers_are_noticed_when_used(model, index, query):
    with_column("embeddings", put((3, 4), np.nan))(index.folder)
    with pytest.raises(EvidenceError, match="not finite numbers"):
        EvidenceIndex.load(index.folder).for_model(model).for_path(query[0], query[2])


# ---- pictures --------------------------------------------------------------------------------


def colour_of(picture):
    return np.asarray(picture.convert("RGB"), dtype=float).mean(axis=(0, 1))


def test_pictures_come_from_originals_thumbnails_or_a_clear_error(model, data, built, tmp_path):
    row = next(r for r in range(len(built)) if built.reference(r) == "bus/2.jpg")
    original = built.neighbour(row, 1).open()
    assert original.size == (32, 32)
    gone = EvidenceIndex.load(built.folder, data=tmp_path / "nowhere").neighbour(row, 1).open()
    assert np.abs(colour_of(gone) - colour_of(original)).max() < 4
    bare = EvidenceIndex.build(model, data, tmp_path / "bare")
    assert bare.neighbour(row, 1).open().size == (32, 32)
    moved = EvidenceIndex.load(tmp_path / "bare", data=tmp_path / "nowhere").neighbour(row, 1)
    with pytest.raises(ImageError, match=r"'bus/2.jpg': expected the original image.*thumbnails"):
        moved.open()
    assert tile(moved, 96).size == (96, 96)


def test_a_reference_never_leads_out_of_the_data(model, data, tmp_path):
    drawn("cat", 0).save(tmp_path / "secret.png")
    for reference in ("../secret.png", str(tmp_path / "secret.png")):
        source = ImageSource(reference, "cat", lambda: drawn("cat", 0))
        index = EvidenceIndex.build(model, [source])
        folder = tmp_path / "inner"
        folder.mkdir(exist_ok=True)
        index._originals.root = folder
        with pytest.raises(ImageError, match="expected the original image"):
            index.neighbour(0, 1).open()


def test_the_sheet_shows_both_sides_and_the_links_both_boxes(model, built, query):
    features, feature_map, path = query
    found = built.for_model(model).for_path(features, path, k=3)
    photo = drawn("dog", 99)
    pixels = np.asarray(sheet(photo, path, found))
    assert pixels.shape[1] > 256 + 2 * 3 * 96
    near = found[0].chosen[:2]
    views = built.for_model(model).look_closer(feature_map, near)
    picture = linked(photo, near, views, shown=1)
    plain = linked(photo, near, views, shown=0)
    changed = (np.asarray(picture) != np.asarray(plain)).any(axis=2)
    for number, view in enumerate(views):
        for spot, left in ((view.matches[0].query, 12), (view.matches[0].evidence, 12 + 256 + 128)):
            top = 12 + number * (256 + 16 + 24)
            corner = (int(top + 256 * spot.top), int(left + 256 * spot.left))
            assert changed[corner]


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


def nbdt(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_commands_from_build_to_mark(saved, data, tmp_path):
    out = tmp_path / "index"
    result = nbdt("build", saved, "--data", data, "--out", out, "--thumbnails")
    assert result.exit_code == 3, result.output
    assert "broken.jpg" in result.stderr
    assert "written" in result.stdout
    drawn("dog", 50).save(tmp_path / "photo.png")
    (tmp_path / "bad.png").write_text("bad")
    shown = nbdt("show", out, tmp_path / "photo.png", tmp_path / "bad.png", "--model", saved,
                 "--out", tmp_path, "--json")  # fmt: skip
    assert shown.exit_code == 3, shown.output
    good, bad = (json.loads(line) for line in shown.stdout.splitlines())
    assert "error" in bad
    assert len(good["evidence"]) == len(good["path"])
    with Image.open(good["picture"]) as one, Image.open(good["regions"]) as two:
        assert one.width > 600
        assert two.width > 600
    reference = good["evidence"][0]["chosen"][0]["reference"]
    marked = nbdt("mark", out, reference, "--bad", "--why", "dark", "--on", tmp_path / "photo.png",
                  "--model", saved)  # fmt: skip
    assert marked.exit_code == 0, marked.output
    assert f"{reference} " in marked.stdout
    assert "no longer counts" in marked.stdout
    before, after = re.search(r"before: (.*)\n\s+after:  (.*)", marked.stdout).groups()
    assert reference in before
    assert reference not in after
    again = nbdt("show", out, tmp_path / "photo.png", "--model", saved, "--out", tmp_path, "--json")
    assert reference not in again.stdout.partition('"evidence"')[2]
    listed = nbdt("info", out)
    assert "24 images" in listed.stdout
    assert f"{reference} bad: dark" in listed.stdout
    assert json.loads(nbdt("info", out, "--json").stdout)["marks"][0]["why"] == "dark"
    assert "counts again" in nbdt("mark", out, reference, "--good").stdout
    assert nbdt("mark", out, reference).exit_code == 2


def test_without_the_originals_there_is_evidence_but_no_picture_of_regions(saved, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    out = tmp_path / "index"
    nbdt("build", saved, "--data", tmp_path / "data", "--out", out)
    shutil.rmtree(tmp_path / "data")
    drawn("dog", 50).save(tmp_path / "photo.png")
    shown = nbdt("show", out, tmp_path / "photo.png", "--model", saved, "--out", tmp_path, "--json")
    assert shown.exit_code == 0, shown.output
    assert "no picture of regions" in shown.stderr
    record = json.loads(shown.stdout)
    assert record["evidence"]
    assert Path(record["picture"]).exists()
    assert "regions" not in record
