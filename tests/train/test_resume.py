"""Nothing lost: killed at any moment, full disks, read-only folders, another run's folder."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from nbdt import NBDT, NBDTError
from nbdt.train import train
from nbdt.train.fit.checkpoints import SafeCheckpointIO, read_checkpoint
from nbdt.train.folder import check_space
from nbdt.train.recipe import Recipe

# All that could break a continuation at once: dropout, mixing, a moving average, accumulation,
# momentum, images augmented one by one and a tree that starts and is refreshed inside the run.
RECIPE = {
    "architecture": "small_convnet",
    "image_size": 8,
    "held_out": 2,
    "held_out_test": 2,
    "epochs": 4,
    "batch_size": 4,
    "accumulate_batches": 2,
    "optimizer": "adamw",
    "learning_rate": 0.002,
    "schedule": "cosine",
    "warmup": 0.2,
    "tree_from": 0.3,
    "refresh_every_epochs": 2,
    "omega_end": 2.0,
    "weight_schedule": "linear",
    "crop_padding_pixels": 1,
    "erase_probability": 0.3,
    "mixup_alpha": 0.3,
    "ema_decay": 0.9,
    "early_stop_epochs": 3,
    "workers": 0,
    "save_every_steps": 2,
    "save_every_minutes": 0,
}


PROGRAM = str(Path(__file__).parents[1] / "programs" / "kill_training.py")


@pytest.fixture(scope="module")
def photos(noise_folders):
    return noise_folders((12, 10))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_killed_run_ends_in_the_very_weights_of_an_uninterrupted_one(photos, tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, str(photos), str(tmp_path), json.dumps(RECIPE)],
        capture_output=True, text=True, check=False, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["killed"], "the run ended before it could be killed"
    assert found["broken"] == found["whole"], found["killed"]
    logs = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / out / "epochs.csv").read_text().split()]
        for out in ("whole", "broken")
    ]
    assert logs[0] == logs[1]  # all but the minutes


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_so_and_is_no_success(photos, tmp_path, sent):
    """As schedulers and Ctrl-C stop it."""
    recipe = tmp_path / "recipe.toml"
    values = RECIPE | {"epochs": 100_000, "early_stop_epochs": 0}
    recipe.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    command = ["train", recipe, "--data", photos, "--out", tmp_path / "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "nbdt", *map(str, command)], stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as running:  # fmt: skip
        while not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(sent)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "error: The run was stopped" in said
    assert "--resume" in said
    assert "Traceback" not in said


# ---- folders, disks ----


def small(**changes):
    plain = {"epochs": 2, "early_stop_epochs": 0, "mixup_alpha": 0.0, "erase_probability": 0.0}
    return Recipe(**{**RECIPE, **plain, **changes})


class Stop(BaseException):
    """Not an error that anyone handles."""


@pytest.fixture
def unfinished(photos, tmp_path, monkeypatch):
    """A run that ended after its first epoch."""
    from nbdt.train.fit.trainer import SaveLast

    def save_and_stop(self, trainer, module):
        self._save(trainer)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(SaveLast, "on_train_epoch_end", save_and_stop)
        with pytest.raises(Stop):
            train(small(), photos, tmp_path / "run")
    return tmp_path / "run"


def test_an_unfinished_run_is_neither_lost_nor_mixed_with_another(photos, unfinished, tmp_path):
    with pytest.raises(NBDTError, match="holds an unfinished run.*the same command with --resume"):
        train(small(), photos, unfinished)
    with pytest.raises(NBDTError, match="was started with epochs = 2, not 5; seed = 0, not 1"):
        train(small(epochs=5, seed=1), photos, unfinished, resume=True)
    other = tmp_path / "other"
    for name in ("ant", "bee", "cat"):
        (other / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(other / name / f"{index}.png")
    with pytest.raises(NBDTError, match="was started with other data"):
        train(small(), other, unfinished, resume=True)
    said = []
    left = unfinished / "checkpoints" / ".last.ckpt.killed"
    left.write_bytes(b"half")
    model = train(small(save_every_steps=3), photos, unfinished, resume=True, say=said.append)
    assert any(text.startswith("Continuing from") for text in said)
    assert not left.exists()
    assert NBDT.load(unfinished / "model").hierarchy == model.hierarchy


def test_a_run_goes_on_where_its_data_are_now(photos, unfinished, tmp_path, monkeypatch):
    """Data are known by their contents: a copy in another folder, named relatively."""
    moved = shutil.copytree(photos, tmp_path / "scratch" / "job-2")
    (moved / ".DS_Store").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    said = []
    one = min(moved.rglob("*.png"))
    before = one.read_bytes()
    Image.new("RGB", (8, 8), "red").save(one)
    with pytest.raises(NBDTError, match="was started with other data"):
        train(small(), "scratch/job-2", unfinished, resume=True)
    one.write_bytes(before)
    train(small(), "scratch/job-2", unfinished, resume=True, say=said.append)
    assert any(text.startswith("Continuing from") for text in said)


def test_a_second_run_in_the_folder_of_a_running_one_is_refused_at_once(photos, tmp_path):
    def second(_):
        with pytest.raises(NBDTError, match=r"Another run is writing to '.*run' at the moment"):
            train(small(), photos, tmp_path / "run", resume=True)
        refused.append(True)

    refused = []
    train(small(epochs=1), photos, tmp_path / "run", report=second)
    assert refused
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_inside_its_own_data_is_no_class(photos, tmp_path, monkeypatch):
    data = shutil.copytree(photos, tmp_path / "data")
    monkeypatch.chdir(data)
    for name in ("first", "second"):
        model = train(small(epochs=1), ".", f"runs/{name}")
        assert "runs" not in model.hierarchy.classes
    (data / "empty").mkdir()
    with pytest.raises(NBDTError, match="no image of 1 class 'empty'"):
        train(small(epochs=1), ".", "runs/third")
    (data / "empty").rmdir()
    train(small(epochs=1), ".", "runs/third")  # it had not begun


def test_batch_norms_of_one_image_are_refused(photos, tmp_path):
    norms = small(architecture="test_resnet", image_size=32, batch_size=1, accumulate_batches=1)
    with pytest.raises(NBDTError, match="batch norms.*got a batch of 1 on 1 device.*batch_size=2"):
        train(norms, photos, tmp_path / "run")
    train(dataclasses.replace(norms, epochs=1, freeze_norms=True), photos, tmp_path / "frozen")


def test_resume_without_a_run_begins_one(photos, tmp_path):
    model = train(small(epochs=1), photos, tmp_path / "new", resume=True)
    again = train(small(epochs=1), photos, tmp_path / "new", resume=True)
    assert again.hierarchy == model.hierarchy


def test_a_damaged_checkpoint_is_named(photos, unfinished):
    last = unfinished / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(NBDTError, match="last.ckpt' cannot be read.*Delete it to train from"):
        train(small(), photos, unfinished, resume=True)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(photos, tmp_path, monkeypatch):
    """Bytes arrive until the disk is full: half a file, then ENOSPC."""
    from nbdt import files

    out, saves = tmp_path / "run", []
    real = os.fdopen

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            saves.append(len(content))
            large = len(content) > 1_000_000  # a checkpoint, not the log
            if large and sum(size > 1_000_000 for size in saves) == 3:
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdopen", lambda *given, **named: Full(real(*given, **named)))
        with pytest.raises(NBDTError, match="the disk is full; the last one is complete.*--resume"):
            train(small(), photos, out)
    kept = read_checkpoint(out / "checkpoints" / "last.ckpt")
    assert kept["global_step"] == 4
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    whole = train(small(), photos, tmp_path / "whole")
    resumed = train(small(), photos, out, resume=True)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_too_small_a_disk_and_folders_that_cannot_be_written_are_refused_first(
    tmp_path, monkeypatch
):
    from nbdt.train import folder

    with monkeypatch.context() as patch:
        patch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
        check_space(tmp_path, 10**6)
        with pytest.raises(NBDTError, match="1.00 GB left.*44,000,000 weights may take 2.11 GB"):
            check_space(tmp_path, 44_000_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(NBDTError, match="file' cannot be written .*name another with --out"):
        check_space(tmp_path / "file", 0)

    def read_only(*arguments, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder, "write_atomic", read_only)
    with pytest.raises(NBDTError, match=r"cannot be written \(Read-only file system\)"):
        train(small(), tmp_path / "never looked at", tmp_path / "run")


# ---- the file ----


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    content = {
        "weights": {"a": weight, "b": torch.tensor(3), "empty": torch.zeros(0)},
        "state": {0: {"step": torch.tensor(2.0), "betas": (0.9, 0.99)}, 1: [1, None, True, "x"]},
        "epoch": 7,
        "low": -float("inf"),
    }
    writer = SafeCheckpointIO()
    writer.save_checkpoint(content, tmp_path / "c.ckpt")
    found = writer.load_checkpoint(tmp_path / "c.ckpt")
    assert torch.equal(found["weights"]["a"], weight)
    assert found["weights"]["a"].stride() == weight.stride()
    assert found["weights"]["empty"].shape == (0,)
    assert found["state"][0]["betas"] == (0.9, 0.99)
    assert found["state"][1] == [1, None, True, "x"]
    assert (found["epoch"], found["low"]) == (7, -float("inf"))
    writer.remove_checkpoint(tmp_path / "c.ckpt")
    assert not (tmp_path / "c.ckpt").exists()


def test_nothing_that_would_need_pickle_is_saved(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint\['a'\]\['b'\] is PosixPath|WindowsPath"):
        SafeCheckpointIO().save_checkpoint({"a": {"b": Path("x")}}, tmp_path / "c.ckpt")
    torch_file = tmp_path / "t.ckpt"
    torch.save({"epoch": 1}, torch_file)
    with pytest.raises(NBDTError, match="cannot be read"):
        read_checkpoint(torch_file)
