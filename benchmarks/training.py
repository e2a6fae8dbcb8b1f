"""What training costs beside a bare PyTorch loop, and what tree supervision adds.

    python benchmarks/training.py              # ResNet-18, 32 pixels, batch 128
    python benchmarks/training.py --quick      # a smaller network and batch, to see that it works

Three loops take turns, step by step, on the same network, images and thread count; each figure is a
ratio of the minima over all rounds, so that another program on the machine shifts all of them alike:

- bare: forward, cross-entropy, backward, SGD, on one batch that lies ready, uint8 and normalised;
- flat, tree: the step that `nbdt train` takes (`TreeSupervised` under Lightning, its batches drawn and
  augmented), before the tree stands and after.

Data loading is measured apart: images/s of the streamed loader with one worker less than there are
cores, and how many cores it kept busy.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import threading
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from nbdt import Hierarchy
from nbdt.images.dataset import iter_images
from nbdt.network.load import create_timm
from nbdt.network.preprocessing import timm_preprocessing
from nbdt.train.data.class_order import class_order
from nbdt.train.data.dataset import Images, TrainingBatches, normalise
from nbdt.train.fit.module import TreeSupervised
from nbdt.train.recipe import Recipe, load_recipe

CLASSES = [f"class {index}" for index in range(10)]
TREE = Hierarchy.from_nested(
    {"a": {"b": CLASSES[:3], "c": CLASSES[3:5]}, "d": CLASSES[5:]}, CLASSES
)


class Turns:
    """Hands the right to run from one loop to the next after every step, and times each step."""

    def __init__(self, names: list[str], rounds: int) -> None:
        self.names, self.rounds = names, rounds
        self.best = dict.fromkeys(names, float("inf"))
        self.turn, self.change = 0, threading.Condition()
        self.begun = dict.fromkeys(names, 0.0)

    def wait(self, name: str) -> None:
        """Until it is this loop's turn; the clock starts."""
        with self.change:
            self.change.wait_for(lambda: self.names[self.turn % len(self.names)] == name)
        self.begun[name] = time.perf_counter()

    def done(self, name: str) -> None:
        """The step is over; the next loop's turn."""
        took = time.perf_counter() - self.begun[name]
        if self.turn >= 2 * len(self.names):  # the first steps allocate
            self.best[name] = min(self.best[name], took)
        with self.change:
            self.turn += 1
            self.change.notify_all()


class Timed(lightning.Callback):
    """From the end of one step to the end of the next: batch, step, optimiser, callbacks."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.turns, self.name, self.steps = turns, name, 0

    def on_train_start(self, *_: Any) -> None:
        self.turns.wait(self.name)

    def on_train_batch_end(self, *_: Any) -> None:
        self.turns.done(self.name)
        self.steps += 1
        if self.steps < self.turns.rounds:
            self.turns.wait(self.name)


def recipe_of(quick: bool) -> Recipe:
    changes = ["batch_size=16", "architecture=small_convnet"] if quick else ["batch_size=128"]
    plain = ["early_size=0", "early_until=0.0", "precision=32", "mixup_alpha=0.0", "auto_augment="]
    return load_recipe("cifar10-resnet18", [*plain, *changes, "erase_probability=0.0"])


def bare(recipe: Recipe, data: Images, turns: Turns) -> None:
    network = create_timm(recipe.architecture, 10).to(memory_format=torch.channels_last)
    shown = timm_preprocessing(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4)
    pixels, labels = data.pixels[: recipe.batch_size], data.labels[: recipe.batch_size]
    for _ in range(turns.rounds):
        turns.wait("bare")
        loss = F.cross_entropy(network(normalise(pixels, shown.mean, shown.std)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turns.done("bare")


def ours(recipe: Recipe, data: Images, turns: Turns, name: str) -> None:
    mine = dataclasses.replace(recipe, tree_from=0.0 if name == "tree" else 1.0, epochs=1)
    network = create_timm(mine.architecture, 10)
    module = TreeSupervised(network, mine, timm_preprocessing(network), class_order(CLASSES), TREE)
    module.batches = batches = TrainingBatches(data, mine, timm_preprocessing(network))
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=turns.rounds, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Timed(turns, name)],
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, batches)


def steps(recipe: Recipe, rounds: int) -> dict[str, float]:
    """Seconds of the fastest step of each loop."""
    count = recipe.batch_size * (rounds + 1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    data = Images(torch.arange(count) % 10, pixels=images)
    turns = Turns(["bare", "flat", "tree"], rounds)
    jobs = [threading.Thread(target=bare, args=(recipe, data, turns))]
    jobs += [
        threading.Thread(target=ours, args=(recipe, data, turns, name)) for name in ("flat", "tree")
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return turns.best


def loading(photographs: int) -> tuple[float, float]:
    """Photographs a second through the streamed loader, and processor seconds a second."""
    with TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for index in range(64):
            target = Path(folder) / CLASSES[index % 10] / f"{index}.jpg"
            target.parent.mkdir(exist_ok=True)
            pixels = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize((500, 375)).save(target, quality=90)
        found = list(iter_images(folder))
        sources = (found * (photographs // len(found) + 1))[:photographs]
        recipe = load_recipe("photos", ["batch_size=32", f"workers={os.cpu_count() or 1}"])
        shown = timm_preprocessing(create_timm("resnet18", 10))
        batches = TrainingBatches(
            Images(torch.zeros(photographs, dtype=torch.int64), sources), recipe, shown
        )
        stream = iter(batches)
        next(stream)
        before = worker_seconds()
        begun, count = time.perf_counter(), 0
        for images, _ in stream:
            count += len(images)
            took = time.perf_counter() - begun
        return count / took, (worker_seconds() - before) / took


def worker_seconds() -> float:
    """Processor time of the loader's workers so far; NaN where there is no /proc."""
    ticks = 0
    for worker in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    recipe = recipe_of(options.quick)
    best = steps(recipe, options.rounds)
    print(
        f"{recipe.architecture}, 32 pixels, batch {recipe.batch_size}, {torch.get_num_threads()} threads"
    )
    for name, seconds in best.items():
        print(
            f"{name:5} {1000 * seconds:8.1f} ms a step {recipe.batch_size / seconds:8.1f} images/s"
        )
    print(f"tree / flat, seconds a step:   {best['tree'] / best['flat']:.3f}   (at most 1.03)")
    print(f"flat / bare, images a second:  {best['bare'] / best['flat']:.3f}   (at least 0.95)")
    print(f"tree / bare, images a second:  {best['bare'] / best['tree']:.3f}   (at least 0.95)")
    rate, busy = loading(256 if options.quick else 2000)
    print(f"loading photographs: {rate:.0f} images/s, {busy:.2f} of {os.cpu_count()} cores busy")


if __name__ == "__main__":
    main()
