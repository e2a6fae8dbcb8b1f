"""One run on several devices and machines.

Lightning starts one process for each device of this machine, with the same command. On several
machines torchrun or SLURM starts them. Every process reads the data and the recipe. Only the first
writes, measures and reports.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from nbdt.errors import NBDTError

from ..folder import global_rank
from ..recipe import Recipe

TIMEOUT = timedelta(minutes=10)  # for a rank that does not answer


def device_count(recipe: Recipe) -> int:
    """Return the number of processes on this machine, one a device."""
    if recipe.devices:
        return recipe.devices
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    return int(local) if local else max(1, torch.cuda.device_count())


def is_shared(recipe: Recipe) -> bool:
    """Return whether more than one process trains."""
    return device_count(recipe) * recipe.nodes > 1


def make_strategy(recipe: Recipe) -> Any:
    """Return Lightning's strategy for a recipe."""
    return DDPStrategy(timeout=TIMEOUT) if is_shared(recipe) else "auto"


def raise_if_lost(error: RuntimeError, recipe: Recipe) -> None:
    """Raise an NBDTError if the error means that another process of the run has ended."""
    text = str(error)
    if is_shared(recipe) and any(
        sign in text for sign in ("onnection", "imed out", "NCCL", "peer")
    ):
        raise NBDTError(
            f"Process {global_rank()} lost another process of this run (killed, or its machine is "
            f"gone): {text.splitlines()[0][:200]}. The last checkpoint is complete: run the same "
            "command with --resume."
        ) from error
