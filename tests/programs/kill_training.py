"""Trains once undisturbed and once killed at random moments; prints what became of both.

Children of a process that has imported everything start at once, so that many can be killed.
Arguments: the photographs, a folder for both runs, the recipe as JSON.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from nbdt.train import train
from nbdt.train.fit.checkpoints import read_checkpoint
from nbdt.train.recipe import parse_recipe

KILLS = 3
torch.set_num_threads(1)
warnings.simplefilter("ignore")


photos, root, recipe = Path(sys.argv[1]), Path(sys.argv[2]), parse_recipe(json.loads(sys.argv[3]))


def start(out):
    pid = os.fork()
    if pid == 0:
        try:
            train(recipe, photos, out, resume=True)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid


def digest(out):
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def age(path):
    return path.stat().st_mtime_ns if path.exists() else 0


begun = time.monotonic()
status = os.waitpid(start(root / "whole"), 0)[1]
assert status == 0, status
took = time.monotonic() - begun
rng, killed, last = random.Random(), [], root / "broken" / "checkpoints" / "last.ckpt"
while True:
    before, pid = age(last), start(root / "broken")
    delay = rng.uniform(0, took / 4)
    while (
        age(last) == before
        and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.001)
    time.sleep(delay)
    if len(killed) < KILLS:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        break
    state = read_checkpoint(last)["nbdt"]  # complete, whenever it was
    killed.append((round(delay, 3), len(state["history"])))
assert status == 0, (status, killed)
print(
    json.dumps(
        {"killed": killed, "whole": digest(root / "whole"), "broken": digest(root / "broken")}
    )
)
