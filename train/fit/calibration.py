"""Probabilities that come true: one factor on all logits, chosen on held-out images."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from nbdt.decide.head import DecisionRules
from nbdt.model.model import NBDT

BOUND = 4.0  # few images, all answered rightly, would have it grow for ever


def calibrate(model: NBDT, logits: Tensor, labels: Tensor) -> float:
    """Scale the last layer so that held-out labels get the likelihood they deserve.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), of the
    tree's soft answer where the paper has the softmax; under `marginal` the two are the same. Flat
    answers stay as they are. Hard answers do under `representative`; under `marginal` they come
    nearer to the flat ones as the factor grows.

    Args:
        model: its last layer is changed.
        logits: (images, classes), what the last layer gave for held-out images.
        labels: (images,) class indices.

    Returns:
        The factor, an inverse temperature from 1 / `BOUND` to `BOUND`.
    """
    rules, logits = DecisionRules(model.hierarchy, rule=model.rule), logits.cpu().double()

    def loss(log_factor: float) -> float:
        with torch.no_grad():
            return float(F.nll_loss(rules(logits * math.exp(log_factor)), labels))

    limit = math.log(BOUND)
    factor = math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)
    with torch.no_grad():
        for parameter in model.head.linear.parameters():
            parameter.mul_(factor)
    return factor
