"""How corrections move a model: offsets of decisions, or the last layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbdt.decide.head import DecisionRules
from nbdt.decide.rules import full_precision
from nbdt.errors import NBDTError, check_known
from nbdt.memory.shift import divergence, fit_offsets
from nbdt.progress import Progress, no_progress

from .examples import CorrectionBatch
from .loss import CorrectionLoss

WAYS = ("shift", "head")


@dataclass(frozen=True)
class CorrectionSettings:
    """How strongly corrections are taught and everything else is held.

    Attributes:
        strength: weight of the corrections' mean loss beside the replayed images' divergence.
        learn: what may move. "shift": one offset for each child of the decisions that corrections
            are about, and no weight. This is what a few corrections can support: a model's mistakes
            show which way it leans, but they are unusual examples of their class. "head": the last
            layer.
        steps: of the optimiser (Adam) of "head"; "shift" is fitted by L-BFGS.
        learning_rate: of Adam.
        batch_size: replayed images a step.
        seed: of the order in which images are replayed.
    """

    strength: float = 0.05
    learn: str = "shift"
    steps: int = 100
    learning_rate: float = 1e-3
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        rates = self.strength, self.learning_rate
        if not all(0 < rate < math.inf for rate in rates) or min(self.steps, self.batch_size) < 1:
            raise NBDTError(
                "Expected strength and learning_rate above 0, and steps and batch_size of at least "
                f"1, got {self}."
            )
        check_known("learn", self.learn, WAYS)


def fit_head(
    linear: nn.Linear, rules: DecisionRules, batch: CorrectionBatch, replayed: Tensor,
    settings: CorrectionSettings, *, progress: Progress = no_progress,
) -> None:  # fmt: skip
    """Train a last layer, in place, on features of corrections and of `replayed` (count, features)."""
    with torch.no_grad():
        old = linear(replayed)
    if settings.learn == "shift":
        _shift(linear, rules, batch, old, settings.strength)
        return
    loss = CorrectionLoss(rules.hierarchy, rules.rule, batch.targets).to(batch.features.device)
    optimizer = torch.optim.Adam(linear.parameters(), settings.learning_rate)
    for index in _replays(len(replayed), settings, progress):
        corrected = loss(linear(batch.features), batch.maps, linear.weight, batch.region).mean()
        new = linear(replayed[index])
        with full_precision(new):
            moved = divergence(rules, old[index].float(), new.float())
        value = settings.strength * corrected + moved
        if not value.isfinite():
            raise NBDTError("Learning from corrections diverged; lower the learning rate.")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def _shift(
    linear: nn.Linear, rules: DecisionRules, batch: CorrectionBatch, others: Tensor, strength: float
) -> None:
    """Add offsets of the decisions that corrections are about to the bias of a last layer."""
    if linear.bias is None:
        raise NBDTError("The last layer has no bias to shift; use learn=head.")
    loss = CorrectionLoss(rules.hierarchy, rules.rule, batch.targets).to(others.device)
    about = [node for target in batch.targets for node in target.nodes(rules.hierarchy)]
    with torch.no_grad():
        found = linear(batch.features).double()
    offsets = fit_offsets(rules, about, lambda shift: strength * loss(found + shift).mean(), others)
    with torch.no_grad():
        linear.bias.add_(offsets)


def _replays(count: int, settings: CorrectionSettings, progress: Progress) -> Iterable[Tensor]:
    """Yield the images that each step replays: all of them in turn, in an order from the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size, count)
    order = torch.randperm(count, generator=generator)
    for step in progress(range(settings.steps), settings.steps, "learning"):
        start = step * size % count
        yield torch.cat([order, order])[start : start + size]
