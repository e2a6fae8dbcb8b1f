"""Decisions as sums over the photographs that the last layer was fitted on.

At the optimum of a fit ``W = factor · strength · Σ_i a_i (x_i − m)ᵀ`` (Yeh et al., "Representer Point
Selection", NeurIPS 2018), so the log-odds of a child against its runner-up are, with coefficients
``c`` of the difference of their scores in the class logits,

    ``Σ_i factor · strength · (c · a_i) (x_i − m) · (x − m)  +  c · b  (+ H(chosen) − H(other))``.

The entropies ``H`` of the softmax within each child are there under `marginal` only. A contribution
is part of a sum; it is not what happens when the photograph is struck out, since a new fit makes up
for it. Where we differ from the paper: the network below is fixed, and the targets are nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decide.head import DecisionRules
from ..decide.maps import score_coefficients
from ..decide.rules import full_precision
from ..errors import NBDTError
from .refit import Examples, FittedHead
from .targets import coefficients

PIECE = 10_000  # rows whose coefficients are computed at a time


@dataclass(frozen=True, eq=False)
class Contributions:
    """The log-odds of decisions, chosen child against runner-up, as sums."""

    rows: Tensor  # (decisions, active rows) of each photograph
    bias: Tensor  # (decisions,) of the biases
    # (decisions,) of the entropies within the two children; 0 under `representative`
    entropy: Tensor
    # (decisions,) of the model. They are the sum of the three, but for rounding and for where the fit
    # stopped.
    log_odds: Tensor

    def row(self, decision: int) -> "Contributions":
        """Return those of one decision: (active rows,) and three scalars."""
        parts = (self.rows, self.bias, self.entropy, self.log_odds)
        return Contributions(*(part[decision] for part in parts))


class Attribution:
    """Finds what each photograph of a memory contributed; made once for a fit.

    `fitted`: the fit that the model's last layer comes from.

    Raises NBDTError: the memory has changed since the fit.
    """

    def __init__(self, fitted: FittedHead, examples: Examples, rules: DecisionRules) -> None:
        shape = rules.hierarchy.num_classes, examples.features.shape[1]
        if fitted.key != examples.key or fitted.fit.weight.shape != shape:
            raise NBDTError(
                "The memory has changed since the last layer was fitted, so no contributions are shown "
                "until it is fitted again: nbdt memory refit MODEL, or model.refit()."
            )
        self.fitted, self.examples, self.rules = fitted, examples, rules
        fit = fitted.fit
        pieces = torch.arange(len(examples.features)).split(PIECE)
        pull = [
            coefficients(
                fit.logits(examples.features[some]).double(), examples.targets[some]
            ).float()
            for some in pieces
        ]
        self._pull = torch.cat(pull) * (fitted.factor * fit.strength)  # (active rows, classes)

    def contributions(self, features: Tensor, pairs: Sequence[tuple[int, int]]) -> Contributions:
        """Divide the log-odds of decisions of one image.

        Args:
            features: (features,) of the image.
            pairs: for each decision the node indices of the chosen child and of the other.
        """
        fit, factor = self.fitted.fit, self.fitted.factor
        centred = features.detach().float().cpu() - fit.center
        logits = (centred @ fit.weight.T + fit.bias) * factor
        with full_precision(logits):
            nodes = torch.tensor(pairs).reshape(1, -1)
            found = score_coefficients(
                logits[None].double(), nodes, self.rules.tree, self.rules.rule
            )[0]
        difference = (found[::2] - found[1::2]).float()
        nearness = self.examples.features @ centred - fit.center @ centred
        rows = (difference @ self._pull.T) * nearness
        entropy = torch.zeros(len(pairs))
        if self.rules.rule == "marginal":
            each = torch.special.entr(found).sum(dim=1)  # in nats
            entropy = (each[::2] - each[1::2]).float()
        bias = difference @ fit.bias * factor
        return Contributions(rows, bias, entropy, difference @ logits + entropy)
