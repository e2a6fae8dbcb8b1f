"""How corrections move a model: offsets of decisions, the last layer, or the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nbdt.decide.rules import full_precision
from nbdt.errors import NBDTError, nearest
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress
from nbdt.tree.hierarchy import Hierarchy

from ..data.dataset import Images, PlainBatches, normalise
from ..fit.measure import flat_logits
from .examples import CorrectionBatch, Target, encode
from .loss import CorrectionLoss, decision_divergence

RATES = {"shift": 2e-2, "head": 1e-3, "all": 1e-5}
BATCHES = {"shift": 512, "head": 512, "all": 32}


@dataclass(frozen=True)
class CorrectionSettings:
    """How strongly corrections are taught and everything else is held.

    Attributes:
        strength: weight of the corrections' mean loss beside the replayed images' divergence.
        learn: what may move. "shift": one offset for each child of the decisions that corrections
            are about, and no weight. This is what a few corrections can support: a model's mistakes
            show which way it leans, but they are unusual examples of their class. "head": the last
            layer. "all": the whole network; batch norms keep their statistics.
        trust: how firmly the old model's answers are held, on replayed images, at the decisions
            that corrections are about; 1 is as firmly as everywhere else.
        steps: of the optimiser (Adam).
        learning_rate: of the optimiser; by default 0.02, 1e-3 and 1e-5 for the three.
        batch_size: replayed images a step; by default 512, and 32 where the whole network learns.
        seed: of the order in which images are replayed.
    """

    strength: float = 0.05
    learn: str = "shift"
    trust: float = 1.0
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        rates = (self.strength, *([] if self.learning_rate is None else [self.learning_rate]))
        if not (
            all(0 < rate < math.inf for rate in rates)
            and 0 <= self.trust <= 1
            and min(self.steps, 1 if self.batch_size is None else self.batch_size) >= 1
        ):
            raise NBDTError(
                "Expected strength and learning_rate above 0, trust from 0 to 1, and steps and "
                f"batch_size of at least 1, got {self}."
            )
        if self.learn not in RATES:
            raise NBDTError(
                f"learn must be one of {', '.join(RATES)}, got {self.learn!r}."
                f"{nearest(self.learn, RATES)}"
            )

    @property
    def rate(self) -> float:
        """The learning rate, or its default."""
        return RATES[self.learn] if self.learning_rate is None else self.learning_rate


def fit_head(  # noqa: PLR0917
    linear: nn.Linear,
    hierarchy: Hierarchy,
    rule: str,
    batch: CorrectionBatch,
    replayed: Tensor,
    settings: CorrectionSettings,
    *,
    progress: Progress = no_progress,
) -> None:
    """Train a last layer, in place, on features of corrections and of `replayed` (count, features)."""
    objective = _Objective(hierarchy, rule, batch.targets, settings).to(replayed.device)
    with torch.no_grad():
        old = linear(replayed)
    offsets = None
    if settings.learn == "shift":
        if linear.bias is None:
            raise NBDTError("The last layer has no bias to shift; use learn=head.")
        offsets = _DecisionOffsets(hierarchy, batch.targets).to(linear.bias)

    def logits(features: Tensor) -> Tensor:
        own = cast(Tensor, linear(features))
        return own if offsets is None else own.detach() + offsets()

    optimizer = torch.optim.Adam((offsets or linear).parameters(), settings.rate)
    for index in _replays(len(replayed), settings, progress):
        found, new = logits(batch.features), logits(replayed[index])
        _step(optimizer, objective(found, batch.maps, linear.weight, batch.region, old[index], new))
    if offsets is not None:
        with torch.no_grad():
            linear.bias.add_(offsets())


def fit_network(
    model: NBDT,
    batch: CorrectionBatch,
    data: Images,
    settings: CorrectionSettings,
    progress: Progress,
) -> None:
    """Train a whole network in evaluation mode, in place, while images of `data` are replayed."""
    device, linear, seen = batch.inputs.device, model.head.linear, model.preprocess
    objective = _Objective(model.hierarchy, model.rule, batch.targets, settings).to(device)
    old = flat_logits(model, data).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    for index in _replays(len(old), settings, progress):
        batches = PlainBatches(data.pick(index), seen)
        images = normalise(torch.cat([part for part, _ in batches]).to(device), seen.mean, seen.std)
        features, maps = encode(model, batch.inputs, batch.targets)
        found, new = linear(features), linear(model.features(images))
        _step(optimizer, objective(found, maps, linear.weight, batch.region, old[index], new))


class _DecisionOffsets(nn.Module):
    """An offset for each child of the decisions that corrections are about, as offsets of the logits.

    An offset of all classes below a child moves its score by as much, and no decision below it.
    """

    below: Tensor

    def __init__(self, hierarchy: Hierarchy, targets: Sequence[Target]) -> None:
        super().__init__()
        nodes = sorted({node for target in targets for node in target.nodes(hierarchy)})
        children = [child for node in nodes for child in hierarchy.children[node]]
        below = torch.zeros(hierarchy.num_classes, len(children))
        for column, child in enumerate(children):
            below[hierarchy.classes_under(child), column] = 1
        self.register_buffer("below", below)
        self.offsets = nn.Parameter(torch.zeros(len(children)))

    def forward(self) -> Tensor:
        return self.below @ self.offsets


class _Objective(nn.Module):
    """The corrections' loss, and how far the decisions on replayed images moved."""

    trust: Tensor

    def __init__(
        self,
        hierarchy: Hierarchy,
        rule: str,
        targets: Sequence[Target],
        settings: CorrectionSettings,
    ) -> None:
        super().__init__()
        self.corrections = CorrectionLoss(hierarchy, rule, targets)
        self.settings = settings
        about = {node for target in targets for node in target.nodes(hierarchy)}
        edges = self.corrections.tree.node_of_edge.tolist()
        trust = [settings.trust if hierarchy.parents[node] in about else 1.0 for node in edges]
        self.register_buffer("trust", torch.tensor(trust))

    def forward(  # noqa: PLR0917
        self, logits: Tensor, maps: Tensor | None, weight: Tensor, region: Tensor | None,
        old: Tensor, new: Tensor,
    ) -> Tensor:  # fmt: skip
        loss = self.corrections(logits, maps, weight, region).mean()
        tree, rule = self.corrections.tree, self.corrections.rule
        with full_precision(new):
            moved = decision_divergence(old.float(), new.float(), tree, rule, self.trust)
        return cast(Tensor, self.settings.strength * loss + moved)


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
