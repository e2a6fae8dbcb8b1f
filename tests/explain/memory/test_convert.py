"""Evidence indexes of release 0.1: read once, and refused where they are damaged."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from nbdt import Hierarchy
from nbdt.errors import NBDTError
from nbdt.explain.memory.convert import _fill, _originals, read_index
from nbdt.memory.memory import Memory
from nbdt.memory.table import Table

OLD = Path(__file__).parents[2] / "fixtures" / "v0.1.0" / "evidence_patches"


@pytest.fixture
def index(tmp_path):
    return shutil.copytree(OLD, tmp_path / "index")


def set_in_manifest(**values):
    def change(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def with_column(name, place, value):
    def damage(folder):
        values = np.array(np.load(folder / f"{name}.npy"))
        values[place] = value
        np.save(folder / f"{name}.npy", values)

    return damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "There is no evidence index at"),
        (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "manifest.json").write_text("{}"), 'no JSON object with "format"'),
        (set_in_manifest(version=9), "format version 9; this release reads version 1"),
        (set_in_manifest(classes=None), "is damaged"),
        (set_in_manifest(classes=[1, 2, 3, 4]), "no classes"),
        (set_in_manifest(columns={}), "is damaged"),
        (set_in_manifest(columns={"../x": {}}), "is damaged"),
        (lambda f: (f / "labels.npy").unlink(), "is damaged"),
        (lambda f: cut(f / "embeddings.npy"), "is damaged"),
        (lambda f: (f / "labels.npy").write_bytes(b""), "is damaged"),
        (lambda f: np.save(f / "labels.npy", np.zeros(3)), "what the manifest says"),
        (lambda f: np.save(f / "labels.npy", np.array([{}] * 16), allow_pickle=True), "is damaged"),
        (with_column("labels", 0, 77), "labels outside the classes"),
        (with_column("reference_ends", 3, 10**9), "reference_ends that do not fit"),
        (with_column("thumbnail_ends", -1, 3), "thumbnail_ends that do not fit"),
    ],
)  # fmt: skip
def test_damaged_indexes_are_refused(index, damage, message):
    damage(index)
    with pytest.raises(NBDTError, match=re.escape(message)):
        read_index(index)


def test_an_unfinished_line_is_no_mark(index, tmp_path):
    from nbdt.explain.memory.convert import _marked

    marks = index / "marks.jsonl"
    assert _marked(marks) == {1: "only whiskers"}
    marks.write_bytes(marks.read_bytes() + b'{"reference": "cat/1.j')
    assert _marked(marks) == {1: "only whiskers"}


def test_the_folder_that_an_index_names_is_not_read(index, tmp_path):
    """Another person's index may name any folder of this machine."""
    (tmp_path / "private" / "cat").mkdir(parents=True)
    secret = tmp_path / "private" / "cat" / "1.jpg"
    secret.write_bytes(b"secret")
    set_in_manifest(data=str(tmp_path / "private"))(index)
    _, rows, embeddings = read_index(index)
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    table = Table.create(str(tmp_path / "memory"), embeddings.shape[1], {})
    memory = Memory(
        table, Hierarchy.from_nested({"all": ["cat", "cup", "rocket", "sky"]}), None, None
    )
    assert not _fill(memory, rows, embeddings, {})
    found = memory.table.described()
    assert digest not in {row["id"] for row in found}
    assert not any("private" in row["reference"] for row in found)
    assert _originals(tmp_path / "private") == {"cat/1.jpg": (str(secret), digest)}
