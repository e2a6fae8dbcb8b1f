"""Learning from corrections: fit a model to corrections of single decisions, and measure it."""

import copy
import dataclasses
import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from nbdt.correction import APPLIED, Correction, read_corrections, write_corrections
from nbdt.decide.head import NBDTHead
from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.hierarchies.measure.calibrate import set_reference
from nbdt.hierarchies.measure.comparison import measure
from nbdt.images.layout import TEST, TRAIN
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, Say, no_progress, say_nothing

from ..data.class_order import class_order
from ..data.dataset import Images, hold_out
from ..data.inspection import inspect, scan
from ..data.splits import find_splits
from ..fit.measure import features_of, flat_logits, model_card, rounded
from ..recipe import Recipe, checked, overridden, parse_recipe
from . import examples
from .examples import CorrectionBatch, LeftOut, Opened, Target
from .fit import CorrectionLoss, CorrectionSettings, fit_head

SHARE = 0.1  # of each class, held out of collections smaller than the recipe expects
DEFAULT = CorrectionSettings()
OpenPhotos: TypeAlias = Callable[[Sequence[Target]], tuple[Opened, list[LeftOut]]]


@dataclass(frozen=True, eq=False)
class CorrectionFit:
    """The result of learning from corrections."""

    model: NBDT  # a new model; the one that was corrected does not change
    applied: tuple[Correction, ...]  # the corrections that it learned from
    left_out: tuple[LeftOut, ...]  # the others, and why
    loss_before: float  # the applied corrections' mean loss
    loss_after: float
    # share of the applied step and label corrections that the likeliest child of the node, or the most
    # probable class, follows; NaN if there are none. A class follows a group that it is in.
    met_before: float
    met_after: float


def fit_corrections(
    model: NBDT,
    corrections: Iterable[Correction],
    data: Images,
    settings: CorrectionSettings = DEFAULT,
    *,
    open_photos: OpenPhotos = examples.open_photographs,
    progress: Progress = no_progress,
) -> CorrectionFit:
    """Teach a model corrections of its decisions; hold its other answers where they were.

    Each correction is a loss at the node it is about (`CorrectionLoss`). Images of `data` are
    replayed at the same time, and every decision on them is held to the old model's
    (`nbdt.memory.shift.divergence`): learning without forgetting (Li and Hoiem, ECCV 2016), decision by
    decision. Their labels are not used: they may contain the very errors that are corrected.

    Args:
        model: does not change.
        corrections: those that have no place in the model's tree, or whose photograph cannot be
            found, are reported, not guessed.
        data: images to replay, best those the model was trained on, at its size.
        settings: how strongly.
        open_photos: returns the photographs of some targets, and the targets without one.
        progress: of the steps.

    Raises NBDTError: no correction can be used, or there are no images to replay.
    """
    if not len(data.labels):
        raise NBDTError(
            "There are no images to replay, and without them the model would forget everything "
            "else; name the data it was trained on."
        )
    targets, no_place = examples.find_targets(corrections, model.hierarchy)
    opened, no_photo = open_photos(targets)
    opened, no_map = examples.without_regions(model, opened, settings.learn)
    left_out = (*no_place, *no_photo, *no_map)
    if not opened:
        raise NBDTError(f"None of the corrections can be used:\n{examples.summary(left_out)}")
    fitted = copy.deepcopy(model).eval()
    batch = examples.correction_batch(model, opened)
    loss = CorrectionLoss(model.hierarchy, model.rule, batch.targets).to(batch.features.device)
    loss_before, met_before = _score(loss, model.head, batch)
    last, replayed = fitted.head.linear, features_of(fitted, data, progress)
    fit_head(last, fitted.head.rules, batch, replayed, settings, progress=progress)
    loss_after, met_after = _score(loss, fitted.head, batch)
    applied = tuple(target.correction for target in batch.targets)
    return CorrectionFit(fitted, applied, left_out, loss_before, loss_after, met_before, met_after)


def _score(loss: CorrectionLoss, head: NBDTHead, batch: CorrectionBatch) -> tuple[float, float]:
    """Return the mean loss of corrections, and the share of them that the model follows."""
    with torch.no_grad():
        logits = head.logits(batch.features)
        value = float(loss(logits, batch.maps, head.linear.weight, batch.region).mean())
        log_probs = head.rules.log_probs(logits)
        answers = head.rules(logits).argmax(dim=1).tolist()
    met = []
    for row, answer, target in zip(log_probs, answers, batch.targets, strict=True):
        if target.correction.kind == "step":
            met.append(examples.chosen_child(row, head.hierarchy, target.node) == target.child)
        elif target.label is not None:
            met.append(answer in head.hierarchy.classes_under(target.label))
    return value, sum(met) / len(met) if met else math.nan


def correct(
    model: NBDT,
    corrections: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: CorrectionSettings,
    *,
    command: str = "",
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> CorrectionFit:
    """Teach a model the corrections of a file; write the new one to `out`/model.

    `out`/applied.jsonl lists the corrections that it learned from, as they were given. Images are
    replayed from the training split of `data`. The model is measured, before and after, on the test
    split, or on the test images that were drawn when the model was trained.

    Args:
        model: does not change.
        corrections: JSON lines (`nbdt.correction`). Relative references start at its folder or,
            where there is no such file, at the current one.
        data: the data that the model was trained on, or more of the kind.
        out: a folder without a model in it.
        settings: how strongly.
        command: for the model's card.
        progress: of the images while they are read, and of the steps.
        say: called with messages for people.

    Raises NBDTError: `out` has a model already, the file holds no corrections, none of them can be
    used, or the data have other classes.
    """
    folder = Path(out) / "model"
    check_new(folder)
    records = read_corrections(corrections)
    if not records:
        raise NBDTError(f"{os.fspath(corrections)!r} holds no corrections.")
    recipe = _recipe(model)
    replayed, test = _images(model, data, recipe, progress)
    opener = partial(examples.open_photographs, root=Path(corrections).parent)
    fitted = fit_corrections(
        model, records, replayed, settings, open_photos=opener, progress=progress
    )
    if fitted.left_out:
        say(
            f"{len(fitted.left_out):,} corrections are left out:\n{examples.summary(fitted.left_out)}"
        )
    before = _measured(model.eval(), test, progress)
    new = fitted.model
    rounded(new)
    after = _measured(new, test, progress)
    new.provenance.pop("memory", None)  # the new last layer is no fit on it
    new.provenance |= {
        "command": command,
        "corrected": {
            "model": model_hash(model),
            "corrections_sha256": hashlib.sha256(Path(corrections).read_bytes()).hexdigest(),
            "applied": len(fitted.applied),
            "left_out": len(fitted.left_out),
            "settings": dataclasses.asdict(settings),
            "accuracy": {"before": before, "after": after},
        },
        "accuracy": {"test": after},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_corrections(fitted.applied, folder.parent / APPLIED)
    new.save(folder, dtype=torch.float16, card=model_card(new))
    return fitted


def settings_from(overrides: Sequence[str]) -> CorrectionSettings:
    """Return settings from ``key=value`` texts. Raises NBDTError for unknown keys or values."""
    values = checked(CorrectionSettings, overridden(overrides), "the settings of corrections")
    return CorrectionSettings(**values)


def _recipe(model: NBDT) -> Recipe:
    """Return how the model's data is read: as when it was trained, else by its size."""
    size = model.preprocess.size
    recorded = model.provenance.get("recipe")
    if isinstance(recorded, Mapping):
        recipe = parse_recipe(recorded)
    else:
        recipe = Recipe(model.architecture, size, augment="shift" if size <= 64 else "crop")
    return dataclasses.replace(recipe, image_size=size, freeze_backbone=False)


def _images(
    model: NBDT, data: str | os.PathLike[str], recipe: Recipe, progress: Progress
) -> tuple[Images, Images]:
    """Return training and test images, divided as when the model was trained.

    If the recipe would leave too few images of a class, a share is the test instead.
    """
    splits = find_splits(data, recipe)
    scans = {name: scan(split, recipe, progress) for name, split in splits.items()}
    order = class_order((), model.hierarchy.classes, model.hierarchy)
    fewest = min(Counter(scans[TRAIN].labels).values(), default=0)
    if max(recipe.held_out, recipe.held_out_test) >= 1 and fewest < 4 * recipe.held_out:
        recipe = dataclasses.replace(recipe, held_out=SHARE, held_out_test=SHARE)
    _, images = inspect(scans, recipe, order)
    if TEST in images:
        return images[TRAIN], images[TEST]
    return hold_out(images[TRAIN], recipe.held_out_test, recipe.seed + 1)


def _measured(model: NBDT, test: Images, progress: Progress) -> dict[str, float]:
    """Measure a model on test images, whose logits become its reference set."""
    logits = flat_logits(model, test, progress)
    set_reference(model, logits, test.labels)
    return measure(logits, test.labels, model.hierarchy, model.rule).accuracy
