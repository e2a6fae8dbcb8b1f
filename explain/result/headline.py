"""An answer in everyday words: ``"Egyptian cat, 55 %: an animal for sure, a house cat for sure, …"``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from nbdt.decide.paths import Path, percent

from .facts import UNCERTAIN
from .words import article, say, with_article

SURE, PROBABLE, DOUBTFUL, UNSURE = "sure", "probable", "doubtful", "unsure"
LEVELS = ((0.95, SURE), (0.75, PROBABLE), (UNCERTAIN, DOUBTFUL))
# Names that say nothing of a group: "other dog", "terrier like cairn", "rifle, suit", "rifle + 12".
_EMPTY = re.compile(r"other .*|.+ like .+|(?!.* or ).+, .+|.+ \+ [\d,]+")


@dataclass(frozen=True)
class Rung:
    """A node on a path, the probability of reaching it, and how sure that is."""

    name: str
    probability: float
    level: str


@dataclass(frozen=True)
class Headline:
    """An answer in everyday words; prints as one line.

    Attributes:
        level: "sure", "probable", "doubtful" or "unsure": the class's, see `LEVELS`.
        title: the class with its probability, or "not sure".
        text: how sure the groups above it are.
    """

    level: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title}: {self.text}"


def rungs(path: Path) -> list[Rung]:
    """Return the nodes of a path below the root, the class last.

    A node is *sure* from a probability of 0.95 of reaching it, *probable* from 0.75, *doubtful* from
    0.5, else *unsure*: a calibrated model is right in 19 of 20, three of four, one of two.
    """
    names = [decision.children[decision.chosen] for decision in path]
    chances = map(math.exp, accumulate(d.log_probs[d.chosen] for d in path))
    return [Rung(*pair, level(pair[1])) for pair in zip(names, chances, strict=True)]


def level(probability: float) -> str:
    """Return the level of `LEVELS` that a probability reaches, or "unsure"."""
    return next((name for least, name in LEVELS if probability >= least), UNSURE)


def headline(path: Path) -> Headline:
    """Return how sure the class and the groups above it are, in everyday words.

    Only groups that add something are named: of the sure ones the first and the last, and the last
    of each lower level that is still above the class's own.
    """
    *above, answer = rungs(path)
    groups = _named(above, answer)
    said = [_SAID[group.level].format(with_article(group.name)) for group in groups]
    title = f"{answer.name.replace('_', ' ')}, {percent(answer.probability)}"
    if answer.level == UNSURE:
        text = "; ".join([*filter(None, [", ".join(said)]), f"best guess {title}"])
        return Headline(UNSURE, "not sure", text)
    return Headline(answer.level, title, ", ".join([*said, _last(answer, groups)]))


_SAID = {SURE: "{} for sure", PROBABLE: "probably {}", DOUBTFUL: "perhaps {}"}


def _named(above: Iterable[Rung], answer: Rung) -> list[Rung]:
    """The groups that add something to the answer."""
    groups = [group for group in above if not _EMPTY.fullmatch(group.name)]
    found: list[Rung] = []
    for name in (SURE, PROBABLE, DOUBTFUL):
        if name == answer.level:
            break
        same = [group for group in groups if group.level == name]
        found += [*same[:1], *same[1:][-1:]] if name == SURE else same[-1:]
    return found


def _last(answer: Rung, groups: list[Rung]) -> str:
    """How sure the class is."""
    if answer.level == SURE:
        return "for sure"
    if answer.level == PROBABLE:
        return f"probably {with_article(answer.name)}" if groups else "probably"
    if not groups:
        return "not very sure"
    name = groups[-1].name
    kind = {"": "kind of ", "a": "", "an": ""}.get(article(name), f"{article(name)} ")
    return f"which {kind}{say(name)} is less sure"
