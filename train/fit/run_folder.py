"""The folder of one run: what it holds, and when it may be begun, continued or left alone."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbdt.errors import NBDTError
from nbdt.files import write_atomic

from .checkpoints import BEST, FOLDER, LAST, check_room, remove_leftovers

COLUMNS = ("epoch", "steps", "train_loss", "flat", "soft", "hard", "minutes")
# What may differ between a run and its continuation: none of it changes the weights.
# (How many devices share a batch changes only how sums are rounded.)
FREE = (
    "workers", "save_every_minutes", "save_every_steps", "check_images", "devices", "nodes", "strategy",
)  # fmt: skip


class RunFolder:
    """Names and rules of an output folder.

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
        """Make the folder, or find out what it holds; whether a finished model is there.

        Raises:
            NBDTError: a run is there that is not to be resumed, or nothing can be written.
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
        check_room(self.root, 0)
        remove_leftovers(self.root)
        return False

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Write down what the run rests on or, when it is continued, check that it still does.

        Raises:
            NBDTError: the recipe, the data or the hierarchy is another one than at the start.
        """
        if not self.last.exists():
            write_atomic(self.record, json.dumps(facts, indent=1) + "\n")
            return
        try:
            before = json.loads(self.record.read_text(encoding="utf-8"))
            changed = _changed(before, json.loads(json.dumps(facts)))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise NBDTError(
                f"{str(self.record)!r} cannot be read ({error}), so it cannot be told whether this "
                "is the same run. Name another --out."
            ) from None
        if changed:
            raise NBDTError(
                f"The run in {str(self.root)!r} was started with {'; '.join(changed)}. Resume it "
                "as it was started, or name another --out."
            )

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the epochs so far to epochs.csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: round(row[key], 6) for key in COLUMNS if key in row})
        write_atomic(self.root / "epochs.csv", text.getvalue())


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = before["recipe"], now["recipe"]
    keys = [key for key in new if key in old and key not in FREE and old[key] != new[key]]
    found = [f"{key} = {old.get(key)!r}, not {new[key]!r}" for key in keys]
    for key, what in (("data_sha256", "other data"), ("hierarchy", "another hierarchy")):
        if before.get(key) != now.get(key):
            found.append(what)
    return found
