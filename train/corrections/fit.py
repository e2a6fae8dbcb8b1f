"""The loss of corrections, and what they move: offsets of decisions, or the last layer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbdt.decide.head import DecisionRules
from nbdt.decide.maps import log_odds_coefficients, node_maps
from nbdt.decide.rules import decide, edge_scores, full_precision, mass_nll
from nbdt.errors import NBDTError, check_known
from nbdt.memory.shift import divergence, fit_offsets
from nbdt.progress import Progress, no_progress
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.index import TreeIndex

from .examples import CorrectionBatch, Target

WAYS = ("shift", "head")


@dataclass(frozen=True)
class CorrectionSettings:
    """How strongly corrections are taught and everything else is held."""

    # weight of the corrections' mean loss beside the replayed images' divergence
    strength: float = 0.05
    # what may move. "shift": one offset for each child of the decisions that corrections are about, and
    # no weight. This is what a few corrections can support: a model's mistakes show which way it leans,
    # but they are unusual examples of their class. "head": the last layer.
    learn: str = "shift"
    steps: int = 100  # of the optimiser (Adam) of "head"; "shift" is fitted by L-BFGS
    learning_rate: float = 1e-3  # of Adam
    batch_size: int = 512  # replayed images a step
    seed: int = 0  # of the order in which images are replayed

    def __post_init__(self) -> None:
        rates = self.strength, self.learning_rate
        if not all(0 < rate < math.inf for rate in rates) or min(self.steps, self.batch_size) < 1:
            raise NBDTError(
                "Expected strength and learning_rate above 0, and steps and batch_size of at least "
                f"1, got {self}."
            )
        check_known("learn", self.learn, WAYS)


class CorrectionLoss(nn.Module):
    """The loss of each correction; one row of a batch is one correction.

    - step: ``−log p(child | parent)`` in that one sibling group; the rest of the tree feels it only
      through the class logits that they share;
    - label: ``−log p(y)`` of a class or group, the sum along its path, and under `representative`
      that of the flat softmax too, as in `TreeSupervisionLoss`;
    - region: the share of the decision's map inside the region, ``Σ_region |m| / Σ |m|`` with
      ``m`` the closed-form map of the decision's log-odds (`nbdt.decide.maps`). Right for the right reasons
      (Ross et al., IJCAI 2017) penalises squared input gradients instead. The share has no scale, so
      a less certain answer cannot reduce it.

    `targets`: the corrections in the order of the rows.
    """

    nodes: Tensor
    edges: Tensor
    labels: Tensor
    kinds: Tensor

    def __init__(self, hierarchy: Hierarchy, rule: str, targets: Sequence[Target]) -> None:
        super().__init__()
        self.rule, self.tree = rule, TreeIndex(hierarchy)
        order = {"step": 0, "label": 1, "class": 1, "region": 2}
        self.register_buffer(
            "kinds", torch.tensor([order[t.correction.kind] for t in targets]), False
        )
        nodes = torch.tensor([t.child or 0 for t in targets])
        self.register_buffer("nodes", nodes, False)
        self.register_buffer("edges", self.tree.edge_of_node[nodes], False)
        self.register_buffer("labels", torch.tensor([t.label or 0 for t in targets]), False)

    def forward(
        self,
        logits: Tensor,
        feature_maps: Tensor | None = None,
        weight: Tensor | None = None,
        region: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each correction, (corrections,).

        Args:
            logits: (corrections, classes), flat.
            feature_maps: (corrections, features, height, width), those of region corrections the
                last before the average pool; needed if there are any.
            weight: (classes, features), of the linear layer that follows the pool.
            region: (corrections, height, width), the share of each position inside the region.
        """
        with full_precision(logits):
            logits = logits if logits.dtype == torch.float64 else logits.float()
            log_probs = decide(edge_scores(logits, self.tree, self.rule), self.tree)
            steps = (self.kinds == 0).nonzero().flatten()
            losses = logits.new_zeros(len(logits))
            losses = losses.index_add(0, steps, -log_probs[self.edges[steps], steps])
            rows = (self.kinds == 1).nonzero().flatten()
            image, edges = self.tree.target_paths(self.labels[rows])
            losses = losses.index_add(0, rows[image], -log_probs[edges, rows[image]])
            if self.rule == "representative":
                missed = mass_nll(logits[rows], self.labels[rows], self.tree)
                losses = losses.index_add(0, rows, missed)
            regions = (self.kinds == 2).nonzero().flatten()
            if len(regions):
                if feature_maps is None or weight is None or region is None:
                    raise ValueError("region corrections need feature maps, weight and region")
                shares = region_shares(
                    logits[regions], self.nodes[regions],
                    feature_maps[regions], weight, region[regions], self.tree, self.rule,
                )  # fmt: skip
                losses = losses.index_add(0, regions, shares.to(losses.dtype))
        return losses


def region_shares(  # noqa: PLR0917
    logits: Tensor,
    nodes: Tensor,
    feature_maps: Tensor,
    weight: Tensor,
    region: Tensor,
    tree: TreeIndex,
    rule: str,
) -> Tensor:
    """Return the share of the absolute mass of one decision's map inside a region: (batch,).

    Args:
        logits: (batch, classes), float32 or wider.
        nodes: (batch,) the child whose log-odds among its siblings are mapped.
        feature_maps: (batch, features, height, width).
        weight: (classes, features).
        region: (batch, height, width), the share of each position inside the region.
    """
    coefficients = log_odds_coefficients(logits, nodes[:, None], tree, rule)
    mass = node_maps(feature_maps, weight, coefficients)[:, 0].abs()
    return (mass * region).sum(dim=(1, 2)) / mass.sum(dim=(1, 2)).clamp(min=1e-12)


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
