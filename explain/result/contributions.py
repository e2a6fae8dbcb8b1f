"""What training photographs contributed to a decision, as data and in words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from PIL import Image

Item = TypeVar("Item")

NUMBERS = ("", "this one", "these two", "these three", "these four", "these five")

NOTE = (
    "Contributions are the parts of a sum, exact for this fit. They are not what would happen "
    "without a photograph: the fit would make up for it."
)


class Photograph:
    """A training photograph that is shown beside a decision; a base for data classes."""

    reference: str
    label: str
    open: Callable[[], Image.Image]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the picture."""
        return {name: value for name, value in vars(self).items() if name != "open"}


class TwoSides:
    """Photographs for and against a decision; a base for data classes."""

    KIND: ClassVar[str]  # begins the names of their pictures
    SIDES: ClassVar[tuple[str, str]]  # names of the attributes

    @property
    def sides(self) -> dict[str, tuple[Any, ...]]:
        """The photographs of each side, by name."""
        return {side: getattr(self, side) for side in self.SIDES}

    def map(self, index: int, change: Callable[[Any, str], Item]) -> dict[str, tuple[Item, ...]]:
        """Return `change` of each photograph and the name of its picture, by side."""
        return {
            side: tuple(
                change(one, f"{self.KIND}-{index + 1}-{side}-{rank}.png")
                for rank, one in enumerate(found, start=1)
            )
            for side, found in self.sides.items()
        }

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        """Return plain data for JSON, by side."""
        return {side: [one.to_dict() for one in found] for side, found in self.sides.items()}


@dataclass(frozen=True)
class Contribution(Photograph):
    """A training photograph's part in the log-odds of a decision."""

    reference: str  # where it came from
    label: str  # name of its class or group
    value: float  # in nats; positive for the chosen child, negative for the runner-up
    row: str  # its id in the memory
    # returns the square picture that the network saw. Raises ImageError where there is none.
    open: Callable[[], Image.Image] = field(repr=False, compare=False)


@dataclass(frozen=True)
class DecisionContributions(TwoSides):
    """The log-odds of the chosen child against the runner-up, as a sum over training photographs."""

    KIND, SIDES = "contribution", ("supporting", "opposing")

    # the photographs that contributed most to the chosen child, largest first
    supporting: tuple[Contribution, ...]
    # those that contributed most to the runner-up, largest first
    opposing: tuple[Contribution, ...]
    others: int  # how many other photographs there are
    rest: float  # the sum of their contributions
    bias: float  # the part of the last layer's biases, of no photograph
    # under `marginal`, the part of how many classes each of the two groups divides its probability
    # among
    entropy: float

    @property
    def log_odds(self) -> float:
        """The sum of all parts: the decision's `margin`, but for where the fit stopped."""
        shown = sum(one.value for one in (*self.supporting, *self.opposing))
        return shown + self.rest + self.bias + self.entropy

    @property
    def words(self) -> str:
        """The sum in one sentence; its rounded parts add up to the rounded sum."""
        sides = [side for side in self.sides.values() if side]
        shown = [round(sum(one.value for one in side), 1) for side in sides]
        total, none = round(self.log_odds, 1), round(self.bias + self.entropy, 1)
        texts = [
            f"{signed(value)} from {NUMBERS[len(side)]}"
            for value, side in zip(shown, sides, strict=True)
        ]
        if self.others:
            texts.append(f"{signed(total - sum(shown) - none)} from {self.others:,} others")
        return f"Of {signed(total)}: {', '.join(texts)}, {signed(none)} from no photograph."

    @property
    def named(self) -> str:
        """The photographs that the sentence counts: the label of each, its part and its name."""
        shown = (*self.supporting, *self.opposing)
        return ", ".join(f"{one.label} {signed(one.value)} ({one.reference})" for one in shown)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without pictures."""
        rest = {"others": self.others, "rest": self.rest, "bias": self.bias}
        return {"log_odds": self.log_odds, **self.lists(), **rest, "entropy": self.entropy}


def signed(value: float, digits: int = 1) -> str:
    """Return a value with its sign: "+3.1", "−0.4"; a rounded zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")
