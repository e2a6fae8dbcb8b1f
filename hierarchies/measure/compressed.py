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

from ..show.tables import plain_console, table
from .comparison import TreeResult, measure, quality
from .cost import AT_ONCE
from .logits import Logits

BANDS = (0.0, 0.5, 0.6, 0.8, 0.9, 1.0)  # of the probability of a path's weakest decision
SURE = 0.6
ACCURACY = 0.95  # of the answers that are compared
KINDS = {"flat": "flat", "shown": "soft", "hard": "hard"}  # in the record, and in `TreeResult`
ROWS = {
    "flat": "best class without the tree, right",
    "shown": "path shown, right",
    "hard": "greedy descent, right",
}


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
        old, new = (found.answers[name] == found.known_labels for found in results)
        change = new.double() - old.double()
        record[row] = _both(*(found[name]["accuracy"] for found in qualities))
        record[row]["standard_error"] = float(change.std()) / len(change) ** 0.5
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


def show(record: dict[str, Any], to: str) -> None:
    """Print a table for a person to read, and what is unchanged."""
    console = plain_console(100)
    title, columns = f"{record['images']:,} held-out photographs", ("", "original", to, "change")
    note = f"±: one standard error; {record['speed']['threads']} threads, the original in torch"
    console.print(table(title, columns, _rows(record), note))
    for line in _sentences(record):
        console.print(line, soft_wrap=True)


def _rows(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row, text in ROWS.items():
        old, new, error = (100 * value for value in record[row].values())
        change = f"{new - old:+.2f} ± {error:.2f} points".replace("-", "−")
        yield f"{text}, %", f"{old:.2f}", f"{new:.2f}", change
    old, new = (100 * value for value in record["calibration_error"].values())
    yield "calibration error, %", f"{old:.2f}", f"{new:.2f}", ""
    old, new = record["temperature"].values()
    yield "temperature that fits these", f"{old:.3f}", f"{new:.3f}", "now as the original's"
    for count, rates in record["speed"]["images_a_second"].items():
        old, new = rates.values()
        yield f"images a second, batch {count}", f"{old:.1f}", f"{new:.1f}", f"{new / old:.1f} ×"
    old, new = (value / 1e6 for value in record["bytes"].values())
    yield "size, MB", f"{old:.1f}", f"{new:.1f}", f"{new / old:.2f} ×"
    used = record["memory"].values()
    if all(used):
        old, new = (value / 1e6 for value in used)
        text = f"memory beyond the libraries, batch {AT_ONCE}, MB"
        yield text, f"{old:.0f}", f"{new:.0f}", f"{new / old:.2f} ×"


def _sentences(record: dict[str, Any]) -> Iterator[str]:
    kept = record["unchanged"]
    yield (
        f"unchanged: {kept['paths']:.1%} of the paths shown, {kept['hard_paths']:.1%} of those of greedy "
        f"descent, {kept['answers']:.1%} of the answers given with --accuracy {ACCURACY:g}"
    )
    bands = [
        f"{band['paths']:.1%} of {band['images']:,} from {band['from']:.0%} to {band['to']:.0%}"
        for band in kept["by_weakest_decision"]
        if band["images"]
    ]
    yield "paths unchanged by their weakest decision: " + "; ".join(bands)
