"""Fit a cascade on labelled photographs: when the small model answers, and what that gives."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nbdt.decide.answer import FEW
from nbdt.decide.head import DecisionRules, NBDTHead
from nbdt.decide.stopping import path_table
from nbdt.errors import NBDTError
from nbdt.model.cascade import LARGE, SMALL, Cascade, Gate
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.restrict import rows_of
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.labels import likeliest_under

from .calibrate import fitted_temperature, set_reference
from .comparison import CHUNK, rules_of
from .cost import cpu_seconds
from .logits import Logits

CASCADE = "cascade"
POINTS = 60  # of the operating curve


def in_cascade(small: NBDT, large: NBDT) -> NBDT:
    """Return the large model with the small one before it, which never answers yet.

    The small one takes the large one's tree, rule and order of classes. Neither given model changes.

    Raises NBDTError: other classes, or one of them is a cascade.
    """
    for name, model in ((SMALL, small), (LARGE, large)):
        if model.cascade is not None:
            raise NBDTError(f"The {name} model is a cascade itself; name one of its two models.")
    names, wanted = small.hierarchy.classes, large.hierarchy.classes
    linear = copy.deepcopy(small.head.linear)
    if names != wanted:
        if sorted(names) != sorted(wanted):
            remedy = "Both models need the same classes."
            check_same_classes(wanted, names, "the small model", "the large one's", remedy)
        linear = rows_of(linear, [names.index(name) for name in wanted])
    head = NBDTHead.from_linear(linear, large.hierarchy, rule=large.rule)
    first = NBDT(small.backbone, head, small.architecture, small.preprocess).eval()
    first.provenance = {name: v for name, v in small.provenance.items() if name != "memory"}
    whole = large.with_hierarchy(large.hierarchy)
    whole.cascade = Cascade(first, Gate(1.0), large.preprocess)
    parents = {SMALL: model_hash(small), LARGE: model_hash(large)}
    whole.provenance = {**large.provenance, CASCADE: {"parents": parents}}
    return whole.eval()


def fit_cascade(
    model: NBDT, small: Logits, large: Logits, *, agreement: float, depth: int | None = None
) -> dict[str, Any]:
    """Fit when the small model answers on half of the photographs, and measure it on the others.

    The others become the reference set if there are enough. What was measured is also kept as
    ``model.provenance["cascade"]``.

    Args:
        model: from `in_cascade`; it changes.
        small: logits of the small model, `model.cascade.small`; a label may be a group.
        large: those of the large model, of the same photographs.
        agreement: the share of answers that are to be the large model's, on average.
        depth: the number of decisions from the root that are to agree; None: all.

    Returns:
        Plain data for JSON.

    Raises NBDTError: other photographs, too few for that agreement, or a number out of range.
    """
    if small.files != large.files:
        raise NBDTError("The photographs changed while they were read; try again.")
    if not 0 < agreement < 1 or (depth is not None and depth < 1):
        raise NBDTError(f"Expected an agreement in (0, 1) and a depth ≥ 1: {agreement}, {depth}.")
    cascade, rules = model.cascade, rules_of(model.hierarchy, model.rule)
    if cascade is None:
        raise NBDTError("Expected a model from in_cascade, got one without a small model.")
    order = torch.randperm(len(small.labels), generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order[: len(order) // 2]] = True
    exact = chosen & (small.labels >= 0)
    temperature = fitted_temperature(rules, small.logits[exact], small.labels[exact])
    cascade.small.head.scale_logits(1 / temperature)
    small = replace(small, logits=small.logits / temperature)
    cascade.gate = Gate(1.0, depth=depth)
    confidence = torch.cat([cascade.confidence(part) for part in small.logits.split(CHUNK)])
    ends = [shown(rules, one.logits) for one in (small, large)]
    same = agrees(rules, *ends, depth)
    threshold = fitted_threshold(confidence[chosen], same[chosen], agreement)
    cascade.gate = replace(cascade.gate, threshold=threshold)
    rest = Answers(rules, small.pick(~chosen), large.pick(~chosen), confidence[~chosen], depth)
    if len(rest.large.labels) >= FEW:
        labels = likeliest_under(rest.mixed(threshold), rest.large.labels, model.hierarchy)
        set_reference(model, rest.mixed(threshold), labels)
    record = {
        **cascade.gate.to_dict(),
        "temperature": temperature,
        "asked": agreement,
        "fitted_on": int(chosen.sum()),
        "reference": len(rest.large.labels) if len(rest.large.labels) >= FEW else 0,
        **rest.measured(threshold),
        "curve": rest.curve(),
    }
    model.provenance[CASCADE] |= record
    return record


def fitted_threshold(confidence: Tensor, same: Tensor, agreement: float) -> float:
    """Return the smallest threshold that promises an agreement for new images like these.

    The expected share of images that the small model answers otherwise is at most one minus the
    agreement, for exchangeable images (Angelopoulos et al., Conformal Risk Control, ICLR 2024).

    Args:
        confidence: (images,) of the small model's weakest decision.
        same: (images,) bool, whether it answers as the large model does.
        agreement: from 0 to 1.

    Raises NBDTError: too few images to promise that.
    """
    allowed = math.floor((1 - agreement) * (len(same) + 1) + 1e-9) - 1
    if allowed < 0:
        least = math.ceil(1 / (1 - agreement) - 1e-9) - 1
        raise NBDTError(
            f"To promise an agreement of {agreement:.4g} takes {least} photographs in the half that is "
            f"fitted, got {len(same)}; add photographs or ask for less."
        )
    other = confidence[~same].sort(descending=True).values
    return float(other[allowed]) if len(other) > allowed else 0.0


def shown(rules: DecisionRules, logits: Tensor) -> Tensor:
    """Return the class that the shown path leads to, (images,), of logits (images, classes)."""
    with torch.no_grad():
        return torch.cat([rules(part).argmax(dim=1) for part in logits.split(CHUNK)])


def agrees(rules: DecisionRules, one: Tensor, other: Tensor, depth: int | None) -> Tensor:
    """Return whether the paths to two classes an image are the same, (images,) bool, to a depth."""
    table = path_table(rules.hierarchy)
    last = table.shape[1] if depth is None else depth + 1
    return (table[one] == table[other])[:, :last].all(dim=1)


class Answers:
    """The answers of both models to the same photographs, under every threshold."""

    def __init__(
        self,
        rules: DecisionRules,
        small: Logits,
        large: Logits,
        confidence: Tensor,
        depth: int | None,
    ) -> None:
        self.rules, self.small, self.large, self.confidence = rules, small, large, confidence
        ends = {SMALL: shown(rules, small.logits), LARGE: shown(rules, large.logits)}
        self.same = agrees(rules, *ends.values(), depth)
        self.exact = large.labels >= 0
        if not self.exact.any():
            raise NBDTError(
                "Expected photographs that have a class as their label, got groups alone."
            )
        self.right = {
            "flat": {
                name: one.logits.argmax(dim=1) == large.labels
                for name, one in ((SMALL, small), (LARGE, large))
            },
            "shown": {name: end == large.labels for name, end in ends.items()},
        }

    def mixed(self, threshold: float) -> Tensor:
        """Return the cascade's logits, (images, classes)."""
        sure = self.confidence > threshold
        return torch.where(sure[:, None], self.small.logits, self.large.logits)

    def measured(self, threshold: float) -> dict[str, Any]:
        """Return shares with their standard errors: accuracies, agreement, who answers."""
        sure = self.confidence > threshold
        accuracy = {}
        for kind, right in self.right.items():
            own = torch.where(sure, right[SMALL], right[LARGE])
            rows = {**right, CASCADE: own}
            accuracy[kind] = {name: _share(row[self.exact]) for name, row in rows.items()}
            gain = own.double() - right[LARGE].double()
            accuracy[kind]["cascade - large"] = _share(gain[self.exact])
        return {
            "images": len(sure),
            "accuracy": accuracy,
            "agreement": _share(~sure | self.same),
            "answered_by_small": _share(sure),
        }

    def curve(self) -> list[dict[str, float]]:
        """Return what each threshold gives, from the small model alone to the large one alone."""
        steps = torch.linspace(0, 1, POINTS, dtype=torch.float64)
        levels = self.confidence.double().quantile(steps).tolist()
        rows = []
        for threshold in [0.0, *levels]:
            sure = self.confidence > threshold
            right = torch.where(sure, *self.right["shown"].values())
            rows.append({
                "threshold": threshold,
                "answered_by_small": float(sure.double().mean()),
                "agreement": float((~sure | self.same).double().mean()),
                "accuracy": float(right[self.exact].double().mean()),
            })  # fmt: skip
        return rows


def _share(values: Tensor) -> dict[str, float]:
    """Return the mean of (count,) values and its standard error."""
    found = values.double()
    error = float(found.std()) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return {"value": float(found.mean()), "standard_error": error}


def costs(model: NBDT, by_small: float) -> dict[str, dict[str, float]]:
    """Return by images in a batch the CPU milliseconds an image of both models, and the cost of each.

    The cost is in times of the large model's; that of the cascade is the mean where the small model
    answers a share `by_small`.
    """
    found = {}
    for count, seconds in cpu_seconds(model, _runs(model)).items():
        ratio = seconds[SMALL] / seconds[LARGE]
        found[str(count)] = {
            **{f"{name}_ms": 1000 * value / count for name, value in seconds.items()},
            SMALL: ratio,
            CASCADE: ratio + 1 - by_small,
        }
    return found


def _runs(model: NBDT) -> Mapping[str, Any]:
    cascade = model.cascade
    if cascade is None:
        raise NBDTError("Expected a cascade.")

    def first(images: Tensor) -> Tensor:
        return cascade.sure(cascade.small.logits(cascade.small.preprocess.reduce(images)))

    return {SMALL: first, LARGE: lambda images: model.head.logits(model.features(images))}
