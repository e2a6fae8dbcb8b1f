"""Accept corrections for everyone: they become rows of the memory of a new version of the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.memory.preview import write_rows
from nbdt.memory.refit import FittedHead, examples_of
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.update import save_head
from nbdt.progress import Say
from nbdt.storage import is_uri

from ..store import Store
from ..store.schema import ModelVersion
from ..store.url import StoreError
from .model_versions import pending
from .own import corrections_fitted, marks_of

if TYPE_CHECKING:
    from nbdt.decide.head import DecisionRules
    from nbdt.memory.memory import Memory
    from nbdt.memory.table import Rows


def accept_corrections(store: Store, model: NBDT, out: Path, say: Say) -> ModelVersion:
    """Write what waits into the memory of a copy of the model, fit it, and record the new version.

    Args:
        store: the corrections and marks of all visitors.
        model: its last layer is fitted on its memory; it does not change, nor does its memory.
        out: a folder for the new model, in `out`/model.
        say: called with the reason of each correction that is kept aside.

    Raises:
        StoreError: nothing waits.
        NBDTError: `out` has a model, or it cannot be written.
    """
    check_new(out / "model")
    if model.memory_place is None or is_uri(model.memory_place):
        raise NBDTError(
            f"Corrections are accepted into a memory beside the model; this one is at "
            f"{model.memory_place!r}. Add photographs there with: nbdt memory add"
        )
    parent = model_hash(model)
    waiting = store.corrections(pending=pending(parent, store.model_versions()))
    marks = marks_of(model, store)
    memory, rules = cast("Memory", model.memory), model.head.rules
    found = corrections_fitted(model, waiting, marks)
    if not waiting and not found.changes:
        raise StoreError(
            f"The store {store.location!r} has nothing that this model ({parent[:12]}…) has not "
            "learned from; `nbdt corrections list` shows what it has."
        )
    for key, reason in found.aside.items():
        say(f"kept aside: {key[:12]}…: {reason}")
    acting = {change.id for change in found.changes}
    learned = [one.id for one in waiting if one.correction.image in acting]
    if not acting:
        raise NBDTError("None of the corrections can act; no model was written.")
    unfinished = out / "unfinished"
    model.save(unfinished)
    new = NBDT.load(unfinished)
    write_rows(cast("Memory", new.memory), found.rows)
    new.take_head(cast("Memory", new.memory).fit(rules, found.fitted))
    save_head(new, unfinished)
    os.rename(unfinished, out / "model")
    base = memory.fit(rules, model.fitted)
    return store.add_model_version(
        out / "model",
        model_hash(NBDT.load(out / "model")),
        parent=parent,
        learned=learned,
        left_out=len(waiting) - len(learned),
        accuracy=_accuracy(rules, (memory.rows, base), (found.rows, found.fitted)),
    )


def _accuracy(
    rules: DecisionRules, before: tuple[Rows, FittedHead], after: tuple[Rows, FittedHead]
) -> dict[str, dict[str, float]]:
    """Return shares of right answers to the rows that are the same, each by a fit without it."""
    tables = []
    for rows, fitted in (before, after):
        examples = examples_of(rows, rules)
        keys = [(rows.ids[n], rows.labels[n]) for n in examples.places.tolist()]
        tables.append((keys, examples.labels, fitted.logits.float()))
    shared = set(tables[0][0]) & set(tables[1][0])
    found = {}
    for name, (keys, labels, logits) in zip(("before", "after"), tables, strict=True):
        kept = [n for n, key in enumerate(keys) if key in shared and labels[n] >= 0]
        some, right = logits[kept], labels[kept]
        answers = {
            "flat": some.argmax(dim=1),
            "soft": rules(some).argmax(dim=1),
            "hard": rules.hard(some),
        }
        found[name] = {kind: float((one == right).float().mean()) for kind, one in answers.items()}
    return found
