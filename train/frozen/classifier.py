"""A linear classifier on fixed features: a convex fit, tuned by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.progress import Progress, no_progress

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

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
    features: Tensor,
    labels: Tensor,
    groups: tuple[Tensor, Tensor] | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> LinearFit:
    """Fit multinomial logistic regression with a penalty on the squared weights.

    The penalty is the one under which images that were left out of a fit (cross-validation) are
    likeliest, each class counting alike: by the share of right answers, a few large classes would
    choose a penalty that leaves small ones no answer. The logits of these images also give the
    factor on all logits that makes probabilities right.

    Args:
        features: (images, features).
        labels: (images,) class indices from 0; at least two images of each class.
        groups: more images, of which only a group is known: their features (count, features), and
            the classes that each may have, (count, classes) bool. They take part in the last fit.
        seed: of the division into folds.
        progress: of the fits.
    """
    from threadpoolctl import threadpool_limits

    mean = features.mean(dim=0)
    rows, classes = (features - mean).numpy(), labels.numpy()
    more = rows[:0] if groups is None else (groups[0] - mean).numpy()
    fold = folds(classes, seed)
    few = _spread(fold, classes, CHOOSING)
    count, is_all = int(fold.max()) + 1, len(few) == len(rows)
    fits = count * (len(STRENGTHS) + (0 if is_all else 1)) + 1
    done = iter(progress(range(fits), fits, "fits"))
    # More threads than one wait for each other where other work is going on.
    with threadpool_limits(1 if len(rows) < CHOOSING else None):
        # The weights are in the space of the rows.
        basis = np.linalg.qr(np.concatenate([rows, more]).T)[0]
        rows, more = rows @ basis, more @ basis
        tried = _left_out(rows[few], classes[few], fold[few], STRENGTHS, done)
        best = int(np.argmin([_loss(logits, classes[few]) for logits in tried]))
        strength, logits = STRENGTHS[best], tried[best]
        if not is_all:
            (logits,) = _left_out(rows, classes, fold, [strength], done)
        model = _model(strength)
        _fit(model, rows, classes, done)
        weight, bias = _linear(model)
        if groups is not None:
            allowed = np.concatenate([np.eye(len(bias), dtype=bool)[classes], groups[1].numpy()])
            every = np.concatenate([rows, more])
            weight, bias = _fit_sets((weight, bias), every, allowed, strength)
    next(done, None)  # the bar is complete
    factor = _scaling(logits, classes)
    scaled = [
        torch.from_numpy(values * factor).float() for values in (weight @ basis.T, bias, logits)
    ]
    return LinearFit(scaled[0], scaled[1] - scaled[0] @ mean, scaled[2], strength, factor)


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
    return np.sort(np.concatenate([members[_turns(fold[members])][:share] for members in chosen]))


def _turns(fold: Array) -> Array:
    """Return an order of images that takes one of each fold in turn."""
    turn = np.array([np.count_nonzero(fold[:place] == fold[place]) for place in range(len(fold))])
    return np.lexsort((fold, turn))


def _left_out(
    rows: Array, labels: Array, fold: Array, strengths: Sequence[float], done: Iterator[int]
) -> Array:
    """Return logits (strengths, images, classes), each from a fit without the image's fold."""
    logits = np.zeros((len(strengths), len(rows), int(labels.max()) + 1))
    for number in range(int(fold.max()) + 1):
        kept = fold != number
        model = _model(strengths[0])
        for place, model.C in enumerate(strengths):  # each starts from the one before
            _fit(model, rows[kept], labels[kept], done)
            weight, bias = _linear(model)
            logits[place, ~kept] = rows[~kept] @ weight.T + bias
    return logits


def _model(strength: float) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=500, tol=1e-4, warm_start=True)


def _fit(model: LogisticRegression, rows: Array, labels: Array, done: Iterator[int]) -> None:
    from sklearn.exceptions import ConvergenceWarning

    next(done, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is good enough
        warnings.filterwarnings("ignore", message="The number of unique classes")  # two of each
        model.fit(rows, labels)


def _linear(model: LogisticRegression) -> tuple[Array, Array]:
    """Return weight (classes, features) and bias (classes,)."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes, the second's against the first's
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _fit_sets(
    start: tuple[Array, Array], rows: Array, allowed: Array, strength: float
) -> tuple[Array, Array]:
    """Return weight and bias of a fit to sets of classes, from those of a fit to single classes.

    Each image costs ``−log`` of the probability of the classes that it may have, (images, classes)
    bool. The slope is the softmax, less the softmax among these. The penalty is scikit-learn's.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp, softmax

    inputs = np.column_stack([rows, np.ones(len(rows))])
    shape = (len(start[1]), inputs.shape[1])
    penalty = np.append(np.full(rows.shape[1], 1 / (strength * len(rows))), 0)  # none on the bias

    def cost(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(shape)
        logits = inputs @ weights.T
        inside = np.where(allowed, logits, -np.inf)
        loss = np.mean(logsumexp(logits, axis=1) - logsumexp(inside, axis=1))
        slope = (softmax(logits, axis=1) - softmax(inside, axis=1)).T @ inputs / len(rows)
        loss += (penalty * weights**2).sum() / 2
        return float(loss), (slope + penalty * weights).ravel()

    flat = np.column_stack(start).ravel()
    options = {"maxiter": 500, "gtol": 1e-4}
    found = minimize(cost, flat, jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return found[:, :-1], found[:, -1]


def _loss(logits: Array, labels: Array) -> float:
    """Return the negative log-likelihood of scaled logits, the mean over classes of their means."""
    from scipy.special import log_softmax

    chances = log_softmax(logits * _scaling(logits, labels), axis=1)
    own = chances[np.arange(len(labels)), labels]
    return -float(np.mean(np.bincount(labels, own) / np.bincount(labels)))


def _scaling(logits: Array, labels: Array) -> float:
    """Return the factor on the logits that makes the labels likeliest.

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
    return float(np.exp(found.x))
