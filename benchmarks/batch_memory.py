"""How the memory of a batch grows with the number of images, which is meant to be: not at all.

    python benchmarks/batch_memory.py 1000000    # 15 minutes: listing, rows, maps, resume, no network

A list of paths is written, all of them the same small photograph, and explained by a stand-in for the
network that answers at once; everything else is the real thing, in parts of 1,024. Then it is run
again over the finished parts. Prints one JSON line a number: megabytes above those after the first
batch, the most at any time.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from nbdt import NBDT
from nbdt.explain.batch import compute, explain_all


def resident_mb() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def simulate(count: int) -> dict[str, float]:
    """Megabytes and seconds for that many images."""
    model = NBDT.load("cifar10")
    images = torch.zeros(32, 3, 32, 32)
    known = compute._paths(model, 0.95, images, with_maps=True)

    def instead(_: NBDT, _accuracy: float, given: torch.Tensor, *, with_maps: bool) -> object:
        assert with_maps
        return [replace(one) for one in known[: len(given)]]

    compute._paths = instead
    highest = start = resident_mb()
    seen = 0

    def look(more: int) -> None:
        nonlocal highest, seen
        highest = max(highest, resident_mb())
        if (seen + more) // 100_000 > seen // 100_000:
            print(f"{seen + more:,} images: {highest - start:.1f} MB at most", file=sys.stderr)
        seen += more

    with tempfile.TemporaryDirectory() as folder:
        photo, listing = Path(folder, "photo.png"), Path(folder, "list.txt")
        Image.new("RGB", (32, 32), "green").save(photo)
        with listing.open("w") as file:
            for _ in range(count):
                file.write(f"{photo}\n")
        begun = time.perf_counter()
        out = Path(folder, "out")
        done = explain_all(model, [str(listing)], out, on_images=look)
        first = time.perf_counter() - begun
        again = explain_all(model, [str(listing)], out, on_images=look)
        rows = sum(file.stat().st_size for file in (out / "rows").iterdir())
    if not done.images == again.repeated == count:
        raise SystemExit(f"{done} {again}")
    return {
        "images": count,
        "grown_mb": round(highest - start, 1),
        "images_per_second": round(count / first),
        "resume_images_per_second": round(count / (time.perf_counter() - begun - first)),
        "row_bytes": round(rows / count, 1),
    }


if __name__ == "__main__":
    for given in sys.argv[1:] or ["1000000"]:
        print(json.dumps(simulate(int(given))), flush=True)
