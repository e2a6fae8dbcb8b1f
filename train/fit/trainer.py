"""Lightning's trainer, set up by a recipe."""

from __future__ import annotations

import sys
from typing import Any, Literal

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger

from ..recipe import Recipe
from .checkpoints import KeepBest, SafeCheckpointIO, SaveLast
from .distributed import SyncedNorms, device_count, make_strategy
from .run_folder import RunFolder

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


def make_trainer(recipe: Recipe, folder: RunFolder, batches: int) -> lightning.Trainer:
    """A trainer for `batches` batches an epoch, which keeps its checkpoints in `folder`."""
    callbacks: list[Any] = []
    if recipe.early_stop_epochs:
        callbacks.append(KeepBest(folder.best, recipe.early_stop_epochs))
    callbacks.append(SaveLast(folder.last, recipe.save_every_minutes, recipe.save_every_steps))
    plugins: list[Any] = [SafeCheckpointIO()]
    if recipe.sync_norms:
        plugins.append(SyncedNorms())
    watched = sys.stderr.isatty()
    if watched:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        precision=_precision(recipe),
        accumulate_grad_batches=recipe.accumulate_batches,
        gradient_clip_val=recipe.clip_norm or None,
        default_root_dir=folder.root,
        logger=CSVLogger(folder.root, name="log"),
        callbacks=callbacks,
        plugins=plugins,
        devices=device_count(recipe),
        num_nodes=recipe.nodes,
        strategy=make_strategy(recipe),
        use_distributed_sampler=False,
        enable_checkpointing=True,
        enable_progress_bar=watched,
        enable_model_summary=False,
        log_every_n_steps=min(20, batches),
        num_sanity_val_steps=0,
    )


def _precision(recipe: Recipe) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    if recipe.precision != "auto":
        return _PRECISIONS[recipe.precision]
    return (
        "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
    )
