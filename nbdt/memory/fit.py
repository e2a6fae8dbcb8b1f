"""The convex fit of a last layer: logistic regression with a penalty on the squared weights.

At its optimum the weights are a sum over the images (Yeh et al., "Representer Point Selection",
NeurIPS 2018): ``weight = strength · Σ_i a_i (x_i − center)ᵀ``, where ``a_i`` is minus the gradient of
image i's loss by its logits. `nbdt.memory.attribution` shows this sum, so the fit goes on until it
holds. Newton's method takes ten steps; L-BFGS stops at a hundred times the error and takes ten times
as long (`benchmarks/memory.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NBDTError
from .targets import State, Targets

TOLERANCE = 1e-5  # of the gradient's length, in lengths of the penalty's
COARSE = 3e-5  # the same, where many images make steps slow
MANY = 20_000  # images
STEPS = 60  # of Newton's method
PRODUCTS = 80  # with the Hessian, in one step
SOME = 2000  # images from which bfloat16 pays
SHORT = 0.01  # how far a step can be solved with it
NEGLIGIBLE = 1e-6  # variance of a direction, in the largest variance
COVERED = 1e-5  # share of a row's squared length that may be outside a basis


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fitted last layer."""

    weight: Tensor  # (classes, features) float32, of the features minus `center`
    bias: Tensor  # (classes,) float32, the logits at the center
    center: Tensor  # (features,) float32
    strength: float  # the inverse weight of the penalty, scikit-learn's C
    error: float  # the gradient's length at the end, in lengths of the penalty's

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (images, classes) of features (images, features)."""
        return features @ self.weight.T + (self.bias - self.weight @ self.center)


@dataclass(frozen=True, eq=False)
class Basis:
    """The principal directions of features, in which a fit is well conditioned."""

    center: Tensor  # (features,) subtracted from features
    directions: Tensor  # (features, directions), of unit length
    variances: Tensor  # (directions,) mean squares along them

    @classmethod
    def of(cls, features: Tensor, center: Tensor | None = None) -> "Basis":
        """Compute the basis of features (images, features), by default around their mean."""
        center = features.mean(dim=0) if center is None else center
        centred = features - center
        variances, directions = torch.linalg.eigh(centred.T @ centred)
        kept = variances > NEGLIGIBLE * variances[-1].clamp(min=1e-30)
        return cls(center, directions[:, kept], variances[kept] / len(features))


class Design:
    """The features of images in a basis, which every fit on them shares.

    `known`: a basis of features that are nearly the same, which is used again if it covers them.
    """

    def __init__(self, features: Tensor, known: Basis | None = None) -> None:
        features = features.float()
        if known is not None:
            centred = features - known.center
            self.basis, self.rows = known, centred @ known.directions
            outside = centred.square().sum(dim=1) - self.rows.square().sum(dim=1)
            if bool((outside < COVERED * centred.square().sum(dim=1)).all()):
                return
        self.basis = Basis.of(features, None if known is None else known.center)
        self.rows = (features - self.basis.center) @ self.basis.directions

    def fit(
        self, targets: Targets, strength: float, *, start: LinearFit | None = None,
        among: Tensor | None = None, tolerance: float | None = None,
    ) -> LinearFit:  # fmt: skip
        """Fit a last layer.

        Args:
            strength: the inverse weight of the penalty.
            start: a fit to begin at, such as the one before a label changed.
            among: (images,) bool, the images that take part; by default all.
            tolerance: where to stop; by default `TOLERANCE`, or `COARSE` with `MANY` images. The
                sum over the images then differs from a decision's log-odds by 5e-4 at most.

        Raises NBDTError: a class that no image shows: its logit would fall without end.
        """
        rows = self.rows
        if among is not None:
            rows, targets = rows[among], targets[among]
        check_every_class(targets)
        basis, count = self.basis, targets.groups.shape[1]
        weight, bias = rows.new_zeros(count, rows.shape[1]), rows.new_zeros(count)
        if start is not None:
            known = len(start.weight)  # classes that were added since begin at zero
            weight[:known] = start.weight @ basis.directions
            bias[:known] = start.bias + start.weight @ (basis.center - start.center)
        if tolerance is None:
            tolerance = TOLERANCE if len(rows) < MANY else COARSE
        problem = _Problem(rows, targets, 1 / strength, basis.variances)
        weight, bias, error = _newton(problem, weight, bias, tolerance)
        return LinearFit(weight @ basis.directions.T, bias, basis.center, strength, error)


def check_every_class(targets: Targets) -> None:
    """Raise NBDTError unless every class has an image."""
    counts = torch.bincount(targets.labels[targets.exact], minlength=targets.groups.shape[1])
    if (empty := (counts == 0).nonzero()[:, 0]).numel():
        raise NBDTError(
            f"{len(empty)} classes have no image to fit them on, the first with index "
            f"{int(empty[0])}. Add images of them, or leave these classes out."
        )


class _Problem:
    """The function that a fit minimises, on rows (images, directions)."""

    def __init__(self, rows: Tensor, targets: Targets, penalty: float, variances: Tensor) -> None:
        self.rows, self.targets, self.penalty, self.variances = rows, targets, penalty, variances
        self.mass = targets.weights.sum()
        # Products only lead to a step, whose gradient is then exact: half the bits will do.
        self.short = rows.bfloat16() if _is_fast_short(rows) else rows

    def value(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor, list[State]]:
        """Return the value, its gradients by weight and bias, and the states of the terms."""
        # Float32 would leave little of 1 − p where p is nearly 1, as in most of the images.
        logits = (self.rows @ weight.T + bias).double()
        losses = self.targets.losses(logits) @ self.targets.weights.double()
        value = losses + self.penalty / 2 * weight.double().square().sum()
        states = self.targets.states(logits)
        pull = self.targets.pull(states).to(weight.dtype)
        by_weight = self.penalty * weight - pull.T @ self.rows
        return float(value), by_weight, _centred(-pull.sum(dim=0)), states

    def product(self, states: list[State], weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply the Hessian with a direction."""
        kind = self.short.dtype
        change = (self.short @ weight.T.to(kind)).double().add_(bias)
        curved = self.targets.curve(states, change)
        by_weight = (curved.T.to(kind) @ self.short).to(weight.dtype) + self.penalty * weight
        return by_weight, _centred(curved.sum(dim=0).to(weight.dtype))

    def step(
        self, states: list[State], by_weight: Tensor, by_bias: Tensor, size: float, enough: float
    ) -> list[Tensor]:
        """Solve for Newton's step by conjugate gradients, until the gradient would be `enough`.

        They are preconditioned by the Hessian of independent classes and images: its directions are
        the principal ones.
        """
        spread = (self.targets.spread(states).float() / self.mass).clamp(min=1e-7)
        mass = spread * self.mass
        scales = 1 / (mass[:, None] * self.variances + self.penalty), 1 / mass
        step = [torch.zeros_like(by_weight), torch.zeros_like(by_bias)]
        rest = [-by_weight, -by_bias]
        scaled = [r * s for r, s in zip(rest, scales, strict=True)]
        way, now = [*scaled], _dot(rest, scaled)
        finest = 1e-3 if self.short is self.rows else SHORT
        goal = min(0.25, max(finest, size)) ** 2 * now  # exact steps pay off only near the optimum
        for _ in range(PRODUCTS):
            curved = self.product(states, way[0], way[1])
            curvature = _dot(way, curved)
            if not curvature > 0:  # rounding where all answers are certain; or groups
                return step if step[0].any() else way
            length = now / curvature
            step = [a + length * b for a, b in zip(step, way, strict=True)]
            rest = [a - length * b for a, b in zip(rest, curved, strict=True)]
            scaled = [r * s for r, s in zip(rest, scales, strict=True)]
            before, now = now, _dot(rest, scaled)
            if now <= goal or float(rest[0].norm()) <= enough:
                break
            way = [a + now / before * b for a, b in zip(scaled, way, strict=True)]
        return step


def _newton(
    problem: _Problem, weight: Tensor, bias: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """Return weight, bias and error at the optimum, by Newton's method with halved steps."""
    value, by_weight, by_bias, states = problem.value(weight, bias)
    last = weight, bias, float("inf")
    for _ in range(STEPS):
        # At zero weights there is no penalty yet to compare with.
        penalty = float(problem.penalty * weight.norm())
        size = float(by_weight.norm()) / max(penalty, 1e-30)
        here = weight, bias, size
        if last[2] < COARSE and size > last[2] / 2:  # rounding is all that is left
            return min(here, last, key=lambda found: found[2])
        if size < tolerance:
            break
        last = here
        enough = tolerance * penalty / 3
        step = problem.step(states, by_weight, by_bias, size, enough)
        slope, length = _dot([by_weight, by_bias], step), 1.0
        while True:
            tried = weight + length * step[0], bias + length * step[1]
            new, slopes, slope_bias, after = problem.value(*tried)
            # Rounding hides differences of a millionth.
            if new <= value + 1e-4 * length * slope + 1e-6 * abs(value) or length < 1e-3:
                break
            length /= 2
        (weight, bias), value = tried, new
        by_weight, by_bias, states = slopes, slope_bias, after
    return here


def _is_fast_short(rows: Tensor) -> bool:
    """Return whether the processor multiplies matrices of bfloat16 faster than of float32."""
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return len(rows) >= SOME and rows.device.type == "cpu" and known is not None and bool(known())


def _centred(bias: Tensor) -> Tensor:
    """Leave out what is the same for all classes: it is rounding, and changes no probability."""
    return bias - bias.mean()


def _dot(
    left: list[Tensor] | tuple[Tensor, ...], right: list[Tensor] | tuple[Tensor, ...]
) -> float:
    return sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))
