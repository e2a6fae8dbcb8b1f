"""How corrections move a model: offsets of decisions, the last layer, or the whole network."""

from __future__ import annotations

import copy
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

from ..data.dataset import Images, Labelled, PlainBatches, normalise
from ..fit.evaluate import flat_logits
from .inputs import Told, encoded
from .loss import CorrectionLoss, decision_divergence
from .targets import Target

RATES = {"shift": 2e-2, "head": 1e-3, "all": 1e-5}


@dataclass(frozen=True)
class Settings:
    """How firmly corrections are taught and everything else is held.

    Attributes:
        strength: weight of the corrections' mean loss beside the replayed images' divergence.
        learn: what may move. "shift": one offset for each child of the decisions that corrections
            are about, no weight; what a few corrections can tell, since a model's mistakes say
            which way it leans, but as examples of their class they are the oddest ones. "head": the
            last layer. "all": the whole network; batch norms keep their statistics.
        trust: how firmly the old model's answers are held, on replayed images, at the decisions
            that corrections are about; 1 is as firmly as everywhere else.
        steps: of the optimiser (Adam).
        learning_rate: its own; by default 0.02, 1e-3 and 1e-5 for the three.
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
        """The learning rate, the default one where none was given."""
        return RATES[self.learn] if self.learning_rate is None else self.learning_rate


def fit(
    model: NBDT, corrections: Told, data: Images, settings: Settings, *, progress: Progress
) -> None:
    """Move a model, in place, as `settings` say: its last layer on features computed once, or all."""
    if settings.learn == "all":
        _fit_whole(model, corrections, data, settings, progress)
        return
    replayed = _features(model, data)
    linear = model.head.linear
    fit_head(
        linear, model.hierarchy, model.rule, corrections, replayed, settings, progress=progress
    )


def fit_head(  # noqa: PLR0917
    linear: nn.Linear,
    hierarchy: Hierarchy,
    rule: str,
    corrections: Told,
    replayed: Tensor,
    settings: Settings,
    *,
    progress: Progress = no_progress,
) -> None:
    """Train a last layer, in place, on features computed once.

    Args:
        linear: the layer.
        hierarchy: of the model.
        rule: of the model.
        corrections: what was said, with features.
        replayed: (count, features) of images to replay.
        settings: how firmly.
        progress: a progress bar.
    """
    objective = _Objective(hierarchy, rule, corrections.targets, settings).to(replayed.device)
    with torch.no_grad():
        old = linear(replayed)
    moving: nn.Linear | _Shift = linear
    if settings.learn == "shift":
        moving = _Shift(linear, hierarchy, corrections.targets)
    learnt = [value for value in moving.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(learnt, settings.rate)
    for index in _replays(len(replayed), settings, progress):
        loss = objective(
            moving, corrections, corrections.features, corrections.maps,
            old[index], moving(replayed[index]),
        )  # fmt: skip
        _step(optimizer, loss)
    if isinstance(moving, _Shift):
        moving.settle()


class _Shift(nn.Module):
    """A frozen linear layer, and an offset for each child of some decisions.

    An offset of all classes below a child moves its score by as much, and no decision below it.
    """

    below: Tensor

    def __init__(self, linear: nn.Linear, hierarchy: Hierarchy, targets: Sequence[Target]) -> None:
        super().__init__()
        if linear.bias is None:
            raise NBDTError("The last layer has no bias to shift; use learn=head.")
        nodes = sorted({node for target in targets for node in target.nodes(hierarchy)})
        children = [child for node in nodes for child in hierarchy.children[node]]
        below = torch.zeros(hierarchy.num_classes, len(children))
        for column, child in enumerate(children):
            below[hierarchy.classes_under(child), column] = 1
        self.frozen = copy.deepcopy(linear).requires_grad_(False)
        self.target = [linear]  # in a list: not a part of this module
        self.register_buffer("below", below.to(linear.bias))
        self.offsets = nn.Parameter(self.below.new_zeros(len(children)))

    @property
    def weight(self) -> Tensor:
        return self.frozen.weight

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.frozen(features)) + self.below @ self.offsets

    @torch.no_grad()
    def settle(self) -> None:
        """Put the offsets into the layer's bias."""
        self.target[0].bias.add_(self.below @ self.offsets)


def _fit_whole(
    model: NBDT, corrections: Told, data: Images, settings: Settings, progress: Progress
) -> None:
    device = corrections.inputs.device
    objective = _Objective(model.hierarchy, model.rule, corrections.targets, settings).to(device)
    linear = model.head.linear
    with torch.no_grad():
        old = flat_logits(model, data).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    for index in _replays(len(old), settings, progress):
        images = _inputs(model, data.pick(index.cpu())).to(device)
        features, maps = encoded(model, corrections.inputs, corrections.targets)
        loss = objective(
            linear, corrections, features, maps, old[index], linear(model.features(images))
        )
        _step(optimizer, loss)


class _Objective(nn.Module):
    """What both ways of fitting minimise."""

    trust: Tensor

    def __init__(
        self, hierarchy: Hierarchy, rule: str, targets: Sequence[Target], settings: Settings
    ) -> None:
        super().__init__()
        self.corrections = CorrectionLoss(hierarchy, rule, targets)
        self.settings = settings
        about = {node for target in targets for node in target.nodes(hierarchy)}
        tree = self.corrections.tree
        parents = [hierarchy.parents[node] for node in tree.node_of_edge.tolist()]
        trust = [settings.trust if parent in about else 1.0 for parent in parents]
        self.register_buffer("trust", torch.tensor(trust))

    def forward(  # noqa: PLR0917
        self, linear: nn.Linear | _Shift, told: Told, features: Tensor, maps: Tensor | None,
        old: Tensor, new: Tensor,
    ) -> Tensor:  # fmt: skip
        said = self.corrections(linear(features), maps, linear.weight, told.region)
        tree, rule = self.corrections.tree, self.corrections.rule
        with full_precision(new):
            moved = decision_divergence(old.float(), new.float(), tree, rule, self.trust)
        return cast(Tensor, self.settings.strength * said + moved)


def _replays(count: int, settings: Settings, progress: Progress) -> Iterable[Tensor]:
    """Which images each step replays: all of them in turn, in an order drawn from the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size or (32 if settings.learn == "all" else 512), count)
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


def _features(model: NBDT, data: Images) -> Tensor:
    """(count, features) of the images as they are used."""
    device = model.device
    mean, std = model.preprocess.mean, model.preprocess.std
    with torch.no_grad():
        parts = [
            model.features(normalise(images.to(device), mean, std))
            for images, _ in PlainBatches(data, 100, model.preprocess)
        ]
    return torch.cat(parts)


def _inputs(model: NBDT, data: Images) -> Tensor:
    if isinstance(data, Labelled):
        return normalise(data.images, model.preprocess.mean, model.preprocess.std)
    return torch.stack([model.preprocess(data.open(index)) for index in range(len(data.labels))])
