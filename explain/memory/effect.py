"""What striking photographs out of a memory would do, in words."""

from __future__ import annotations

from nbdt.decide.paths import Path, as_percent
from nbdt.memory.preview import Effect
from nbdt.progress import counted

LISTED = 8  # changed answers


def answer_words(before: Path, after: Path) -> str:
    """Return the answer before and after in one sentence."""
    one, other = (f"{path.class_name} {as_percent(path.probability)}" for path in (before, after))
    return f"{one} before, {other} after."


def effect_words(done: Effect) -> list[str]:
    """Return what happens to the other photographs, a line each."""
    before, after = map(as_percent, done.accuracy)
    others = counted(done.photographs, "other photograph")
    right = f"{before} right before, {after} after; {counted(len(done.changed), 'answer')} changed."
    lines = [f"{others}, each answered by a fit without it: {right}"]
    lines += [
        f"{one.reference} ({one.label}): {one.before} → {one.after}"
        for one in done.changed[:LISTED]
    ]
    more = len(done.changed) - LISTED
    return lines + ([f"and {more:,} more"] if more > 0 else [])
