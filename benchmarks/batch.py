"""Batch explanation against the bare forward pass on ready tensors, in one run.

    python benchmarks/batch.py                       # 1,000 photographs: about an hour on two cores
    python benchmarks/batch.py resnet18 --images 64  # a minute

Random weights, 1,000 classes under a binary tree: every path has ten decisions, and every image ten
maps, written as `nbdt explain FOLDER` writes them, rows included. The photographs are made: random
500 × 375 crops and flips of Gradio's four packaged ones, enlarged, with noise, JPEG quality 90. Blocks of photographs are run in turn by
the forward pass and by the batch, so that a machine that slows down slows both; same batch size,
precision, threads and memory layout on both sides. With a GPU, its busy share is printed as well.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()

# ruff: noqa: E402
import torch

from nbdt import NBDT, Hierarchy, storage
from nbdt.explain.batch import explain_all
from nbdt.explain.batch import writer as batch_writer
from nbdt.explain.batch.compute import computing, decode, resolve_precision
from nbdt.explain.batch.options import BATCH_SIZE
from nbdt.images.dataset import iter_inputs
from nbdt.network.encoder import to_device

CLASSES, DEPTH = 1000, 10
SIZE = (500, 375)
BLOCK = 128  # photographs run by one side before the other has its turn


def tree() -> Hierarchy:
    """As balanced a binary tree over 1,000 classes as there is."""
    nested: object = [f"c{index}" for index in range(CLASSES)]

    def halves(names: list[str]) -> object:
        middle = len(names) // 2
        if len(names) <= 2:
            return names
        return [
            {f"{half[0]}-{half[-1]}": halves(half)} if len(half) > 1 else half[0]
            for half in (names[:middle], names[middle:])
        ]

    return Hierarchy.from_nested({"all": halves(nested)}, nested)


def photographs(folder: Path, count: int) -> None:
    """JPEG files, all different, with the entropy of photographs."""
    from gradio.media import get_image

    names = ("cheetah1.jpg", "lion.jpg", "bus.png", "tower.jpg")
    originals = [Image.open(get_image(name)).convert("RGB") for name in names]
    draw, noise = random.Random(0), np.random.default_rng(0)
    for index in range(count):
        original = originals[index % len(originals)]
        scale = draw.uniform(1, 1.6) * max(SIZE[0] / original.width, SIZE[1] / original.height)
        width, height = (
            max(side, round(length * scale))
            for side, length in zip(SIZE, original.size, strict=True)
        )
        left, top = draw.randint(0, width - SIZE[0]), draw.randint(0, height - SIZE[1])
        view = original.resize((width, height)).crop((left, top, left + SIZE[0], top + SIZE[1]))
        if draw.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = np.asarray(view, np.float32) + noise.normal(0, 4, (SIZE[1], SIZE[0], 1))
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index:05d}.jpg", quality=90)


class Clock:
    """Seconds by name, of calls in the main thread."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*given: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return run

    @contextmanager
    def watching(self, model: NBDT) -> Iterator[None]:
        """Times the stages of a batch."""
        places = [
            (model, "feature_map", "forward pass, decoding beside it"),
            (batch_writer, "packed_maps", "packing maps"),
            (batch_writer, "parquet", "packing rows"),
            (storage, "write_atomic", "writing, to the disk"),
            (batch_writer, "row_of", "rows"),
            (type(model.preprocess), "normalise", "normalising"),
        ]
        with ExitStack() as stack:
            for place, name, label in places:
                stack.enter_context(
                    patch.object(place, name, self.timed(label, getattr(place, name)))
                )
            stack.enter_context(
                patch.object(
                    batch_writer.PartWriter,
                    "_explain",
                    self.timed("explain", batch_writer.PartWriter._explain),
                )
            )
            yield


def bare(model: NBDT, batches: list[torch.Tensor]) -> None:
    """Only the network: images to leaf log-probabilities."""
    with torch.inference_mode():
        for images in batches:
            model.head.rules(model.head.linear(model.pool(model.feature_map(images))))


def busy_share(run: Callable[[], object]) -> tuple[object, float | None]:
    """What `run` gives, and the mean utilisation of the GPU meanwhile, if there is one."""
    if not torch.cuda.is_available():
        return run(), None
    from threading import Event, Thread

    seen, end = [], Event()

    def look() -> None:
        while not end.wait(0.1):
            seen.append(torch.cuda.utilization())

    watcher = Thread(target=look)
    watcher.start()
    try:
        return run(), sum(seen) / max(1, len(seen))
    finally:
        end.set()
        watcher.join()


def measure(name: str, folder: Path, batch_size: int, precision: str, rounds: int) -> None:
    """Print one network's table."""
    torch.manual_seed(0)
    model = to_device(NBDT.from_timm(name, tree(), rule="marginal").eval())
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device)
    files = sorted(map(str, folder.iterdir()))
    ready = [decode(source, model.preprocess).pixels for source in iter_inputs(files[:batch_size])]
    tensor = model.preprocess.normalise(torch.from_numpy(np.stack(ready)).to(device))
    clock, forward, whole, busy, written = Clock(), 0.0, 0.0, [], 0
    with computing(model, precision):
        bare(model, [tensor] * 2)
        for _ in range(rounds):
            for start in range(0, len(files), BLOCK):
                block = files[start : start + BLOCK]
                batches = [
                    tensor[: len(block[at : at + batch_size])]
                    for at in range(0, len(block), batch_size)
                ]
                begun = time.perf_counter()
                bare(model, batches)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                forward += time.perf_counter() - begun
                with tempfile.TemporaryDirectory() as out:
                    run = partial(
                        explain_all, model, block, out, precision="float32", batch_size=batch_size
                    )
                    with clock.watching(model), patch("nbdt.explain.batch.compute._try_once"):
                        begun = time.perf_counter()
                        _, share = busy_share(run)
                        whole += time.perf_counter() - begun
                    busy.append(share)
                    written += sum(
                        file.stat().st_size for file in Path(out).rglob("*.*") if file.is_file()
                    )
    count = rounds * len(files)
    print(
        f"\n## {name}: {precision}, batch {batch_size}, {count} images, {torch.get_num_threads()} threads, {device}\n"
    )
    print(
        f"forward pass alone {count / forward:.2f} images/s, batch {count / whole:.2f}: ratio {forward / whole:.3f}"
    )
    print(f"written: {written / count:,.0f} bytes an image")
    if busy[0] is not None:
        print(f"GPU busy: {sum(busy) / len(busy):.0f} %")
    _table(clock.seconds, forward, whole, count)


def _table(seconds: Counter[str], forward: float, whole: float, count: int) -> None:
    inside = seconds["forward pass, decoding beside it"] + seconds["normalising"]
    rows = {
        "the same forward pass": forward,
        "slower beside decoding": seconds["forward pass, decoding beside it"] - forward,
        "normalising": seconds["normalising"],
        "paths and maps": seconds["explain"] - inside,
        **{
            name: seconds[name]
            for name in ("rows", "packing rows", "packing maps", "writing, to the disk")
        },
    }
    rows["hashing the model, waiting for images, the rest"] = whole - sum(rows.values())
    print("\n| where the time goes | ms an image | share |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {1000 * value / count:.2f} | {value / whole:.1%} |")


def decoding(folder: Path) -> None:
    """Threads against processes, decoding alone, images a second."""
    model = NBDT.from_timm("resnet18", tree(), rule="marginal")
    sources = list(iter_inputs(sorted(map(str, folder.iterdir()))))
    job = partial(_pixels, preprocess=model.preprocess)
    print("\n| decoding alone | images/s |\n|---|---|")
    for workers in (1, 2):
        pools: dict[str, Executor] = {
            "threads": ThreadPoolExecutor(workers),
            "processes": ProcessPoolExecutor(workers, get_context("spawn")),
        }
        for kind, pool in pools.items():
            with pool:
                list(pool.map(job, sources[: 2 * workers]))  # start them
                begun = time.perf_counter()
                list(pool.map(job, sources, chunksize=8))
                print(f"| {workers} {kind} | {len(sources) / (time.perf_counter() - begun):.0f} |")


def _pixels(source: object, preprocess: object) -> object:
    return decode(source, preprocess).pixels


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["resnet101", "resnet18"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="photographs-"))
    try:
        photographs(folder, options.images)
        size = sum(file.stat().st_size for file in folder.iterdir()) / options.images
        print(
            f"torch {torch.__version__}; {options.images} JPEG photographs of {SIZE[0]} × {SIZE[1]}, {size:,.0f} bytes each"
        )
        for name in options.networks:
            measure(name, folder, options.batch_size, options.precision, options.rounds)
        decoding(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
