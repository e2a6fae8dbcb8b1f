"""Photographs and what people said of them, as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from nbdt.model.model import NBDT
from nbdt.network.positions import pools_by_average

from .targets import LeftOut, Target


class Told(NamedTuple):
    """Corrections as tensors, one row each.

    Attributes:
        targets: what each asks for; a region's child is filled in.
        inputs: (corrections, 3, size, size), preprocessed.
        features: (corrections, features).
        maps: (corrections, features, height, width); None without region corrections.
        region: (corrections, height, width) share of each position in the region; None likewise.
    """

    targets: list[Target]
    inputs: Tensor
    features: Tensor
    maps: Tensor | None
    region: Tensor | None


def told(
    model: NBDT, opened: Sequence[tuple[Target, Image.Image]], fixed: list[Target] | None = None
) -> Told:
    """Photographs and what was said of them, as tensors.

    Args:
        model: in evaluation mode.
        opened: targets and their photographs.
        fixed: the targets of an earlier call, whose regions' children stay.
    """
    device = model.device
    inputs = torch.stack([model.preprocess(image) for _, image in opened]).to(device)
    with torch.no_grad():
        features, maps = encoded(model.eval(), inputs, [target for target, _ in opened])
        targets = fixed or _children(model, features, [target for target, _ in opened])
    region = None if maps is None else _regions(targets, maps)
    return Told(targets, inputs, features, maps, region)


def encoded(model: NBDT, inputs: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor | None]:
    """Pooled features of inputs (count, 3, size, size), and where regions need them the maps."""
    feature_maps = [model.feature_map(part) for part in inputs.split(100)]
    features = torch.cat([model.pool(part) for part in feature_maps])
    if all(target.correction.region is None for target in targets):
        return features, None
    return features, torch.cat(feature_maps)


def _children(model: NBDT, features: Tensor, targets: Sequence[Target]) -> list[Target]:
    """A region without a child is about the child that the model chooses there."""
    log_probs = model.head.rules.log_probs(model.head.logits(features))
    found = []
    for row, target in zip(log_probs, targets, strict=True):
        if target.correction.region is not None and target.child is None:
            children = model.hierarchy.children[target.node]
            best = children.start + int(row[children.start : children.stop].argmax())
            found.append(dataclasses.replace(target, child=best))
        else:
            found.append(target)
    return found


def _regions(targets: Sequence[Target], maps: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    found = maps.new_zeros(len(targets), height, width)
    for row, target in enumerate(targets):
        if target.correction.region is not None:
            left, top, right, bottom = target.correction.region
            rows, columns = _covered(top, bottom, height), _covered(left, right, width)
            found[row] = torch.outer(rows, columns).to(found)
    return found


def _covered(low: float, high: float, parts: int) -> Tensor:
    """(parts,) the share of each of `parts` equal intervals of [0, 1] between `low` and `high`."""
    starts = torch.arange(parts, dtype=torch.float64)
    return (high * parts - starts).clamp(0, 1) - (low * parts - starts).clamp(0, 1)


def with_maps(
    model: NBDT, opened: list[tuple[Target, Image.Image]], learn: str
) -> tuple[list[tuple[Target, Image.Image]], list[LeftOut]]:
    """Without the region corrections, where they cannot be learnt."""
    regions = [pair for pair in opened if pair[0].correction.kind == "region"]
    if not regions:
        return opened, []
    reason = "an offset moves no map; learn a region with learn=head or learn=all"
    if learn != "shift":
        if _has_closed_form(model, regions[0][1]):
            return opened, []
        reason = (
            f"{model.architecture!r} has no linear head on an average pool: no closed-form maps"
        )
    kept = [pair for pair in opened if pair[0].correction.kind != "region"]
    return kept, [LeftOut(target.correction, reason) for target, _ in regions]


def _has_closed_form(model: NBDT, image: Image.Image) -> bool:
    device = model.device
    with torch.no_grad():
        maps = model.eval().feature_map(model.preprocess(image)[None].to(device))
    channels_first = maps.ndim == 4 and maps.shape[1] == model.head.linear.in_features
    side = model.preprocess.size
    return channels_first and pools_by_average(model, maps, (side, side))
