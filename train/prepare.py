"""What a run is fitted on: a network, the classes, and labelled images."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from nbdt.images.layout import TEST, TRAIN, VALIDATION
from nbdt.network.preprocessing import Preprocessing
from nbdt.progress import Progress, Say
from nbdt.tree.hierarchy import Hierarchy

from .data.class_order import ClassOrder, class_order
from .data.dataset import Images, hold_out
from .data.inspection import Scan, inspect, say_left_out, scan
from .data.splits import find_splits
from .fit.network import start_network, whiten, with_classes
from .folder import Report, RunFolder
from .recipe import Recipe
from .tree import TreePlan, plan_tree


@dataclass(frozen=True, eq=False)
class RunRequest:
    """What a run is asked for; `nbdt.train.run.train` describes it."""

    recipe: Recipe
    data: str | os.PathLike[str]
    folder: RunFolder
    hierarchy: Hierarchy | str | None
    weights: str | os.PathLike[str] | None
    meanings: Mapping[str | int, str]
    command: str
    progress: Progress
    report: Report | None
    say: Say


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is fitted: a network, and labelled images."""

    asked: RunRequest
    recipe: Recipe  # with the architecture and the size of the network
    network: nn.Module  # with one output a class
    knows_classes: bool  # whether its classifier was trained for these classes
    preprocessing: Preprocessing  # of the network
    order: ClassOrder  # of the classes
    hierarchy: Hierarchy | None  # None if it is made from the fitted classifier, by the plan
    plan: TreePlan | None  # None if the hierarchy was given
    images: dict[str, Images]  # by split
    contents: str  # SHA-256 of all labels and images, wherever they are

    def facts(self) -> dict[str, Any]:
        """Return what the run depends on."""
        return {
            "command": self.asked.command,
            "recipe": dataclasses.asdict(self.recipe),
            "contents_sha256": self.contents,
            "hierarchy": self.hierarchy.hash if self.hierarchy else None,
        }


def prepare(asked: RunRequest, *, choosing: bool) -> Prepared:
    """Make the network, then read the data; raises as `nbdt.train.run.train` does.

    With `choosing`, images for choices are held out of a frozen fit, too.
    """
    start = start_network(asked.recipe, asked.weights)
    recipe, hierarchy = start.recipe, asked.hierarchy
    splits = find_splits(asked.data, recipe)
    scans = {name: scan(split, recipe, asked.progress) for name, split in splits.items()}
    given = hierarchy if isinstance(hierarchy, Hierarchy) else None
    order = class_order(scans[TRAIN].classes, recipe.classes, given)
    order, images = inspect(scans, recipe, order)
    if TEST not in images:
        images[TRAIN], images[TEST] = hold_out(images[TRAIN], recipe.held_out_test, recipe.seed + 1)
    if VALIDATION not in images:
        images[TRAIN], images[VALIDATION] = hold_out(images[TRAIN], recipe.held_out, recipe.seed)
    if recipe.freeze_backbone and not choosing:  # cross-validation makes the choices
        images[TRAIN] = images[TRAIN].joined(images.pop(VALIDATION))
    _announce(asked.say, scans, images, order)
    plan = None
    if not isinstance(hierarchy, Hierarchy):
        plan = plan_tree(hierarchy, order, recipe, asked.meanings, asked.say)
        given = None if recipe.freeze_backbone else plan.make(None)
    network, knows_classes = with_classes(start, order)
    if recipe.whiten and not start.has_weights:
        whiten(network, images[TRAIN], start.preprocessing, recipe.whiten)
    contents = hashlib.sha256(b"".join(scanned.digest.digest() for scanned in scans.values()))
    return Prepared(
        asked, recipe, network, knows_classes, start.preprocessing, order, given, plan, images,
        contents.hexdigest(),
    )  # fmt: skip


def _announce(
    say: Say, scans: dict[str, Scan], images: dict[str, Images], order: ClassOrder
) -> None:
    count = {name: len(part.labels) for name, part in images.items()}
    drawn = [name for name in (VALIDATION, TEST) if name in images and name not in scans]
    choices = f"{count[VALIDATION]:,} for choices, " if VALIDATION in count else ""
    say(
        f"{len(order.names)} classes, in the order of {order.origin}. {count[TRAIN]:,} images to "
        f"train on, {choices}{count[TEST]:,} for the test"
        + (f"; {' and '.join(drawn)} drawn from the training images." if drawn else ".")
    )
    if groups := int((images[TRAIN].labels < 0).sum()):
        say(f"{groups:,} of the images to train on have a group as their label: any class in it.")
    for data in {scanned.split.data: None for scanned in scans.values()}:
        parts = [scanned for scanned in scans.values() if scanned.split.data is data]
        report = data.report(*(part for s in parts if (part := s.split.part) is not None))
        unreadable = sum(len(scanned.failed) for scanned in parts)
        report.used -= unreadable
        report.images["unreadable"] += unreadable
        for line in report.lines():
            say(line)
    for scanned in scans.values():
        say_left_out(say, scanned.split.name, scanned.failed)
