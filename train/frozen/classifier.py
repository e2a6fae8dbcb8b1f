"""A linear classifier on fixed features: a convex fit, tuned by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.progress import Progress, no_progress

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # scikit-learn's C: inverse weights of the penalty
FOLDS = 5
WIDEST = 4.0  # logarithm of the largest factor on the logits
CHOOSING = 4000  # images that choose the strength: more take minutes and change nothing

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fitted classifier.

    Attributes:
        weight: (classes, features) float32.
        bias: (classes,) float32.
        logits: (images, classes) float32 of the training images, each from a classifier that was
            fitted without it.
        strength: the inverse weight of the penalty, chosen from `STRENGTHS`.
        factor: that the logits were multiplied by, so that probabilities are right (temperature
            scaling: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    """

    weight: Tensor
    bias: Tensor
    logits: Tensor
    strength: float
    factor: float


def fit_linear(
    features: Tensor, labels: Tensor, *, seed: int = 0, progress: Progress = no_progress
) -> LinearFit:
    """Fit multinomial logistic regression with a penalty on the squared weights.

    The penalty is the one under which images that were left out of the fit (cross-validation) are
    likeliest, once their logits are scaled by one factor, as calibration does.

    Args:
        features: (images, features).
        labels: (images,) class indices from 0; at least two images of each class.
        seed: of the division into folds.
        progress: of the fits.
    """
    mean = features.mean(dim=0)
    rows, classes = (features - mean).numpy(), labels.numpy()
    fold = folds(classes, seed)
    few = _spread(fold, classes, CHOOSING)
    count = int(fold.max()) + 1
    fits = count * len(STRENGTHS) + 1 + (count if len(few) < len(rows) else 0)
    done = iter(progress(range(fits), fits, "fits"))
    tried = [_left_out(rows[few], classes[few], fold[few], c, done) for c in STRENGTHS]
    best = int(np.argmin([_scaling(logits, classes[few])[1] for logits in tried]))
    strength, logits = STRENGTHS[best], tried[best]
    if len(few) < len(rows):
        logits = _left_out(rows, classes, fold, strength, done)
    weight, bias = _fit(rows, classes, strength, done)
    next(done, None)  # the bar is complete
    factor, _ = _scaling(logits, classes)
    weight, bias, logits = (
        torch.from_numpy(values * factor).float() for values in (weight, bias, logits)
    )
    return LinearFit(weight, bias - weight @ mean, logits, strength, factor)


def folds(labels: Array, seed: int) -> Array:
    """Return the fold of each image: as many of each class in every fold as possible.

    No fold has all images of a class that has two or more.
    """
    draw, fold = np.random.default_rng(seed), np.zeros(len(labels), np.int64)
    count = min(FOLDS, int(np.bincount(labels).max()))
    start = 0
    for label in np.unique(labels):
        members = draw.permutation(np.flatnonzero(labels == label))
        fold[members] = (start + np.arange(len(members))) % count
        start += len(members)
    return fold


def _spread(fold: Array, labels: Array, most: int) -> Array:
    """Return the indices of about `most` images, as many of each class; at least two of each."""
    share = max(2, most // (int(labels.max()) + 1))
    chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    # The first images of a class, by fold, are in different folds.
    return np.concatenate([members[_turns(fold[members])][:share] for members in chosen])


def _turns(fold: Array) -> Array:
    """Return an order of images that takes one of each fold in turn."""
    turn = np.array([np.count_nonzero(fold[:place] == fold[place]) for place in range(len(fold))])
    return np.lexsort((fold, turn))


def _left_out(
    rows: Array, labels: Array, fold: Array, strength: float, done: Iterator[int]
) -> Array:
    """Return logits (images, classes), each from a fit without the image's fold."""
    logits = np.zeros((len(rows), int(labels.max()) + 1))
    for number in range(int(fold.max()) + 1):
        kept = fold != number
        weight, bias = _fit(rows[kept], labels[kept], strength, done)
        logits[~kept] = rows[~kept] @ weight.T + bias
    return logits


def _fit(rows: Array, labels: Array, strength: float, done: Iterator[int]) -> tuple[Array, Array]:
    """Return weight (classes, features) and bias (classes,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    next(done, None)
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is good enough
        model.fit(rows, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes, the second's against the first's
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _scaling(logits: Array, labels: Array) -> tuple[float, float]:
    """Return the factor on the logits that makes the labels likeliest, and the mean loss with it.

    The labels are taken as wrong once in as many images as there are, and two more (Platt,
    Probabilistic Outputs for Support Vector Machines, 1999): a few images that are all answered
    rightly would make the factor grow without end.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    doubt = 1 / (count + 2)

    def loss(log_factor: float) -> float:
        chances = log_softmax(logits * np.exp(log_factor), axis=1)
        right = chances[np.arange(count), labels]
        wrong = (chances.sum(axis=1) - right) / (classes - 1)
        return -float(((1 - doubt) * right + doubt * wrong).mean())

    found = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded")
    return float(np.exp(found.x)), float(found.fun)
