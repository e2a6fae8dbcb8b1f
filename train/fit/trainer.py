"""Lightning's trainer, the optimiser and its learning rate, and when checkpoints are saved.

Lightning starts one process for each device of this machine, with the same command. On several
machines torchrun or SLURM starts them. Every process reads the data and the recipe. Only the first
writes, measures and reports.
"""

import os
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from nbdt.errors import NBDTError, nearest

from ..folder import RunFolder, global_rank
from ..recipe import Recipe
from .checkpoints import SafeCheckpointIO

CLOCK_INTERVAL = 20  # batches between two questions to the first rank's clock
TIMEOUT = timedelta(minutes=10)  # for a rank that does not answer


def make_trainer(recipe: Recipe, folder: RunFolder, batches: int) -> Trainer:
    """Return a trainer for `batches` batches an epoch that keeps its checkpoints in `folder`."""
    callbacks: list[Any] = []
    if recipe.early_stop_epochs:
        callbacks.append(KeepBest(folder.best, recipe.early_stop_epochs))
    callbacks.append(SaveLast(folder.last, recipe.save_every_minutes, recipe.save_every_steps))
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        precision=_precision(recipe),
        accumulate_grad_batches=recipe.accumulate_batches,
        gradient_clip_val=recipe.clip_norm or None,
        default_root_dir=folder.root,
        logger=CSVLogger(folder.root, name="log"),
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        devices=device_count(recipe),
        num_nodes=recipe.nodes,
        strategy=DDPStrategy(timeout=TIMEOUT) if is_shared(recipe) else "auto",
        use_distributed_sampler=False,
        enable_checkpointing=True,
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        log_every_n_steps=min(20, batches),
        num_sanity_val_steps=0,
    )


def _precision(recipe: Recipe) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    has_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if recipe.precision == "bf16" or (recipe.precision == "auto" and has_bfloat16):
        return "bf16-mixed"
    return "16-mixed" if recipe.precision == "16" else "32-true"


def device_count(recipe: Recipe) -> int:
    """Return the number of processes on this machine, one a device."""
    if recipe.devices:
        return recipe.devices
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    return int(local) if local else max(1, torch.cuda.device_count())


def is_shared(recipe: Recipe) -> bool:
    """Return whether more than one process trains."""
    return device_count(recipe) * recipe.nodes > 1


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


def make_optimizer(trained: nn.Module, recipe: Recipe, *, on_cpu: bool) -> torch.optim.Optimizer:
    """Return timm's optimiser over the parameters of `trained`.

    Raises NBDTError: timm has no optimiser of this name.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = [str(name) for name in list_optimizers()]
    if recipe.optimizer.lower() not in names:
        raise NBDTError(
            f"timm knows no optimizer {recipe.optimizer!r}.{nearest(recipe.optimizer, names)}"
        )
    if on_cpu:
        _orthogonalise_in_float32()
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        trained,
        opt=recipe.optimizer,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    return optimizer


def _orthogonalise_in_float32() -> None:
    """Keep timm's Muon from working in bfloat16, which most CPUs only emulate.

    Measured on two Zen 3 cores with a six-layer network: an optimiser step takes 1.1 s in bfloat16
    and 0.06 s in float32.
    """
    from timm.optim import muon

    original = getattr(muon.zeropower_via_newtonschulz, "func", muon.zeropower_via_newtonschulz)
    muon.zeropower_via_newtonschulz = partial(original, dtype=torch.float32)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, total: int) -> Any:
    """Return timm's schedule of `total` steps: a linear warm-up, then a fall to 0."""
    from timm.scheduler import CosineLRScheduler, PolyLRScheduler

    warmup = max(1, int(recipe.warmup * total))
    linear = partial(PolyLRScheduler, power=1.0)
    return (CosineLRScheduler if recipe.schedule == "cosine" else linear)(
        optimizer,
        t_initial=max(2, total - warmup),
        warmup_t=warmup,
        warmup_lr_init=recipe.learning_rate / (warmup + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )


class SaveLast(Checkpoint):
    """Saves after each epoch, and at intervals of minutes or optimiser steps within one; 0 for none.

    The file is replaced each time.
    """

    def __init__(self, path: Path, minutes: float, steps: int) -> None:
        super().__init__()
        self.path, self.minutes, self.steps = path, minutes, steps
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time and no gradient is half accumulated."""
        done = batch_idx + 1
        if done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        by_step = self.steps and trainer.global_step % self.steps == 0
        by_time = self.minutes and time.monotonic() - self._saved >= 60 * self.minutes
        if trainer.world_size > 1 and self.minutes:
            # Ranks save together, so the first rank's clock counts. Asking it takes time, too.
            by_time = done % CLOCK_INTERVAL == 0 and trainer.strategy.broadcast(by_time)
        if by_step or by_time:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch and its validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()


class KeepBest(Checkpoint):
    """Keeps the epoch with the best soft accuracy on held-out images; stops when none is better.

    Epochs before tree supervision starts do not count; `patience` epochs without a better one stop.
    """

    def __init__(self, path: Path, patience: int) -> None:
        super().__init__()
        self.path, self.patience = path, patience
        self.best, self.waited = -1.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the resumed run had stopped already."""
        trainer.should_stop = self.waited >= self.patience

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch with the best one."""
        value = trainer.callback_metrics.get("soft_accuracy")
        if value is None:
            return
        self.waited += 1
        if float(value) > self.best:
            self.best, self.waited = float(value), 0
            trainer.save_checkpoint(self.path, weights_only=True)
        trainer.should_stop = self.waited >= self.patience

    def state_dict(self) -> dict[str, float]:
        """Return the state that a resumed run needs."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the interrupted run."""
        self.best, self.waited = state_dict["best"], int(state_dict["waited"])
