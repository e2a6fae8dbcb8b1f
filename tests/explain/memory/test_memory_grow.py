"""``nbdt memory new-class | split | merge | new-group``: made, confirmed, refused without a trace."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy
from nbdt.explain.memory.command import app
from nbdt.explain.memory.grow import by_name
from nbdt.model.remember import make_memory

TREE = Hierarchy.from_nested(
    {"animal": {"cats": ["lion", "tiger"], "birds": ["owl", "eagle"]}, "tool": ["hammer", "saw"]}
)
COLOURS = {
    "lion": (220, 30, 30), "tiger": (230, 140, 20), "owl": (30, 40, 220), "eagle": (20, 180, 50),
    "hammer": (60, 60, 60), "saw": (200, 200, 200), "leopard": (250, 60, 120),
}  # fmt: skip


def photograph(colour, number, spread=12):
    draw = np.random.default_rng([number, *colour])
    pixels = np.array(colour) + draw.normal(0, spread, (40, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("grow")
    torch.manual_seed(0)
    model = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    model.use_memory(root / "m")
    memory = make_memory(model, root / "m")
    for name in TREE.classes:
        memory.add([photograph(COLOURS[name], n) for n in range(6)], name)
    model.refit()
    model.save(root / "model")
    return root / "model"


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "leopards").mkdir()
    for number in range(5):
        photograph(COLOURS["leopard"], number).save(tmp_path / "leopards" / f"{number}.png")
    return tmp_path / "leopards"


def nbdt(*arguments, answer=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=answer)


def test_a_new_class_is_placed_by_its_name_and_known(folder, photographs, tmp_path):
    (photographs / "broken.png").write_text("no image")
    before = NBDT.load(folder).memory.version
    made = nbdt(
        "new-class", folder, "leopard", photographs, "--out", tmp_path / "new", answer="y\n"
    )
    assert made.exit_code == 3  # one photograph was left out, and the others are there
    assert "joins the group cats (lion, tiger)" in made.stdout
    assert "broken.png" in made.stderr
    model = NBDT.load(tmp_path / "new")
    tree = model.hierarchy
    assert tree.classes == (*TREE.classes, "leopard")
    assert tree.names[tree.parents[tree.index("leopard")]] == "cats"
    batch = torch.stack(
        [model.preprocess(photograph(COLOURS["leopard"], n)) for n in range(10, 14)]
    )
    with torch.inference_mode():
        assert (model(batch).argmax(dim=1) == TREE.num_classes).all()
    assert model.memory_place == str(tmp_path / "new" / "memory")
    assert NBDT.load(folder).memory.version == before
    assert sorted(os.listdir(tmp_path)) == ["leopards", "new"]


def test_a_place_that_is_not_confirmed_writes_nothing(folder, photographs, tmp_path):
    refused = nbdt(
        "new-class", folder, "leopard", photographs, "--out", tmp_path / "new", answer="n\n"
    )
    assert refused.exit_code == 1
    assert os.listdir(tmp_path) == ["leopards"]


def test_a_name_that_wordnet_lacks_is_placed_by_what_it_looks_like(folder, photographs, tmp_path):
    assert by_name(TREE, "SKU-1234") is None
    for number in range(5):
        photograph((200, 200, 190), 50 + number, 14).save(photographs / f"{number}.png")
    made = nbdt("new-class", folder, "SKU-1234", photographs, "--out", tmp_path / "new", "--yes")
    assert made.exit_code == 0, made.output
    assert "most like those of 'saw'" in made.stdout
    tree = NBDT.load(tmp_path / "new").hierarchy
    assert tree.names[tree.parents[tree.index("SKU-1234")]] == "tool"


@pytest.mark.parametrize(
    ("case", "fact"),
    [
        ("broken", "None of 5 photographs can be read"),
        ("broken under a group", "got 0"),
        ("one", "got 1"),
        ("known", "in the memory already as 'lion'"),
        ("taken", "'tiger'"),
        ("class", "'cats'"),
    ],
)
def test_what_cannot_be_a_new_class_leaves_nothing(folder, photographs, tmp_path, case, fact):
    name, options = {"taken": "Tiger"}.get(case, "leopard"), ["--yes"]
    files = sorted(photographs.iterdir())
    if "broken" in case:
        for file in files:
            file.write_text("no image")
    if "group" in case:
        options = ["--parent", "cats"]
    if case == "class":
        options = ["--parent", "lion"]
    if case == "one":
        for file in files[1:]:
            file.unlink()
    if case == "known":
        folder = shutil.copytree(folder, tmp_path / "model")
        source = NBDT.load(folder)
        for number, file in enumerate(files):
            photograph(COLOURS["lion"], 90 + number).save(file)
        source.memory.add([*_sources(photographs)], "lion")
    made = nbdt("new-class", folder, name, photographs, "--out", tmp_path / "new", *options)
    assert made.exit_code
    assert fact in str(made.exception)
    assert {*os.listdir(tmp_path)} <= {"leopards", "model"}


def _sources(place):
    from nbdt.images.dataset import iter_inputs

    return iter_inputs([place])


def test_a_class_is_split_by_a_list(folder, tmp_path):
    copy = tmp_path / "model"
    model = NBDT.load(folder)
    model.memory.add([photograph((250, 250, 20), n) for n in range(6)], "owl")  # beside six blue
    model.refit()
    model.save(copy)
    rows = model.memory.rows
    owls = [n for n, label in enumerate(rows.labels) if label == "owl"]
    named = [option for n in owls[:3] for option in ("--first", rows.ids[n])]
    made = nbdt("split", copy, "owl", "barn owl", "snowy owl", "--out", tmp_path / "b", *named)
    assert made.exit_code == 0, made.output
    grown = NBDT.load(tmp_path / "b")
    assert {*grown.hierarchy.classes} == {*TREE.classes} - {"owl"} | {"barn owl", "snowy owl"}
    labels = dict(zip(rows.ids, grown.memory.rows.labels, strict=True))
    assert [labels[rows.ids[n]] for n in owls] == ["barn owl"] * 3 + ["snowy owl"] * (len(owls) - 3)
    other = next(key for key, label in zip(rows.ids, rows.labels, strict=True) if label == "saw")
    strange = nbdt("split", copy, "owl", "x", "y", "--out", tmp_path / "c", "--first", other)
    assert "not photographs of 'owl'" in str(strange.exception)
    assert not (tmp_path / "c").exists()


def test_classes_are_merged_and_grouped(folder, tmp_path):
    made = nbdt("merge", folder, "lion", "tiger", "--name", "big cat", "--out", tmp_path / "a")
    assert made.exit_code == 0, made.output
    merged = NBDT.load(tmp_path / "a")
    assert merged.hierarchy.classes == ("big cat", *TREE.classes[2:])
    assert merged.memory.rows.labels.count("big cat") == 12
    made = nbdt("new-group", tmp_path / "a", "flying", "owl", "eagle", "--out", tmp_path / "b")
    assert made.exit_code  # they are all that "birds" holds
    made = nbdt("new-group", tmp_path / "a", "living", "big cat", "birds", "--out", tmp_path / "b")
    assert made.exit_code  # likewise
    assert not (tmp_path / "b").exists()
    parent = tmp_path / "more"
    hammers = [photograph((90, 90, 200), n) for n in range(4)]
    (tmp_path / "files").mkdir()
    for n, image in enumerate(hammers):
        image.save(tmp_path / "files" / f"{n}.png")
    grown = nbdt(
        "new-class", folder, "drill", tmp_path / "files", "--parent", "tool", "--out", parent
    )
    assert grown.exit_code == 0, grown.output
    made = nbdt("new-group", parent, "hand tool", "hammer", "saw", "--out", tmp_path / "b")
    assert made.exit_code == 0, made.output
    tree = NBDT.load(tmp_path / "b").hierarchy
    assert tree.names[tree.parents[tree.index("saw")]] == "hand tool"
    there = nbdt("merge", folder, "lion", "owl", "--out", tmp_path / "b")
    assert "exists already" in str(there.exception)
