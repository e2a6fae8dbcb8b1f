"""Accuracy of one model three ways: flat, soft and hard."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nbdt.decide.metrics import accuracy
from nbdt.model.model import NBDT

from ..data.dataset import Images, Labelled, PlainBatches, normalise


def flat_logits(
    model: NBDT, data: Images, batch_size: int | None = None, workers: int = 0
) -> Tensor:
    """Class logits of all images, before any tree: (count, classes), float32."""
    mean, std = model.preprocess.mean, model.preprocess.std
    device = model.device
    parts = []
    with torch.inference_mode():
        for images, _ in PlainBatches(data, batch_size, model.preprocess, workers):
            inputs = normalise(images.to(device), mean, std)
            parts.append(model.logits(inputs).float().cpu())
    return torch.cat(parts).clone()


def features(module: Any, data: Images, workers: int = 0) -> Labelled:
    """What a frozen backbone makes of images, once: (count, features) float32, with the labels.

    Args:
        module: a `TreeSupervised`.
        data: the images.
        workers: processes that read them.
    """
    network, device = module.network.eval(), "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    mean, std = module.preprocessing.mean, module.preprocessing.std
    parts = []
    with torch.inference_mode():
        for images, _ in PlainBatches(data, 100, module.preprocessing, workers):
            inputs = normalise(images.to(device), mean, std)
            pooled = network.forward_head(network.forward_features(inputs), pre_logits=True)
            parts.append(pooled.float().cpu())
    network.train()
    return Labelled(torch.cat(parts).clone(), data.labels)


def accuracies(model: NBDT, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right answers, "flat", "soft" and "hard", from class logits."""
    rules = model.head.rules
    return {
        "flat": accuracy(logits.argmax(dim=1), labels),
        "soft": accuracy(rules(logits).argmax(dim=1), labels),
        "hard": accuracy(rules.hard(logits), labels),
    }
