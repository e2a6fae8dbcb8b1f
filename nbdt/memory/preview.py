"""A memory as it would be after changes that are not written, and what they would do.

The contribution of a photograph to a decision (`nbdt.memory.attribution`) is not its effect: without
the photograph, the fit gives the others more weight.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..decide.head import DecisionRules
from ..decide.paths import Path
from ..errors import NBDTError
from .refit import FittedHead, shared
from .rows import Halves, Rows
from .table import Table

if TYPE_CHECKING:
    from ..model.model import NBDT
    from .memory import Memory


@dataclass(frozen=True, eq=False)
class Change:
    """One change of a memory."""

    id: str  # of a row, or of a new one
    # id of the node that it shows, a class or a group; None strikes the row out
    label: str | None = None
    features: Halves | None = None  # (features,) of a new row; a row that is there keeps its own
    weight: float = 1.0  # how much the photograph counts; 1 as any other of its class
    reference: str = ""  # where a new photograph came from
    by: str = ""  # who says so
    why: str = ""  # the reason


def with_changes(rows: Rows, changes: Sequence[Change]) -> Rows:
    """Return rows as they would be after changes; of several about one row the last counts.

    New rows come last, so that the others stay in their folds of the cross-validation. A strike of
    a row that is not there changes nothing.
    """
    last = {change.id: change for change in changes}
    known = [change for key, change in last.items() if key in rows.places]
    new = [
        change for key, change in last.items()
        if key not in rows.places and change.label is not None and change.features is not None
    ]  # fmt: skip
    labels, by, why = [*rows.labels], [*rows.by], [*rows.why]
    active, weights = rows.active.copy(), rows.weights.copy()
    for change in known:
        place = rows.places[change.id]
        labels[place] = change.label or labels[place]
        active[place] = change.label is not None
        by[place], why[place], weights[place] = change.by, change.why, change.weight
    features = [np.asarray(change.features, np.float16) for change in new]
    return Rows(
        ids=(*rows.ids, *(change.id for change in new)),
        features=np.concatenate([rows.features, *(values[None] for values in features)]),
        labels=(*labels, *(change.label or "" for change in new)),
        references=(*rows.references, *(change.reference for change in new)),
        by=(*by, *(change.by for change in new)),
        why=(*why, *(change.why for change in new)),
        active=np.concatenate([active, np.ones(len(new), bool)]),
        added=(*rows.added, *("" for _ in new)),
        version=rows.version,
        weights=np.concatenate([weights, np.array([c.weight for c in new], np.float32)]),
    )


class Preview(Table):
    """The table of a memory with other rows, which are not written.

    `rows`: in place of its own.
    """

    kept = False

    def __init__(self, base: Table, rows: Rows) -> None:
        super().__init__(base.place, base._table)  # noqa: SLF001 - to read pictures
        self._preview = rows

    @property
    def version(self) -> int:
        """The version that was changed."""
        return self._preview.version

    def rows(self, most: int | None = None) -> Rows:
        """Return the changed rows."""
        return self._preview

    def find(self, rows: Sequence[str]) -> list[str]:
        """Return the ids of changed rows. Raises as `Table.find`."""
        return [self._preview.ids[self._preview.place(row)] for row in rows]

    def counts(self) -> tuple[int, int]:
        """Return the numbers of the changed rows that are active and struck out."""
        active = int(self._preview.active.sum())
        return active, len(self._preview) - active

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Refuse to write."""
        raise NBDTError("This is a preview of changes; make them in the memory itself.")
        yield


def preview(memory: Memory, changes: Sequence[Change]) -> Memory:
    """Return a memory as it would be after changes: it can be fitted, and nothing is written."""
    return memory.with_table(Preview(memory.table, with_changes(memory.fit_rows, changes)))


def with_head(model: NBDT, fitted: FittedHead, memory: Memory | None = None) -> NBDT:
    """Return a model with another fit as its last layer; the network below is shared.

    Args:
        model: does not change.
        memory: what it was fitted on, from `preview`; by default the model's own.
    """
    other = model.with_hierarchy(model.hierarchy)
    other.head = copy.deepcopy(model.head)
    other.take_head(fitted)
    memory = model.memory if memory is None else memory
    other.memory_place = None if memory is None else memory.table.place
    other._memory = memory  # noqa: SLF001
    return other


def write_changes(memory: Memory, changes: Sequence[Change]) -> None:
    """Write changes: the new rows in one version, and those of rows that are there in another.

    Raises NBDTError: the memory cannot be written.
    """
    old = memory.rows
    rows = with_changes(old, changes)
    known, new = dict[str, dict[str, Any]](), dict[int, dict[str, Any]]()
    columns = {"label": rows.labels, "active": rows.active.tolist(), "by": rows.by, "why": rows.why}
    if (rows.weights != 1).any() or (old.weights != 1).any():  # the first memories have none
        columns["weight"] = rows.weights.tolist()
    for key in {change.id for change in changes} & rows.places.keys():
        place = rows.places[key]
        values = {name: column[place] for name, column in columns.items()}
        if key in old.places:
            known[key] = values
        else:
            new[place] = {"id": key, "reference": rows.references[place], **values}
    if new:
        memory.table.add([*new.values()], rows.features[[*new]])
    if known:
        memory.table.update_each(known)


@dataclass(frozen=True)
class ChangedAnswer:
    """A photograph of the memory that fits without it answer otherwise."""

    row: str  # its id
    reference: str  # where it came from
    label: str  # name of its class
    before: str  # name of the class that was answered
    after: str  # name of the class that is answered after the change


@dataclass(frozen=True, eq=False)
class Effect:
    """What striking photographs out, or relabelling them, does."""

    before: FittedHead  # the last layer now
    after: FittedHead  # the last layer of the changed memory
    # shares of right answers before and after, of the photographs that stay as they are and whose label
    # is a class; each is answered by a fit without it
    accuracy: tuple[float, float]
    photographs: int  # how many these are
    changed: tuple[ChangedAnswer, ...]  # those of them whose answer changes
    memory: Memory  # as it would be; see `nbdt.memory.preview`

    def paths(self, rules: DecisionRules, features: Tensor) -> tuple[Path, Path]:
        """Return the paths of one image, features (features,), before and after."""
        row = features.detach().float().cpu()
        before, after = (
            rules.paths((head.weight @ row + head.bias)[None])[0]
            for head in (self.before, self.after)
        )
        return before, after


def effect_of(
    memory: Memory, rules: DecisionRules, fitted: FittedHead, changes: Sequence[Change]
) -> Effect:
    """Find what changes of rows that are there do, such as striking photographs out.

    The fit starts from the present weights, and keeps the penalty.

    `memory`: what `fitted` was fitted on.

    Raises NBDTError: a class that has too few photographs left, or a memory that has changed since
    the fit.
    """
    was = memory.attribution(fitted, rules).examples
    changed = preview(memory, changes)
    after = changed.fit(rules, fitted)
    stays = shared(was, changed.examples(rules))
    labels, rows = was.labels[stays[0]], memory.fit_rows
    answers = [
        rules(head.logits[which].float()).argmax(dim=1)
        for head, which in zip((fitted, after), stays, strict=True)
    ]
    before, now = (float((found == labels).float().mean()) for found in answers)
    names = [rules.hierarchy.names[node] for node in rules.hierarchy.leaf_nodes]
    answered = tuple(
        ChangedAnswer(
            rows.ids[place], rows.references[place],
            *(names[int(column[n])] for column in (labels, *answers)),
        )
        for n, place in enumerate(was.places[stays[0]].tolist()) if answers[0][n] != answers[1][n]
    )  # fmt: skip
    return Effect(fitted, after, (before, now), len(labels), answered, changed)
