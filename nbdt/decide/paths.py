"""`Decision` and `Path`, the frozen results that a person reads, and percentages in words."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


def as_percent(share: float, digits: int = 1, unit: str = "%") -> str:
    """Return ``"97.3%"``; ``">99.9%"`` and ``"<0.1%"`` for what would otherwise read as certain."""
    rounded, least = f"{100 * share:.{digits}f}", 10.0**-digits
    if share < 1 and float(rounded) == 100:
        return f">{100 - least:.{digits}f}{unit}"
    if share > 0 and float(rounded) == 0:
        return f"<{least:.{digits}f}{unit}"
    return rounded + unit


def percent(share: float, digits: int = 0) -> str:
    """Return a share as a sentence gives it: ``"97 %"``, ``"more than 99 %"``."""
    shown = as_percent(share, digits, unit=" %")
    return shown.replace(">", "more than ").replace("<", "less than ")


@dataclass(frozen=True)
class Decision:
    """One inner node's probabilities over its children.

    Attributes:
        node: name of the inner node.
        node_id: its id in the hierarchy.
        children: names of its children.
        child_ids: their ids.
        log_probs: their natural log-probabilities; the probabilities sum to 1.
        chosen: position in `children` of the child that the path takes.
    """

    node: str
    node_id: str
    children: tuple[str, ...]
    child_ids: tuple[str, ...]
    log_probs: tuple[float, ...]
    chosen: int

    @property
    def probability(self) -> float:
        """Probability of the chosen child."""
        return math.exp(self.log_probs[self.chosen])

    @cached_property
    def runner_up(self) -> int:
        """Position of the likeliest child that was not chosen."""
        others = [*self.log_probs]
        others[self.chosen] = -math.inf
        if (best := max(others)) > -math.inf:
            return others.index(best)
        return int(self.chosen == 0)  # all others are impossible

    @property
    def margin(self) -> float:
        """Log-probability of the chosen child minus the runner-up's, in nats; may be negative."""
        return self.log_probs[self.chosen] - self.log_probs[self.runner_up]

    @property
    def is_likeliest(self) -> bool:
        """Whether no sibling of the chosen child is likelier.

        It is False on some paths to the most probable class: a group of many classes can be
        likelier than its sibling although none of its classes is.
        """
        return self.margin >= 0

    @property
    def log_odds(self) -> float:
        """``log p/(1 − p)`` of the chosen child; the decision's map explains it."""
        others = [v for i, v in enumerate(self.log_probs) if i != self.chosen]
        most = max(others)
        if not math.isfinite(most):
            return self.log_probs[self.chosen] - most
        return (
            self.log_probs[self.chosen] - most - math.log(sum(math.exp(v - most) for v in others))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "node": self.node,
            "node_id": self.node_id,
            "chosen": self.children[self.chosen],
            "probability": self.probability,
            "runner_up": self.children[self.runner_up],
            "margin": self.margin,
            "is_likeliest": self.is_likeliest,
            "children": [
                {"name": name, "id": child, "log_prob": value}
                for name, child, value in zip(
                    self.children, self.child_ids, self.log_probs, strict=True
                )
            ],
        }


@dataclass(frozen=True)
class Path:
    """The decisions from the root to a leaf. Iterating gives the decisions.

    Attributes:
        decisions: from the root down.
        class_name: name of the leaf's class.
        class_index: its index among the classifier's outputs.
        log_prob: the leaf's log-probability, the sum over the decisions.
    """

    decisions: tuple[Decision, ...]
    class_name: str
    class_index: int
    log_prob: float

    @property
    def probability(self) -> float:
        """Probability of the leaf: the product along the path."""
        return math.exp(self.log_prob)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

    def __str__(self) -> str:
        names = [self.decisions[0].node]
        names += [f"{d.children[d.chosen]} ({as_percent(d.probability)})" for d in self]
        return " → ".join(names)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "class": self.class_name,
            "class_index": self.class_index,
            "probability": self.probability,
            "path": [decision.to_dict() for decision in self],
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(d.node)}</td>"
            f"<td><b>{html.escape(d.children[d.chosen])}</b> {html.escape(as_percent(d.probability))}</td>"
            f"<td>{html.escape(d.children[d.runner_up])} "
            f"{html.escape(as_percent(math.exp(d.log_probs[d.runner_up])))}"
            f"{'' if d.is_likeliest else ', likelier here'}</td></tr>"
            for d in self
        )
        return (
            f"<b>{html.escape(self.class_name)}</b> ({html.escape(as_percent(self.probability))})<table>"
            f"<tr><th>at</th><th>chosen</th><th>runner-up</th></tr>{rows}</table>"
        )
