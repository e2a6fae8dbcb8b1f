"""Accuracy of one model three ways: flat, soft and hard."""

from __future__ import annotations

import torch
from torch import Tensor

from nbdt.metrics import accuracy
from nbdt.model import NBDT

from .data import Labelled, normalise


def flat_logits(model: NBDT, data: Labelled, batch_size: int = 500) -> Tensor:
    """Class logits of all images, before any tree: (count, classes), float32."""
    mean, std = model.preprocess.mean, model.preprocess.std
    parts = []
    with torch.inference_mode():
        for images in data.images.split(batch_size):
            inputs = normalise(images, mean, std)
            parts.append(model.head.linear(model.features(inputs)).float())
    return torch.cat(parts).clone()


def accuracies(model: NBDT, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right answers, "flat", "soft" and "hard", from class logits."""
    rules = model.head.rules
    return {
        "flat": accuracy(logits.argmax(dim=1), labels),
        "soft": accuracy(rules(logits).argmax(dim=1), labels),
        "hard": accuracy(rules.hard(logits), labels),
    }
