"""What corrections ask of a model's own tree: each as a place in it, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from nbdt.correction import Correction
from nbdt.errors import nearest
from nbdt.tree.hierarchy import Hierarchy


@dataclass(frozen=True)
class Target:
    """One correction, in the terms of one hierarchy.

    Attributes:
        correction: what the person said.
        node: index of the inner node that it is about; the root for a label.
        child: index of the wanted child (step), or of the one whose map counts (region); None for
            a label, and where a region is about whichever child the model chooses.
        class_index: the wanted class (label).
    """

    correction: Correction
    node: int
    child: int | None = None
    class_index: int | None = None

    def nodes(self, hierarchy: Hierarchy) -> list[int]:
        """Indices of the inner nodes whose decision it is about."""
        if self.class_index is None:
            return [self.node]
        return hierarchy.path_of_class(self.class_index)[:-1]


@dataclass(frozen=True)
class LeftOut:
    """One correction that could not be used, and why."""

    correction: Correction
    reason: str


def find_targets(
    corrections: Iterable[Correction], hierarchy: Hierarchy
) -> tuple[list[Target], list[LeftOut]]:
    """Corrections in the terms of `hierarchy`, and those that have no place in it.

    Ids survive renames and edits, so a correction made under an older hierarchy holds where its
    node and child still exist and one is still above the other; if nodes were put between them, it
    is about the step that leads towards the child. Nothing is guessed from names. Of statements
    that say different things of one decision on one photograph, the latest counts.
    """
    targets: dict[tuple[object, ...], Target] = {}
    left_out: list[LeftOut] = []
    for record in sorted(corrections, key=lambda record: datetime.fromisoformat(record.time)):
        try:
            found = _target(record, hierarchy)
        except _NoPlaceError as error:
            left_out.append(LeftOut(record, str(error)))
            continue
        key = (record.image, record.kind, found.node, record.region)
        before = targets.pop(key, None)
        if before is not None:
            left_out.append(LeftOut(before.correction, f"superseded at {record.time}"))
        targets[key] = found
    return list(targets.values()), left_out


class _NoPlaceError(Exception):
    """Why a correction has no place in a hierarchy."""


def _target(record: Correction, hierarchy: Hierarchy) -> Target:
    if record.label is not None:
        if record.label not in hierarchy.classes:
            hint = nearest(record.label, hierarchy.classes)
            raise _NoPlaceError(f"there is no class {record.label!r}.{hint}")
        return Target(record, 0, class_index=hierarchy.classes.index(record.label))
    node = _known(str(record.node), hierarchy)
    if not hierarchy.children[node]:
        raise _NoPlaceError(f"{record.node!r} is a leaf: it decides nothing")
    if record.child is None:
        return Target(record, node)
    child = _known(record.child, hierarchy)
    for parent, below in pairwise(hierarchy.path_to(child)):
        if parent == node:
            return Target(record, node, below)
    raise _NoPlaceError(f"{record.child!r} is not under {record.node!r} in this hierarchy")


def _known(node_id: str, hierarchy: Hierarchy) -> int:
    if node_id not in hierarchy.ids:
        raise _NoPlaceError(f"there is no node with the id {node_id!r} in this hierarchy")
    return hierarchy.ids.index(node_id)


def summary(left_out: Sequence[LeftOut]) -> str:
    """One line a reason, with counts."""
    counts: dict[str, int] = {}
    for item in left_out:
        counts[item.reason] = counts.get(item.reason, 0) + 1
    return "\n".join(f"- {count:,} × {reason}" for reason, count in counts.items())
