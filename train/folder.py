"""The folder of a training run: what is in it, and the figures of its epochs."""

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import locked, write_atomic

FOLDER, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
RECORD = {"format": "nbdt-run", "version": 1}  # the start of run.json
COPIES = 4  # of the weights: they themselves, two moments of the optimiser, a moving average
Row: TypeAlias = dict[str, float]
Report: TypeAlias = Callable[[list[Row]], None]
COLUMNS = ("epoch", "steps", "train_loss", "flat", "soft", "hard", "minutes")
# These keys may change when a run is resumed: none of them changes the weights.
# (How many devices share a batch changes only how sums are rounded.)
FREE = (
    "workers", "save_every_minutes", "save_every_steps", "check_images", "devices", "nodes", "strategy",
)  # fmt: skip


class RunFolder:
    """The files of one training run, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"
        self.memory = root / ".memory"  # until it is part of the model
        self.picture = root / "summary.png"
        self.last = root / FOLDER / LAST
        self.best = root / FOLDER / BEST
        self.record = root / "run.json"

    def locked(self) -> AbstractContextManager[None]:
        """Make the folder and keep other runs out of it; raises as `check_space` and `locked` do."""
        check_space(self.root, 0)
        return locked(self.root / ".lock", f"Another run is writing to {str(self.root)!r}")

    def begin(self, *, resume: bool) -> bool:
        """Make the folder; return whether it holds a finished model already.

        Raises NBDTError: it holds a run that is not to be resumed, or it cannot be written.
        """
        if self.model.exists():
            if resume:
                return True
            raise NBDTError(
                f"{os.fspath(self.root)!r} holds a finished model already; name another --out."
            )
        is_started = self.last.exists() or (
            self.record.exists() and b'"recipe"' in self.record.read_bytes()
        )
        if is_started and not resume:
            raise NBDTError(
                f"{os.fspath(self.root)!r} holds an unfinished run. Continue it: the same command "
                "with --resume. Or start another: name another --out, or delete that folder."
            )
        check_space(self.root, 0)
        self._remove_leftovers()
        if not is_started:  # whoever lists data must see at once whose folder this is
            write_atomic(self.record, json.dumps(RECORD))
        return False

    def check_same(self, facts: dict[str, Any]) -> None:
        """Record what a new run depends on; check that a resumed run still depends on the same.

        Raises NBDTError: the recipe, the data or the hierarchy differs from that at the start.
        """
        if not self.last.exists():
            write_atomic(self.record, json.dumps(RECORD | facts, indent=1) + "\n")
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
        for path in (*self.root.glob(".model.*"), self.memory):
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
    for key, what in (("contents_sha256", "other data"), ("hierarchy", "another hierarchy")):
        if key in before and before[key] != now.get(key):  # earlier releases know no contents
            changes.append(what)
    return changes


def check_space(folder: Path, weights: int) -> None:
    """Make an output folder; refuse one that cannot be written or has no space for checkpoints.

    `weights` is their number in the network. Raises NBDTError, with the space needed and found.
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


def global_rank() -> int:
    """Return the rank of this process; 0 if it is alone, or has no rank yet."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
