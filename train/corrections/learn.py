"""Learning from corrections: what people said of single decisions, without forgetting the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from nbdt.correction import Correction
from nbdt.decide.head import NBDTHead
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..data.dataset import Images
from .fit import Settings, fit
from .inputs import Told, told, with_maps
from .loss import CorrectionLoss
from .photos import open_photographs
from .targets import LeftOut, Target, find_targets, summary

DEFAULT = Settings()


@dataclass(frozen=True, eq=False)
class CorrectionFit:
    """What came of some corrections.

    Attributes:
        model: a new model; the one that was corrected is as before.
        applied: the corrections that were learnt from.
        left_out: those that were not, and why.
        loss_before, loss_after: the applied corrections' mean loss.
        met_before, met_after: share of the applied step and label corrections that the hard path
            follows; NaN if there are none.
    """

    model: NBDT
    applied: tuple[Correction, ...]
    left_out: tuple[LeftOut, ...]
    loss_before: float
    loss_after: float
    met_before: float
    met_after: float


def fit_corrections(
    model: NBDT,
    corrections: Iterable[Correction],
    data: Images,
    settings: Settings = DEFAULT,
    *,
    open_photos: Callable[
        [Sequence[Target]], tuple[list[tuple[Target, Image.Image]], list[LeftOut]]
    ] = open_photographs,
    progress: Progress = no_progress,
) -> CorrectionFit:
    """Teach a model what people said of its decisions; hold its other answers where they were.

    Each correction is a loss at the node it is about (`CorrectionLoss`). Beside it, images of
    `data` are replayed, and every decision on them is held to the old model's
    (`decision_divergence`): learning without forgetting (Li and Hoiem, ECCV 2016), decision by
    decision. Their labels are not used: what corrections say is wrong may well stand in them.

    Args:
        model: stays as it is.
        corrections: those that have no place in the model's tree, or whose photograph cannot be
            found, are reported, not guessed.
        data: images to replay, best those the model was trained on, at its size.
        settings: how firmly.
        open_photos: the photographs of some targets, and what could not be opened.
        progress: of the steps.

    Raises:
        NBDTError: no correction can be used, or no images to replay.
    """
    if not len(data.labels):
        raise NBDTError("There are no images to replay, so that all else would be forgotten.")
    targets, left_out = find_targets(corrections, model.hierarchy)
    opened, missing = open_photos(targets)
    left_out = [*left_out, *missing]
    opened, refused = with_maps(model, opened, settings.learn)
    left_out += refused
    if not opened:
        raise NBDTError(f"None of the corrections can be used:\n{summary(left_out)}")
    fitted = copy.deepcopy(model).eval()
    before = told(model, opened)
    loss = CorrectionLoss(model.hierarchy, model.rule, before.targets).to(before.features.device)
    scored = [_score(loss, model.head, before)]
    fit(fitted, before, data, settings, progress=progress)
    after = told(fitted, opened, before.targets) if settings.learn == "all" else before
    scored.append(_score(loss, fitted.head, after))
    return CorrectionFit(
        fitted,
        tuple(target.correction for target in before.targets),
        tuple(left_out),
        scored[0][0],
        scored[1][0],
        scored[0][1],
        scored[1][1],
    )


# ---- measure ------------------------------------------------------------------------------------


def _score(loss: CorrectionLoss, head: NBDTHead, told: Told) -> tuple[float, float]:
    """The mean loss of corrections, and the share of them that the hard path follows."""
    with torch.no_grad():
        logits = head.logits(told.features)
        value = float(loss(logits, told.maps, head.linear.weight, told.region))
        log_probs = head.rules.log_probs(logits)
        answers = head.rules.hard(logits).tolist()
    met = []
    for row, answer, target in zip(log_probs, answers, told.targets, strict=True):
        if target.correction.kind == "step":
            children = head.hierarchy.children[target.node]
            met.append(
                children.start + int(row[children.start : children.stop].argmax()) == target.child
            )
        elif target.correction.kind == "label":
            met.append(answer == target.class_index)
    return value, sum(met) / len(met) if met else float("nan")
