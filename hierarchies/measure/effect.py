"""What another hierarchy changes for one model: recent photographs, and its reference set."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from .comparison import Comparison, TreeResult, measure

MAX_VALUES = 2**21  # logits of the reference set that an edit is measured on, for the time it takes
KEPT = 64  # hierarchies whose answers on the reference set are kept


class Reference:
    """The labelled logits that were saved with a model, and hierarchies' answers on them.

    Of a set with more than `MAX_VALUES` logits, photographs at even distances are measured, so that
    an edit is answered at once. The logits are (images, classes), the labels (images,) class indices.

    Raises NBDTError: other shapes, labels that are no classes, or values that are not finite.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
            raise NBDTError(
                "The model's reference set is damaged: expected logits with one label each, got "
                f"shapes {tuple(logits.shape)} and {tuple(labels.shape)}."
            )
        self.images_all = len(labels)  # of the whole set; `logits` and `labels` are measured
        step = -(-logits.numel() // MAX_VALUES)
        self.logits = logits[::step].float()
        self.labels = labels[::step].long()
        wrong = (self.labels < 0) | (self.labels >= logits.shape[1])
        if wrong.any() or not self.logits.isfinite().all():
            raise NBDTError(
                "The model's reference set is damaged: a label is no class, or a logit is not finite."
            )
        self.measure = lru_cache(maxsize=KEPT)(partial(measure, self.logits, self.labels))

    @classmethod
    def of(cls, model: NBDT) -> "Reference | None":
        """That of a model, made once; None if it was saved without. Raises NBDTError: damaged."""
        if model not in _REFERENCES:
            saved = model.reference
            complete = {"logits", "labels"} <= saved.keys()
            _REFERENCES[model] = cls(saved["logits"], saved["labels"]) if complete else None
        return _REFERENCES[model]


_REFERENCES: WeakKeyDictionary[NBDT, Reference | None] = WeakKeyDictionary()


def effect(
    before: Hierarchy,
    after: Hierarchy,
    rule: str,
    photographs: Sequence[Tensor],
    reference: Reference | None,
) -> dict[str, Any]:
    """Compare a model's answers under two hierarchies over its classes.

    `photographs` are the (classes,) flat logits of a visitor's last ones, the current one first.

    Returns:
        Plain data for JSON. "before" and "after": the current photograph's answer, None without
        one. "recent": number of photographs; "recent_hard" and "recent_soft": how many have
        another answer. "reference": what `reference_effect` returns.

    Raises NBDTError: logits that are not finite, or of another number of classes.
    """
    record: dict[str, Any] = {"before": None, "after": None, "recent": len(photographs)}
    changed = {"hard": 0, "soft": 0}
    if photographs:
        logits = torch.stack([row.detach().float().cpu() for row in photographs])
        comparison = Comparison(*(measure(logits, None, tree, rule) for tree in (before, after)))
        changed = comparison.changed
        record["before"], record["after"] = map(_answer, (comparison.before, comparison.after))
    record |= {f"recent_{kind}": count for kind, count in changed.items()}
    return {**record, "reference": reference_effect(before, after, rule, reference)}


def reference_effect(
    before: Hierarchy, after: Hierarchy, rule: str, reference: Reference | None
) -> dict[str, Any] | None:
    """Compare two hierarchies on a model's reference set.

    Returns:
        None without a reference set, else plain data for JSON. "images": number of photographs
        measured; "images_all": that of the set; "score_before" and "score_after": shares of right
        answers by kind; "changed_hard" and "changed_soft": how many have another answer.
    """
    if reference is None:
        return None
    comparison = Comparison(*(reference.measure(tree, rule) for tree in (before, after)))
    return {
        "images": len(reference.labels),
        "images_all": reference.images_all,
        "score_before": comparison.before.accuracy,
        "score_after": comparison.after.accuracy,
        **{f"changed_{kind}": count for kind, count in comparison.changed.items()},
    }


def _answer(result: TreeResult) -> dict[str, Any]:
    """The first image's answer: the path that the page shows, and the class of greedy descent."""
    path = result.rules.paths(result.logits[:1])[0]
    return {
        "root": path.decisions[0].node,
        "steps": [{"name": d.children[d.chosen], "p": d.probability} for d in path],
        "class": path.class_name,
        "probability": path.probability,
        "hard_class": result.hierarchy.classes[int(result.hard[0])],
    }
