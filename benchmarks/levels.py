"""What the levels of `explain` take for one photograph, against the forward pass in the same run.

    python benchmarks/levels.py photo.jpg
    python benchmarks/levels.py photo.jpg --model DIR --threads 2

Jobs take turns; each figure is the fastest of all rounds. Seconds are of the processor where the machine
is shared, of the clock where it is idle.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from nbdt import NBDT
from nbdt.explain import explain
from nbdt.explain.maps.levels import LEVELS


def fastest(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of the processor and of the clock for the fastest run of each job."""
    found = {name: (float("inf"), float("inf")) for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.process_time(), time.perf_counter()
            job()
            spent = time.process_time() - start[0], time.perf_counter() - start[1]
            found[name] = tuple(map(min, found[name], spent))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("--model", default="imagenet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = NBDT.load(options.model)
    (example,) = explain(model, options.photo)
    image = model.preprocess(example.photo)[None].to(model.device)

    def forward() -> None:
        with torch.inference_mode():
            model.logits(image)

    jobs: dict[str, Callable[[], object]] = {"forward pass": forward}
    passes = {"forward pass": 1}
    for level in LEVELS:
        jobs[level] = lambda level=level: explain(model, image, level=level, evidence=False)
        passes[level] = jobs[level]()[0].made.get("passes", 1)
    found = fastest(jobs, options.rounds)
    print(f"{len(example.path)} decisions, torch {torch.__version__}, {options.threads} threads\n")
    print(
        "| level | passes | processor s | clock s | times the forward pass |\n|---|---|---|---|---|"
    )
    base = found["forward pass"]
    for name, (processor, clock) in found.items():
        row = name, passes[name], f"{processor:.3f}", f"{clock:.3f}", f"{processor / base[0]:.2f}"
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
