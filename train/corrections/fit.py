"""How corrections move a model: offsets of decisions, the last layer, or the whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbdt.decide.head import DecisionRules
from nbdt.decide.rules import full_precision
from nbdt.errors import NBDTError, nearest
from nbdt.memory.shift import divergence, fit_offsets
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..data.dataset import Images, PlainBatches, normalise
from ..fit.measure import flat_logits
from .examples import CorrectionBatch, encode
from .loss import CorrectionLoss

RATES = {"head": 1e-3, "all": 1e-5}
WAYS = ("shift", *RATES)
BATCHES = {"head": 512, "all": 32}


@dataclass(frozen=True)
class CorrectionSettings:
    """How strongly corrections are taught and everything else is held.

    Attributes:
        strength: weight of the corrections' mean loss beside the replayed images' divergence.
        learn: what may move. "shift": one offset for each child of the decisions that corrections
            are about, and no weight. This is what a few corrections can support: a model's mistakes
            show which way it leans, but they are unusual examples of their class. "head": the last
            layer. "all": the whole network; batch norms keep their statistics.
        steps: of the optimiser (Adam) of "head" and "all"; "shift" is fitted by L-BFGS.
        learning_rate: of Adam; by default 1e-3 and 1e-5.
        batch_size: replayed images a step; by default 512, and 32 where the whole network learns.
        seed: of the order in which images are replayed.
    """

    strength: float = 0.05
    learn: str = "shift"
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        rates = (self.strength, *([] if self.learning_rate is None else [self.learning_rate]))
        if not (
            all(0 < rate < math.inf for rate in rates)
            and min(self.steps, 1 if self.batch_size is None else self.batch_size) >= 1
        ):
            raise NBDTError(
                "Expected strength and learning_rate above 0, and steps and batch_size of at least "
                f"1, got {self}."
            )
        if self.learn not in WAYS:
            raise NBDTError(
                f"learn must be one of {', '.join(WAYS)}, got {self.learn!r}."
                f"{nearest(self.learn, WAYS)}"
            )

    @property
    def rate(self) -> float:
        """The learning rate, or its default."""
        return RATES[self.learn] if self.learning_rate is None else self.learning_rate


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
    objective = _objective(rules, batch, settings)
    optimizer = torch.optim.Adam(linear.parameters(), settings.rate)
    for index in _replays(len(replayed), settings, progress):
        found, new = linear(batch.features), linear(replayed[index])
        _step(optimizer, objective(found, batch.maps, linear.weight, old[index], new))


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


def fit_network(
    model: NBDT, batch: CorrectionBatch, data: Images, settings: CorrectionSettings,
    progress: Progress,
) -> None:  # fmt: skip
    """Train a whole network in evaluation mode, in place, while images of `data` are replayed."""
    device, linear, seen = batch.inputs.device, model.head.linear, model.preprocess
    objective = _objective(model.head.rules, batch, settings)
    old = flat_logits(model, data).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    for index in _replays(len(old), settings, progress):
        batches = PlainBatches(data.pick(index), seen)
        images = normalise(torch.cat([part for part, _ in batches]).to(device), seen.mean, seen.std)
        features, maps = encode(model, batch.inputs, batch.targets)
        found, new = linear(features), linear(model.features(images))
        _step(optimizer, objective(found, maps, linear.weight, old[index], new))


def _objective(
    rules: DecisionRules, batch: CorrectionBatch, settings: CorrectionSettings
) -> Callable[..., Tensor]:
    """Return the corrections' loss plus how far the answers to replayed images moved."""
    loss = CorrectionLoss(rules.hierarchy, rules.rule, batch.targets).to(batch.features.device)

    def value(
        logits: Tensor, maps: Tensor | None, weight: Tensor, old: Tensor, new: Tensor
    ) -> Tensor:
        with full_precision(new):
            moved = divergence(rules, old.float(), new.float())
        corrected: Tensor = loss(logits, maps, weight, batch.region).mean()
        return settings.strength * corrected + moved

    return value


def _replays(count: int, settings: CorrectionSettings, progress: Progress) -> Iterable[Tensor]:
    """Yield the images that each step replays: all of them in turn, in an order from the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size or BATCHES[settings.learn], count)
    order = torch.randperm(count, generator=generator)
    for step in progress(range(settings.steps), settings.steps, "learning"):
        start = step * size % count
        yield torch.cat([order, order])[start : start + size]


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    if not loss.isfinite():
        raise NBDTError("Learning from corrections diverged; lower the learning rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
