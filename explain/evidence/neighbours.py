"""What training images say to a decision: the nearest on both of its sides, as frozen results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Neighbour:
    """A training image that is near a query.

    Attributes:
        reference: where it came from, inside the data the index was built from.
        label: its class.
        similarity: the cosine of its embedding and the query's.
        row: its place in the index.
        open: gives the square picture that the network saw of it: from the original file, else
            the stored thumbnail, else the original archive. Raises ImageError where there is none.
    """

    reference: str
    label: str
    similarity: float
    row: int
    open: Callable[[], Image.Image] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the picture."""
        facts = {"reference": self.reference, "label": self.label}
        return {**facts, "similarity": self.similarity, "row": self.row}


@dataclass(frozen=True)
class DecisionEvidence:
    """What the training images say to one decision, nearest first on both sides.

    Attributes:
        chosen: images of classes below the chosen child.
        rejected: images of classes below the best child that was not chosen.
    """

    chosen: tuple[Neighbour, ...]
    rejected: tuple[Neighbour, ...]

    @property
    def vote(self) -> float | None:
        """Of the k nearest of both sides together, the share that lies below the chosen child."""
        together = [(n.similarity, True) for n in self.chosen]
        together += [(n.similarity, False) for n in self.rejected]
        k = max(len(self.chosen), len(self.rejected))
        best = sorted(together, reverse=True)[:k]
        return sum(chosen for _, chosen in best) / k if k else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        sides = {"chosen": self.chosen, "rejected": self.rejected}
        lists = {side: [n.to_dict() for n in found] for side, found in sides.items()}
        return {**lists, "vote": self.vote}
