"""Where an answer stops: the node that it commits to, with a guarantee from calibration images.

The answer is an ancestor of the most probable leaf. With ``p(j)`` the probability of a node on that
path and ``info(j) = 1 − ln|L(j)| / ln C`` its information (a leaf has 1, the root 0), it is the node
with the largest ``(info(j) + λ) · p(j)``, the higher one where two are equal. With a larger λ it can
only move up (Deng et al., Hedging Your Bets, CVPR 2012, restricted to one path), so each calibration
image has one smallest λ from which on its answer contains its label. Split conformal prediction
takes the ``⌈(n + 1) · accuracy⌉``-th smallest of these (Vovk et al., Algorithmic Learning in a Random
World, 2005): for images that are exchangeable with the n calibration images the label is then under
the answer with at least that probability, on average over images and calibration sets. It does
not hold for each class, nor for photographs of another kind.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy
from .head import DecisionRules
from .paths import Path, as_percent
from .stopping import PathMasses
from .unknown import FALSE_ALARMS, familiarity, rarity

DEFAULT_ACCURACY = 0.95  # the target where none is given
LEAST = 20  # calibration images; a threshold from fewer is refused
FEW = 100  # calibration images; a threshold from fewer comes with a warning


@dataclass(frozen=True)
class Answer:
    """What the model commits to for one image.

    Attributes:
        node: id of the node in the hierarchy: a leaf, or an inner node where it is not sure enough.
        name: the node's name.
        probability: the node's probability, the sum over the classes under it.
        is_leaf: whether the node is a class.
        path: the decisions to the most probable leaf; the answer is a node on it.
        depth: how many of these decisions the answer takes.
        unknown: whether the image is unlike all that the model knows; None without calibration.
        accuracy: the guaranteed share of answers that are right; None if none is guaranteed.
        needed: the least probability of the path's child, at the decision where an answer stops above
            a class, with which it would have gone on; above 1 where that decision alone cannot
            change it. None for a class, and where only the root is allowed.
    """

    node: str
    name: str
    probability: float
    is_leaf: bool
    path: Path
    depth: int
    unknown: bool | None = None
    accuracy: float | None = None
    needed: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """All but the path, as plain data."""
        return {key: value for key, value in vars(self).items() if key != "path"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"answer": self.facts, **self.path.to_dict()}

    def __str__(self) -> str:
        return f"{self.name} ({as_percent(self.probability)})"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(str(self))}</b><br>{self.path._repr_html_()}"


@dataclass(frozen=True)
class Calibration:
    """What held-out images say about the answers of one head.

    With a group, images whose most probable class is in it have a threshold of their own, and so have
    the others: the guarantee then holds for each of these two parts (Mondrian conformal prediction:
    Vovk et al., 2005, section 4.5).

    Attributes:
        critical: (images,) sorted: the smallest λ at which each image's answer contains its label.
        known: (images,) sorted: the familiarity of each; see `nbdt.decide.unknown`.
        group: (classes,) bool: those in the group; None without one.
        parts: `critical` of the images outside the group and of those inside, sorted.
        group_name: what the group is called.
    """

    critical: Tensor
    known: Tensor
    group: Tensor | None = None
    parts: tuple[Tensor, ...] = ()
    group_name: str = ""

    @classmethod
    def from_logits(
        cls, rules: DecisionRules, logits: Tensor, labels: Tensor, group: Tensor | None = None
    ) -> "Calibration":
        """Compute it from (images, classes) logits and (images,) class indices.

        The images must not be ones that the network was trained on: thresholds from them promise
        too much (91.4 % where 95 % was asked for, with ImageNet).

        Args:
            rules: with its hierarchy.
            logits: (images, classes).
            labels: (images,) class indices.
            group: (classes,) bool, the classes of a group with a threshold of its own.

        Raises NBDTError: fewer than 20 images, also inside or outside the group, or logits that are not
        finite.
        """
        if len(labels) < LEAST:
            raise NBDTError(
                f"Expected at least {LEAST} labelled images for calibration, got {len(labels)}."
            )
        masses = PathMasses(rules, logits)
        depth = masses.true_depth(labels, rules)
        critical = masses.critical.gather(1, depth[:, None])[:, 0]
        made = cls.from_images(critical, familiarity(logits), masses.leaves, rules.hierarchy, group)
        counts = [len(part) for part in made.parts]
        if counts and min(counts) < LEAST:
            raise NBDTError(
                f"Expected at least {LEAST} calibration images on either side of the group "
                f"{made.group_name!r}, got {counts[1]} whose most probable class is in it and "
                f"{counts[0]} others. Add images, or choose another group."
            )
        return made

    @classmethod
    def from_images(
        cls, critical: Tensor, known: Tensor, leaves: Tensor, tree: Hierarchy, group: Tensor | None
    ) -> "Calibration":
        """Sort (images,) critical values and familiarities, by group where (classes,) has one."""
        ordered = critical.sort().values, known.sort().values
        if group is None:
            return cls(*ordered)
        inside = group.to(leaves.device)[leaves]
        parts = tuple(critical[side].sort().values for side in (~inside, inside))
        return cls(*ordered, group, parts, _group_name(tree, group))

    @classmethod
    def from_reference(
        cls, rules: DecisionRules, reference: Mapping[str, Tensor]
    ) -> "Calibration | None":
        """Compute it from a model's reference set; None if that has fewer than 20 images."""
        logits, labels = reference.get("logits"), reference.get("labels")
        if logits is None or labels is None or len(labels) < LEAST:
            return None
        device = rules.hierarchy_hash.device
        logits, labels = logits.float().to(device), labels.long().to(device)
        try:
            return cls.from_logits(rules, logits, labels, reference.get("group"))
        except NBDTError:  # too few on one side, under another tree or without some classes
            return cls.from_logits(rules, logits, labels)

    def __len__(self) -> int:
        return len(self.critical)

    def threshold(self, accuracy: float) -> float:
        """Return the λ at which new images' labels are under their answers with this probability.

        That is for all images together, whatever the group; see `thresholds`. Infinity, so that all
        answers are the root, where there are too few images for a target.

        Raises NBDTError: a target that is not between 0 and 1.
        """
        return _order_statistic(self.critical, check_target(accuracy))

    def thresholds(self, accuracy: float, leaves: Tensor) -> Tensor:
        """Return the λ of each image, (batch,), from its most probable class, (batch,).

        Raises NBDTError: a target that is not between 0 and 1.
        """
        if self.group is None:
            return leaves.new_full(leaves.shape, self.threshold(accuracy), dtype=torch.float64)
        values = [_order_statistic(part, check_target(accuracy)) for part in self.parts]
        inside = self.group.to(leaves.device)[leaves].long()
        return torch.tensor(values, dtype=torch.float64, device=leaves.device)[inside]

    def spread(self, accuracy: float, images: int | None = None) -> float:
        """Return the standard deviation, over sets of as many images, of the accuracy that results.

        The accuracy under one calibration set follows a beta distribution (Vovk, Conditional validity
        of inductive conformal predictors, 2012). `images` is the size of a part, if not of all.
        """
        count = (len(self) if images is None else images) + 1
        missed = math.floor(count * (1 - check_target(accuracy)))
        return math.sqrt((count - missed) * missed / (count**2 * (count + 1)))

    def unknown(self, logits: Tensor) -> Tensor:
        """Return whether each image is unlike what the model knows, (batch, classes) to (batch,)."""
        known = self.known.to(logits.device)
        return rarity(familiarity(logits), known) <= FALSE_ALARMS


def _order_statistic(critical: Tensor, accuracy: float) -> float:
    rank = math.ceil((len(critical) + 1) * accuracy)
    return float(critical[rank - 1]) if rank <= len(critical) else math.inf


def _group_name(tree: Hierarchy, group: Tensor) -> str:
    """Return the name of the node whose classes these are; an edited tree may have none."""
    classes = sorted(group.nonzero()[:, 0].tolist())
    for node in tree.inner_nodes:
        if len(tree.spans[node]) == len(classes) and sorted(tree.classes_under(node)) == classes:
            return tree.names[node]
    return f"{len(classes)} classes such as {tree.classes[classes[0]]}"


def promise(calibration: Calibration | None, accuracy: float | None) -> str:
    """Return what a target promises, in a sentence for the reader of an answer."""
    if accuracy is None:
        return ""
    if calibration is None:
        return (
            "This model is not calibrated, so its answers are always classes and nothing is promised: "
            "run nbdt calibrate on labelled photographs."
        )
    share = as_percent(accuracy, 1 if accuracy > 0.99 else 0)
    sizes = [len(part) for part in calibration.parts] or [len(calibration)]
    spread = [as_percent(calibration.spread(accuracy, size)) for size in sizes]
    over = f"photographs like the {len(calibration):,} of the calibration"
    if calibration.parts:
        return (
            f"{share} of such answers are right, on average over {over}: both among those whose most "
            f"probable class is in the group {calibration.group_name} (± {spread[1]}, {sizes[1]:,} "
            f"photographs) and among the others (± {spread[0]}, {sizes[0]:,}); not for each class, nor "
            "for other kinds of photographs."
        )
    return (
        f"{share} of such answers are right (± {spread[0]}), on average over {over}; "
        "not for each class, nor for other kinds of photographs."
    )


def check_target(accuracy: float) -> float:
    """Return a target. Raises NBDTError unless it is between 0 and 1."""
    if not 0 < accuracy < 1:
        raise NBDTError(
            f"Expected an accuracy between 0 and 1, such as 0.95, or none for classes; got {accuracy}."
        )
    return accuracy


def answers(
    rules: DecisionRules,
    logits: Tensor,
    calibration: Calibration | None,
    accuracy: float | None = DEFAULT_ACCURACY,
    paths: Sequence[Path] | None = None,
) -> list[Answer]:
    """Return what the model commits to for each image of (batch, classes) logits.

    `paths` are those of the images, where they are known. Without calibration, or with accuracy None, the answers are classes.

    Raises NBDTError: another shape, logits that are not finite, or a target outside 0 to 1.
    """
    if accuracy is not None:
        check_target(accuracy)
    with torch.inference_mode():
        masses = PathMasses(rules, logits)
        target = None if calibration is None else accuracy
        leaves, certain = masses.leaves, masses.log_mass.new_full((len(logits),), -math.inf)
        threshold = calibration.thresholds(target, leaves) if calibration and target else certain
        depths = masses.stop(threshold)
        unknown = calibration.unknown(logits).tolist() if calibration else [None] * len(logits)
        nodes = masses.nodes.gather(1, depths[:, None])[:, 0].tolist()
        needed = masses.needed(depths, threshold).tolist()
        chances = masses.log_mass.exp().gather(1, depths[:, None])[:, 0].tolist()
        paths = rules.paths(logits, masses.leaves) if paths is None else paths
    tree = rules.hierarchy
    rows = zip(nodes, chances, paths, depths.tolist(), unknown, needed, strict=True)
    return [
        Answer(
            node=tree.ids[node],
            name=tree.names[node],
            probability=min(chance, 1.0),
            is_leaf=not tree.children[node],
            path=path,
            depth=min(depth, len(path)),
            unknown=flag,
            accuracy=target,
            needed=share if tree.children[node] and math.isfinite(share) else None,
        )
        for node, chance, path, depth, flag, share in rows
    ]
