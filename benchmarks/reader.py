"""An exported file without torch: seconds from the start to the answer, and memory beyond Python's.

    python benchmarks/reader.py model.onnx cat.jpg

Linux only. Fresh processes, one thread; the fastest of five, and its CPU seconds, which neighbours change less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

READER = Path(__file__).parents[1] / "nbdt" / "runtime" / "reader.py"
STARTS = 5
PEAK = """
import re, sys
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
bare = peak()
sys.path.insert(0, sys.argv[1])
import numpy
from reader import Reader
libraries = peak() - bare
reader = Reader(sys.argv[2], threads=1)
pixels = reader.pixels(reader(sys.argv[3]).picture)
if sys.argv[4] != "1":
    reader.run(numpy.stack([pixels] * int(sys.argv[4])))
print(f"{peak() - bare:.0f} MB, of which libraries {libraries:.0f}")
"""


def start(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photograph")
    options = parser.parse_args()
    files = [options.model, options.photograph]
    print(f"{os.path.getsize(options.model) / 1e6:.1f} MB")
    clock, used = min(start([sys.executable, str(READER), *files]) for _ in range(STARTS))
    print(f"start to answer: {clock:.2f} s, {used:.2f} s of the processor")
    for batch in ("1", "8"):
        command = [sys.executable, "-c", PEAK, str(READER.parent), *files, batch]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"peak beyond Python at batch {batch}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
