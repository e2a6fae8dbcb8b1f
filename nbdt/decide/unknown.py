"""How much an image resembles what the model knows, from its logits alone.

With many classes: the z-score of the largest logit among the others, whose largest 5 % do not count
(they are the classes that look alike). With few classes: the negative entropy of the answer.
Measured with ImageNet's classes, against pictures of other things: the z-score has an AUROC of 0.975
(drawings, faces) and 0.917 (animals and tools of other kinds), entropy 0.924 and 0.843; with
CIFAR-10's classes entropy has 0.853, the z-score 0.814. The energy (Liu et al., NeurIPS 2020) is
constant on log-probabilities, so it is not offered.
"""

import math

import torch
from torch import Tensor

FEW_CLASSES = 100
TRIMMED = 0.05  # share of the classes with the largest logits
FALSE_ALARMS = 0.05  # share of known images that the mark "unknown" may hit


def familiarity(logits: Tensor) -> Tensor:
    """Return how familiar each image is, (batch, classes) to (batch,) float64; larger is more.

    It does not change when a constant is added to an image's logits.
    """
    logits = logits.double()
    if logits.shape[1] < FEW_CLASSES:
        log_probs = logits.log_softmax(dim=1)
        return (log_probs.exp() * log_probs).sum(dim=1)
    logits = logits - logits.mean(dim=1, keepdim=True)
    top = logits.topk(math.ceil(TRIMMED * logits.shape[1]), dim=1).values
    count = logits.shape[1] - top.shape[1]
    mean = (logits.sum(dim=1) - top.sum(dim=1)) / count
    squares = logits.square().sum(dim=1) - top.square().sum(dim=1)
    return (top[:, 0] - mean) / ((squares - count * mean.square()) / (count - 1)).sqrt()


def rarity(scores: Tensor, known: Tensor) -> Tensor:
    """Return the conformal p-value of each score, (batch,), among (n,) sorted scores of known images.

    ``(1 + number of known scores ≤ score) / (n + 1)``: for images exchangeable with the known ones it
    is at most α with probability at most α (Vovk et al., 2005).
    """
    below = torch.searchsorted(known, scores.contiguous(), right=True)
    return (1 + below) / (len(known) + 1)
