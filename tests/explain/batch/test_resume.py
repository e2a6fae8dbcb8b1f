"""Batches killed and continued, and divided among machines."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from nbdt import NBDT, NBDTError
from nbdt.explain.batch.folder import BatchFolder
from nbdt.explain.command import _share
from tests import oracle

from .batches import content, draw, rows_of, run, tiny


def test_finished_work_is_not_repeated(small, photos, tmp_path):
    run(small, [photos], tmp_path / "out")
    before = {
        name: (tmp_path / "out" / name).stat().st_mtime_ns for name in content(tmp_path / "out")
    }
    done = run(small, [photos], tmp_path / "out")
    assert done.repeated == done.images == 10
    assert done.failed == 2
    assert before == {
        name: (tmp_path / "out" / name).stat().st_mtime_ns for name in content(tmp_path / "out")
    }


def test_a_changed_file_is_noticed_by_its_hash(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    before = rows_of(out)
    os.utime(photos / "a" / "0.png")  # touched, not changed
    assert run(small, [photos], out).repeated == 10
    assert rows_of(out) == before
    draw(photos / "a" / "1.png", 77)
    done = run(small, [photos], out)
    assert done.repeated == 6  # its part is made again
    assert rows_of(out)[1]["sha256"] == oracle.sha256(photos / "a" / "1.png")
    run(small, [photos], tmp_path / "fresh")
    assert content(out) == content(tmp_path / "fresh")


def test_mended_added_and_removed_files_end_in_the_rows_of_a_fresh_run(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    draw(photos / "b" / "9.png", 9)
    draw(photos / "a" / "05.png", 5)
    assert run(small, [photos], out).failed == 1
    for name in ("1.png", "3.png", "4.png", "5.png"):
        (photos / "a" / name).unlink()
    done = run(small, [photos], out)
    assert done.images == 7
    run(small, [photos], tmp_path / "fresh")
    assert content(out) == content(tmp_path / "fresh")


def test_a_slash_that_the_shell_completes_is_no_other_batch(small, photos, tmp_path):
    first = run(small, [f"{photos}/"], tmp_path / "out")
    assert run(small, [photos], tmp_path / "out").repeated == first.images


def test_another_batchs_folder_is_refused_with_what_differs(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    with pytest.raises(NBDTError, match='maps: "npz" there, "none" now'):
        run(small, [photos], out, maps="none")
    with pytest.raises(NBDTError, match="inputs: .* there, .* now"):
        run(small, [photos / "a"], out)
    torch.manual_seed(1)
    other = tiny(NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval())
    with pytest.raises(NBDTError, match=r"\(model: \w{12}… there, \w{12}… now\)"):
        run(other, [photos], out)
    before = content(out)
    other = NBDT(small.backbone, small.head, "resnet10t", small.preprocess).eval()
    other.head = type(small.head).from_linear(small.head.linear, oracle.star(4), rule="marginal")
    with pytest.raises(NBDTError, match="hierarchy: "):
        run(other.eval(), [photos], out)
    assert content(out) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ("{}", 'no JSON object with "format": "nbdt-batch"'),
        ('{"format": "nbdt-batch", "version": 2}', "format version 2"),
    ],
)
def test_a_damaged_record_is_refused(text, message, small, photos, tmp_path):
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises(NBDTError, match=message):
        run(small, [photos], tmp_path)


def test_a_folder_with_rows_of_something_else_is_left_alone(small, photos, tmp_path):
    (tmp_path / "out" / "rows").mkdir(parents=True)
    with pytest.raises(NBDTError, match="it is not a batch"):
        run(small, [photos], tmp_path / "out")


def test_a_damaged_or_missing_part_is_made_again(small, photos, tmp_path):
    out = tmp_path / "out"
    run(small, [photos], out)
    whole = content(out)
    (out / "rows" / "part-000001.parquet").write_bytes(b"PAR1")
    (out / "maps" / "part-000002.npz").unlink()
    (out / "rows" / ".part-000001.parquet.left").write_bytes(b"half")
    assert run(small, [photos], out).repeated == 4
    assert content(out) == whole


def test_what_a_killed_start_left_is_gone_in_the_end(model, photos, tmp_path):
    (tmp_path / "out").mkdir()
    left = [tmp_path / "out" / f".{name}.8p6ypw4y" for name in ("batch.json", "manifest.json")]
    for path in left:
        path.write_bytes(b"")
    run(model, [photos], tmp_path / "out")
    assert not any(path.exists() for path in left)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_twenty_times_it_ends_in_the_very_bytes_of_an_uninterrupted_run(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(64):
        draw(photos / f"{index:02}.png", index)
    (photos / "17.png").write_bytes(b"no image")
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.kill_batches", str(photos), str(tmp_path)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout.splitlines()[-1])
    assert sum(signalled for _, signalled, _ in killed) >= 5, killed
    assert content(tmp_path / "broken") == content(tmp_path / "whole"), killed
    rows = rows_of(tmp_path / "broken")
    assert [row["row"] for row in rows] == list(range(64))
    assert len({row["path"] for row in rows}) == 64


# ---- two runs at once, and what is removed under one ----


def test_two_runs_in_one_folder_cannot_overlap(small, photos, tmp_path):
    """Each next run starts while the first is in the middle of its parts."""
    refused = []

    def another(_):
        for shard in ((1, 1), (2, 3)):
            with pytest.raises(NBDTError, match=r"Another run is writing to '.*out' at the moment"):
                run(small, [photos], tmp_path / "out", shard=shard)
            refused.append(shard)

    done = run(small, [photos], tmp_path / "out", on_images=another)
    assert (done.images, done.missing_parts) == (10, 0)
    assert len(refused) >= 6
    assert not list((tmp_path / "out").glob(".lock*"))
    shards = []

    def next_share(_):
        if not shards:
            shards.append(run(small, [photos], tmp_path / "many", shard=(2, 2)))

    run(small, [photos], tmp_path / "many", shard=(1, 2), on_images=next_share)
    assert content(tmp_path / "many") == content(tmp_path / "out")


def test_a_folder_removed_or_replaced_midway_never_counts_as_complete(small, photos, tmp_path):
    out = tmp_path / "out"

    def remove(_):
        shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(NBDTError, match=r"'.*out' was removed or replaced while the batch was"):
        run(small, [photos], out, on_images=remove)
    assert not (out / "manifest.json").exists()

    def replace(_):
        (out / "batch.json").write_text("{}")

    shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(NBDTError, match="removed or replaced"):
        run(small, [photos], out, on_images=replace)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("name", ["rows/part-000000.parquet", "maps/part-000001.npz"])
def test_a_part_removed_midway_is_missing_and_made_by_the_next_run(small, photos, tmp_path, name):
    run(small, [photos], tmp_path / "whole")
    out = tmp_path / "out"

    def remove(rows):
        if rows[-1]["row"] == 9:  # the last part is written
            (out / name).unlink()

    done = run(small, [photos], out, on_rows=remove)
    assert done.missing_parts == 1
    assert not (out / "manifest.json").exists()
    assert run(small, [photos], out).missing_parts == 0
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("step", ["_sweep", "_write_manifest"])
def test_a_part_removed_at_the_very_end_is_missing(small, photos, tmp_path, monkeypatch, step):
    out, own = tmp_path / "out", getattr(BatchFolder, step)

    def removing(self, *given):
        own(self, *given)
        (out / "maps" / "part-000001.npz").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(BatchFolder, step, removing)
        assert run(small, [photos], out).missing_parts == 1
    assert not (out / "manifest.json").exists()
    assert run(small, [photos], out).missing_parts == 0


def test_a_part_that_another_model_made_is_made_again(small, photos, tmp_path):
    run(small, [photos], tmp_path / "out")
    whole = content(tmp_path / "out")
    torch.manual_seed(1)
    other = tiny(NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval())
    run(other, [photos], tmp_path / "other")
    part = "rows/part-000001.parquet"
    shutil.copy(tmp_path / "other" / part, tmp_path / "out" / part)
    assert run(small, [photos], tmp_path / "out").repeated == 6
    assert content(tmp_path / "out") == whole


# ---- several machines ----


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_make_the_files_of_one_machine(order, small, photos, tmp_path):
    run(small, [photos], tmp_path / "one")
    missing = [
        run(small, [photos], tmp_path / "many", shard=(number, 3)).missing_parts for number in order
    ]
    assert missing == [2, 1, 0]
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_a_lost_shard_is_made_up_for_by_a_run_without_shards(small, photos, tmp_path):
    assert run(small, [photos], tmp_path / "out", shard=(2, 2)).missing_parts == 2
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = run(small, [photos], tmp_path / "out")
    assert (done.repeated, done.missing_parts) == (4, 0)
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "²/3"])
def test_a_shard_is_i_of_n(text):
    with pytest.raises(typer.BadParameter, match="Expected --shard i/n"):
        _share(text)
    assert _share("3/8") == (3, 8)
