"""Corrections as training examples: their place in a hierarchy, their photographs, tensors of both."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from nbdt.correction import Correction, picture_hash
from nbdt.errors import nearest
from nbdt.images.image import ImageError, open_image
from nbdt.model.model import NBDT
from nbdt.network.positions import pools_by_average
from nbdt.tree.hierarchy import Hierarchy

ENCODED = 100  # photographs at a time


@dataclass(frozen=True)
class Target:
    """One correction, in the terms of one hierarchy."""

    correction: Correction  # the person's statement
    node: int  # index of the inner node that it is about; the root for a label
    # index of the right child (step), or of the one whose map counts (region); None for a label, and
    # where a region is about whichever child the model chooses
    child: int | None = None
    label: int | None = None  # index of the right class's or group's node

    def nodes(self, hierarchy: Hierarchy) -> list[int]:
        """Return the indices of the inner nodes whose decision it is about."""
        return [self.node] if self.label is None else hierarchy.path_to(self.label)[:-1]


@dataclass(frozen=True)
class LeftOut:
    """One correction that could not be used, and why."""

    correction: Correction
    reason: str


Opened: TypeAlias = list[tuple[Target, Image.Image]]


def summary(left_out: Sequence[LeftOut]) -> str:
    """Return one line for each reason, with counts."""
    counts = Counter(item.reason for item in left_out)
    return "\n".join(f"- {count:,} × {reason}" for reason, count in counts.items())


def find_targets(
    corrections: Iterable[Correction], hierarchy: Hierarchy
) -> tuple[list[Target], list[LeftOut]]:
    """Return the corrections in the terms of `hierarchy`, and those that have no place in it.

    Ids survive renames and edits. A correction that was made under an older hierarchy is used if its
    node and child still exist and one is still above the other. If nodes were put between them, it
    is about the step that leads towards the child. Nothing is guessed from names. If several
    corrections contradict each other about one decision on one photograph, the latest counts.
    """
    targets: dict[tuple[object, ...], Target] = {}
    left_out: list[LeftOut] = []
    for correction in sorted(corrections, key=lambda item: datetime.fromisoformat(item.time)):
        try:
            target = _target(correction, hierarchy)
        except _NoPlaceError as error:
            left_out.append(LeftOut(correction, str(error)))
            continue
        key = (correction.image, correction.kind, target.node, correction.region)
        before = targets.pop(key, None)
        if before is not None:
            left_out.append(LeftOut(before.correction, f"superseded at {correction.time}"))
        targets[key] = target
    return list(targets.values()), left_out


class _NoPlaceError(Exception):
    """Why a correction has no place in a hierarchy."""


def _target(correction: Correction, hierarchy: Hierarchy) -> Target:
    if correction.label is not None:
        label = _index_of(correction.label, hierarchy)
        if label == 0:
            raise _NoPlaceError(f"{correction.label!r} is the root: everything is under it")
        return Target(correction, 0, label=label)
    node = _index_of(str(correction.node), hierarchy)
    if not hierarchy.children[node]:
        raise _NoPlaceError(f"{correction.node!r} is a leaf: it decides nothing")
    if correction.child is None:
        return Target(correction, node)
    child = _index_of(correction.child, hierarchy)
    for parent, below in pairwise(hierarchy.path_to(child)):
        if parent == node:
            return Target(correction, node, below)
    raise _NoPlaceError(f"{correction.child!r} is not under {correction.node!r} in this hierarchy")


def _index_of(node_id: str, hierarchy: Hierarchy) -> int:
    if node_id not in hierarchy.ids:
        hint = nearest(node_id, hierarchy.classes)
        raise _NoPlaceError(f"there is no node with the id {node_id!r} in this hierarchy.{hint}")
    return hierarchy.ids.index(node_id)


def open_photographs(
    targets: Sequence[Target], root: str | os.PathLike[str] = "."
) -> tuple[Opened, list[LeftOut]]:
    """Return the photograph of each target, and the targets whose photograph is missing or differs.

    Args:
        targets: with references to files.
        root: where relative references start.
    """
    opened: Opened = []
    left_out: list[LeftOut] = []
    open_once = cache(lambda name: open_image(_located(Path(root), name), name=name))
    for target in targets:
        said = target.correction
        try:
            if not said.reference:
                raise ImageError("the record names no photograph")
            image = open_once(said.reference)
            if picture_hash(image) != said.image:
                different = "is another picture than the one that was corrected"
                raise ImageError(f"{said.reference!r} {different}")
        except ImageError as error:
            left_out.append(LeftOut(said, str(error)))
        else:
            opened.append((target, image))
    return opened, left_out


def _located(root: Path, file: str) -> Path:
    """Return a file's path below `root` or, if only that exists, below the current folder."""
    here, there = Path(file), root / file
    return here if here.exists() and not there.exists() else there


class CorrectionBatch(NamedTuple):
    """Corrections as tensors, one row each."""

    targets: list[Target]  # what each asks for; a region's child is filled in
    features: Tensor  # (corrections, features)
    maps: Tensor | None  # (corrections, features, height, width); None without region corrections
    # (corrections, height, width) share of each position in the region; None likewise
    region: Tensor | None


def correction_batch(model: NBDT, opened: Opened) -> CorrectionBatch:
    """Return corrections and their photographs as tensors; the model is in evaluation mode."""
    targets = [target for target, _ in opened]
    photographs: dict[str, Tensor] = {}  # several corrections of one photograph need it once
    for target, image in opened:
        photographs.setdefault(target.correction.image, model.preprocess(image))
    rows = [[*photographs].index(target.correction.image) for target in targets]
    inputs = torch.stack([*photographs.values()]).to(model.device)
    with torch.no_grad():
        maps = [model.feature_map(part) for part in inputs.split(ENCODED)]
        features = torch.cat([model.pool(part) for part in maps])[rows]
        targets = _with_children(model, features, targets)
    if all(target.correction.region is None for target in targets):
        return CorrectionBatch(targets, features, None, None)
    feature_maps = torch.cat(maps)[rows]
    return CorrectionBatch(targets, features, feature_maps, _regions(targets, feature_maps))


def _with_children(model: NBDT, features: Tensor, targets: Sequence[Target]) -> list[Target]:
    """Give each region without a child the child that the model chooses there."""
    log_probs = model.head.rules.log_probs(model.head.logits(features))
    return [
        dataclasses.replace(target, child=chosen_child(row, model.hierarchy, target.node))
        if target.correction.region is not None and target.child is None else target
        for row, target in zip(log_probs, targets, strict=True)
    ]  # fmt: skip


def chosen_child(log_probs: Tensor, hierarchy: Hierarchy, node: int) -> int:
    """Return the likeliest child of a node; `log_probs` is (nodes,)."""
    children = hierarchy.children[node]
    return children.start + int(log_probs[children.start : children.stop].argmax())


def _regions(targets: Sequence[Target], maps: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    shares = maps.new_zeros(len(targets), height, width)
    for row, target in enumerate(targets):
        if target.correction.region is not None:
            left, top, right, bottom = target.correction.region
            rows, columns = _covered(top, bottom, height), _covered(left, right, width)
            shares[row] = torch.outer(rows, columns).to(shares)
    return shares


def _covered(low: float, high: float, parts: int) -> Tensor:
    """(parts,) the share of each of `parts` equal intervals of [0, 1] between `low` and `high`."""
    starts = torch.arange(parts, dtype=torch.float64)
    return (high * parts - starts).clamp(0, 1) - (low * parts - starts).clamp(0, 1)


def without_regions(model: NBDT, opened: Opened, learn: str) -> tuple[Opened, list[LeftOut]]:
    """Return the corrections without regions, and the regions, unless the model can learn them."""
    regions = [pair for pair in opened if pair[0].correction.kind == "region"]
    if not regions:
        return opened, []
    reason = "an offset moves no map; learn a region with learn=head"
    if learn != "shift":
        if _has_closed_form(model, regions[0][1]):
            return opened, []
        reason = (
            f"{model.architecture!r} has no linear head on an average pool: no closed-form maps"
        )
    rest = [pair for pair in opened if pair[0].correction.kind != "region"]
    return rest, [LeftOut(target.correction, reason) for target, _ in regions]


def _has_closed_form(model: NBDT, image: Image.Image) -> bool:
    with torch.no_grad():
        maps = model.eval().feature_map(model.preprocess(image)[None].to(model.device))
    channels_first = maps.ndim == 4 and maps.shape[1] == model.head.linear.in_features
    side = model.preprocess.size
    return channels_first and pools_by_average(
        model.backbone, model.head.in_features, maps, (side, side)
    )
