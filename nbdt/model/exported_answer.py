"""Where an answer stops, as a traceable module: the rule of `nbdt.decide.answer` at one threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..decide.answer import Calibration, information, path_table
from ..decide.unknown import FALSE_ALARMS, familiarity
from ..tree.hierarchy import Hierarchy

ALWAYS_ROOT = 1e9  # stands for an infinite threshold, which would give NaN for a probability of 0


class ExportedAnswer(nn.Module):
    """From log-probabilities to the node of each answer.

    Args:
        hierarchy: of the model.
        calibration: of the model under this hierarchy.
        accuracy: the share of answers that are to be right.
    """

    nodes: Tensor
    information: Tensor

    def __init__(self, hierarchy: Hierarchy, calibration: Calibration, accuracy: float) -> None:
        super().__init__()
        self.register_buffer("nodes", path_table(hierarchy))
        self.register_buffer("information", information(hierarchy).float())
        self.threshold = max(-ALWAYS_ROOT, min(ALWAYS_ROOT, calibration.threshold(accuracy)))
        rank = math.floor(FALSE_ALARMS * (len(calibration) + 1))
        self.least = float(calibration.known[rank - 1]) if rank else -math.inf

    def forward(
        self, logits: Tensor, log_probs: Tensor, decisions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return node, probability and whether the image is unknown, (batch,) each.

        Args:
            logits: (batch, classes).
            log_probs: (batch, classes) leaf log-probabilities.
            decisions: (batch, nodes) log-probability of each node among its siblings.
        """
        path = self.nodes[log_probs.argmax(dim=1)]
        steps = decisions.gather(1, path)
        repeated = torch.cat(
            [torch.zeros_like(path[:, :1]), (path[:, 1:] == path[:, :-1]).long()], 1
        )
        mass = (steps * (1 - repeated)).cumsum(dim=1).exp()
        scores = (self.information[path] + self.threshold) * mass
        depth = scores.argmax(dim=1, keepdim=True)
        unknown = familiarity(logits) < self.least
        return path.gather(1, depth)[:, 0], mass.gather(1, depth)[:, 0], unknown
