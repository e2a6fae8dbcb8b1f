"""What a change of a memory would do, found by fitting the last layer again; nothing is written.

The contribution of a photograph to a decision (`nbdt.memory.attribution`) is not this: without the
photograph, the fit gives the others more weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decide.head import DecisionRules
from ..decide.paths import Path
from .memory import Memory
from .preview import Change, preview
from .refit import FittedHead


@dataclass(frozen=True)
class ChangedAnswer:
    """A photograph of the memory that fits without it answer otherwise.

    Attributes:
        row: its id.
        reference: where it came from.
        label: name of its class.
        before: name of the class that was answered.
        after: name of the class that is answered after the change.
    """

    row: str
    reference: str
    label: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Effect:
    """What striking photographs out, or relabelling them, does.

    Attributes:
        before: the last layer now.
        after: the last layer of the changed memory.
        accuracy: shares of right answers before and after, of the photographs that stay as they
            are and whose label is a class; each is answered by a fit without it.
        photographs: how many these are.
        changed: those of them whose answer changes.
        memory: as it would be; see `nbdt.memory.preview`.
    """

    before: FittedHead
    after: FittedHead
    accuracy: tuple[float, float]
    photographs: int
    changed: tuple[ChangedAnswer, ...]
    memory: Memory

    def paths(self, rules: DecisionRules, features: Tensor) -> tuple[Path, Path]:
        """Return the paths of one image, features (features,), before and after."""
        row = features.detach().float().cpu()
        before, after = (
            rules.paths((head.weight @ row + head.bias)[None])[0]
            for head in (self.before, self.after)
        )
        return before, after


def effect_of(
    memory: Memory, rules: DecisionRules, fitted: FittedHead, rows: Sequence[str],
    label: str | None = None,
) -> Effect:  # fmt: skip
    """Find what striking photographs out does, or giving them another label.

    The fit starts from the present weights, and keeps the penalty.

    Args:
        memory: what `fitted` was fitted on.
        rules: of the model.
        fitted: its last layer.
        rows: ids or references.
        label: a class or a group; by default they are struck out.

    Raises:
        NBDTError: no such row or node, a class that has too few photographs left, or a memory that
            has changed since the fit.
    """
    node = None if label is None else memory.node_of(label)
    changes = [Change(key, node) for key in memory.table.find(rows)]
    return effect_of_changes(memory, rules, fitted, changes)


def effect_of_changes(
    memory: Memory, rules: DecisionRules, fitted: FittedHead, changes: Sequence[Change]
) -> Effect:
    """Find what changes of rows that are there do; see `effect_of`."""
    was = memory.attribution(fitted, rules).examples
    changed = preview(memory, changes)
    after = changed.fit(rules, fitted)
    now, then = memory.fit_rows, changed.rows  # with the rows at the same places
    stays = torch.tensor([
        then.active[n] and then.labels[n] == now.labels[n] and int(label) >= 0
        for n, label in zip(was.places.tolist(), was.labels, strict=True)
    ])  # fmt: skip
    kept, labels = was.places[stays], was.labels[stays]
    answers = [
        rules(head.logits[which].float()).argmax(dim=1)
        for head, which in (
            (fitted, stays), (after, torch.isin(changed.examples(rules).places, kept))
        )
    ]  # fmt: skip
    accuracy = [float((found == labels).float().mean()) for found in answers]
    names = [rules.hierarchy.names[node] for node in rules.hierarchy.leaf_nodes]
    answered = tuple(
        ChangedAnswer(
            now.ids[place], now.references[place],
            *(names[int(column[n])] for column in (labels, *answers)),
        )
        for n, place in enumerate(kept.tolist()) if answers[0][n] != answers[1][n]
    )  # fmt: skip
    return Effect(fitted, after, (accuracy[0], accuracy[1]), len(kept), answered, changed)
