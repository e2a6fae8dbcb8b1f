"""``nbdt train --corrections``: a model, what people said of it, and its data, to a better model."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbdt.correction import read_corrections, write_corrections
from nbdt.errors import NBDTError, listed, nearest
from nbdt.files import check_new
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..data.class_order import class_order
from ..data.dataset import Images, hold_out, worker_count
from ..data.inspection import inspect, scan
from ..data.splits import TRAIN, VALIDATION, find_splits
from ..fit.evaluate import accuracies, flat_logits
from ..fit.model_card import model_card
from ..recipe import Recipe, parse_recipe, typed
from .fit import Settings
from .learn import CorrectionFit, fit_corrections
from .photos import open_photographs
from .targets import summary

Say = Callable[[str], None]
SHARE = 0.1  # of each class, held out of collections smaller than the recipe expects
APPLIED = "applied.jsonl"  # beside the model: the corrections that it learnt from


def correct(
    model: NBDT,
    corrections: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings,
    *,
    command: str = "",
    progress: Progress = no_progress,
    say: Say = lambda _text: None,
) -> CorrectionFit:
    """Teach a model the corrections of a file; write the new one to `out`/model.

    `out`/applied.jsonl lists those that were learnt from, as they were given.

    Images are replayed from the training split of `data`; on those held out from it, as when the
    model was trained, it is measured before and after.

    Args:
        model: stays as it is.
        corrections: JSON lines (`nbdt.correction`). Relative references start at its folder or,
            where there is no such file, at the current one.
        data: the data that the model was trained on, or more of the kind.
        out: a folder without a model in it.
        settings: how firmly.
        command: for the model's card.
        progress: of the images while they are read, and of the steps.
        say: called with messages for people.

    Raises:
        NBDTError: `out` has a model already, a file that holds no corrections, none of them can be
            used, or data of other classes.
    """
    folder = Path(out) / "model"
    check_new(folder)
    records = read_corrections(corrections)
    if not records:
        raise NBDTError(f"{os.fspath(corrections)!r} holds no corrections.")
    recipe = _recipe(model)
    replayed, held_out = _images(model, data, recipe, progress)
    opener = partial(open_photographs, root=Path(corrections).parent)
    found = fit_corrections(
        model, records, replayed, settings, open_photos=opener, progress=progress
    )
    if found.left_out:
        say(f"{len(found.left_out):,} corrections are left out:\n{summary(found.left_out)}")
    _round(found.model)
    facts = _measured(model, found.model, held_out, worker_count(recipe))
    found.model.provenance |= {
        "command": command,
        "corrected": {
            "model": model_hash(model),
            "corrections_sha256": hashlib.sha256(Path(corrections).read_bytes()).hexdigest(),
            "applied": len(found.applied),
            "left_out": len(found.left_out),
            "settings": dataclasses.asdict(settings),
            "accuracy": facts,
        },
    }
    found.model.provenance["accuracy"] = {"held_out": facts["after"]}
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_corrections(found.applied, folder.parent / APPLIED, append=False)
    found.model.save(folder, dtype=torch.float16, card=model_card(found.model))
    return found


def settings_from(overrides: Sequence[str]) -> Settings:
    """`Settings` from ``key=value`` texts. Raises NBDTError for unknown keys or values."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise NBDTError(f"Expected key=value, got {override!r}, as in --set strength=1.")
        if key not in kinds:
            raise NBDTError(
                f"Unknown key {listed([key])}; corrections have {', '.join(kinds)}."
                f"{nearest(key, kinds)}"
            )
        values[key] = typed(key, text, kinds[key].removesuffix(" | None"))
    return Settings(**values)


def _recipe(model: NBDT) -> Recipe:
    """How the model's data is read: as when it was trained, else by its size."""
    size = model.preprocess.size
    known = model.provenance.get("recipe")
    base = parse_recipe(known) if isinstance(known, Mapping) else None
    if base is None:
        augment = "shift" if size <= 64 else "crop"
        base = Recipe(model.architecture, size, augment=augment)
    return dataclasses.replace(base, image_size=size)


def _images(
    model: NBDT, data: str | os.PathLike[str], recipe: Recipe, progress: Progress
) -> tuple[Images, Images]:
    """Training and held-out images, divided as when the model was trained.

    Of a smaller collection than that, which would not be left enough, a share is held out.
    """
    splits = find_splits(data, recipe)
    wanted = {name: splits[name] for name in (TRAIN, VALIDATION) if name in splits}
    scans = {name: scan(split, recipe, progress) for name, split in wanted.items()}
    order = class_order((), model.hierarchy.classes, model.hierarchy)
    fewest = min(Counter(scans[TRAIN].labels).values(), default=0)
    if recipe.held_out >= 1 and fewest < 2 * recipe.held_out:
        recipe = dataclasses.replace(recipe, held_out=SHARE)
    _, images = inspect(scans, recipe, order)
    train = images[TRAIN]
    if "test" not in splits:
        train, _ = hold_out(train, recipe.held_out_test, recipe.seed + 1)
    if VALIDATION in images:
        return train, images[VALIDATION]
    return hold_out(train, recipe.held_out, recipe.seed)


def _round(model: NBDT) -> None:
    """The stored weights are rounded to half precision: round before measuring, not after."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.copy_(value.half())


def _measured(
    before: NBDT, after: NBDT, held_out: Images, workers: int
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    logits: Tensor = torch.empty(0)
    for name, model in (("before", before), ("after", after)):
        logits = flat_logits(model.eval(), held_out, workers=workers)
        found[name] = accuracies(model, logits, held_out.labels)
    kind = torch.int16 if after.hierarchy.num_classes < 2**15 else torch.int32
    after.reference = {"logits": logits.half(), "labels": held_out.labels.to(kind)}
    return found
