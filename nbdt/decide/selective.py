"""Quality of answers that may stop above a class: pure functions.

A stopping rule is a table of critical values, (images, depth + 1): the smallest threshold at which
each image's answer is at a depth of its path or above it, as in `PathMasses.critical`. It does not
rise with depth and is −∞ in the last column. Every rule here answers on the path to the most
probable class, so that rules differ only in where they stop.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy
from .metrics import calibration_error
from .stopping import PathMasses

FIXED = 0.65  # probability of a group at which SpeciesNet answers with it
RULES = ("information", "climb", "top-down", "fixed 0.65", "class or nothing")


def stopping_rules(masses: PathMasses) -> dict[str, Tensor]:
    """Return the critical values of five stopping rules, by their names in `RULES`.

    - information: the largest ``(information + λ) · probability``; see `nbdt.decide.answer`.
    - climb: the deepest node whose probability is above the threshold (Valmadre, Hierarchical
      classification at multiple operating points, NeurIPS 2022, on one path).
    - top-down: the node before the first decision whose probability is not above the threshold
      (Redmon and Farhadi, YOLO9000, CVPR 2017).
    - fixed 0.65: a climb to at least 0.65, as SpeciesNet does (Gadot et al., To crop or not to crop,
      2024). Above that threshold an answer that is not probable enough becomes the root.
    - class or nothing: the class if it is probable enough, else the root (Geifman and El-Yaniv,
      Selective classification for deep neural networks, NeurIPS 2017).
    """
    mass = masses.log_mass.exp()
    below = mass[:, 1:]
    steps = masses.log_mass.diff(dim=1).exp()
    kept = torch.where(mass > FIXED, mass, math.inf).amin(dim=1, keepdim=True)
    tables = (
        below,
        steps.cummin(dim=1).values,
        torch.where(below > FIXED, kept, below),
        below[:, -1:].expand_as(below),
    )
    last = torch.full_like(mass[:, :1], -math.inf)
    critical = (masses.critical, *(torch.cat([table, last], dim=1) for table in tables))
    return dict(zip(RULES, critical, strict=True))


def right_nodes(depth: Tensor, size: int) -> Tensor:
    """Return which of `size` nodes of each path are above the label, (images, size) bool.

    `depth` is that of the deepest one, (images,), as `PathMasses.true_depth` gives it.
    """
    return torch.arange(size, device=depth.device) <= depth[:, None]


def swept(critical: Tensor, values: Tensor) -> Tensor:
    """Return the mean value of the answers at every threshold, from the classes to the root.

    Args:
        critical: (images, depth + 1) of a stopping rule.
        values: (images, depth + 1), what each node is worth as the answer.

    Returns:
        (thresholds + 1): below all thresholds, then at each distinct one in rising order.

    Raises NBDTError: no images, or shapes that do not fit.
    """
    if not len(critical) or critical.shape != values.shape:
        raise NBDTError(
            f"Expected critical values and values of one shape with images, got "
            f"{tuple(critical.shape)} and {tuple(values.shape)}."
        )
    values = values.double()
    thresholds, order = critical[:, :-1].flatten().sort()
    finite = int((thresholds < math.inf).sum())
    thresholds, order = thresholds[:finite], order[:finite]
    change = (values[:, :-1] - values[:, 1:]).flatten()[order]
    last = torch.ones(finite, dtype=torch.bool, device=critical.device)
    last[:-1] = thresholds[1:] != thresholds[:-1]
    start = values[:, -1].sum(dim=0, keepdim=True)
    return torch.cat([start, start + change.cumsum(dim=0)[last]]) / len(critical)


class RiskCurve(NamedTuple):
    """What a stopping rule loses as it answers with less."""

    information: Tensor  # (points,) mean information of the answers, falling to 0
    error: Tensor  # (points,) share of wrong answers

    @property
    def area(self) -> Tensor:
        """Area under error against information, (): 0 is best.

        The area under the hierarchical risk-coverage curve (Goren et al., Hierarchical selective
        classification, NeurIPS 2024), from the root to the classes.
        """
        return -torch.trapezoid(self.error, self.information)


def risk_coverage(critical: Tensor, information: Tensor, right: Tensor) -> RiskCurve:
    """Return error against mean information, as the threshold sweeps from classes to the root.

    `critical` is as in `swept`, `information` as in `PathMasses`; `right` is from `right_nodes`.

    Raises NBDTError: no images, or shapes that do not fit.
    """
    kept, error = swept(critical, information), 1 - swept(critical, right)
    end = torch.zeros_like(kept[:1])  # the root, which says nothing and is never wrong
    return RiskCurve(torch.cat([kept, end]), torch.cat([error, end]))


def average_precision(critical: Tensor, information: Tensor, depth: Tensor) -> float:
    """Return the area under precision against recall, both in information; 1 is best.

    With I the information of the last node that answer and label share, precision is the mean of I
    over the answer's information (1 for the root), recall the mean of I (Valmadre, Hierarchical
    classification at multiple operating points, NeurIPS 2022).

    Args:
        critical, information: as in `risk_coverage`.
        depth: (images,) of the deepest right node, as `PathMasses.true_depth` gives it.

    Raises NBDTError: no images, or shapes that do not fit.
    """
    shared = torch.minimum(information, information.gather(1, depth[:, None]))
    precision = torch.where(information > 0, shared / information, 1.0)
    kept, sure = swept(critical, shared), swept(critical, precision)
    end = kept.new_tensor([0.0])
    return float(-torch.trapezoid(torch.cat([sure, end + 1]), torch.cat([kept, end])))


class AnswerQuality(NamedTuple):
    """How good answers at given depths are."""

    right: float  # share whose label is the answer or under it; the root always is
    information: float  # mean information of the answers
    classes: float  # this and the next two: shares of answers of each kind
    groups: float
    root: float


def answer_quality(masses: PathMasses, stops: Tensor, depth: Tensor) -> AnswerQuality:
    """Return how good the answers at (images,) depths are; `depth` is as in `average_precision`."""
    kept = masses.information.gather(1, stops[:, None])[:, 0]
    nodes = masses.nodes.gather(1, stops[:, None])[:, 0]
    leaf, root = nodes == masses.nodes[:, -1], nodes == 0
    shares = (stops <= depth, kept, leaf, ~leaf & ~root, root)
    return AnswerQuality(*(float(share.double().mean()) for share in shares))


def calibration_by_level(
    masses: PathMasses, depth: Tensor, tree: Hierarchy
) -> list[dict[str, float]]:
    """Return, for each depth of a tree, how far its nodes' probabilities are from the share right.

    The expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)
    of the nodes on the path to the most probable class. `depth` is as in `average_precision`.
    "images" are those whose path has a node there, "probability" is the mean of these nodes', "right"
    the share with the label under them.
    """
    depths = torch.tensor(tree.depths, device=masses.nodes.device)[masses.nodes]
    right = right_nodes(depth, depths.shape[1])
    mass = masses.log_mass.exp().clamp(max=1)
    found = []
    for level in range(1, depths.shape[1]):
        here = depths[:, level] == level  # shorter paths repeat their leaf
        if here.any():
            chance, hit = mass[here, level], right[here, level]
            means = {"probability": float(chance.mean()), "right": float(hit.double().mean())}
            error = {"calibration_error": calibration_error(chance, hit)}
            found.append({"depth": level, "images": int(here.sum()), **means, **error})
    return found
