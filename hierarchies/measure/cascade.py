"""Fit a cascade on labelled photographs: when the small model answers, and what that gives."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from nbdt.decide.answer import FEW
from nbdt.decide.head import DecisionRules, NBDTHead
from nbdt.decide.stopping import path_table, weakest_decision
from nbdt.errors import NBDTError
from nbdt.model.cascade import LARGE, SMALL, Cascade, Gate
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.restrict import REMOVED, rows_of
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.labels import likeliest_under

from .calibrate import fitted_temperature, set_reference
from .comparison import CHUNK, measure, rules_of
from .cost import seconds
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
    cascade, rules = model.cascade, rules_of(model.hierarchy, model.rule)
    if cascade is None or small.files != large.files:
        raise NBDTError(
            "Expected a model from in_cascade, and both models' logits of one data set."
        )
    check_promise(agreement, len(small.labels))
    if depth is not None and depth < 1:
        raise NBDTError(f"The depth is a number of decisions: expected 1 or more, got {depth}.")
    order = torch.randperm(len(small.labels), generator=torch.Generator().manual_seed(0))
    chosen = order.argsort() < len(order) // 2
    exact = chosen & (small.labels >= 0)
    temperature = fitted_temperature(rules, small.logits[exact], small.labels[exact])
    cascade.small.head.scale_logits(1 / temperature)
    both = Both(rules, replace(small, logits=small.logits / temperature), large, depth)
    threshold = fitted_threshold(both.confidence[chosen], both.same[chosen], agreement)
    cascade.gate = Gate(threshold, depth=depth)
    held = int((~chosen).sum())
    if held >= FEW:
        logits = both.logits(threshold)[~chosen]
        labels = likeliest_under(logits, large.labels[~chosen], model.hierarchy)
        set_reference(model, logits, labels)
    else:  # the large model's would promise what the small one may not keep
        kept = {n: value for n, value in model.reference.items() if n.startswith(REMOVED)}
        model.reference = kept
    record = {
        "asked": agreement,
        "depth": depth,
        "temperature": temperature,
        "fitted_on": int(chosen.sum()),
        "images": held,
        "reference": held if held >= FEW else 0,
        **both.measured(threshold, ~chosen),
        "curve": [both.measured(level, ~chosen) for level in both.levels(~chosen)],
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
    check_promise(agreement, 2 * len(same))
    allowed = math.floor((1 - agreement) * (len(same) + 1) + 1e-9) - 1
    other = confidence[~same].sort(descending=True).values
    return float(other[allowed]) if len(other) > allowed else 0.0


def check_promise(agreement: float, count: int) -> None:
    """Check that half of `count` photographs are enough to promise an agreement.

    Raises NBDTError: they are not, or the agreement is not between 0 and 1.
    """
    if not 0 < agreement < 1:
        raise NBDTError(
            "The agreement is a share of answers: expected a number between 0 and 1, such as 0.99, got "
            f"{agreement:g}."
        )
    least = math.ceil(1 / (1 - agreement) - 1e-9) - 1
    if count // 2 < least:
        most = math.floor(1000 * (1 - 1 / (count // 2 + 1))) / 1000
        less = f"ask for less, {most:g} at most" if most else "ask for less"
        raise NBDTError(
            f"To promise an agreement of {agreement:.4g} takes {2 * least:,} photographs, half of them to "
            f"fit the threshold, got {count:,}; add photographs or {less}."
        )


class Both:
    """The answers of two models to the same photographs, under every threshold."""

    def __init__(
        self, rules: DecisionRules, small: Logits, large: Logits, depth: int | None
    ) -> None:
        pair = {SMALL: small, LARGE: large}
        results = {
            who: measure(one.logits, None, rules.hierarchy, rules.rule) for who, one in pair.items()
        }
        self.small, self.large = small.logits, large.logits
        parts = small.logits.split(CHUNK)
        # (images,) of the small model's weakest decision, float64, and whether both paths are one
        self.confidence = torch.cat([weakest_decision(rules, p, depth=depth) for p in parts])
        table = path_table(rules.hierarchy)[:, : None if depth is None else depth + 1]
        ends = [table[result.soft] for result in results.values()]
        self.same = (ends[0] == ends[1]).all(dim=1)
        self.exact = large.labels >= 0  # by a group, an answer is not right or wrong
        if not self.exact.any():
            raise NBDTError(
                "Expected photographs that have a class as their label, got groups alone."
            )
        answers = {who: result.answers for who, result in results.items()}
        self.right = {
            name: {who: one[kind] == large.labels for who, one in answers.items()}
            for name, kind in (("flat", "flat"), ("shown", "soft"))
        }

    def logits(self, threshold: float) -> Tensor:
        """Return the cascade's logits, (images, classes)."""
        return torch.where((self.confidence > threshold)[:, None], self.small, self.large)

    def levels(self, chosen: Tensor) -> list[float]:
        """Return thresholds from the small model alone to the large one alone, for some images."""
        steps = torch.linspace(0, 1, POINTS, dtype=torch.float64)
        return [0.0, *self.confidence[chosen].quantile(steps).tolist()]

    def measured(self, threshold: float, chosen: Tensor) -> dict[str, Any]:
        """Return shares of some images, (images,) bool, each with its standard error."""
        sure, exact = self.confidence > threshold, self.exact & chosen
        accuracy = {}
        for kind, right in self.right.items():
            own = torch.where(sure, right[SMALL], right[LARGE])
            gain = own.double() - right[LARGE].double()
            rows = {**right, CASCADE: own, "cascade - large": gain}
            accuracy[kind] = {name: _share(row[exact]) for name, row in rows.items()}
        return {
            "threshold": threshold,
            "accuracy": accuracy,
            "agreement": _share((~sure | self.same)[chosen]),
            "answered_by_small": _share(sure[chosen]),
        }


def _share(values: Tensor) -> dict[str, float]:
    """Return the mean of (count,) values and its standard error."""
    found = values.double()
    return {"value": float(found.mean()), "standard_error": float(found.std()) / len(found) ** 0.5}


def costs(model: NBDT, by_small: float) -> dict[str, dict[str, float]]:
    """Return by images in a batch the CPU milliseconds an image of both models, and the cost of each.

    The cost is in times of the large model's; that of the cascade is the mean where the small model
    answers a share `by_small`.
    """
    cascade = cast(Cascade, model.cascade)

    def first(images: Tensor) -> Tensor:
        return cascade.sure(cascade.small.features(cascade.small.preprocess.reduce(images)))

    runs = {SMALL: first, LARGE: lambda images: model.head.logits(model.features(images))}
    found = {}
    for count, spent in seconds(model, runs, time.process_time).items():
        ratio = spent[SMALL] / spent[LARGE]
        times = {f"{name}_ms": 1000 * value / count for name, value in spent.items()}
        found[str(count)] = {**times, SMALL: ratio, CASCADE: ratio + 1 - by_small}
    return found
