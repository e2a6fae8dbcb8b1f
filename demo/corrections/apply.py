"""Corrections become files, or a model that the store records: by rows of its memory, or by training."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from nbdt.correction import APPLIED, Correction, read_corrections, write_corrections
from nbdt.decide.head import DecisionRules
from nbdt.errors import NBDTError
from nbdt.files import check_new, write_atomic
from nbdt.hierarchies.measure.comparison import measure
from nbdt.memory.grow import Growth, grow
from nbdt.memory.memory import Memory
from nbdt.memory.preview import write_changes
from nbdt.memory.refit import FittedHead, examples_of, shared
from nbdt.memory.rows import Rows
from nbdt.memory.shift import shifted
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import ProgressEvent, Say, read_progress, say_nothing

from ..store import Store
from ..store.place import default_url
from ..store.schema import ModelVersion, SavedCorrection
from .model_versions import ModelVersions, nothing_waits, waiting
from .own import acts, corrections_fitted, marks_of, stated

SHOWN = 200  # characters of a line on the page


def accept_corrections(
    store: Store, model: NBDT, out: Path, say: Say, *, shift: bool = False
) -> ModelVersion:
    """Teach a copy of the model what waits, and record the new version.

    Corrections and marks become rows of its memory, or offsets of its decisions; then its last
    layer is no longer that of the memory.

    Args:
        model: its last layer is fitted on its memory; it does not change, nor does its memory.
        out: a folder for the new model, in `out`/model.
        say: called with the reason of each correction that is kept aside.
        shift: whether to take offsets; see `own.compared`.

    Raises:
        StoreError: nothing waits.
        NBDTError: `out` has a model, or it cannot be written.
    """
    check_new(out / "model")
    saved = waiting(store, model)
    memory, rules = cast(Memory, model.memory), model.head.rules
    base = memory.fit(rules, model.fitted)
    if shift:
        grown, found = model, shifted(memory.rows, stated(saved, model), rules, base)
    else:
        grown, found = corrections_fitted(model, saved, marks_of(model, store), choose=True)
    if not saved and not found.changes:
        raise nothing_waits(store, model)
    for key, reason in found.aside.items():
        say(f"kept aside: {key[:12]}…: {reason}")
    acting = {change.id for change in found.changes}
    learned = [one.id for one in saved if one.correction.image in acting]
    if not acting:
        raise NBDTError("None of the corrections can act; no model was written.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".memory-", dir=out) as aside:
        new = grow(model, Growth(grown.hierarchy), Path(aside, "memory"))
        if shift:
            new.take_head(found.fitted)
            del new.provenance["memory"]  # the offsets are no part of a fit
        else:
            learnt = cast(Memory, new.memory)
            write_changes(learnt, found.about)
            new.take_head(learnt.fit(new.head.rules, found.fitted))
        new.save(out / "model")
    return store.add_model_version(
        out / "model",
        model_hash(NBDT.load(out / "model")),
        parent=model_hash(model),
        learned=learned,
        left_out=len(saved) - len(learned),
        accuracy=_accuracy((rules, memory.rows, base), (new.head.rules, found.rows, found.fitted)),
    )


def _accuracy(
    before: tuple[DecisionRules, Rows, FittedHead], after: tuple[DecisionRules, Rows, FittedHead]
) -> dict[str, dict[str, float]]:
    """Return shares of right answers to the rows that are the same, each by a fit without it."""
    sides = {"before": before, "after": after}
    first, second = tables = [examples_of(rows, rules) for rules, rows, _ in sides.values()]
    found = {}
    for (name, (rules, _, fitted)), table, kept in zip(
        sides.items(), tables, shared(first, second), strict=True
    ):
        logits, labels = fitted.logits.float()[kept], table.labels[kept]
        found[name] = measure(logits, labels, rules.hierarchy, rules.rule).accuracy
    return found


def export(
    store: Store,
    saved: Sequence[SavedCorrection],
    out: Path,
    photos: Path,
) -> dict[int, Correction]:
    """Write corrections as `nbdt train --corrections` reads them, and their photographs.

    A correction's reference becomes the path of the kept copy. Without a copy it does not change.

    Args:
        out: a file of JSON lines, replaced if it exists.
        photos: a folder for photographs; it is made if needed.

    Returns:
        The corrections as written, by number.

    Raises StoreError: the store cannot be read. OSError: a file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    copies = {item.correction.image: item.photograph for item in saved if item.photograph}
    paths = {
        image: _write(photos, image, store.photograph_bytes(copy)) for image, copy in copies.items()
    }
    written = {item.id: _with_path(item.correction, paths, out.parent) for item in saved}
    write_corrections(written.values(), out)
    return written


def _write(photos: Path, image: str, data: bytes) -> Path:
    photos.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = photos / f"{image}.webp"
    write_atomic(path, data)
    return path


def _with_path(correction: Correction, paths: Mapping[str, Path], root: Path) -> Correction:
    """Return a correction whose reference starts at the folder of the JSON lines, if it can."""
    if correction.image not in paths:
        return correction
    path, base = paths[correction.image].absolute(), root.absolute()
    is_inside = path.is_relative_to(base)
    reference = path.relative_to(base).as_posix() if is_inside else os.fspath(path)
    return replace(correction, reference=reference)


def apply_corrections(
    store: Store,
    model: NBDT,
    data: Path,
    out: Path,
    *,
    source: str | None = None,
    settings: Sequence[str] = (),
) -> Generator[ProgressEvent, None, ModelVersion]:
    """Train a model with the corrections that it has not learned from, and record the new version.

    `nbdt train --corrections` runs in a process of its own. Corrections are recorded as applied only
    when it has written the new model. If the generator is closed early, the process is killed.

    Args:
        model: does not change.
        data: the images that it was trained on.
        out: a folder for the new model, in `out`/model.
        source: name or folder of the model; without it the model is saved to `out`/parent.
        settings: key=value, for training; ``learn=head`` is added if there are regions to learn.

    Yields:
        The progress of the training.

    Returns:
        The new version.

    Raises:
        StoreError: there is nothing to learn.
        NBDTError: `out` has a model, or training failed.
    """
    check_new(out / "model")
    saved = waiting(store, model)
    if not saved:
        raise nothing_waits(store, model)
    out.mkdir(parents=True, exist_ok=True)
    if source is None:
        source = str(out / "parent")
        model.save(source)
    # Training gets copies of the photographs, which are deleted with this folder: they must not
    # outlive a visitor's request to delete them.
    with tempfile.TemporaryDirectory(prefix=".photographs-", dir=out) as photos:
        lines = out / "corrections.jsonl"
        written = export(store, saved, lines, Path(photos))
        command = [
            sys.executable, "-m", "nbdt", "train", "--corrections", str(lines), "--model", source,
            "--data", str(data), "--out", str(out), "--progress", "json",
        ]  # fmt: skip
        has_learn = any(setting.startswith("learn=") for setting in settings)
        if not has_learn and any(one.kind == "region" for one in written.values()):
            settings = [*settings, "learn=head"]  # the default's offsets move no map
        for setting in settings:
            command += ["--set", setting]
        yield from _run(command)
    applied = set(read_corrections(out / APPLIED))
    learned = [number for number, correction in written.items() if correction in applied]
    new = NBDT.load(out / "model")
    return store.add_model_version(
        out / "model",
        model_hash(new),
        parent=model_hash(model),
        learned=learned,
        left_out=len(written) - len(learned),
        accuracy=new.provenance["corrected"]["accuracy"],
    )


def _run(command: Sequence[str]) -> Iterator[ProgressEvent]:
    reason = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        try:
            for event in read_progress(process.stdout or ()):
                if event.event == "error":
                    reason = event.text
                else:
                    yield event
        except BaseException:
            process.kill()
            raise
    if status := process.returncode:
        reason = reason or f"exit status {status}; its output has the reason."
        raise NBDTError(
            f"Training failed: {reason} No correction was applied. To try again, run "
            "`nbdt corrections apply` with a new --out."
        )


def train_version(versions: ModelVersions, model: NBDT, data: Path) -> Iterator[str]:
    """Train a version of the page's model on its data with corrections; yield how far it is.

    The new one is recorded in the store of `versions`. Raises NBDTError where the training fails.
    """
    yield "Starting …"
    root = Path(default_url()).parent / "models"
    root.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(prefix="corrected-", dir=root))
    if acts(model):
        accept_corrections(versions.store, model, out, say_nothing)
        return
    version = versions.of_hash(model_hash(model))
    source = version.folder if version else None
    for event in apply_corrections(versions.store, model, data, out, source=source):
        yield str(event)[:SHOWN]
