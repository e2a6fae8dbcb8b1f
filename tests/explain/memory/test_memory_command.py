"""``nbdt memory``: made, listed, changed, refitted, killed, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy
from nbdt.errors import NBDTError
from nbdt.explain.batch.run import explain_all
from nbdt.explain.command import app as explain_app
from nbdt.explain.memory.command import app
from nbdt.explain.result.contributions import NOTE
from nbdt.model import saved as saved_files
from nbdt.model import writing
from nbdt.model.fingerprint import model_hash
from nbdt.model.remember import make_memory

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = {
    "red": (220, 30, 30),
    "orange": (230, 140, 20),
    "blue": (30, 40, 220),
    "green": (20, 180, 50),
}


def photograph(name, number):
    draw = np.random.default_rng([number, *name.encode()])
    pixels = np.array(COLOURS[name]) + draw.normal(0, 25, (40, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders, five photographs each."""
    root = tmp_path_factory.mktemp("data")
    for name in COLOURS:
        (root / name).mkdir()
        for number in range(5):
            photograph(name, number).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A saved model without a memory."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bare") / "model"
    NBDT.from_timm("small_convnet", TREE, rule="marginal").eval().save(folder)
    return folder


@pytest.fixture(scope="module")
def built(bare, data, tmp_path_factory):
    """A model that was fitted on a memory of its own."""
    root = tmp_path_factory.mktemp("built")
    assert nbdt("build", bare, "--data", data, "--out", root / "m").exit_code == 0
    done = nbdt("refit", bare, "--memory", root / "m", "--out", root / "model")
    assert done.exit_code == 0, done.output
    return root / "model"


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "model")


def nbdt(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def rows(folder):
    return [json.loads(line) for line in nbdt("list", folder, "--json").stdout.splitlines()]


def weight(folder):
    return NBDT.load(folder).head.linear.weight.detach()


def test_a_memory_of_any_model_is_built_and_described(bare, data, tmp_path):
    mixed = shutil.copytree(data, tmp_path / "mixed")
    (mixed / "red" / "broken.png").write_text("no image")
    (mixed / "purple").mkdir()
    photograph("red", 40).save(mixed / "purple" / "a.png")
    shutil.copy(mixed / "red" / "0.png", mixed / "blue" / "again.png")
    result = nbdt("build", bare, "--data", mixed, "--out", tmp_path / "m", "--pictures")
    assert result.exit_code == 3
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3
    for word in ("broken.png", "purple", "already as 'blue'"):
        assert sum(word in line for line in lines) == 1
    record = json.loads(nbdt("info", bare, "--memory", tmp_path / "m", "--json").stdout)
    assert record["photographs"] == 20
    assert record["labels"] == {"blue": 6, "green": 5, "orange": 5, "red": 4}
    again = nbdt("build", bare, "--data", data, "--out", tmp_path / "m")
    assert "exists already" in str(again.exception)


def test_no_folder_is_left_of_a_build_that_adds_nothing(bare, tmp_path):
    (tmp_path / "data" / "red").mkdir(parents=True)
    (tmp_path / "data" / "red" / "a.png").write_text("no image")
    failed = nbdt("build", bare, "--data", tmp_path / "data", "--out", tmp_path / "m")
    assert "None of 1 photograph" in str(failed.exception)
    assert os.listdir(tmp_path) == ["data"]


def test_a_change_acts_after_the_refit_and_an_undo_is_exact(folder):
    before = weight(folder)
    row = next(row for row in rows(folder) if row["label"] == "red")
    struck = nbdt("strike", folder, row["id"][:12], "--why", "a hand", "--by", "ann")
    assert struck.exit_code == 0, struck.output
    assert "red" in struck.stdout
    assert f"nbdt memory refit {folder}" in struck.stderr
    assert torch.equal(weight(folder), before)
    assert nbdt("refit", folder).exit_code == 0
    assert not torch.equal(weight(folder), before)
    assert len(NBDT.load(folder).reference["labels"]) == 19
    listed = nbdt("list", folder, "--struck-out").stdout
    assert listed.count("\n") == 1
    assert "ann: a hand" in listed
    assert nbdt("take-back", folder, row["reference"], "--refit").exit_code == 0
    assert torch.equal(weight(folder), before)
    assert not list(folder.glob(".refit*"))


def test_relabel_add_and_restore(folder, tmp_path):
    before = weight(folder)
    version = int(nbdt("versions", folder).stdout.splitlines()[-1].split()[0])
    row = next(row for row in rows(folder) if row["label"] == "red")
    assert nbdt("relabel", folder, "warm", row["id"]).exit_code == 0
    assert "warm" in nbdt("list", folder, "--label", "warm").stdout
    photograph("green", 77).save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_text("no image")
    added = nbdt("add", folder, tmp_path / "new.png", tmp_path / "bad.png", "--label", "green",
                 "--refit")  # fmt: skip
    assert added.exit_code == 3
    assert "bad.png" in added.stderr
    assert len(rows(folder)) == 21
    assert not torch.equal(weight(folder), before)
    assert nbdt("restore", folder, version, "--refit").exit_code == 0
    assert torch.equal(weight(folder), before)
    assert len(rows(folder)) == 20


@pytest.mark.parametrize(
    "change", [("strike", "--why", "dark"), ("relabel", "blue"), ("add", "--label", "blue")]
)
def test_a_change_whose_refit_is_refused_names_the_way_back(folder, data, change):
    """The fit needs two photographs of each class, and one red is left."""
    before, weights = rows(folder), weight(folder)
    red = [row["id"] for row in before if row["label"] == "red"]
    command, *more = change
    named = red[1:]
    if command == "add":
        assert nbdt("strike", folder, *red[1:], "--why", "dark").exit_code == 0
        before, named = rows(folder), [data.parent / "new.png"]
        photograph("blue", 50).save(named[0])
    done = nbdt(command, folder, *more, *named, "--refit")
    assert "1 classes have fewer than 2" in str(done.exception)
    (back,) = [line for line in done.stderr.splitlines() if line.startswith("To go back: ")]
    assert rows(folder) != before
    assert nbdt(*back.split()[-3:]).exit_code == 0
    assert rows(folder) == before
    assert torch.equal(weight(folder), weights)


def test_a_refit_that_has_nowhere_to_go_is_refused_before_the_change(bare, data, tmp_path):
    nbdt("build", bare, "--data", data, "--out", tmp_path / "m")
    given = bare, "--memory", tmp_path / "m"
    versions = nbdt("versions", *given).stdout
    done = nbdt("strike", *given, "red/0.png", "--why", "dark", "--refit")
    assert "--out NEW" in str(done.exception)
    assert nbdt("versions", *given).stdout == versions


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("strike", "nowhere.png", "--why", "bad"), "nowhere.png"),
        (("relabel", "purple", "red/0.png"), "purple"),
        (("restore", "4000"), "4000"),
        (("restore", "0"), "Expected a version of 1"),
        (("restore", str(10**30)), "Expected a version of 1"),
    ],
)
def test_a_bad_change_is_one_error(folder, arguments, words):
    before = rows(folder)
    command, *rest = arguments
    result = nbdt(command, folder, *rest)
    assert isinstance(result.exception, NBDTError)
    assert words in str(result.exception)
    assert rows(folder) == before


def test_a_model_without_a_memory_and_a_foreign_memory_are_refused(bare, folder, tmp_path):
    assert "has no memory" in str(nbdt("list", bare).exception)
    torch.manual_seed(3)
    other = NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()
    make_memory(other, tmp_path / "other")
    refused = nbdt("list", folder, "--memory", tmp_path / "other")
    assert "another network" in str(refused.exception)
    outside = nbdt("refit", bare, "--memory", folder / "memory")
    assert "--out" in str(outside.exception)
    assert nbdt("add", folder).exit_code == 2


# ---- the weights on the disk ----


def struck(folder):
    assert nbdt("strike", folder, rows(folder)[0]["id"], "--why", "bad").exit_code == 0
    model = NBDT.load(folder)
    old = model.head.linear.weight.detach().clone()
    model.refit()
    return model, old


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(4))
def test_a_process_that_is_killed_leaves_a_model(folder, moment, monkeypatch):
    model, old = struck(folder)
    calls = []
    replace = type(folder).replace

    def dying(path, target):
        calls.append(path)
        if len(calls) > moment:
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "replace", dying)
        if moment == 3:
            patch.setattr(saved_files, "finish", lambda _: None)
            writing.save_head(model, folder)
        else:
            with pytest.raises(Killed):
                writing.save_head(model, folder)
    again = NBDT.load(folder)
    assert torch.equal(again.head.linear.weight, model.head.linear.weight)
    assert not torch.equal(again.head.linear.weight, old)
    assert torch.equal(again.reference["logits"], model.reference["logits"])
    assert again.fitted.key == model.fitted.key
    assert not list(folder.glob(".refit*"))


def test_the_nearest_photographs_are_shown(folder, tmp_path):
    photograph("red", 98).save(tmp_path / "photo.png")
    (tmp_path / "bad.png").write_text("bad")
    result = nbdt("show", folder, tmp_path / "photo.png", tmp_path / "bad.png", "--out", tmp_path,
                  "--json")  # fmt: skip
    assert result.exit_code == 3, result.output
    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert "error" in bad
    assert len(good["evidence"]) == len(good["path"])
    for name in ("picture", "regions"):
        with Image.open(good[name]) as drawn:
            assert drawn.width > 500
    gone = good["evidence"][0]["chosen"][0]["reference"]
    assert nbdt("strike", folder, gone, "--why", "dark").exit_code == 0
    plain = nbdt("show", folder, tmp_path / "photo.png", "--out", tmp_path, "-k", "3")
    assert plain.exit_code == 2
    plain = nbdt("show", folder, tmp_path / "photo.png", "--out", tmp_path, "--k", "3")
    assert gone not in plain.stdout
    assert plain.stdout.count("\n+ ") == len(good["path"])


def test_without_the_originals_there_is_no_picture_of_regions(bare, data, tmp_path):
    copied = shutil.copytree(data, tmp_path / "data")
    nbdt("build", bare, "--data", copied, "--out", tmp_path / "m")
    shutil.rmtree(copied)
    photograph("red", 98).save(tmp_path / "photo.png")
    result = nbdt("show", bare, tmp_path / "photo.png", "--memory", tmp_path / "m", "--out",
                  tmp_path, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not compared" in result.stderr
    assert "regions" not in json.loads(result.stdout)


def test_an_old_index_is_named_as_such(bare):
    old = Path(__file__).parents[2] / "fixtures" / "v0.1.0" / "evidence"
    assert "nbdt memory convert" in str(nbdt("list", bare, "--memory", old).exception)
    assert "another network" in str(
        nbdt("convert", old, "--model", bare, "--out", bare.parent / "m").exception
    )
    assert not (bare.parent / "m").exists()


def test_the_terminal_shows_the_sum_or_why_there_is_none(folder, tmp_path):
    image = tmp_path / "photo.png"
    photograph("blue", 9).save(image)
    command = [image, "--model", folder, "--out", tmp_path / "out"]

    def shown(*more):
        done = CliRunner().invoke(explain_app, list(map(str, [*command, *more])))
        assert done.exit_code == 0, done.output
        return done.stdout

    (record,) = map(json.loads, shown("--json").splitlines())
    text = shown()
    for found in record["contributions"]:
        assert f"Of {found['log_odds']:+.1f}:" in text
        one = found["supporting"][0]
        assert f"{one['label']} {one['value']:+.1f} ({one['reference']})" in text
    assert " ".join(NOTE.split()) in " ".join(text.split())
    nbdt("strike", folder, rows(folder)[0]["id"], "--why", "to see")
    assert "nbdt memory refit" in shown()
    assert "nbdt memory refit" in json.loads(shown("--json"))["no_contributions"]


def test_a_cluster_gets_the_model_without_its_memory(folder):
    from nbdt.explain.batch.cluster import _loaded, _saved

    model = NBDT.load(folder)
    files = _saved(model)
    assert "model.safetensors" in files
    assert _loaded(files, model_hash(model)).memory is None
    assert model.memory is not None


def test_a_batch_of_pages_shows_the_models_own_memory(folder, tmp_path):
    photograph("red", 97).save(tmp_path / "a.png")
    model = NBDT.load(folder)
    explain_all(model, [str(tmp_path / "a.png")], tmp_path / "pages", pages=True, workers=0)
    assert list((tmp_path / "pages").rglob("evidence-1-chosen-1.png"))
    explain_all(model, [str(tmp_path / "a.png")], tmp_path / "rows", workers=0)
    assert not list((tmp_path / "rows").rglob("evidence-*"))


# ---- emptied memories, versions and groups ----


def emptied(folder):
    """Strike every photograph out; return the version before."""
    before = int(nbdt("versions", folder).stdout.splitlines()[-1].split()[0])
    ids = [row["id"] for row in rows(folder)]
    assert nbdt("strike", folder, *ids, "--why", "to see").exit_code == 0
    return before


def test_a_version_that_cannot_be_fitted_is_not_restored_with_refit(folder):
    before, listed = weight(folder), nbdt("versions", folder).stdout
    refused = nbdt("restore", folder, "1", "--refit")
    assert isinstance(refused.exception, NBDTError)
    assert "no active photographs" in str(refused.exception)
    assert nbdt("versions", folder).stdout == listed
    assert len(rows(folder)) == 20
    assert torch.equal(weight(folder), before)


def test_a_restore_names_the_way_back(folder):
    newest = nbdt("versions", folder).stdout.splitlines()[-1].split()[0]
    done = nbdt("restore", folder, "1")
    assert done.exit_code == 0, done.output
    assert "no active photographs" in done.stderr
    assert f"nbdt memory restore {folder} {newest}" in done.stderr
    assert rows(folder) == []
    back = nbdt("restore", folder, newest, "--refit")
    assert back.exit_code == 0, back.output
    assert "no active photographs" not in back.stderr
    assert "nbdt memory restore" in back.stderr
    assert len(rows(folder)) == 20


def test_a_restore_into_another_memory_is_refused_with_refit(bare, folder):
    place = folder / "memory"
    listed = nbdt("versions", folder).stdout
    newest = listed.splitlines()[-1].split()[0]
    refused = nbdt("restore", bare, newest, "--memory", place, "--refit")
    assert "--out" in str(refused.exception)
    assert nbdt("versions", folder).stdout == listed
    done = nbdt("restore", bare, newest, "--memory", place)
    assert f"{bare} {newest} --memory {place}" in done.stderr


def test_versions_count_their_photographs(folder, monkeypatch):
    ids = [row["id"] for row in rows(folder)]
    assert nbdt("strike", folder, *ids[:3], "--why", "bad").exit_code == 0
    first, *_, before, last = nbdt("versions", folder).stdout.splitlines()
    assert first.endswith("  0 photographs")
    assert before.endswith("  20 photographs")
    assert last.endswith("  17 photographs, 3 struck out")
    monkeypatch.setattr("nbdt.explain.memory.command.COUNTED", 1)
    *_, before, last = nbdt("versions", folder).stdout.splitlines()
    assert "photographs" not in before
    assert "17 photographs" in last


def test_a_group_lists_what_is_below_it(folder):
    listed = nbdt("list", folder, "--label", "warm", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["label"] for line in listed) == ["orange"] * 5 + ["red"] * 5
    assert nbdt("list", folder, "--label", "red").stdout.count("\n") == 5
    none = nbdt("list", folder, "--label", "warm", "--struck-out")
    assert none.exit_code == 0
    assert none.stdout == ""
    assert "'warm'" in none.stderr
    assert f"nbdt memory info {folder}" in none.stderr


@pytest.mark.parametrize("command", ["review", "refit"])
def test_an_emptied_memory_says_so(folder, command):
    before = emptied(folder)
    refused = nbdt(command, folder)
    assert isinstance(refused.exception, NBDTError)
    for fact in ("no active photographs", "nbdt memory versions"):
        assert fact in str(refused.exception)
    assert nbdt("restore", folder, before, "--refit").exit_code == 0
    reds = [row["id"] for row in rows(folder) if row["label"] == "red"]
    assert nbdt("strike", folder, *reds, "--why", "to see").exit_code == 0
    few = str(nbdt(command, folder).exception)
    assert "'red'" in few
    assert "nbdt memory versions" in few
