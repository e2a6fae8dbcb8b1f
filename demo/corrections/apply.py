"""Corrections become a model: exported, learnt by a process of its own, recorded when it is done."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbdt.correction import Correction, read_corrections
from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.hierarchies.library import open_model
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.saved import bundled

from ..store import Store
from ..store.records import ModelVersion
from ..store.url import StoreError
from .export import export
from .model_versions import pending

APPLIED = "applied.jsonl"  # written by `nbdt train --corrections` beside the model


def apply_corrections(
    store: Store,
    source: str,
    data: Path,
    out: Path,
    *,
    settings: Sequence[str] = (),
    search: Sequence[str] = (),
) -> ModelVersion:
    """Teach a model what the store holds against it, and record the new version in the store.

    `nbdt train --corrections` does it, as a process of its own whose output goes where this one's
    does. Only when it has written the model are corrections recorded as learnt.

    Args:
        store: what people said.
        source: the model, as in `open_model`.
        data: what it was trained on.
        out: a folder for the new model, in `out`/model.
        settings: key=value, for training; ``learn=head`` is added where regions are to be learnt.
        search: where photographs that were not kept may lie.

    Raises:
        StoreError: there is nothing to learn. NBDTError: `out` has a model, or training failed.
    """
    check_new(out / "model")
    model = open_model(source)
    parent = model_hash(model)
    waiting = store.corrections(pending=pending(parent, store.model_versions()))
    if not waiting:
        raise StoreError(
            f"There is nothing in {store.location!r} that this model ({parent[:12]}…) has not learnt "
            "yet; `nbdt corrections list` says what is there."
        )
    out.mkdir(parents=True, exist_ok=True)
    # Copies for training alone: what a visitor deletes must not live on in a forgotten folder.
    with tempfile.TemporaryDirectory(prefix=".photographs-", dir=out) as photos:
        lines = out / "corrections.jsonl"
        written = export(store, waiting, lines, Path(photos), search)
        _train(lines, _folder(source, model, out), data, out, _settings(settings, written))
    return _record(store, out, parent, written)


def _settings(given: Sequence[str], written: Mapping[int, Correction]) -> Sequence[str]:
    """Regions move the last layer, unless told otherwise: the default's offsets move no map."""
    told = any(setting.startswith("learn=") for setting in given)
    regions = any(said.kind == "region" for said in written.values())
    return [*given, "learn=head"] if regions and not told else given


def _folder(source: str, model: NBDT, out: Path) -> str:
    """The model on the disk, where another process can load it."""
    if source in bundled() or Path(source).is_dir():
        return source
    folder = out / "parent"
    model.save(folder)
    return str(folder)


def _train(lines: Path, model: str, data: Path, out: Path, settings: Sequence[str]) -> None:
    command = [
        sys.executable, "-m", "nbdt", "train", "--corrections", str(lines), "--model", model,
        "--data", str(data), "--out", str(out),
    ]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise NBDTError(
            f"Training ended with exit status {status}; its message is above. No correction "
            "counts as learnt, and the same command with a new --out starts over."
        )


def _record(
    store: Store, out: Path, parent: str, written: Mapping[int, Correction]
) -> ModelVersion:
    applied = set(read_corrections(out / APPLIED))
    model = NBDT.load(out / "model")
    learned = [number for number, said in written.items() if said in applied]
    return store.add_model_version(
        out / "model",
        model_hash(model),
        parent=parent,
        learned=learned,
        left_out=len(written) - len(learned),
        accuracy=model.provenance["corrected"]["accuracy"],
    )
