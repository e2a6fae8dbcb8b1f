"""What compression changed in the answers to labelled photographs, and a table of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor

from nbdt.decide.answer import answers
from nbdt.decide.stopping import weakest_decision
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT

from .comparison import TreeResult, measure, quality
from .logits import Logits

BANDS = (0.0, 0.5, 0.6, 0.8, 0.9, 1.0)  # of the probability of a path's weakest decision
SURE = 0.6
ACCURACY = 0.95  # of the answers that are compared
KINDS = {"flat": "flat", "shown": "soft", "hard": "hard"}  # rows, and their names in `quality`


def compared(original: NBDT, small: NBDT, before: Logits, after: Logits) -> dict[str, Any]:
    """Return plain data for JSON: accuracies, what is unchanged, and calibration errors.

    Args:
        original: the model before.
        small: the model after, with the same hierarchy.
        before: the original's logits of labelled photographs.
        after: those of the small model.

    Raises NBDTError: a photograph that only one of them has.
    """
    if before.files != after.files:
        raise NBDTError("The photographs changed during the comparison; try again.")
    results = [
        measure(one.logits, one.labels, original.hierarchy, original.rule)
        for one in (before, after)
    ]
    qualities = [quality(result) for result in results]
    record: dict[str, Any] = {"images": len(before.labels)}
    for row, name in KINDS.items():
        record[row] = _both(*(found[name]["accuracy"] for found in qualities))
    record["calibration_error"] = _both(*(q["soft"]["calibration_error"] for q in qualities))
    record["unchanged"] = _unchanged(original, small, *results)
    return record


def _both(original: Any, compressed: Any) -> dict[str, Any]:
    return {"original": original, "compressed": compressed}


def _unchanged(
    original: NBDT, small: NBDT, before: TreeResult, after: TreeResult
) -> dict[str, Any]:
    """Return shares of answers and of whole paths that are the same, also by confidence."""
    same, weakest = before.soft == after.soft, weakest_decision(before.rules, before.logits)
    given = [
        answers(result.rules, result.logits, model.calibration, ACCURACY)
        for model, result in ((original, before), (small, after))
    ]
    bands = [
        {"from": low, "to": high, "images": int(chosen.sum()), "paths": _share(same[chosen])}
        for low, high in pairwise(BANDS)
        for chosen in [(weakest >= low) & ((weakest < high) | (high == BANDS[-1]))]
    ]
    sure = weakest >= SURE
    return {
        "answers": sum(a.node == b.node for a, b in zip(*given, strict=True)) / len(same),
        "paths": _share(same),
        "hard_paths": _share(before.hard == after.hard),
        "sure": {"from": SURE, "images": int(sure.sum()), "paths": _share(same[sure])},
        "by_weakest_decision": bands,
    }


def _share(same: Tensor) -> float | None:
    return float(same.double().mean()) if len(same) else None


def lines(record: dict[str, Any], to: str) -> Iterator[str]:
    """Yield the lines of a table for a person to read."""
    yield f"{record['images']:,} held-out photographs{'':7}{'original':>12}{to:>14}"
    for row, text in (("flat", "flat"), ("shown", "path shown"), ("hard", "hard")):
        old, new = record[row].values()
        yield f"{text + ', right':<32}{old:>11.2%}{new:>14.2%}"
    for key, text in (("calibration_error", "calibration error"), ("temperature", "temperature")):
        old, new = record[key].values()
        form = ".2%" if key == "calibration_error" else ".3f"
        yield f"{text:<32}{old:>11{form}}{new:>14{form}}"
    speeds = record["speed"]
    for count, row in speeds["images_a_second"].items():
        old, new = row.values()
        text = f"images a second, batch {count}"
        yield f"{text:<32}{old:>11.1f}{new:>14.1f}  ({new / old:.1f} ×)"
    old, new = record["bytes"].values()
    yield f"{'size, MB':<32}{old / 1e6:>11.1f}{new / 1e6:>14.1f}  ({new / old:.2f} ×)"
    old, new = record["memory"].values()
    if old is not None and new is not None:
        yield f"{'memory beyond the libraries, MB':<32}{old / 1e6:>11.0f}{new / 1e6:>14.0f}"
    yield f"threads: {speeds['threads']}; the original in torch, memory at batch 8"
    kept = record["unchanged"]
    yield (
        f"unchanged: {kept['answers']:.1%} of answers at {ACCURACY:.0%}, {kept['paths']:.1%} of paths "
        f"shown, {kept['hard_paths']:.1%} of greedy paths"
    )
    for band in kept["by_weakest_decision"]:
        if band["images"]:
            yield (
                f"  weakest decision from {band['from']:.0%} to {band['to']:.0%}: {band['paths']:.1%} "
                f"of {band['images']:,} paths"
            )
