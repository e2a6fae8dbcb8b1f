"""What an edited hierarchy changes: one photograph's answer, recent ones, the reference set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nbdt.decide.head import DecisionRules
from nbdt.decide.metrics import accuracy
from nbdt.decide.paths import Path
from nbdt.errors import NBDTError
from nbdt.hierarchies.edit.record import Consequences, Edit
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

MAX_VALUES = 2**21  # logits of the reference set that an edit is measured on, for the time it takes
KEPT = 64  # hierarchies whose answers on the reference set are kept


@dataclass(frozen=True)
class Answer:
    """What a hierarchy says of one photograph.

    Attributes:
        path: the greedy descent, which the page shows; its class is the hard answer.
        soft_class: the likeliest class.
        soft_probability: its probability.
    """

    path: Path
    soft_class: str
    soft_probability: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        steps = [{"name": d.children[d.chosen], "p": d.probability} for d in self.path]
        return {
            "root": self.path.decisions[0].node,
            "steps": steps,
            "class": self.path.class_name,
            "probability": self.path.probability,
            "soft_class": self.soft_class,
            "soft_probability": self.soft_probability,
        }


@dataclass(frozen=True)
class Scores:
    """Accuracy on the reference set, from 0 to 1."""

    soft: float
    hard: float


@dataclass(frozen=True)
class Effect:
    """The answers of one model under two hierarchies.

    Attributes:
        before: the current photograph's answer; None without a photograph.
        after: the same under the new hierarchy.
        recent: number of the visitor's last photographs, the current one included.
        recent_hard: of these, how many have another hard answer.
        recent_soft: how many have another soft answer.
        images: photographs of the reference set that were asked; 0 if the model has none.
        images_all: how many the reference set has.
        score_before: accuracy on them; None without a reference set.
        score_after: the same under the new hierarchy.
        changed_hard: of these, how many have another hard answer.
        changed_soft: how many have another soft answer.
    """

    before: Answer | None
    after: Answer | None
    recent: int
    recent_hard: int
    recent_soft: int
    images: int = 0
    images_all: int = 0
    score_before: Scores | None = None
    score_after: Scores | None = None
    changed_hard: int = 0
    changed_soft: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain: dict[str, Any] = {
            key: value for key, value in vars(self).items() if isinstance(value, int)
        }
        for key in ("before", "after"):
            answer: Answer | None = getattr(self, key)
            plain[key] = answer.to_dict() if answer else None
        for key in ("score_before", "score_after"):
            scores: Scores | None = getattr(self, key)
            plain[key] = vars(scores).copy() if scores else None
        return plain


@lru_cache(maxsize=32)
def rules_of(hierarchy: Hierarchy, rule: str) -> DecisionRules:
    """The compiled rules of a hierarchy on the CPU; the last few are kept."""
    return DecisionRules(hierarchy, rule=rule).eval()


def effect(
    model: NBDT,
    before: Hierarchy,
    after: Hierarchy,
    photographs: Sequence[Tensor],
    reference: Reference | None,
) -> Effect:
    """Compare two hierarchies over the model's classes.

    Args:
        model: for its rule.
        before: the one tree.
        after: the other.
        photographs: (classes,) flat logits of the visitor's last photographs, the current first.
        reference: `Reference.of` the model.

    Raises:
        NBDTError: logits that are not finite, or of another number of classes.
    """
    old, new = rules_of(before, model.rule), rules_of(after, model.rule)
    was: Answer | None = None
    then: Answer | None = None
    recent_hard = recent_soft = 0
    if photographs:
        logits = torch.stack([row.detach().float().cpu() for row in photographs])
        one, two = _answers(old, logits), _answers(new, logits)
        recent_soft, recent_hard = (_differing(a, b) for a, b in zip(one, two, strict=True))
        was, then = _answer(old, logits[:1]), _answer(new, logits[:1])
    found = Effect(was, then, len(photographs), recent_hard, recent_soft)
    return reference.measured(found, old, new) if reference else found


def consequences(records: Sequence[Edit], rule: str) -> Consequences:
    """What several edits together can change: whatever one of them can."""
    each = [record.consequences(rule) for record in records]
    return Consequences(
        rule,
        any(one.explanation for one in each),
        any(one.hard_answer for one in each),
        any(one.soft_answer for one in each),
    )


class Reference:
    """The labelled logits that were saved with a model, and each hierarchy's answers on them.

    Of a set with more than `MAX_VALUES` logits, photographs at even distances are asked, so that an
    edit is answered at once; `images` says how many, `images_all` out of how many.

    Args:
        logits: (images, classes).
        labels: (images,) class indices.

    Raises:
        NBDTError: other shapes, labels that are no classes, or values that are not finite.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
            raise NBDTError("The model's reference set is damaged: it has logits without labels.")
        self.images_all = len(labels)
        step = -(-logits.numel() // MAX_VALUES)
        self.logits = logits[::step].float()
        self.labels = labels[::step].long()
        wrong = (self.labels < 0) | (self.labels >= logits.shape[1])
        if wrong.any() or not self.logits.isfinite().all():
            raise NBDTError("The model's reference set is damaged: values that cannot be.")
        self._known: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def of(cls, model: NBDT) -> Reference | None:
        """That of a model, made once; None if it was saved without. Raises NBDTError: damaged."""
        if model not in _REFERENCES:
            saved = model.reference
            both = {"logits", "labels"} <= saved.keys()
            _REFERENCES[model] = cls(saved["logits"], saved["labels"]) if both else None
        return _REFERENCES[model]

    def answers(self, rules: DecisionRules) -> tuple[Tensor, Tensor]:
        """(images,) soft and hard answers under a hierarchy; the last few hierarchies' are kept."""
        key = f"{rules.rule} {rules.hierarchy.hash}"
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = _answers(rules, self.logits)
        with self._lock:
            self._known[key] = found
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found

    def measured(self, found: Effect, old: DecisionRules, new: DecisionRules) -> Effect:
        """`found` with what the reference set says of the two hierarchies."""
        one, two = self.answers(old), self.answers(new)
        return Effect(
            **{name: getattr(found, name) for name in _OF_PHOTOGRAPHS},
            images=len(self.labels),
            images_all=self.images_all,
            score_before=self._scores(one),
            score_after=self._scores(two),
            changed_soft=_differing(one[0], two[0]),
            changed_hard=_differing(one[1], two[1]),
        )

    def _scores(self, answers: tuple[Tensor, Tensor]) -> Scores:
        return Scores(*(accuracy(answer.long(), self.labels) for answer in answers))


_OF_PHOTOGRAPHS = ("before", "after", "recent", "recent_hard", "recent_soft")
_REFERENCES: WeakKeyDictionary[NBDT, Reference | None] = WeakKeyDictionary()


def _answers(rules: DecisionRules, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Soft and hard answers, (images,) each."""
    with torch.inference_mode():
        return rules(logits).argmax(dim=1).int(), rules.hard(logits).int()


def _differing(one: Tensor, two: Tensor) -> int:
    return int((one != two).sum())


def _answer(rules: DecisionRules, logits: Tensor) -> Answer:
    with torch.inference_mode():
        log_prob, index = rules(logits)[0].max(dim=0)
    soft_class = rules.hierarchy.classes[int(index)]
    return Answer(rules.paths(logits)[0], soft_class, float(log_prob.exp()))
