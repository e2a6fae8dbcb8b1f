"""Start a batch on a Ray cluster and kill this process after the third part.

python -m tests.programs.die_on_cluster MODEL PHOTOS OUT ADDRESS
"""

import os
import signal
import sys

import torch

from nbdt import NBDT
from tests.explain.batch import batches


def main(model, photos, out, address):
    torch.set_num_threads(1)
    seen = []

    def kill_me(images):
        seen.append(images)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    batches.run(
        NBDT.load(model), [photos], out, engine="ray", workers=2, ray_address=address,
        on_images=kill_me,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
