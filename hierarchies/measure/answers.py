"""How good a model's answers are on labelled photographs: what they promise, keep and mistake."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nbdt.decide.answer import LEAST, Calibration
from nbdt.decide.head import DecisionRules
from nbdt.decide.metrics import REORDERED, distance_at, reordered
from nbdt.decide.selective import (
    AnswerQuality,
    answer_quality,
    average_precision,
    calibration_by_level,
    right_nodes,
    risk_coverage,
    stopping_rules,
)
from nbdt.decide.stopping import PathMasses
from nbdt.decide.unknown import FALSE_ALARMS, familiarity, rarity
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.labels import classes_below, label_nodes, likeliest_under

from .comparison import CHUNK, TreeResult, measure, rules_of

REPEATS = 100  # of splitting photographs into two halves, each of which calibrates the other
TARGETS = (0.9, 0.95, 0.99)
SAME = 2e-3  # relative; a reference set stores logits as float16
POINTS = 100  # of a curve in the record
OWN, HALVES = "the model's reference set", "random halves of these photographs"

Parts = list[tuple[Calibration, Tensor]]


class Plan(NamedTuple):
    """Which photographs set the thresholds for which others."""

    source: str  # `OWN` or `HALVES`
    # how many of the photographs the reference set holds; those never calibrate themselves
    shared: int
    # calibrations, each with the photographs that it applies to, (images,) bool
    repeats: list[Parts]


class Measurement:
    """Answers to photographs under every threshold, from (images, classes) logits and (images,) labels."""

    def __init__(self, rules: DecisionRules, logits: Tensor, labels: Tensor) -> None:
        self.tree = rules.hierarchy
        parts = [PathMasses(rules, part) for part in logits.split(CHUNK)]
        self.masses = parts[0]
        for name in ("leaves", "nodes", "log_mass", "information"):
            setattr(self.masses, name, torch.cat([getattr(part, name) for part in parts]))
        self.depth = self.masses.true_depth(labels, rules)  # (images,) of the deepest right node
        self.known = torch.cat([familiarity(part) for part in logits.split(CHUNK)])  # (images,)
        self.critical = self.masses.critical.gather(1, self.depth[:, None])[:, 0]

    def calibration(self, chosen: Tensor, group: Tensor | None = None) -> Calibration:
        """Return what some photographs, (images,) bool, say about answers; `group` as in `Calibration`."""
        values = self.critical[chosen], self.known[chosen], self.masses.leaves[chosen]
        return Calibration.from_images(*values, self.tree, group)

    def stops(self, parts: Parts, target: float) -> Tensor:
        """Return the depth of each answer at a target, (images,), by the calibration for it."""
        stops = torch.zeros_like(self.depth)
        for calibration, mask in parts:
            threshold = calibration.thresholds(target, self.masses.leaves)
            stops[mask] = self.masses.stop(threshold)[mask]
        return stops

    def quality(self, repeats: Sequence[Parts], target: float) -> AnswerQuality:
        """Return how good the answers are at a target, on average over some calibrations."""
        rows = [
            answer_quality(self.masses, self.stops(parts, target), self.depth) for parts in repeats
        ]
        return AnswerQuality(*torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist())


def shared_rows(logits: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows of logits a reference set holds, (images,) bool, and where, (images,)."""
    held = reference.double()
    nearest = torch.cat(
        [torch.cdist(part.double(), held).argmin(dim=1) for part in logits.split(CHUNK)]
    )
    near = held[nearest]
    return ((logits - near).abs() <= SAME * (1 + near.abs())).all(dim=1), nearest


def without(reference: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
    """Return a reference set without the photographs of (images, classes) logits.

    What is left of a set that is measured in two parts is unlike either.
    """
    if not len(logits) or "logits" not in reference or not len(reference.get("labels", ())):
        return dict(reference)
    same, where = shared_rows(logits, reference["logits"])
    kept = torch.ones(len(reference["labels"]), dtype=torch.bool)
    kept[where[same]] = False
    return {**reference, **{name: reference[name][kept] for name in ("logits", "labels")}}


def plan_of(
    result: TreeResult, measurement: Measurement, reference: Mapping[str, Tensor]
) -> Plan | None:
    """Return which photographs may calibrate; None if there are fewer than 40 and none held out.

    The model's reference set does, without the photographs that are measured. Where too few remain,
    random halves of the photographs calibrate each other.
    """
    images, held = len(result.logits), without(reference, result.logits)
    shared = len(reference.get("labels", ())) - len(held.get("labels", ()))
    if calibration := Calibration.from_reference(result.rules, held):
        whole = torch.ones(images, dtype=torch.bool)
        return Plan(OWN, shared, [[(calibration, whole)]])
    if images < 2 * LEAST:
        return None
    return Plan(HALVES, shared, [halves(measurement, seed) for seed in range(REPEATS)])


def halves(measurement: Measurement, seed: int) -> Parts:
    """Return two calibrations, each from a random half of the photographs and for the other half."""
    images = len(measurement.depth)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    first = torch.zeros(images, dtype=torch.bool)
    first[order[: images // 2]] = True
    return [(measurement.calibration(half), ~half) for half in (first, ~first)]


def answer_record(
    result: TreeResult,
    reference: Mapping[str, Tensor],
    *,
    accuracy: float = 0.95,
    better_mistakes: bool = False,
    unknown: Tensor | None = None,
) -> dict[str, Any]:
    """Measure the answers of a tree on labelled photographs, as plain data for JSON.

    Args:
        result: with labels; `reference` is the model's, see `NBDT.reference`.
        accuracy: a target beside 90, 95 and 99 %.
        better_mistakes: also measure lists in the order of `nbdt.decide.metrics.reordered`.
        unknown: (images, classes) logits of photographs of other things.

    Raises NBDTError: an accuracy outside 0 to 1.
    """
    measurement = Measurement(result.rules, result.logits, result.known_labels)
    plan = plan_of(result, measurement, reference)
    kinds = ("plain", "reordered") if better_mistakes else ("plain",)
    levels = calibration_by_level(measurement.masses, measurement.depth, result.hierarchy)
    record: dict[str, Any] = {
        "accuracy": accuracy,
        **_at_targets(measurement, plan, sorted({*TARGETS, accuracy})),
        "rules": _rules(measurement),
        "levels": levels,
        "lists": {kind: _lists(result, kind) for kind in kinds},
    }
    if unknown is not None:
        record["unknown"] = _unknown(measurement, plan, unknown)
    return record


def group_record(
    logits: Tensor, labels: Tensor, tree: Hierarchy, rule: str, reference: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Measure answers to photographs that have a group as their label, as plain data for JSON.

    A class is right if it is in the group. An answer that stops above a class is right if it is in the
    group, is the group, or is above it: it does not contradict the label.

    Args:
        logits: (images, classes).
        labels: (images,) below 0: see `nbdt.tree.labels`; groups of `tree`.
        tree, rule, reference: the model's, or another tree over its classes.
    """
    below = classes_below(tree)[label_nodes(tree)[labels]]
    likeliest = likeliest_under(rules_of(tree, rule)(logits), labels, tree)
    result = measure(logits, likeliest, tree, rule)
    measurement = Measurement(result.rules, logits, likeliest)
    plan = plan_of(result, measurement, reference)
    record: dict[str, Any] = {"images": len(labels)} | _at_targets(measurement, plan, TARGETS)
    answers = {"flat": logits.argmax(dim=1), "soft": result.soft, "hard": result.hard}
    for kind, answer in answers.items():
        record[kind] = float(below.gather(1, answer[:, None]).double().mean())
    return record


def _at_targets(
    measurement: Measurement, plan: Plan | None, targets: Sequence[float]
) -> dict[str, Any]:
    """Return how good answers are at each target, and what set the thresholds, if there is a plan."""
    if plan is None:
        return {"targets": []}
    first, images = plan.repeats[0][0][0], len(measurement.depth)
    rows = [target_record(t, measurement.quality(plan.repeats, t), images, first) for t in targets]
    source = {"source": plan.source, "images": len(first), "shared": plan.shared}
    return {"targets": rows, "calibration": source}


def target_record(
    target: float, quality: AnswerQuality, images: int, calibration: Calibration
) -> dict[str, Any]:
    """Return a target, how good answers to so many images are at it, and the spread to expect."""
    from scipy.stats import binomtest

    interval = binomtest(round(quality.right * images), images).proportion_ci(method="wilson")
    spread = calibration.spread(target)
    return {"target": target, **quality._asdict(), "interval": (*interval,), "spread": spread}


def _rules(measurement: Measurement) -> dict[str, Any]:
    masses, depth = measurement.masses, measurement.depth
    right = right_nodes(depth, masses.nodes.shape[1])
    found = {}
    for rule, critical in stopping_rules(masses).items():
        curve = risk_coverage(critical, masses.information, right)
        shown = torch.linspace(0, len(curve.error) - 1, POINTS + 1).round().long()
        found[rule] = {
            "area": float(curve.area),
            "average_precision": average_precision(critical, masses.information, depth),
            "curve": torch.stack([*curve], dim=1)[shown].tolist(),
        }
    return found


def _lists(result: TreeResult, kind: str) -> dict[str, float]:
    count = REORDERED if kind == "reordered" else 1
    sums = torch.zeros(4, dtype=torch.float64)
    labels = result.known_labels
    for part, label in zip(result.logits.split(CHUNK), labels.split(CHUNK), strict=True):
        order = reordered(result.rules(part), result.hierarchy, count)
        distances = [distance_at(order, label, result.hierarchy, k).sum() for k in (1, 5, 20)]
        sums += torch.stack([*distances, (order[:, :5] == label[:, None]).sum()])
    names = ("distance_at_1", "distance_at_5", "distance_at_20", "top5")
    return dict(zip(names, (sums / len(labels)).tolist(), strict=True))


def _unknown(measurement: Measurement, plan: Plan | None, logits: Tensor) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([familiarity(part) for part in logits.split(CHUNK)])
    known = measurement.known
    is_known = torch.arange(len(known) + len(scores)) < len(known)
    auroc = float(roc_auc_score(is_known.numpy(), torch.cat([known, scores]).cpu().numpy()))
    record: dict[str, Any] = {"images": len(scores), "auroc": auroc}
    if plan:
        pairs = [pair for parts in plan.repeats for pair in parts]
        record["flagged"] = fmean(_flagged(c, scores) for c, _ in pairs)
        record["false_alarms"] = fmean(_flagged(c, known[mask]) for c, mask in pairs)
    return record


def _flagged(calibration: Calibration, scores: Tensor) -> float:
    return float((rarity(scores, calibration.known) <= FALSE_ALARMS).double().mean())
