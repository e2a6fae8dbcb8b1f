"""Corrections that act at once: as photographs of the model's memory, for one visitor or for all."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
from sqlalchemy import Row

from nbdt.decide.paths import percent
from nbdt.errors import NBDTError
from nbdt.explain import Evidence
from nbdt.memory.corrected import Corrected, fit_changes
from nbdt.memory.grow import Growth, add_class, with_classes
from nbdt.memory.memory import Memory
from nbdt.memory.preview import Change, Preview, with_head
from nbdt.memory.rows import Rows
from nbdt.memory.shift import Comparison, compare
from nbdt.model.fingerprint import embedding_hash
from nbdt.model.model import NBDT
from nbdt.progress import tracked
from nbdt.tree.class_names import normalised_name
from nbdt.tree.hierarchy import Hierarchy

from ..store import Store
from ..store.schema import SavedCorrection
from ..visitor import OwnModel, Photograph, Visitor
from .model_versions import waiting

SAID_BY = 8  # digits of a visitor's id that a row of the memory names


def acts(model: NBDT) -> bool:
    """Return whether corrections of a model act at once: its last layer is fitted on a memory.

    Those of a cascade do not: its small model would not follow.
    """
    return model.cascade is None and model.memory is not None and model.fitted is not None


def seen_features(model: NBDT, photo: Photograph) -> tuple[str, bytes] | None:
    """Return what the store keeps of a photograph so that its correction can act; None if it cannot."""
    if not acts(model):
        return None
    return embedding_hash(model), photo.features.half().numpy().tobytes()


def memory_key(facts: Mapping[str, Any]) -> str:
    """Return what marks name a memory by: its network, or the evidence index that it was made of."""
    return str(facts.get("index") or facts["embedding_hash"])


def bad_rows(marks: Iterable[Row[Any]], rows: Rows) -> dict[str, str]:
    """Return the ids and names of the rows that the last mark of any visitor calls bad.

    Images that are no rows are passed over.
    """
    found: dict[str, str] = {}
    last = {(mark.visitor, mark.reference): mark.bad for mark in marks}
    for reference in sorted({reference for (_, reference), bad in last.items() if bad}):
        with suppress(NBDTError):
            place = rows.place(reference)
            found[rows.ids[place]] = rows.names[place]
    return found


def marked_bad(evidence: Evidence, store: Store, visitor: str) -> dict[str, str]:
    """Return the ids and names of the rows that one visitor called bad."""
    marks = store.marks(memory_key(evidence.memory.table.facts), visitor=visitor)
    return bad_rows(marks, evidence.memory.rows) if marks else {}


def view_without_bad(evidence: Evidence, store: Store, visitor: str) -> Evidence:
    """Return the evidence as one visitor sees it: without the photographs that they called bad."""
    bad = marked_bad(evidence, store, visitor)
    return evidence.view(bad) if bad else evidence


def marks_of(model: NBDT, store: Store, visitor: str | None = None) -> Sequence[Row[Any]]:
    """Return the marks on photographs of a model's memory, of one visitor or of all."""
    facts = cast(Memory, model.memory).table.facts
    return store.marks(memory_key(facts), visitor=visitor)


def own_model(model: NBDT, store: Store, visitor: str) -> OwnModel | None:
    """Return a model with the corrections and marks that a visitor made and that wait to be accepted.

    Raises NBDTError: the memory or the store cannot be read.
    """
    if not visitor or not acts(model):
        return None
    saved = waiting(store, model, visitor)
    marks = marks_of(model, store, visitor)
    if not saved and not marks:
        return None
    grown, corrected = corrections_fitted(model, saved, marks)
    if not corrected.changes and not corrected.aside:
        return None
    memory = cast(Memory, model.memory)
    view = memory.with_table(Preview(memory.table, corrected.rows)).under(grown.hierarchy)
    return OwnModel(with_head(grown, corrected.fitted, view), corrected)


def corrections_fitted(
    model: NBDT,
    saved: Sequence[SavedCorrection],
    marks: Iterable[Row[Any]],
    *,
    choose: bool = False,
) -> tuple[NBDT, Corrected]:
    """Fit a model's last layer with corrections and marks, without writing them to its memory.

    `choose` chooses the penalty again.

    Returns:
        The model, or one with new classes where these act, and the fit for it.
    """
    memory, rules = cast(Memory, model.memory), model.head.rules
    usable = _usable(saved, model)
    tree = _with_new_classes(usable, model.hierarchy)
    grown = model if tree is model.hierarchy else with_classes(model, Growth(tree))
    changes = [*_struck(memory.rows, list(marks)), *_stated(usable, tree)]
    found = fit_changes(
        memory.fit_rows, changes, rules, memory.fit(rules, model.fitted),
        None if grown is model else grown.head.rules, choose=choose,
    )  # fmt: skip
    return grown if found.grown else model, found


def compared(model: NBDT, store: Store) -> Comparison | None:
    """Compare rows of the memory with offsets, by the corrections that wait; None without any."""
    if not acts(model):
        return None
    changes = stated(waiting(store, model), model)
    known = [change for change in changes if change.label in model.hierarchy.ids]
    if not known:
        return None
    memory, rules = cast(Memory, model.memory), model.head.rules
    return compare(memory.rows, known, rules, memory.fit(rules, model.fitted), tracked)


def stated(saved: Sequence[SavedCorrection], model: NBDT) -> list[Change]:
    """Return corrected photographs with their labels, in the terms of a model's memory."""
    return _stated(_usable(saved, model), model.hierarchy)


def _usable(saved: Sequence[SavedCorrection], model: NBDT) -> list[SavedCorrection]:
    """Return the corrections of a photograph whose features this network made."""
    network = embedding_hash(model)
    return [one for one in saved if one.network == network and one.features is not None]


def _with_new_classes(saved: Sequence[SavedCorrection], tree: Hierarchy) -> Hierarchy:
    """Return the tree with the classes that corrections name; what it has already stays."""
    for one in saved:
        said = one.correction
        if said.kind == "class":
            groups = {tree.ids[node] for node in tree.inner_nodes}
            parent = said.node if said.node in groups else tree.ids[0]
            with suppress(NBDTError):  # there is a class of that name
                tree = add_class(tree, str(said.label), str(parent)).hierarchy
    return tree


def _stated(saved: Sequence[SavedCorrection], tree: Hierarchy) -> list[Change]:
    """Return corrected photographs with their labels; of several about one the last counts.

    An earlier one stays where the last says less: a group that it is in.
    """
    known = {normalised_name(key): key for key in tree.ids}
    changes: dict[str, Change] = {}
    for one in saved:
        said = one.correction
        label = said.child if said.kind == "step" else said.label
        if said.kind == "region" or label is None:
            continue
        if said.kind == "class":
            label = known.get(normalised_name(label), label)
        earlier = changes[said.image].label if said.image in changes else None
        above = tree.path_to(tree.index(earlier))[:-1] if earlier in tree.ids else []
        if label in {tree.ids[node] for node in above}:  # says less
            continue
        features = np.frombuffer(one.features or b"", np.float16)
        by = f"visitor {one.visitor[:SAID_BY]}"
        reference = said.reference or f"photograph {said.image[:12]}"
        changes.pop(said.image, None)
        changes[said.image] = Change(
            said.image, label, features, reference=reference, by=by, why=said.note
        )
    return list(changes.values())


def _struck(rows: Rows, marks: Sequence[Row[Any]]) -> list[Change]:
    """Return strikes of the rows that the last mark of anyone calls bad evidence."""
    said = {mark.reference: mark for mark in marks if mark.bad}
    changes = []
    for key, name in bad_rows(marks, rows).items():
        if rows.active[rows.places[key]]:
            mark = said.get(key) or said.get(name)
            by = f"visitor {mark.visitor[:SAID_BY]}" if mark else "visitors"
            changes.append(Change(key, by=by, why=(mark and mark.why) or "marked as bad evidence"))
    return changes


def now_says(visitor: Visitor) -> str:
    """Return what the visitor's photograph is answered with now, and what else changed."""
    if visitor.own is None:
        return "The answers are the shared model's again."
    if visitor.photo is None or visitor.photo.layer is None:
        return visitor.own.words
    path = visitor.explanation().path
    return f"Now: {path.class_name} {percent(path.probability)}; {visitor.own.words}"
