"""A head that follows what people said about single photographs, without harm to the others."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..decide.head import DecisionRules
from ..decide.paths import as_percent
from ..errors import NBDTError
from .preview import Change, with_changes
from .refit import Examples, FittedHead, examples_of, fit_head, shared
from .rows import Halves, Rows

HELD = 0.005  # share of the other photographs that may become wrong
HELD_GROWN = 0.02  # the same, for new classes
CHANCE = 2.0  # standard errors beyond it: a few photographs change sides in any new fit
HEAVIEST = 64.0  # times that a corrected photograph counts at most
SAME = 0.999  # cosine of centred features from which two photographs are the same


@dataclass(frozen=True, eq=False)
class Corrected:
    """A head fitted on a memory's rows and on changes that are not written."""

    rows: Rows  # the memory's, with the changes that act
    fitted: FittedHead  # on these rows
    changes: tuple[Change, ...] = ()  # those that act, with their weights
    aside: dict[str, str] = field(default_factory=dict)  # by id, why a change does not act
    others: int = 0  # photographs of the memory that no change is about
    changed: int = 0  # how many of them have another answer now, each by a fit without it
    gained: float = 0.0  # share of them that is right now, minus the share before
    grown: bool = False  # whether it answers with new classes
    # the changes, and those of rows that are the same photographs; to be written
    about: tuple[Change, ...] = ()


def fit_changes(
    rows: Rows, changes: Sequence[Change], rules: DecisionRules, base: FittedHead,
    grown: DecisionRules | None = None, *, choose: bool = False,
) -> Corrected:  # fmt: skip
    """Fit a head under which every changed photograph is right, and the others stay so.

    A photograph that is still wrong counts 4, 16 … up to `HEAVIEST` times. A change
    under which it stays wrong, or under which more of the others become wrong than `HELD` and
    chance (McNemar's standard error) allow, is kept aside. Each change is then tried without those
    that failed. The photographs of new classes act together or
    not at all; there `HELD_GROWN` is the limit.

    Args:
        changes: in the order in which they were made.
        base: the head fitted on `rows`.
        grown: the rules with new classes, which come last.
        choose: choose the penalty again, with all of the changes; by default it stays.
    """
    last = {change.id: change for change in changes}
    start = _Base(rows, rules, base, grown)
    aside = {
        earlier.id: "Something else was said about the same photograph later."
        for earlier, later in combinations(last.values(), 2)
        if earlier.label != later.label and start.is_same(earlier, later)
    }
    kept = [change for key, change in last.items() if key not in aside]
    if choose:
        with suppress(NBDTError):  # a change that has no place, which is found below
            changed = examples_of(with_changes(rows, kept), start.rules)
            strength = fit_head(changed, start.rules, base).fit.strength
            base = replace(base, fit=replace(base.fit, strength=strength))
    first = Corrected(rows, base, aside=aside)
    if grown is not None:
        known = {*rules.hierarchy.ids, None}
        new = [change for change in kept if change.label not in known]
        kept = [change for change in kept if change.label in known]
        try:
            first = replace(start.fit(new, base, HELD_GROWN), aside=aside, grown=True)
        except NBDTError as error:
            start = _Base(rows, rules, base)
            aside |= {change.id: str(error) for change in new}
    return _admit(start, first, kept)


def _admit(base: "_Base", kept: Corrected, group: Sequence[Change]) -> Corrected:
    """Return what acts with the changes of a group that can; halves of it where some cannot."""
    if not group:
        return kept
    try:
        found = base.fit([*kept.changes, *group], kept.fitted, HELD_GROWN if kept.grown else HELD)
        return replace(found, aside=kept.aside, grown=kept.grown)
    except NBDTError as error:
        if len(group) == 1:
            return replace(kept, aside={**kept.aside, group[0].id: str(error)})
    half = len(group) // 2
    return _admit(base, _admit(base, kept, group[:half]), group[half:])


class _Base:
    """What the changes begin at."""

    def __init__(
        self, rows: Rows, rules: DecisionRules, fitted: FittedHead,
        grown: DecisionRules | None = None,
    ) -> None:  # fmt: skip
        self.rows, self.rules = rows, grown or rules
        self.examples = examples_of(rows, rules)
        self.answers = _answers(rules, fitted.logits)
        self._directions = normalize(torch.from_numpy(rows.features).float() - fitted.fit.center)
        self._center = fitted.fit.center

    def fit(self, changes: Sequence[Change], start: FittedHead, held: float = HELD) -> Corrected:
        """Fit with all of the changes. Raises NBDTError: one of them cannot act."""
        while True:
            about = [*(same for change in changes for same in self._same(change)), *changes]
            rows = with_changes(self.rows, about)
            examples = examples_of(rows, self.rules)
            start = fit_head(examples, self.rules, start, choose=False)
            wrong = {change.id: said for change in changes if (said := self._wrong(change, start))}
            if not wrong:
                break
            if any(change.weight >= HEAVIEST for change in changes if change.id in wrong):
                raise NBDTError(
                    f"The answer is still {next(iter(wrong.values()))!r} if this photograph counts "
                    f"{HEAVIEST:.0f} times."
                )
            changes = [
                replace(change, weight=4 * change.weight) if change.id in wrong else change
                for change in changes
            ]
        others, changed, gained = self._held(examples, start, {each.id for each in about}, held)
        acting = tuple(changes)
        return Corrected(rows, start, acting, {}, others, changed, gained, about=tuple(about))

    def is_same(self, one: Change, other: Change) -> bool:
        """Return whether two new rows are one photograph."""
        if one.features is None or other.features is None:
            return False
        return float(self._direction(one.features) @ self._direction(other.features)) >= SAME

    def _direction(self, features: Halves) -> Tensor:
        return normalize(torch.tensor(features).float() - self._center, dim=0)

    def _same(self, change: Change) -> list[Change]:
        """Return changes of the rows that are the same photograph under a label that it denies."""
        if change.label is None or change.features is None:
            return []
        near = self._directions @ self._direction(change.features) >= SAME
        tree = self.rules.hierarchy
        under = tree.index(change.label)
        return [
            replace(change, id=self.rows.ids[n], features=None)
            for n in near.nonzero()[:, 0].tolist()
            if self.rows.active[n]
            and under not in tree.path_to(tree.index(self.rows.labels[n]))
        ]  # fmt: skip

    def _wrong(self, change: Change, fitted: FittedHead) -> str:
        """Return the class that a changed photograph is answered with, "" if that is right."""
        if change.label is None:
            return ""
        features = change.features
        if features is None:
            if change.id not in self.rows.places:
                raise NBDTError(
                    "The fit of a large memory leaves this photograph out; a change of it needs its "
                    "features."
                )
            features = self.rows.features[self.rows.places[change.id]]
        logits = fitted.fit.logits(torch.tensor(features).float()[None]) * fitted.factor
        answer, tree = int(_answers(self.rules, logits)[0]), self.rules.hierarchy
        is_right = answer in tree.classes_under(tree.index(change.label))
        return "" if is_right else tree.classes[answer]

    def _held(
        self, examples: Examples, fitted: FittedHead, about: set[str], held: float
    ) -> tuple[int, int, float]:
        """Compare the answers of the other photographs. Raises NBDTError: too many became wrong."""
        before, after = shared(self.examples, examples, about)
        labels = self.examples.labels[before]
        was, now = self.answers[before], _answers(self.rules, fitted.logits)[after]
        gains = (now == labels).int() - (was == labels).int()
        count, net = len(labels), int(gains.sum())
        allowed = held * count + CHANCE * float(gains.abs().sum()) ** 0.5
        if -net > allowed:
            raise NBDTError(
                f"With it {-net:,} more of {count:,} other photographs would be wrong; at most "
                f"{as_percent(held)} may be, beyond chance."
            )
        return count, int((was != now).sum()), net / max(1, count)


def _answers(rules: DecisionRules, logits: Tensor) -> Tensor:
    return cast(Tensor, rules(logits.float()).argmax(dim=1))
