"""Accept corrections for everyone: they become rows of the memory of a new version of the model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from nbdt.decide.head import DecisionRules
from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.memory.grow import Growth, grow
from nbdt.memory.memory import Memory
from nbdt.memory.preview import write_rows
from nbdt.memory.refit import FittedHead, examples_of
from nbdt.memory.rows import Rows
from nbdt.memory.shift import shifted
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import Say

from ..store import Store
from ..store.schema import ModelVersion
from .model_versions import nothing_waits, waiting
from .own import corrections_fitted, marks_of, stated


def accept_corrections(
    store: Store, model: NBDT, out: Path, say: Say, *, shift: bool = False
) -> ModelVersion:
    """Teach a copy of the model what waits, and record the new version.

    Corrections and marks become rows of its memory, or offsets of its decisions; then its last
    layer is no longer that of the memory.

    Args:
        store: the corrections and marks of all visitors.
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
            write_rows(learnt, found.rows)
            for change in found.changes:  # strikes outside the sample that a large memory's fit has
                if change.label is None and change.id not in found.rows.places:
                    learnt.strike(change.id, change.why, by=change.by)
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
    tables = []
    for rules, rows, fitted in (before, after):
        examples = examples_of(rows, rules)
        keys = [(rows.ids[n], rows.labels[n]) for n in examples.places.tolist()]
        tables.append((rules, keys, examples.labels, fitted.logits.float()))
    shared = set(tables[0][1]) & set(tables[1][1])
    found = {}
    for name, (rules, keys, labels, logits) in zip(("before", "after"), tables, strict=True):
        kept = [n for n, key in enumerate(keys) if key in shared and labels[n] >= 0]
        some, right = logits[kept], labels[kept]
        answers = {
            "flat": some.argmax(dim=1),
            "soft": rules(some).argmax(dim=1),
            "hard": rules.hard(some),
        }
        found[name] = {kind: float((one == right).float().mean()) for kind, one in answers.items()}
    return found
