"""Kill a batch twenty times at random moments; print each kill as JSON: seconds, killed, parts done.

    python -m tests.programs.kill_batches PHOTOS FOLDER

Children of a process that has imported everything start at once, so that many can be killed. The
folder gets ``whole``, an uninterrupted run, and ``broken``, the killed one, finished in the end.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

from nbdt import NBDT
from tests import oracle
from tests.explain.batch import batches


def start(model, photos, out):
    pid = os.fork()
    if pid == 0:
        try:
            batches.run(model, [photos], out)
            os._exit(0)
        finally:  # after an error
            traceback.print_exc()
            os._exit(1)
    return pid


def run_to_the_end(model, photos, out):
    status = os.waitpid(start(model, photos, out), 0)[1]
    if status:
        raise SystemExit(f"{out}: a run ended with status {status}")


def kill_once(model, photos, out, delay):
    """Return whether the run was still going, and the date of each finished part."""
    pid = start(model, photos, out)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) and status:
        raise SystemExit(f"{out}: a run ended with status {status}")
    done = {file.name: file.stat().st_mtime_ns for file in (out / "rows").glob("part-*")}
    return os.WIFSIGNALED(status), done


def main(photos, root):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    network = NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval()
    model = batches.tiny(network)
    begun = time.monotonic()
    run_to_the_end(model, photos, root / "whole")
    took, rng = time.monotonic() - begun, random.Random()
    killed, before = [], {}
    for _ in range(20):
        delay = rng.uniform(0, took / 6)
        was_killed, done = kill_once(model, photos, root / "broken", delay)
        if any(done.get(name) != age for name, age in before.items()):
            raise SystemExit(f"a part was repeated or lost: {before} {done}")
        before = done
        killed.append((round(delay, 3), was_killed, len(done)))
    run_to_the_end(model, photos, root / "broken")
    sys.stdout.write(json.dumps(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
