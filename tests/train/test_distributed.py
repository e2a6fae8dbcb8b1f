"""Several processes: the same weights as one, complete checkpoints, and a worker that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.network.load import create_timm
from nbdt.network.preprocessing import timm_preprocessing
from nbdt.train.data.class_order import ClassOrder
from nbdt.train.data.dataset import Images, PlainBatches, TrainingBatches
from nbdt.train.fit.checkpoints import read_checkpoint
from nbdt.train.fit.module import TreeSupervised
from nbdt.train.recipe import Recipe

# Group norms: a batch norm's statistics would be those of each process's own half.
RECIPE = {
    "architecture": "test_efficientnet_gn", "image_size": 32, "held_out": 2,
    "held_out_test": 2, "epochs": 2, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.05,
    "tree_from": 0.3, "crop_padding_pixels": 1, "workers": 0, "save_every_minutes": 0,
}  # fmt: skip
PROGRAM = str(Path(__file__).parents[1] / "programs" / "train_rank.py")


@pytest.fixture(scope="module")
def photos(noise_folders):
    return noise_folders((32, 32))


def start(photos, out, ranks, how="new", **changes):
    """A run on one process, or on several under torchrun."""
    recipe = json.dumps({**RECIPE, **changes})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable] if ranks == 1 else [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}",
        "--master-addr=127.0.0.1", f"--master-port={port}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*launcher, PROGRAM, str(photos), str(out), recipe, how], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output[-3000:]


def weights(out):
    state = read_checkpoint(out / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: value for name, value in state.items() if value.is_floating_point()}


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    finish(start(photos, out, 1))
    return out


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one(photos, alone, tmp_path):
    out = tmp_path / "run"
    finish(start(photos, out, 2))
    one, two = weights(alone), weights(out)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    logs = [(o / "epochs.csv").read_text().splitlines() for o in (alone, out)]
    for first, second in zip(*(log[1:] for log in logs), strict=True):
        a, b = first.split(",")[:-1], second.split(",")[:-1]
        assert a[:2] == b[:2]
        assert float(a[2]) == pytest.approx(float(b[2]), rel=1e-3)  # the loss
        assert a[3:] == b[3:]  # accuracies
    model = NBDT.load(out / "model")  # on one device
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 32)).isfinite().all()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_killed_worker_ends_the_run_which_then_resumes(photos, alone, tmp_path):
    out = tmp_path / "run"
    process = start(photos, out, 2, save_every_steps=1)
    last = out / "checkpoints" / "last.ckpt"
    begun = time.monotonic()
    while not last.exists() and process.poll() is None and time.monotonic() - begun < 120:
        time.sleep(0.002)
    worker = max(map(int, _children(process.pid)))
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0, output[-2000:]
    assert "Signal 9" in output or "lost another process" in output, output[-3000:]
    finish(start(photos, out, 2, "resume", save_every_steps=1))
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(out)[name], value, rtol=1e-3, atol=1e-4, msg=name)


def _children(pid):
    return subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    ).stdout.split()


# ---- in one process ----


def batches(strict=True, **changes):
    recipe = Recipe(**{**RECIPE, **changes})
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (37, 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = Images(torch.arange(37), pixels=images)
    return TrainingBatches(data, recipe, timm_preprocessing(create_timm("test_efficientnet_gn", 3)))


@pytest.mark.parametrize("kind", [{}, {"erase_probability": 0.5}])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_divide_the_very_views_of_one_process(ranks, kind):
    whole = batches(**kind)
    parts = [batches(**kind) for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part.share(rank, ranks)
    for one, *shared in zip(whole, *parts, strict=True):
        for rank, (images, labels) in enumerate(shared):
            assert torch.equal(images, one[0][rank::ranks])
            assert torch.equal(labels, one[1][rank::ranks])


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(NBDTError, match="8 images cannot be divided evenly among 3.*batch_size=9"):
        batches().share(0, 3)


def test_synchronised_norms_keep_their_activations_and_end_as_they_were():
    torch.manual_seed(0)
    network = create_timm("test_efficientnet", 3)
    images = torch.randn(4, 3, 32, 32)
    network(images)  # statistics that are not those of a new norm
    expected = network.eval()(images)
    recipe = Recipe(**{**RECIPE, "architecture": "test_efficientnet", "sync_norms": True})
    classes = ClassOrder(("a", "b", "c"), (None,) * 3, "a test")
    tree = Hierarchy.from_paths(["x/a", "x/b", "c"])
    module = TreeSupervised(network, recipe, timm_preprocessing(network), classes, tree)
    module._trainer = SimpleNamespace(world_size=2, global_rank=0)
    module.setup("fit")
    assert any(isinstance(part, torch.nn.SyncBatchNorm) for part in module.network.modules())
    torch.testing.assert_close(module.network(images), expected)
    with torch.no_grad():
        for part in module.network.modules():
            if isinstance(part, torch.nn.SyncBatchNorm):
                part.running_mean += 0.1
    trained = module.network(images)
    model = module.finished()
    assert not any(isinstance(part, torch.nn.SyncBatchNorm) for part in model.modules())
    torch.testing.assert_close(model.logits(images), trained)
    assert not torch.equal(trained, expected)


def test_held_out_images_are_looked_at_once_each():
    data = Images(torch.arange(11), pixels=torch.zeros(11, 3, 2, 2, dtype=torch.uint8))
    seen = []
    for rank in range(3):
        part = PlainBatches(data, timm_preprocessing(create_timm("test_efficientnet_gn", 3)))
        part.batch_size = 2
        part.share(rank, 3)
        found = [labels for _, labels in part]
        assert len(found) == len(part)
        seen += torch.cat(found).tolist()
    assert sorted(seen) == list(range(11))
