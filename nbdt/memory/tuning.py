"""The penalty of a fit and the scale of its logits, both by cross-validation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..decide.head import DecisionRules
from ..progress import Progress, no_progress
from .fit import Design, LinearFit
from .targets import Targets

# For features of mean squared length 1. Below 3 none of the photographs measured gained, and with
# two a class, of which one is left out, cross-validation chooses too low a one.
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
FOLDS = 5
ROUGHLY = 1e-2  # tolerance of the fits that choose; the classifier's own is finer
CHOOSING = 4000  # images that choose the strength: more take minutes and change nothing
WIDEST = 4.0  # logarithm of the largest factor on the logits


@dataclass(frozen=True, eq=False)
class Tuned:
    """What cross-validation found."""

    strength: float  # the inverse weight of the penalty
    # what the logits are to be multiplied by, so that probabilities are right (temperature scaling: Guo
    # et al., "On Calibration of Modern Neural Networks", ICML 2017)
    factor: float
    logits: Tensor  # (images, classes) before the factor, each from a fit without the image's fold
    # the fit without each fold, where the next cross-validation starts
    fold_fits: tuple[LinearFit, ...]


def tune(
    design: Design, targets: Targets, fold: Tensor, *, progress: Progress = no_progress
) -> Tuned:
    """Choose the penalty under which images that were left out of a fit are likeliest.

    Each class counts alike: by the share of right answers, a few large classes would choose a
    penalty that leaves small ones no answer. Strengths rise until the loss does.

    `fold`: (images,) the fold of each; see `folds`.
    """
    scale = float(design.basis.variances.sum())
    few = _spread(fold, targets, CHOOSING)
    best: tuple[float, float, Tuned] | None = None
    fits: tuple[LinearFit, ...] = ()
    for relative in progress(iter(STRENGTHS), len(STRENGTHS), "penalties"):
        tried = left_out(design, targets, fold, relative / scale, fits, among=few)
        value, fits = _mean_loss(tried, targets, few), tried.fold_fits
        if best is not None and value > best[0]:
            break
        best = value, relative, tried
    _, _, found = best  # type: ignore[misc]
    return found if few.all() else left_out(design, targets, fold, found.strength, found.fold_fits)


def left_out(
    design: Design, targets: Targets, fold: Tensor, strength: float,
    starts: tuple[LinearFit, ...] = (), *, among: Tensor | None = None,
) -> Tuned:  # fmt: skip
    """Cross-validate one strength: fit without each fold, and answer the fold.

    Args:
        fold: (images,) the fold of each.
        strength: the inverse weight of the penalty.
        starts: fits to begin at, by fold.
        among: (images,) bool, the images that take part in fits.
    """
    logits = design.rows.new_zeros(len(fold), targets.groups.shape[1])
    among = torch.ones_like(fold, dtype=torch.bool) if among is None else among
    fits = []
    for number in range(int(fold.max()) + 1):
        start = starts[number] if starts else None
        others = among & (fold != number)
        fit = design.fit(targets, strength, start=start, among=others, tolerance=ROUGHLY)
        here = fold == number
        logits[here] = design.rows[here] @ (fit.weight @ design.basis.directions).T + fit.bias
        fits.append(fit)
    factor = scaling(logits[among], targets[among])
    return Tuned(strength, factor, logits, tuple(fits))


def folds(labels: Tensor, active: Tensor) -> Tensor:
    """Return the fold of each active row: as many of each label in every fold as possible.

    Rows that are struck out keep their turn, so that striking one out moves no other. No fold has
    all active rows of a label that has two or more.

    Args:
        labels: (rows,) of all rows.
        active: (rows,) bool.
    """
    _, place, counts = labels.unique(return_inverse=True, return_counts=True)
    count = min(FOLDS, int(counts.max()))
    fold = torch.zeros_like(labels)
    for label in range(len(counts)):
        members = (place == label).nonzero()[:, 0]
        fold[members] = (label + torch.arange(len(members))) % count
        there = members[active[members]]
        if len(there) > 1 and (fold[there] == fold[there[0]]).all():
            fold[there[0]] = (fold[there[0]] + 1) % count
    return fold[active]


def _spread(fold: Tensor, targets: Targets, most: int) -> Tensor:
    """Return a mask of about `most` images, as many of each class; at least two of each."""
    share = max(2, most // targets.groups.shape[1])
    chosen = torch.zeros_like(fold, dtype=torch.bool)
    for label in targets.labels.unique():
        members = (targets.labels == label).nonzero()[:, 0]
        # One of each fold in turn: the first two are in different folds.
        turn = torch.cat(
            [torch.arange(int((fold[members] == f).sum())) for f in fold[members].unique()]
        )
        order = members[fold[members].argsort(stable=True)][turn.argsort(stable=True)]
        chosen[order[:share]] = True
    return chosen


def _mean_loss(tried: Tuned, targets: Targets, among: Tensor) -> float:
    """Return the loss of scaled logits, the mean over labels of their means."""
    some = targets[among]
    losses = some.losses(tried.logits[among] * tried.factor)
    _, place = some.labels.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1).index_add_(0, place, losses)
    return float((sums / torch.bincount(place)).mean())


def scaling(logits: Tensor, targets: Targets, rules: DecisionRules | None = None) -> float:
    """Return the factor on the logits that makes the labels likeliest, under rules if given.

    The labels are taken as wrong once in as many images as there are, and two more (Platt,
    Probabilistic Outputs for Support Vector Machines, 1999): a few images that are all answered
    rightly would make the factor grow without end.
    """
    from scipy.optimize import minimize_scalar

    exact = targets.exact
    logits, labels = logits[exact].double(), targets.labels[exact]
    count, classes = logits.shape
    doubt = 1 / (count + 2)

    def value(log_factor: float) -> float:
        scaled = logits * np.exp(log_factor)
        chances = scaled.log_softmax(dim=1) if rules is None else rules(scaled)
        right = chances.gather(1, labels[:, None])[:, 0]
        wrong = (chances.sum(dim=1) - right) / (classes - 1)
        return -float(((1 - doubt) * right + doubt * wrong).mean())

    found = minimize_scalar(value, bounds=(-WIDEST, WIDEST), method="bounded")
    return float(np.exp(found.x))
