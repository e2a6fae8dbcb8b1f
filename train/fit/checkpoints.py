"""Checkpoints that a killed run continues from: no pickle, written aside, renamed when whole.

A checkpoint is one safetensors file: the tensors by number, and in its metadata the JSON of
everything else, where a tensor's place holds its number.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import write_atomic

FORMAT = "nbdt-checkpoint"
VERSION = "1"
FOLDER, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
ASK_EVERY = 20  # batches
COPIES = 4  # of the weights: they themselves, two moments of the optimiser, a moving average
Packed: TypeAlias = Any


class SafeCheckpointIO(CheckpointIO):
    """How Lightning's checkpoints reach the disk here."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the file that was there stays until the new one is whole.

        Raises:
            NBDTError: the disk is full or cannot be written.
            TypeError: the checkpoint holds something that is neither a tensor nor plain data.
        """
        tensors: dict[str, Tensor] = {}
        content = json.dumps(_pack(checkpoint, tensors))
        metadata = {"format": FORMAT, "version": VERSION, "content": content}
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, save(tensors, metadata))
        except OSError as error:
            raise NBDTError(_cannot_save(target, error)) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read it again.

        Raises:
            NBDTError: it is damaged, or something else.
        """
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete one."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU. Raises NBDTError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
                raise ValueError(f"not a checkpoint of version {VERSION}")
            content = json.loads(metadata["content"])
            found: dict[str, Any] = _unpack(content, file)
            return found
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise NBDTError(
            f"The checkpoint {os.fspath(path)!r} cannot be read ({error}). Delete it to train from "
            "the start."
        ) from None


def _pack(value: object, tensors: dict[str, Tensor], place: str = "checkpoint") -> Packed:
    if isinstance(value, Tensor):
        return _pack_tensor(value, tensors)
    if isinstance(value, Mapping):
        items = [[key, _pack(item, tensors, f"{place}[{key!r}]")] for key, item in value.items()]
        if not all(isinstance(key, str | int) for key in value):
            raise TypeError(f"{place} has keys that are neither text nor whole numbers")
        return {"items": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors, place) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{place} is {type(value).__name__}, which a checkpoint cannot hold")


def _pack_tensor(value: Tensor, tensors: dict[str, Tensor]) -> Packed:
    name = str(len(tensors))
    # The layout in memory is kept: sums over it round alike when training goes on.
    last = value.ndim == 4 and not value.is_contiguous()
    last = last and value.is_contiguous(memory_format=torch.channels_last)
    tensors[name] = value.detach().cpu().contiguous().clone()
    return {"tensor": name, "channels_last": last}


def _unpack(value: Packed, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: _unpack(item, file) for key, item in value["items"]}
    if "tensor" in value:
        tensor: Tensor = file.get_tensor(value["tensor"])
        if value["channels_last"]:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor
    ((kind, items),) = value.items()
    return {"list": list, "tuple": tuple}[kind](_unpack(item, file) for item in items)


# ---- when ---------------------------------------------------------------------------------------


class SaveLast(Checkpoint):
    """Saves after every epoch, and every so many minutes or steps within one.

    Args:
        path: the file, replaced each time.
        minutes: between saves within an epoch; 0 for none by time.
        steps: of the optimiser between saves within an epoch; 0 for none by steps.
    """

    def __init__(self, path: Path, minutes: float, steps: int) -> None:
        super().__init__()
        self.path, self.minutes, self.steps = path, minutes, steps
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time and no gradient is half accumulated."""
        done = batch_idx + 1
        if done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        by_step = self.steps and trainer.global_step % self.steps == 0
        by_time = self.minutes and time.monotonic() - self._saved >= 60 * self.minutes
        if trainer.world_size > 1 and self.minutes:
            # Ranks save together, so the first one's clock counts; asking takes time, too.
            by_time = done % ASK_EVERY == 0 and trainer.strategy.broadcast(by_time)
        if by_step or by_time:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, its validation included."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()


class KeepBest(Checkpoint):
    """Keeps the epoch with the best soft answers on held-out images; stops when none is better.

    Epochs before the tree stands do not count.

    Args:
        path: the best epoch's checkpoint.
        patience: epochs without a better one before training stops.
    """

    def __init__(self, path: Path, patience: int) -> None:
        super().__init__()
        self.path, self.patience = path, patience
        self.best, self.waited = -1.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped, and is only to be finished, stops again."""
        trainer.should_stop = self.waited >= self.patience

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch."""
        value = trainer.callback_metrics.get("soft_accuracy")
        if value is None:
            return
        self.waited += 1
        if float(value) > self.best:
            self.best, self.waited = float(value), 0
            trainer.save_checkpoint(self.path, weights_only=True)
        trainer.should_stop = self.waited >= self.patience

    def state_dict(self) -> dict[str, float]:
        """What a resumed run has to know."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self.best, self.waited = state_dict["best"], int(state_dict["waited"])


# ---- room ---------------------------------------------------------------------------------------


def check_room(out: Path, weights: int) -> None:
    """Refuse an output folder that cannot be written, or a disk too small for checkpoints.

    Args:
        out: the folder, which is made.
        weights: how many the network has.

    Raises:
        NBDTError: with the space needed and found.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / ".probe", b"can this folder be written?")
        (out / ".probe").unlink()
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise NBDTError(
            f"The output folder {str(out)!r} cannot be written ({error.strerror or error}); name "
            "another with --out, or change its permissions."
        ) from error
    # An old checkpoint stays until the new one is whole; with the best epoch's that makes three.
    needed = 3 * COPIES * 4 * weights
    if free < needed:
        raise NBDTError(
            f"The disk of {str(out)!r} has {free / 1e9:,.2f} GB left, and the checkpoints of "
            f"{weights:,} weights may take {needed / 1e9:,.2f} GB; free some, or name another --out."
        )


def remove_leftovers(out: Path) -> None:
    """Delete what a killed process left half written."""
    for path in [*out.glob(f"{FOLDER}/.*.ckpt.*"), *out.glob(".run.json.*"), *out.glob(".probe*")]:
        path.unlink(missing_ok=True)
    for path in out.glob(".model.*"):
        shutil.rmtree(path, ignore_errors=True)


def _cannot_save(path: Path, error: OSError) -> str:
    kept = "the last one is whole" if path.exists() else "there is none yet"
    what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return (
        f"The checkpoint {str(path)!r} could not be written: {what}; {kept}. Make room, then run "
        "the same command with --resume."
    )
