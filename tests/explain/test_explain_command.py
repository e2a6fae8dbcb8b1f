"""`nbdt explain`: real files in; trees, JSON, pictures and batches out."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import get_args
from unittest.mock import patch

import pytest
from PIL import Image
from typer.testing import CliRunner

from nbdt.__main__ import main
from nbdt.decide.paths import percent
from nbdt.explain.attribution import GRAD_CAM, Method
from nbdt.explain.batch.options import (
    AUTO,
    BFLOAT16,
    ENGINES,
    FLOAT32,
    MAPS,
    Engine,
    Maps,
    Precision,
)
from nbdt.explain.command import app
from nbdt.explain.maps.log_odds import METHODS
from nbdt.model.export import SUFFIXES, Format

PHOTOGRAPHS = Path(__file__).parents[2] / "demo" / "static"


def run_process(folder, *arguments):
    command = [sys.executable, "-m", "nbdt", "explain", *arguments]
    return subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=120
    )


def run(folder, *arguments):
    """The same in this process, which has imported everything."""
    with (
        chdir(folder),
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
        patch.object(sys, "argv", ["nbdt", "explain", *arguments]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    status = ended.value.code or 0
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Runs over good and bad files, one in a process of its own, which takes seconds to start."""
    folder = tmp_path_factory.mktemp("photos")
    noise = Image.effect_noise((60, 40), 80)
    noise.convert("RGB").save(folder / "photo.jpg")
    noise.convert("RGBA").save(folder / "alpha.png")
    noise.convert("CMYK").save(folder / "print.jpg")
    noise.save(folder / "grey.webp")
    Image.new("RGB", (1, 1), "red").save(folder / "one.gif")
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:300])
    (folder / "evil\x1b[31m.png").write_bytes(b"\x89PNG\r\n")
    names = ["photo.jpg", "alpha.png", "print.jpg", "grey.webp", "one.gif", "text.jpg", "cut.jpg",
             "evil\x1b[31m.png", "missing.png"]  # fmt: skip
    return (
        folder,
        run_process(folder, *names, "--out", "out"),
        run(folder, *names, "--json", "--out", "js"),
    )


def test_good_files_are_done_although_others_fail(outcome):
    folder, text, _ = outcome
    assert text.returncode == 3, text.stderr
    pictures = sorted(path.name for path in (folder / "out").iterdir())
    assert pictures == ["alpha.nbdt.png", "grey.nbdt.png", "one.nbdt.png", "photo.nbdt.png",
                        "print.nbdt.png"]  # fmt: skip
    with Image.open(folder / "out" / "photo.nbdt.png") as shown:
        assert shown.width > 500


def test_every_bad_file_gets_one_clear_line(outcome):
    _, text, _ = outcome
    lines = text.stderr.splitlines()
    assert len(lines) == 4, text.stderr
    assert all(line.startswith("error: '") for line in lines)
    assert "\x1b" not in text.stderr
    assert "starts with b'no image'" in lines[0]


def test_the_path_is_printed_with_its_runners_up(outcome):
    _, text, _ = outcome
    first = text.stdout.split("picture:")[0]
    assert first.startswith("photo.jpg\n")
    assert re.search(r"^(not sure: |unknown: |.+, \d+ %: )", first.splitlines()[1])
    assert "└── " in first
    assert "   not " in first
    assert "%" in first


def test_json_is_one_object_a_line_for_every_file(outcome):
    _, _, lines = outcome
    records = [json.loads(line) for line in lines.stdout.splitlines()]
    assert len(records) == 9
    good = records[0]
    assert good["file"] == "photo.jpg"
    assert good["path"][-1]["chosen"] == good["class"]
    assert f"{good['class']}, {percent(good['probability'])}" in good["headline"]
    assert good["picture"] == "js/photo.nbdt.png"
    assert "error" in records[-1]


def test_usage_and_unknown_models_have_their_own_exit_status(tmp_path):
    assert run_process(tmp_path).returncode == 2
    unknown = run(tmp_path, "x.png", "--model", "cifar11")
    assert unknown.returncode == 1
    assert "Did you mean 'cifar10'?" in unknown.stderr
    assert "Traceback" not in unknown.stderr


@pytest.mark.parametrize("option", ["--maps", "--engine", "--precision", "--method"])
def test_a_value_that_cannot_be_is_a_usage_error(option):
    refused = CliRunner().invoke(app, ["x.png", option, "foo"])
    assert refused.exit_code == 2
    assert "'foo' is not one of" in " ".join(refused.output.replace("│", " ").split())


def test_the_commands_choices_are_all_that_there_are():
    assert get_args(Method) == (GRAD_CAM, *METHODS)
    assert get_args(Maps) == tuple(MAPS)
    assert get_args(Engine) == ENGINES
    assert get_args(Precision) == (AUTO, FLOAT32, BFLOAT16)
    assert get_args(Format) == tuple(SUFFIXES)


def test_a_long_name_in_another_script_is_no_obstacle(tmp_path):
    name = "ж" * 120 + ".png"
    Image.new("RGB", (40, 30), "red").save(tmp_path / name)
    done = run(tmp_path, name)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.nbdt.png"))) == 1


def test_options_of_a_batch_are_refused_without_one(outcome):
    for options in (["--shard", "1/2"], ["--out", "s3://shop/out", "--pictures"]):
        refused = run(outcome[0], "red.png", *options)
        assert refused.returncode == 2
        assert "need a batch" in refused.stderr
    refused = run(outcome[0], "red.png", "--rows", "--grid")
    assert refused.returncode == 2
    assert "--grid needs --pictures" in refused.stderr


@pytest.fixture(scope="module")
def batch(outcome, tmp_path_factory):
    """The same good and bad files as a folder: rows, and the same command again as JSON lines."""
    folder = tmp_path_factory.mktemp("batch")
    shutil.copytree(outcome[0], folder / "photos", ignore=shutil.ignore_patterns("out", "js"))
    first = run(folder, "photos", "--out", "done")
    (folder / "done" / "rows" / "part-000000.parquet").unlink()
    return folder, first, run(folder, "photos", "--out", "done", "--json")


def test_nothing_is_promised_where_nothing_was_explained(tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    found = run(tmp_path, "broken.jpg", "--model", "cifar10")
    assert found.returncode == 3
    assert "broken.jpg" in found.stderr
    assert not found.stdout


def test_a_folder_becomes_a_batch(batch):
    folder, first, _ = batch
    assert first.returncode == 3, first.stderr
    written, promise = first.stdout.splitlines()
    assert written == "written: done (5 of 8 images explained)"
    assert "95%" in promise
    assert "not for each class" in promise
    *errors, report = sorted(first.stderr.splitlines(), key=lambda line: "images found" in line)
    assert len(errors) == first.stderr.count("error: 'photos/") == 3
    assert report.startswith("photos: 8 images found, 8 used")
    assert "\x1b" not in first.stderr
    names = {path.name for path in (folder / "done").iterdir()}
    assert names == {"batch.json", "manifest.json", "maps", "rows"}


def test_a_batchs_json_is_one_line_an_image_and_nothing_else(batch):
    _, _, again = batch
    assert again.returncode == 3
    records = [json.loads(line) for line in again.stdout.splitlines()]
    assert len(records) == 8
    assert sum(record["status"] == "failed" for record in records) == 3
    assert "written: done" in again.stderr


def test_another_option_is_fatal_and_says_what_differs(batch):
    folder, _, _ = batch
    refused = run(folder, "photos", "--out", "done", "--maps", "none")
    assert refused.returncode == 1
    assert 'maps: "npz" there, "none" now' in refused.stderr


def test_either_way_can_be_asked_for(tmp_path):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    rows = run(tmp_path, "red.png", "--rows", "--maps", "none", "--shard", "1/2")
    assert rows.returncode == 0, rows.stderr
    assert (tmp_path / "explained" / "rows" / "part-000000.parquet").exists()
    shown = run(tmp_path, ".", "--pictures", "--out", "pictures")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "pictures" / "red.nbdt.png").exists()
    wrong = run(tmp_path, ".", "--shard", "2")
    assert wrong.returncode == 2
    assert "Expected --shard i/n" in wrong.stderr


def test_an_answer_stops_where_it_is_unsure(tmp_path):
    picture = str(PHOTOGRAPHS / "cat.jpg")
    record = json.loads(run(tmp_path, picture, "--json").stdout)
    assert record["class"] == "Egyptian cat"
    assert record["answer"]["name"] == "house cat"
    assert record["answer"]["accuracy"] == 0.95
    assert not record["answer"]["is_leaf"]
    bare = (tmp_path / "cat.nbdt.png").read_bytes()
    leaf = json.loads(run(tmp_path, picture, "--accuracy", "none", "--json").stdout)
    assert leaf["answer"]["name"] == "Egyptian cat"
    assert leaf["answer"]["accuracy"] is None
    text = " ".join(run(tmp_path, picture, "--accuracy", "95%", "--grid").stdout.split())
    assert (tmp_path / "cat.nbdt.png").read_bytes() != bare
    proved = [tile for tile in record["tiles"] if tile["words"].startswith("With th")]
    assert text.count("without its region") == len(proved) > 0
    for fact in ("house cat", "the answer stops here", "95%", "650", "not for each class"):
        assert fact in text
    assert run(tmp_path, picture, "--accuracy", "1.2").returncode == 2


def test_only_classes_that_can_occur(tmp_path):
    picture = str(PHOTOGRAPHS / "cat.jpg")
    (tmp_path / "here.txt").write_text("dog\nbear or panda  # in the mountains\n")
    rows = run(tmp_path, picture, "--only", "here.txt", "--rows", "--json", "--maps", "none").stdout
    (row,) = map(json.loads, rows.splitlines())
    assert row["removed_probability"] > 0.95
    assert row["answer"]
    record = json.loads(
        run(tmp_path, picture, "--only", "house cat", "--accuracy", "none", "--json").stdout
    )
    assert record["class"] == "Egyptian cat"
    assert record["probability"] == pytest.approx(0.785, abs=0.02)  # of house cats alone
    refused = run(tmp_path, picture, "--only", "dgo")
    assert refused.returncode == 1
    assert "dgo" in refused.stderr
    assert "dog" in refused.stderr
