"""Cascades: a small model answers where it is sure enough, and elsewhere a large one runs.

A cascade is an `NBDT`, the large model, with a `Cascade` as its attribute `cascade`: tree, rule, features
and memory are the large model's. The small one gets a reduced copy of the large one's input, and its own
logits count where every decision on its path is surer than a threshold.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..decide.head import NBDTHead
from ..decide.stopping import weakest_decision
from ..errors import NBDTError
from ..network.preprocessing import Preprocessing
from ..network.running import needs_torch
from .restrict import REMOVED

Model: TypeAlias = Any  # an NBDT, whose file imports this one
REFIT = "Fit the large model, then make the cascade again."
SMALL, LARGE = "small", "large"  # who answers; the small one is saved in a folder of that name


@dataclass(frozen=True)
class Gate:
    """When the small model answers: its weakest decision is surer than a threshold.

    Raises ValueError or TypeError: a number out of range, or none.
    """

    threshold: float  # 0: it always answers, 1: never
    temperature: float = 1.0  # divides its logits before they are compared with the threshold
    depth: int | None = None  # the number of decisions from the root that count; None: all

    def __post_init__(self) -> None:
        fits = 0 <= self.threshold <= 1 and 0 < self.temperature < math.inf
        deep = self.depth is None or (isinstance(self.depth, int) and self.depth >= 1)
        if not (fits and deep):
            raise ValueError(f"{self} is out of range")


@dataclass(frozen=True)
class Reduced(Preprocessing):
    """What gives the small model its input: the large one's, made smaller and normalised again."""

    seen: Preprocessing  # the large model's

    def facts(self) -> dict[str, Any]:
        """Return the fields; `Preprocessing.from_dict` reads the small model's own."""
        return {**asdict(self), "seen": self.seen.facts()}  # a function is none of them

    def frame(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """Return the square that both models see of an image, by default in the large one's size."""
        return self.seen.frame(image, size)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels of `frame` into inputs of the small model."""
        values = self.seen.normalise(pixels)
        return self.reduce(values) if values.ndim == 4 else self.reduce(values[None])[0]

    def reduce(self, images: Tensor) -> Tensor:
        """Turn the large model's inputs (batch, 3, height, width) into the small model's."""
        sides = [round(side * self.size / self.seen.size) for side in images.shape[-2:]]
        if sides != [*images.shape[-2:]]:
            mode = (
                self.interpolation if self.interpolation in {"bilinear", "bicubic"} else "bilinear"
            )
            wide = images if images.dtype == torch.float64 else images.float()  # CPUs lack others
            images = interpolate(wide, sides, mode=mode, antialias=True).to(images)
        if (self.mean, self.std) == (self.seen.mean, self.seen.std):
            return images
        old, new = (
            [images.new_tensor(of)[:, None, None] for of in (one.mean, one.std)]
            for one in (self.seen, self)
        )
        return (images * old[1] + (old[0] - new[0])) / new[1]


class Cascade(nn.Module):
    """The small model of a cascade, and when it answers.

    Args:
        small: an `NBDT` under the large model's hierarchy and rule.
        gate: when it answers.
        seen: the large model's preprocessing.
        judge: the head of the small model that the threshold was fitted on, by default its own. An
            edited tree, or fewer classes, do not change who answers an image.
    """

    def __init__(
        self, small: Model, gate: Gate, seen: Preprocessing, judge: NBDTHead | None = None
    ) -> None:
        super().__init__()
        self.small = copy.copy(small)
        self.small.preprocess = Reduced(**{**small.preprocess.facts(), "seen": seen})
        self.gate, self.judge = gate, judge or small.head
        self.training = small.training

    def with_small(self, small: Model) -> Cascade:
        """Return the same cascade with the small model under another tree or with fewer classes."""
        return Cascade(small, self.gate, self.small.preprocess.seen, self.judge)

    def small_as_fitted(self) -> Model:
        """Return the small model with the head that the threshold was fitted on."""
        own = copy.copy(self.small)
        own._modules = {**own._modules, "head": self.judge}  # noqa: SLF001
        own.reference, own._calibration = {}, None  # noqa: SLF001
        own.provenance = {n: v for n, v in own.provenance.items() if n != "removed_classes"}
        return own

    def scale_logits(self, factor: float) -> None:
        """Multiply the small model's logits; it answers the same images as before."""
        for head in {id(head.linear): head for head in (self.small.head, self.judge)}.values():
            head.scale_logits(factor)
        self.gate = replace(self.gate, temperature=self.gate.temperature * factor)

    def sure(self, features: Tensor) -> Tensor:
        """Return which images the small model answers, (batch,) bool, from its (batch, features)."""
        with torch.no_grad():
            return self.confidence(self.judge.logits(features)) > self.gate.threshold

    def confidence(self, logits: Tensor) -> Tensor:
        """Return the probability of the weakest decision that counts, (batch,), from `judge`'s logits."""
        rules, scaled = self.judge.rules, logits / self.gate.temperature
        return weakest_decision(rules, scaled, depth=self.gate.depth)

    def logits(self, large: Model, images: Tensor) -> Tensor:
        """Return class logits (batch, classes), each row from the model that answers.

        Args:
            large: the model that this belongs to.
            images: (batch, 3, height, width), preprocessed for the large model.
        """
        features = self.small.features(self.small.preprocess.reduce(images))
        logits = cast(Tensor, self.small.head.logits(features))
        rows = (~self.sure(features)).nonzero()[:, 0]
        if not len(rows):
            return logits
        own = large.head.logits(large.features(images[rows]))
        return logits.index_copy(0, rows, own.to(logits.dtype))


class Part(NamedTuple):
    """Some images, and the model that answers them."""

    by: str  # `SMALL` or `LARGE`; "" where there is one model
    model: Model
    images: Tensor  # its input
    rows: list[int]  # their places among all images


def members(model: Model) -> dict[str, Model]:
    """Return the models that may answer, by `Part.by`, each with the calibration of the whole."""
    cascade = model.cascade
    if cascade is None:
        return {"": model}
    model.calibration  # noqa: B018  computed once, for the copies
    large, small = copy.copy(model), copy.copy(cascade.small)
    large._modules = {**model._modules, "cascade": None}  # noqa: SLF001
    removed = {n: value for n, value in small.reference.items() if n.startswith(REMOVED)}
    common = {n: value for n, value in model.reference.items() if not n.startswith(REMOVED)}
    small.reference = common | removed
    small._calibration = ((id(small.reference), small.hierarchy.hash), model.calibration)  # noqa: SLF001
    return {SMALL: small, LARGE: large}


def scale_logits(model: Model, factor: float) -> None:
    """Multiply the logits of a model, or of both models of a cascade, in place."""
    model.head.scale_logits(factor)
    if model.cascade is not None:
        model.cascade.scale_logits(factor)


def split(model: Model, images: Tensor) -> list[Part]:
    """Return the model that answers each image of a batch, preprocessed for `model`.

    The small model's feature maps are computed on the way, and not again when a part is explained.
    """
    if model.cascade is None:
        return [Part("", model, images, [*range(len(images))])]
    small, large = members(model).values()
    with torch.inference_mode(False), torch.no_grad():
        images = images.clone() if images.is_inference() else images
        reduced = small.preprocess.reduce(images)
        feature_map = small.feature_map(reduced)
        sure = model.cascade.sure(small.pool(feature_map))
    rows, others = (chosen.nonzero()[:, 0] for chosen in (sure, ~sure))
    known = _knowing(small, reduced[rows], feature_map[rows])
    parts = (
        Part(SMALL, known, reduced[rows], rows.tolist()),
        Part(LARGE, large, images[others], others.tolist()),
    )
    return [part for part in parts if part.rows]


def _knowing(model: Model, images: Tensor, feature_map: Tensor) -> Model:
    """Return the same model, which need not compute the feature map of these images again."""
    own, computed = copy.copy(model), model.feature_map

    def known(given: Tensor) -> Tensor:
        plain = not torch.is_grad_enabled() and not needs_torch()  # neither gradients nor hooks
        same = plain and given.shape == images.shape and torch.equal(given, images)
        return feature_map if same else computed(given)

    own.feature_map = known
    return own


def refuse_cascade(model: Model, what: str, instead: str) -> None:
    """Raise NBDTError if a model is a cascade, which `what` cannot be done with."""
    if getattr(model, "cascade", None) is not None:
        raise NBDTError(f"A cascade, which is two models, cannot be {what}. {instead}")
