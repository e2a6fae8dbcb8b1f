"""How a weight changes during training: plain functions of progress, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nbdt.errors import NBDTError, nearest


def constant(_progress: float, start: float, _end: float) -> float:
    """`start`, whatever the progress."""
    return start


def linear(progress: float, start: float, end: float) -> float:
    """Evenly from `start` to `end`."""
    return start + (end - start) * progress


def cosine(progress: float, start: float, end: float) -> float:
    """From `start` to `end` on half a cosine wave, slowest at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: Mapping[str, Callable[[float, float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}


def weight_at(schedule: str, progress: float, start: float, end: float) -> float:
    """The weight at a moment, `progress` being clamped to [0, 1].

    Raises:
        NBDTError: no schedule of this name.
    """
    if schedule not in SCHEDULES:
        raise NBDTError(
            f"There is no schedule {schedule!r}.{nearest(schedule, SCHEDULES)} "
            f"There are: {', '.join(SCHEDULES)}."
        )
    return SCHEDULES[schedule](min(1.0, max(0.0, progress)), start, end)
