"""What an audit's measures say, in sentences: a method's merits and its failures alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .methods import CONTROLS
from .result import Estimate, estimate

if TYPE_CHECKING:
    from .run import Audit, MethodAudit

SANE = 0.5  # rank correlation with maps of a network without trained weights: above, they ignore it
CURVES = ("deletion blur", "insertion blur", "deletion mean", "insertion mean")


def findings(audit: Audit) -> list[str]:
    """Sentences on every method that is no control, in order."""
    found = []
    for name, method in audit.methods.items():
        if name not in CONTROLS:
            found += [f"{name}: {sentence}" for sentence in _sentences(audit, method)]
    return found


def _sentences(audit: Audit, method: MethodAudit) -> list[str]:
    return [_faithful(audit, method), _specific(method), _sane(method)]


def advantage(method: MethodAudit, control: MethodAudit, curve: str) -> Estimate:
    """How much better a method's area is than a control's, image by image: above 0 is better.

    Deletion should fall early (a small area), insertion rise early (a large one).
    """
    difference: NDArray[np.float64] = method.values[curve] - control.values[curve]
    return estimate(-difference if curve.startswith("deletion") else difference)


def beaten(audit: Audit, name: str) -> dict[str, list[str]]:
    """For each curve the controls that a method beats, by an interval that excludes 0."""
    method = audit.methods[name]
    return {
        curve: [
            control
            for control in CONTROLS
            if control != name and advantage(method, audit.methods[control], curve).low > 0
        ]
        for curve in CURVES
    }


def _faithful(audit: Audit, method: MethodAudit) -> str:
    won = beaten(audit, method.method)
    lost = [
        f"{control} under {curve}"
        for curve, controls in won.items()
        for control in CONTROLS
        if control not in controls
    ]
    if not lost:
        return "finds what decides: on every curve better than both controls."
    if not any(won.values()):
        return "FAILS to find what decides: on no curve better than a random map or the centre."
    return f"finds what decides only in part: not shown better than {', '.join(lost)}."


def _specific(method: MethodAudit) -> str:
    pair = [method.estimates[f"specificity path_share {name}"] for name in ("blur", "mean")]
    if not pair[0].images:
        return "specificity does not apply: every path has a single decision."
    shown = " and ".join(f"{value.mean:.0%}" for value in pair)
    if all(value.low > 0.5 for value in pair):
        return (
            f"is specific: its top regions move their own decision more than others ({shown} of "
            "comparisons along a path, blur and mean; a map that is no decision's own wins at most "
            "half)."
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
