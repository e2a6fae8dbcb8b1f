"""An answer in everyday words: ``"Egyptian cat, 55 %: an animal for sure, a house cat for sure, …"``."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from nbdt.decide.answer import Answer
from nbdt.decide.paths import Path, percent

from .facts import UNCERTAIN
from .words import article, readable, say, with_article

PAIR = 0.8  # of a decision: from here on its two likeliest children are the alternatives
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
    """An answer in everyday words; prints as one line."""

    level: str  # "sure", "probable", "doubtful" or "unsure": the answer's, see `LEVELS`
    title: str  # the class or group with its probability, or "not sure", or "unknown"
    text: str  # how sure the groups above it are

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


def headline(path: Path, answer: Answer | None = None) -> Headline:
    """Return how sure the answer and the groups above it are, in everyday words.

    Where the answer stops above a class, the two likeliest children there are named. Else only groups
    that add something are: of the sure ones the first and the last, and the last of each lower level
    that is still above the class's own.
    """
    *above, leaf = rungs(path)
    title = f"{readable(leaf.name)}, {percent(leaf.probability)}"
    if answer is not None and answer.unknown:
        return Headline(UNSURE, "unknown", f"this may be nothing I know; best guess {title}")
    if answer is not None and not answer.is_leaf:
        return _stopped(path, answer, title)
    groups = _named(above, leaf)
    said = [_SAID[group.level].format(with_article(group.name)) for group in groups]
    if leaf.level == UNSURE:
        text = "; ".join([*filter(None, [", ".join(said)]), f"best guess {title}"])
        return Headline(UNSURE, "not sure", text)
    return Headline(leaf.level, title, ", ".join([*said, _last(leaf, groups)]))


def _stopped(path: Path, answer: Answer, guess: str) -> Headline:
    """The words for an answer that is a group."""
    if not answer.depth:
        return Headline(UNSURE, "not sure", f"it could be many things; best guess {guess}")
    decision = path.decisions[answer.depth]
    one, other = (
        with_article(decision.children[child]) for child in (decision.chosen, decision.runner_up)
    )
    title = f"{with_article(answer.name)}, {percent(answer.probability)}"
    text = f"{one} or {other}, which I cannot tell apart here"
    shown = decision.probability + math.exp(decision.log_probs[decision.runner_up])
    if shown < PAIR:
        text = f"perhaps {one}, but I cannot tell which kind it is"
    return Headline(level(answer.probability), title, text)


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
    if article(name) and " or " in name:
        return "which one is less sure"
    kind = {"": "kind of ", "a": "", "an": ""}.get(article(name), f"{article(name)} ")
    return f"which {kind}{say(name)} is less sure"
