"""What a model costs: images a second, and memory in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nbdt.model.model import NBDT
from nbdt.model.saved import BACKBONE, WEIGHTS

BATCHES = (1, 8)
ROUNDS = 7  # of which the median counts
AT_ONCE = 8  # images while the memory is measured

PROGRAM = """
import json, re, sys
import torch
from nbdt.hierarchies.library import open_model
def peak():  # of this process alone; getrusage begins with that of the one that started it
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
(model, weights, runtime), count = json.loads(sys.argv[1])
open_model("cifar10", runtime="torch")  # the libraries that any model needs
import onnxruntime
before = peak()
loaded = open_model(model, weights, runtime=runtime)
side = loaded.preprocess.size
with torch.inference_mode():
    loaded.feature_map(torch.zeros(count, 3, side, side))
print(peak() - before)
"""


def speed(original: NBDT, small: NBDT) -> dict[str, Any]:
    """Return the images a second of both at each size of batch, and the threads."""
    runs = {"original": original.features, "compressed": small.features}
    rates = {
        str(count): {name: count / value for name, value in found.items()}
        for count, found in seconds(original, runs, time.perf_counter).items()
    }
    return {"threads": torch.get_num_threads(), "images_a_second": rates}


def seconds(
    model: NBDT, runs: Mapping[str, Callable[[Tensor], object]], clock: Callable[[], float]
) -> dict[int, dict[str, float]]:
    """Return the median time of each function of a batch, computed in turn, by size of batch."""
    found: dict[int, dict[str, float]] = {}
    for count in BATCHES:
        images = model.preprocess.example(model.head.linear.weight)[:1].repeat(count, 1, 1, 1)
        times: dict[str, list[float]] = {name: [] for name in runs}
        with torch.inference_mode():
            for _ in range(ROUNDS + 1):  # the first starts sessions and fills caches
                for name, run in runs.items():
                    start = clock()
                    run(images)
                    times[name].append(clock() - start)
        found[count] = {name: median(each[1:]) for name, each in times.items()}
    return found


def weight_bytes(model: NBDT) -> int:
    """Return the bytes of a torch model's weights."""
    return sum(value.nbytes for value in model.state_dict().values())


def file_bytes(folder: Path) -> int:
    """Return the bytes of a saved model's weights."""
    files = (folder / name for name in (BACKBONE, WEIGHTS))
    return sum(file.stat().st_size for file in files if file.exists())


def memory(name: str, weights: Path | None = None, runtime: str | None = None) -> int | None:
    """Return the peak bytes that a model needs beyond the libraries; None where Linux does not say.

    Arguments are those of `nbdt.hierarchies.library.open_model`.
    """
    given = [[name, weights and os.fspath(weights), runtime], AT_ONCE]
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(ran.stdout) if ran.returncode == 0 else None
