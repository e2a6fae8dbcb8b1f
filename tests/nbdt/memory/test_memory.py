"""A memory on the disk: added to, struck out, restored, shared by processes, killed, damaged."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nbdt import NBDT, Hierarchy
from nbdt.errors import NBDTError
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource, refused_source
from nbdt.memory import memory as memory_module
from nbdt.memory import refit
from nbdt.memory.table import Table
from nbdt.model.remember import make_memory, open_memory
from nbdt.network.preprocessing import Preprocessing

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = {
    "red": (220, 30, 30),
    "orange": (230, 140, 20),
    "blue": (30, 40, 220),
    "green": (20, 180, 50),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return NBDT.from_timm("resnet10t", TREE, rule="marginal").eval().backbone


@pytest.fixture
def model(network):
    torch.manual_seed(1)
    made = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    made.backbone = network
    return made


def photograph(name, number):
    draw = np.random.default_rng([number, *name.encode()])
    pixels = np.array(COLOURS[name]) + draw.normal(0, 25, (40, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def place(model, tmp_path):
    model.use_memory(tmp_path / "memory")
    memory = make_memory(model, model.memory_place)
    for name in COLOURS:
        memory.add([photograph(name, n) for n in range(5)], name, by="ann")
    return model.memory_place


def test_a_fit_a_change_and_an_undo(model, place):
    first = model.refit()
    weight = model.head.linear.weight.detach().clone()
    batch = torch.stack([model.preprocess(photograph(name, 9)) for name in COLOURS])
    with torch.inference_mode():
        assert model.logits(batch).argmax(dim=1).tolist() == [0, 1, 2, 3]
    memory, version = model.memory, model.memory.version
    memory.strike(memory.rows.ids[3], "a hand in front", by="ben")
    assert model.refit().key != first.key
    assert not torch.equal(model.head.linear.weight, weight)
    assert len(model.reference["labels"]) == 19
    memory.restore(version)
    model.refit()
    assert torch.equal(model.head.linear.weight, weight)
    assert model.memory.rows.active.all()


def test_the_undo_of_another_process_has_the_same_weights(model, place, tmp_path):
    model.refit()
    model.save(tmp_path / "saved")
    again = NBDT.load(tmp_path / "saved")
    version = again.memory.version
    again.memory.relabel(again.memory.rows.ids[0], "cold", "a trick of the light")
    again.refit()
    assert not torch.equal(again.head.linear.weight, model.head.linear.weight)
    again.memory.restore(version)
    again.refit()
    assert torch.equal(again.head.linear.weight, model.head.linear.weight)
    assert torch.equal(again.head.linear.bias, model.head.linear.bias)


def test_saving_in_half_precision_keeps_the_last_layer(model, place, tmp_path):
    model.refit()
    model.save(tmp_path / "half", dtype=torch.float16)
    again = NBDT.load(tmp_path / "half")
    assert torch.equal(again.head.linear.weight, model.head.linear.weight)


def test_rows_say_who_and_why(model, place):
    memory = model.memory
    row = memory.rows.ids[7]
    memory.strike(row, "blurred", by="ben")
    rows = memory.rows
    assert (rows.by[7], rows.why[7], rows.active[7]) == ("ben", "blurred", False)
    memory.take_back(row, by="cid")
    assert memory.rows.active.all()
    memory.relabel(row[:12], "warm")
    assert memory.hierarchy.names[memory.hierarchy.index(memory.rows.labels[7])] == "warm"
    assert [version.number for version in memory.versions()][-1] == memory.version


def test_a_group_as_label_moves_its_classes(model, place):
    model.refit()
    odd = Image.new("RGB", (40, 40), (120, 110, 60))
    batch = model.preprocess(odd)[None]
    model.memory.add([odd], "warm")
    with torch.inference_mode():
        before = model(batch).exp()[0, :2].sum()
        model.refit()
        after = model(batch).exp()[0, :2].sum()
    assert after > before or after > 0.99


def test_bad_photographs_are_listed_and_the_others_are_added(model, place):
    gone = refused_source("lost.jpg", ImageError("'lost.jpg' cannot be read"), label="red")
    odd = ImageSource("odd.png", "purple", lambda: photograph("red", 50))
    good = ImageSource("good.png", "orange", lambda: photograph("orange", 51))
    before = len(model.memory)
    added = model.memory.add([gone, odd, good, good])
    assert len(added.ids) == 1
    assert len(model.memory) == before + 1
    label, twice, lost = added.failed
    assert "lost.jpg" in lost
    assert "purple" in label
    assert "already" in twice
    (other,) = model.memory.add([good], "red").failed
    assert "orange" in other


def test_a_photograph_without_a_label_is_listed(model, place):
    added = model.memory.add([photograph("red", 60)])
    assert not added.ids
    assert "label" in added.failed[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.strike("nowhere.jpg", "bad"),
        lambda memory: memory.strike(memory.rows.ids[0], " "),
        lambda memory: memory.strike(memory.rows.ids[0], "x" * 3000),
        lambda memory: memory.relabel(memory.rows.ids[0], "purple"),
        lambda memory: memory.restore(10_000),
        lambda memory: memory.add([photograph("red", 70)], "reed"),
    ],
)
def test_a_bad_change_changes_nothing(model, place, change):
    version = model.memory.version
    with pytest.raises(NBDTError):
        change(model.memory)
    assert model.memory.version == version


def test_a_class_that_loses_its_photographs_is_named(model, place):
    model.refit()
    weight = model.head.linear.weight.detach().clone()
    rows = model.memory.rows
    model.memory.strike(
        [k for k, label in zip(rows.ids, rows.labels, strict=True) if label == "blue"], "all wrong"
    )
    with pytest.raises(NBDTError, match="blue"):
        model.refit()
    assert torch.equal(model.head.linear.weight, weight)


def test_a_memory_of_another_network_is_refused(place):
    other = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    with pytest.raises(NBDTError, match="another network"):
        open_memory(other, place)


def test_no_memory_and_no_folder_is_made(model, tmp_path):
    with pytest.raises(NBDTError, match="no memory"):
        open_memory(model, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    model.memory_place = None
    assert model.memory is None
    with pytest.raises(NBDTError, match="no memory"):
        model.refit()


def test_a_memory_that_exists_is_not_made_again(model, place):
    with pytest.raises(NBDTError, match="already"):
        make_memory(model, place)
    assert len(open_memory(model, place)) == 20


def cut(data, draw):
    return data[: int(draw.integers(len(data)))]


def garble(data, draw):
    start, values = int(draw.integers(len(data))), bytearray(data)
    values[start : start + 40] = draw.bytes(len(values[start : start + 40]))
    return bytes(values)


def used(model, place):
    """Do with a memory all that can be done; return the one line that it is refused with."""
    try:
        memory = open_memory(model, place)
        key = memory.rows.ids[1]
        assert memory.versions()
        assert memory.table.described([key])
        memory.strike(key, "to see")
        memory.fit(model.head.rules, None)
        memory.table.picture(key)
    except NBDTError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["data", "_versions", "_transactions"])
@pytest.mark.parametrize("damage", [None, cut, garble])
def test_a_damaged_memory_is_one_clear_line(model, place, tmp_path, damage, kind):
    draw, said = np.random.default_rng(0), []
    for number in range(3):
        copied = shutil.copytree(place, tmp_path / f"copy {number}")
        files = sorted((copied / "photographs.lance" / kind).iterdir())
        chosen = files[int(draw.integers(len(files)))]
        if damage is None:
            chosen.unlink()
        else:
            chosen.write_bytes(damage(chosen.read_bytes(), draw))
        said.append(used(model, copied))
    said = [*filter(None, said)]
    assert said or kind == "_transactions" or damage is None  # an old version is not needed
    for line in said:
        assert "memory" in line
        assert "\n" not in line
        assert ".rs:" not in line
        assert len(line) < 1000


def test_a_memory_without_its_versions_is_one_clear_line(model, place):
    shutil.rmtree(os.path.join(place, "photographs.lance", "_versions"))
    assert "memory at" in used(model, place)


def test_rows_that_no_fit_can_take_are_named(model, place):
    table = model.memory.table
    record = {"id": "a" * 64, "label": "red", "reference": "odd.png", "active": True}
    table.add([record], np.full((1, 512), np.inf, np.float16))
    with pytest.raises(NBDTError, match="odd.png"):
        model.refit()
    table.update(["a" * 64], {"active": False})
    table.update([model.memory.rows.ids[0]], {"label": "purple"})
    with pytest.raises(NBDTError, match="1 photographs.*purple"):
        model.refit()


def test_a_kept_fit_that_is_damaged_or_of_another_shape_explains_nothing(model, place):
    import lancedb

    fitted = model.refit()
    wrong = replace(fitted, fit=replace(fitted.fit, weight=torch.zeros(9, 512)))
    heads = lancedb.connect(place).open_table("heads")
    for data, reason in ((b"x" * 40, "memory at"), (wrong.to_bytes(), "refit")):
        heads.update(values={"data": data})
        again = open_memory(model, place)
        with pytest.raises(NBDTError, match=reason):
            again.attribution(again.heads.get(fitted.key), model.head.rules)


def test_a_table_of_something_else_is_refused(tmp_path):
    import lancedb

    lancedb.connect(tmp_path).create_table("photographs", [{"id": "a"}])
    with pytest.raises(NBDTError, match="not a memory"):
        Table.open(str(tmp_path))


def test_a_newer_memory_is_refused(tmp_path):
    Table.create(str(tmp_path / "old"), 3, {})
    table = Table.open(str(tmp_path / "old"))
    facts = {**table.facts, "version": 99}
    import lancedb

    schema = table._table.schema.with_metadata({b"nbdt": json.dumps(facts).encode()})
    lancedb.connect(tmp_path / "new").create_table("photographs", schema=schema)
    with pytest.raises(NBDTError, match="99"):
        Table.open(str(tmp_path / "new"))


ADDING = """
    import sys
    import numpy as np
    from nbdt.memory.table import Table
    place, start, rows, width = sys.argv[1], *map(int, sys.argv[2:])
    table = Table.open(place)
    for n in range(start, start + 10):
        records = [{"id": f"{n:032x}{k:032x}", "label": "red", "reference": "r", "active": True}
                   for k in range(rows)]
        table.add(records, np.ones((rows, width), np.float16))
        print(n, flush=True)
"""


def adding(place, start, rows, width):
    numbers = map(str, (start, rows, width))
    command = [sys.executable, "-c", textwrap.dedent(ADDING), place, *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    place = str(tmp_path / "memory")
    Table.create(place, 8, {})
    workers = [adding(place, start, 1, 8) for start in (0, 5, 100)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    rows = Table.open(place).rows()
    assert len(rows) == 25  # five were added twice
    assert len(set(rows.ids)) == 25


def test_a_process_killed_while_adding_leaves_whole_versions(tmp_path):
    place = str(tmp_path / "memory")
    Table.create(place, 2000, {})
    with adding(place, 0, 100, 2000) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(4)][-1]
        process.send_signal(signal.SIGKILL)
    rows = Table.open(place).rows()
    assert len(rows) % 100 == 0
    assert len(rows) >= 100 * (acknowledged + 1)
    with adding(place, 50, 1, 2000) as process:  # no lock is left
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_pictures_are_kept_when_asked_for(model, place):
    added = model.memory.add([photograph("green", 80)], "green", pictures=True)
    data = model.memory.table.picture(added.ids[0])
    assert data[:4] == b"RIFF"


# ---- many rows ----------------------------------------------------------------------------------


def test_changes_read_no_more_than_they_need(model, place, monkeypatch):
    """A memory of a million rows is changed in a second: nothing reads all of them."""
    memory = model.memory
    ids = memory.rows.ids

    def refuse(*_):
        raise AssertionError("all rows were read")

    monkeypatch.setattr(Table, "_read", refuse)
    again = open_memory(model, place)
    assert again.add([photograph("red", 90), photograph("red", 1)], "red").failed
    assert len(again) == 21
    assert "0 struck out" in repr(again)
    assert again.strike([ids[2][:10], ids[5]], "blurred") == [ids[2], ids[5]]
    assert again.relabel(ids[5], "cold") == again.take_back(ids[5]) == [ids[5]]
    assert again.table.counts() == (20, 1)
    assert again.table.labels([ids[5], "none"]) == {ids[5]: again.node_of("cold")}
    (row,) = again.table.described([ids[2]])
    assert (row["active"], row["why"]) == (False, "blurred")
    again.restore(again.versions()[-2].number)


NAMES = ["/a/cat/1.jpg", "b\\cat\\2.jpg", "x.tar!cat/1.jpg", "50%_of 'it'.jpg", "/c/cat_1.jpg"]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("/a/cat/1.jpg", 0), ("a/cat/1.jpg", 0), ("cat\\2.jpg", 1), ("2.jpg", 1), ("cat/1.jpg", None),
        ("tar!cat/1.jpg", None), ("50%_of 'it'.jpg", 3), ("%", None), ("catX1.jpg", None),
        ("00000000000000a3", 3), ("00000000000000", None), ("", None), ("1.jpg' OR '1'='1", None),
    ],
)  # fmt: skip
def test_a_row_is_found_by_its_id_or_reference_alone(tmp_path, name, row):
    table = Table.create(str(tmp_path / "memory"), 2, {})
    ids = [f"{n + 160:016x}" + "f" * 48 for n in range(len(NAMES))]
    table.add(
        [{"id": key, "reference": text, "active": True} for key, text in zip(ids, NAMES, strict=True)],
        np.ones((len(NAMES), 2), np.float16),
    )  # fmt: skip
    if row is None:
        with pytest.raises(NBDTError, match="one row"):
            table.find([name])
        with pytest.raises(NBDTError, match="one row"):
            table.rows().place(name)
    else:
        assert table.find([name, ids[0]]) == [ids[row], ids[0]]
        assert table.rows().place(name) == row


def test_two_who_add_one_photograph_leave_one_row(model, place):
    one, other = open_memory(model, place), open_memory(model, place)
    assert one.add([photograph("red", 91)], "red").ids
    second = other.add([photograph("red", 91), photograph("red", 92)], "orange")
    assert "red" in second.failed[0]
    assert len(second.ids) == 1
    assert len(one) == len(one.rows) == 22


def test_a_large_memory_is_fitted_and_divided_by_a_sample(model, place, monkeypatch):
    whole = model.memory.rows
    for module in (memory_module, refit):
        monkeypatch.setattr(module, "MOST", 14)
    memory = open_memory(model, place)
    heavy = [key for key, label in zip(whole.ids, whole.labels, strict=True) if label == "red"][-1]
    memory.table.update([heavy], {"weight": 4.0})
    memory.strike(whole.ids[0], "blurred")
    rows = memory.fit_rows
    kept = [whole.labels[whole.places[key]] for key in rows.ids if key != heavy]
    assert {kept.count(name) for name in COLOURS} == {3}
    assert heavy in rows.ids
    assert whole.ids[0] not in rows.ids
    for key, values in zip(rows.ids, rows.features, strict=True):
        np.testing.assert_array_equal(values, whole.features[whole.places[key]])
    rules = model.head.rules
    fitted = memory.fit(rules, None)
    assert len(fitted.labels) == 13
    query = model.features(model.preprocess(photograph("red", 9))[None])[0].detach()
    (red, orange, *_), logits = TREE.leaf_nodes, query @ fitted.weight.T + fitted.bias
    parts = memory.attribution(fitted, rules).contributions(query, [(red, orange)])
    total = parts.rows.sum() + parts.bias + parts.entropy
    assert float(total) == pytest.approx(float(logits[0] - logits[1]), rel=1e-3)


def test_a_photograph_that_breaks_off_is_left_out_and_the_others_are_added(tmp_path):
    model = NBDT.load("cifar10")
    memory = make_memory(model, tmp_path / "m")
    whole, file = Image.effect_noise((300, 300), 60).convert("RGB"), io.BytesIO()
    whole.save(file, "JPEG")
    broken = Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))
    added = memory.add([whole, broken], "cat")
    assert len(added.ids) == 1
    assert len(added.failed) == 1


def test_a_last_layer_without_bias_is_fitted_in_a_copy(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(8, 10, bias=False))
    tree = NBDT.load("cifar10").hierarchy
    to_input = Preprocessing(32, (0.5,) * 3, (0.2,) * 3, 1.0, "bilinear")
    model = NBDT.from_network(network, "own", tree, rule="marginal", preprocessing=to_input).eval()
    model.use_memory(make_memory(model, tmp_path / "m").table.place)
    for shade, name in enumerate(tree.classes):
        colours = ((20 * shade, 40 * one, 99) for one in range(3))
        model.memory.add([Image.new("RGB", (40, 40), colour) for colour in colours], name)
    model.refit()
    assert model.head.linear.bias.abs().sum() > 0
    assert network[3].bias is None
