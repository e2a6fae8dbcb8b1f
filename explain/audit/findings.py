"""The findings of an audit in sentences: merits and failures of each method."""

from __future__ import annotations

from collections.abc import Mapping

from .methods import CONTROLS
from .result import Estimate, MethodAudit, Values, estimate

SANE = 0.5  # largest rank correlation with the maps of random weights that passes
CURVES = ("deletion blur", "insertion blur", "deletion mean", "insertion mean")


def findings(methods: Mapping[str, MethodAudit]) -> list[str]:
    """Return sentences on every method that is no control, in order."""
    return [
        f"{name}: {sentence}"
        for name, method in methods.items()
        if name not in CONTROLS
        for sentence in (_faithful(methods, name), _specific(method), _sane(method))
    ]


def advantage(method: MethodAudit, control: MethodAudit, curve: str) -> Estimate:
    """Return by how much a method's area is better than a control's, image by image.

    Deletion should fall early (a small area), insertion rise early (a large one).
    """
    difference: Values = method.values[curve] - control.values[curve]
    return estimate(-difference if curve.startswith("deletion") else difference)


def beaten(methods: Mapping[str, MethodAudit], name: str) -> dict[str, list[str]]:
    """Return for each curve the controls that a method beats, with an interval above 0."""
    method = methods[name]
    return {
        curve: [
            control
            for control in CONTROLS
            if control != name and advantage(method, methods[control], curve).low > 0
        ]
        for curve in CURVES
    }


def _faithful(methods: Mapping[str, MethodAudit], name: str) -> str:
    won = beaten(methods, name)
    lost = [
        f"{control} under {curve}"
        for curve, controls in won.items()
        for control in CONTROLS
        if control not in controls
    ]
    if not lost:
        return "finds what decides: better than both controls on every curve."
    if not any(won.values()):
        return "FAILS to find what decides: better than a random map or the centre on no curve."
    return f"finds what decides in part: no better, or not surely, than {', '.join(lost)}."


def _specific(method: MethodAudit) -> str:
    pair = [method.estimates[f"specificity path_share {name}"] for name in ("blur", "mean")]
    if not pair[0].images:
        return "specificity does not apply: every path has a single decision."
    shown = " and ".join(f"{value.mean:.0%}" for value in pair)
    if all(value.low > 0.5 for value in pair):
        return (
            f"is specific: its top regions move their own decision more than others ({shown} of "
            "comparisons along a path, blur and mean; one map for all decisions wins at most half)."
        )
    word = "FAILS to be" if all(value.mean <= 0.5 for value in pair) else "is not surely"
    return f"{word} specific to its decision ({shown} of comparisons along a path, blur and mean)."


def _sane(method: MethodAudit) -> str:
    value = max(abs(method.sanity["all"]), abs(method.absolute_sanity["all"]))
    if value > SANE:
        return (
            f"FAILS the sanity check: its maps hardly change (rank correlation {value:.2f}) when "
            "all weights are replaced by random ones."
        )
    return f"passes the sanity check (rank correlation {value:.2f} with a random network's maps)."
