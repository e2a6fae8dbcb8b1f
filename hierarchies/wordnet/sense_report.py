"""What `senses` answers: for every class the sense chosen, the others, and how clear it was."""

from dataclasses import asdict, dataclass
from typing import Any

from .candidates import Match

AMBIGUOUS_MARGIN = 0.5


@dataclass(frozen=True)
class SenseCandidate:
    """A sense that was considered.

    Attributes:
        wnid: its id.
        name: its first word ("crane").
        kind: its direct hypernym ("wading bird"); "" for the root.
        share: the model's probability, in [0, 1]; a name's shares sum to 1. Not calibrated.
    """

    wnid: str
    name: str
    kind: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}) {self.wnid} {self.share:.2f}"


@dataclass(frozen=True)
class SenseChoice:
    """What one class name was taken to mean.

    Attributes:
        given: the name as it was given.
        label: the class name: as given, or qualified ("crane (bird)") where repeated.
        chosen: the sense.
        rejected: the other candidates, best first.
        match: how the name was found: as a "word", another "form" of one (plural, spelling), a
            "compound" under its head ("maple tree"), by its "head" alone ("aquarium fish" as a
            fish), or by an "override".
        margin: share of the chosen sense minus that of the best rejected one; 1 without any.
            Classes of one name leave each other's senses out of account, as if never offered.
    """

    given: str
    label: str
    chosen: SenseCandidate
    rejected: tuple[SenseCandidate, ...]
    match: Match
    margin: float

    @property
    def wnid(self) -> str:
        """The chosen sense's id."""
        return self.chosen.wnid

    @property
    def ambiguous(self) -> bool:
        """Whether the choice deserves a look: a margin below 0.5.

        Of the 1,000 ImageNet labels 133 are so marked, among them 34 of the 41 mistakes.
        """
        return self.margin < AMBIGUOUS_MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self) | {"ambiguous": self.ambiguous}

    def __str__(self) -> str:
        text = f"{'? ' if self.ambiguous else '  '}{self.label}: {self.chosen}"
        if self.match not in ("word", "form"):
            text += f" [by {self.match}]"
        others = "; ".join(map(str, self.rejected[:3]))
        return f"{text}   not {others}" if others else text


@dataclass(frozen=True)
class SenseReport:
    """The choices for a list of class names, in class order. Iterable and printable."""

    choices: tuple[SenseChoice, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, all different."""
        return tuple(choice.label for choice in self.choices)

    @property
    def wnids(self) -> tuple[str, ...]:
        """Ids of the chosen senses, in class order."""
        return tuple(choice.wnid for choice in self.choices)

    @property
    def ambiguous(self) -> tuple[SenseChoice, ...]:
        """The choices that deserve a look, least sure first."""
        doubtful = (choice for choice in self.choices if choice.ambiguous)
        return tuple(sorted(doubtful, key=lambda choice: choice.margin))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"choices": [choice.to_dict() for choice in self.choices]}

    def __str__(self) -> str:
        head = f"{len(self.choices)} classes, {len(self.ambiguous)} to look at (marked ?)"
        return "\n".join([head, *map(str, self.choices)])
