"""The folder of a training run: its checkpoints, its record and its log.

A checkpoint is one safetensors file without pickle: tensors by number, and in the metadata the JSON
of everything else, where the number of a tensor takes its place. It replaces the last one only when
it is complete, so a killed run continues from the last one.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import write_atomic

FORMAT = "nbdt-checkpoint"
VERSION = "1"
FOLDER, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
COPIES = 4  # of the weights: they themselves, two moments of the optimiser, a moving average
Packed: TypeAlias = Any
Row: TypeAlias = dict[str, float]
COLUMNS = ("epoch", "steps", "train_loss", "flat", "soft", "hard", "minutes")
# These keys may change when a run is resumed: none of them changes the weights.
# (How many devices share a batch changes only how sums are rounded.)
FREE = (
    "workers", "save_every_minutes", "save_every_steps", "check_images", "devices", "nodes", "strategy",
)  # fmt: skip


class SafeCheckpointIO(CheckpointIO):
    """Reads and writes Lightning's checkpoints as safetensors files."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the old file stays until the new one is complete.

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
            last = "the last one is complete" if target.exists() else "there is none yet"
            full = error.errno == errno.ENOSPC
            reason = "the disk is full" if full else error.strerror or str(error)
            raise NBDTError(
                f"The checkpoint {str(target)!r} could not be written: {reason}; {last}. Free some "
                "space, then run the same command with --resume."
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; raises as `read_checkpoint`."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU.

    Raises:
        NBDTError: the file is damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
                raise ValueError(f"not a checkpoint of version {VERSION}")
            checkpoint: dict[str, Any] = _unpack(json.loads(metadata["content"]), file)
            return checkpoint
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


# ---- the folder ----------------------------------------------------------------------------------


class RunFolder:
    """The files of one training run.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"
        self.last = root / FOLDER / LAST
        self.best = root / FOLDER / BEST
        self.record = root / "run.json"

    def begin(self, *, resume: bool) -> bool:
        """Make the folder; return whether it holds a finished model already.

        Raises:
            NBDTError: it holds a run that is not to be resumed, or it cannot be written.
        """
        if self.model.exists():
            if resume:
                return True
            raise NBDTError(
                f"{os.fspath(self.root)!r} holds a finished model already; name another --out."
            )
        if not resume and (self.last.exists() or self.record.exists()):
            raise NBDTError(
                f"{os.fspath(self.root)!r} holds an unfinished run. Continue it: the same command "
                "with --resume. Or start another: name another --out, or delete that folder."
            )
        check_space(self.root, 0)
        self._remove_leftovers()
        return False

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Record what a new run depends on; check that a resumed run still depends on the same.

        Raises:
            NBDTError: the recipe, the data or the hierarchy differs from that at the start.
        """
        if not self.last.exists():
            write_atomic(self.record, json.dumps(facts, indent=1) + "\n")
            return
        try:
            before = json.loads(self.record.read_text(encoding="utf-8"))
            changes = _changes(before, json.loads(json.dumps(facts)))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise NBDTError(
                f"{str(self.record)!r} cannot be read ({error}), so this run cannot be compared "
                "with the one that was started. Name another --out."
            ) from None
        if changes:
            raise NBDTError(
                f"The run in {str(self.root)!r} was started with {'; '.join(changes)}. Resume it "
                "as it was started, or name another --out."
            )

    def log(self, rows: Sequence[Row]) -> None:
        """Write the epochs so far to epochs.csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: round(row[key], 6) for key in COLUMNS if key in row})
        write_atomic(self.root / "epochs.csv", text.getvalue())

    def _remove_leftovers(self) -> None:
        """Delete the partial files of a killed process."""
        for pattern in (f"{FOLDER}/.*.ckpt.*", ".run.json.*", ".probe*"):
            for path in self.root.glob(pattern):
                path.unlink(missing_ok=True)
        for path in self.root.glob(".model.*"):
            shutil.rmtree(path, ignore_errors=True)


class EpochLog:
    """The figures of a run's epochs, its clock, and the mean loss of the epoch under way."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.loss_sum, self.loss_count = torch.zeros(()), 0
        self._seconds = 0.0  # before a resume
        self.start_clock()

    def start_clock(self) -> None:
        """Measure time from here on."""
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, including those before a resume."""
        return self._seconds + time.monotonic() - self._since

    def add_loss(self, loss: Tensor) -> None:
        """Add the loss of one batch."""
        self.loss_sum, self.loss_count = self.loss_sum + loss.detach().cpu(), self.loss_count + 1

    def mean_loss(self) -> Tensor:
        """Return the mean loss of the epoch's batches so far."""
        return self.loss_sum / self.loss_count

    def add_row(self, row: Row) -> None:
        """Add an epoch's figures and the minutes so far; begin the next epoch's mean loss."""
        self.rows.append({**row, "minutes": round(self.seconds() / 60, 2)})
        self.loss_sum, self.loss_count = torch.zeros(()), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint holds."""
        loss = [float(self.loss_sum), self.loss_count]
        return {"history": self.rows, "loss": loss, "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.rows = list(state["history"])
        self.loss_sum, self.loss_count = torch.tensor(state["loss"][0]), state["loss"][1]
        self._seconds = state["seconds"]
        self.start_clock()


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = before["recipe"], now["recipe"]
    keys = [key for key in new if key in old and key not in FREE and old[key] != new[key]]
    changes = [f"{key} = {old.get(key)!r}, not {new[key]!r}" for key in keys]
    for key, what in (("data_sha256", "other data"), ("hierarchy", "another hierarchy")):
        if before.get(key) != now.get(key):
            changes.append(what)
    return changes


def check_space(folder: Path, weights: int) -> None:
    """Make an output folder; refuse one that cannot be written or has no space for checkpoints.

    Args:
        folder: the output folder.
        weights: number of weights of the network.

    Raises:
        NBDTError: with the space needed and found.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ".probe", b"can this folder be written?")
        (folder / ".probe").unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise NBDTError(
            f"The output folder {str(folder)!r} cannot be written ({error.strerror or error}); name "
            "another with --out, or change its permissions."
        ) from error
    # An old checkpoint stays until the new one is complete; with the best epoch's that makes three.
    needed = 3 * COPIES * 4 * weights
    if free < needed:
        raise NBDTError(
            f"The disk of {str(folder)!r} has {free / 1e9:,.2f} GB left, and the checkpoints of "
            f"{weights:,} weights may take {needed / 1e9:,.2f} GB; free some, or name another --out."
        )
