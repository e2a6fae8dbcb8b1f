"""``nbdt memory review``: the table, the verdicts of a person, and tables that it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy
from nbdt.errors import NBDTError
from nbdt.explain.memory.command import app
from nbdt.model.remember import make_memory

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = ((220, 30, 30), (230, 140, 20), (30, 40, 220), (20, 180, 50))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A saved model whose memory has eight photographs a class; red/0 and blue/0 are swapped."""
    root = tmp_path_factory.mktemp("review")
    torch.manual_seed(0)
    model = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    model.use_memory(root / "m")
    memory = make_memory(model, root / "m")
    draw = np.random.default_rng(0)
    for number in range(8):
        for name, colour in zip(TREE.classes, COLOURS, strict=True):
            pixels = np.array(colour) + draw.normal(0, 12, (40, 40, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.filename = f"=HYPERLINK/{name}/{number}.png"
            swapped = {"red": "blue", "blue": "red"}.get(name, name) if number == 0 else name
            memory.add([image], swapped, pictures=True)
    model.refit()
    model.save(root / "model")
    return root / "model"


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "model")


def review(folder, *options):
    return CliRunner().invoke(app, ["review", str(folder), *map(str, options)])


def test_from_the_table_to_the_verdicts_to_the_fit(folder, tmp_path):
    table = tmp_path / "review.csv"
    listed = review(folder, "--out", table)
    assert listed.exit_code == 0, listed.output
    with table.open(newline="") as file:
        records = list(csv.DictReader(file))
    assert {record["reference"] for record in records[:2]} == {
        "'=HYPERLINK/red/0.png", "'=HYPERLINK/blue/0.png"
    }  # fmt: skip
    shown = [json.loads(line) for line in review(folder, "--json").stdout.splitlines()]
    assert [one["id"] for one in shown] == [record["id"] for record in records]
    for record in records[:2]:
        record["verdict"] = f"relabel {record['says']}"
    for record in records[2:]:
        record["verdict"] = "keep"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    applied = review(folder, "--apply", table, "--by", "ann", "--refit")
    assert applied.exit_code == 0, applied.output
    model = NBDT.load(folder)
    rows = model.memory.rows
    for record in records[:2]:
        place = rows.place(record["id"])
        assert rows.labels[place] == record["reference"].split("/")[1]
        assert rows.by[place] == "ann"
    assert model.fitted.key == model.memory.examples(model.head.rules).key
    assert review(folder, "--json").stdout == ""  # all were looked at
    again = review(folder, "--apply", table)  # the labels are no longer those of the table
    assert "Nothing was changed" in str(again.exception)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"id;verdict\n1;keep\n",
        b"id,label\n1,red\n",
        b"\xff\xfe\x00",
        b"id,verdict\nzz,strike\n",
    ],
    ids=str,
)
def test_what_is_no_table_changes_nothing(folder, tmp_path, text):
    table = tmp_path / "bad.csv"
    table.write_bytes(text)
    before = NBDT.load(folder).memory.version
    refused = review(folder, "--apply", table)
    assert isinstance(refused.exception, NBDTError)
    assert NBDT.load(folder).memory.version == before


def test_a_table_that_is_not_there_is_named(folder, tmp_path):
    assert "none.csv" in str(review(folder, "--apply", tmp_path / "none.csv").exception)
