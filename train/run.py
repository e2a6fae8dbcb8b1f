"""One training run, read top to bottom: network, data, fit, save."""

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from nbdt.files import write_atomic
from nbdt.images.layout import TRAIN
from nbdt.model.model import NBDT
from nbdt.model.remember import FOLDER
from nbdt.progress import Progress, Say, no_progress, say_nothing
from nbdt.tree.hierarchy import Hierarchy

from .fit.measure import model_card
from .fit.picture import summary_picture
from .folder import Report, RunFolder, check_space, global_rank
from .prepare import RunRequest, prepare
from .recipe import Recipe

FROZEN = "frozen"  # where a run that fine-tunes keeps the model that it starts from


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hierarchy: Hierarchy | str | None = None,
    weights: str | os.PathLike[str] | None = None,
    meanings: Mapping[str | int, str] | None = None,
    resume: bool = False,
    finetune: bool = False,
    command: str = "",
    progress: Progress = no_progress,
    report: Report | None = None,
    say: Say = say_nothing,
) -> NBDT:
    """Train by `recipe` on `data`; write the finished model to `out`.

    With a frozen backbone the classifier is fitted on features (`nbdt.train.frozen`). Otherwise the
    network is trained, choices are made on held-out training images, whose logits become the
    model's reference set, and checkpoints and a log are written to `out`. The test split is used
    once, at the end.

    Args:
        recipe: all settings.
        data: a folder or file that `nbdt.train.data.splits.find_splits` understands.
        out: a folder; it is made.
        hierarchy: a hierarchy of the data's classes, or how one is made: "readable" (everyday
            groups) from their names, "induced" from the classifier. By default
            `nbdt.train.tree.plan_tree` chooses.
        weights: a local file or a saved model to start from, instead of the hub.
        meanings: of class names, as for `nbdt.hierarchies.known_senses`.
        resume: continue the unfinished run in `out`, if there is one; a finished one is returned.
        finetune: after a frozen backbone, train the whole network from the model that it gave,
            which is written to `out`/frozen.
        command: for the model's card.
        progress: of the images while they are read, and of the fit.
        report: called after each epoch with the rows of figures so far.
        say: called with messages for people.

    Returns:
        The finished model, as saved to `out`/model.

    Raises NBDTError: `out` holds a run that is not to be resumed, or another process uses it, the
    weights do not fit, the data cannot be trained on, the folder or disk cannot take the checkpoints,
    or the recipe does not fit.
    """
    folder = RunFolder(Path(out))
    asked = RunRequest(
        recipe, data, folder, hierarchy, weights, meanings or {}, command, progress, report, say
    )
    with folder.locked() if global_rank() == 0 else nullcontext():
        if finetune and recipe.freeze_backbone and not folder.model.exists():
            frozen = RunFolder(folder.root / FROZEN)
            first = _run(replace(asked, folder=frozen), resume=True, choosing=True)
            say(f"Fine-tuning the whole network from {frozen.model}.")
            recipe = replace(recipe, freeze_backbone=False)
            asked = replace(asked, recipe=recipe, hierarchy=first.hierarchy, weights=frozen.model)
        return _run(asked, resume=resume, leaving_memory=finetune)


def _run(
    asked: RunRequest, *, resume: bool, choosing: bool = False, leaving_memory: bool = False
) -> NBDT:
    """Train as `train` does; `choosing` keeps the images for later choices out of a frozen fit."""
    started = time.monotonic()
    folder, is_first = asked.folder, global_rank() == 0
    if not is_first:
        asked = replace(asked, say=say_nothing, report=None)
    while asked.recipe.freeze_backbone and not is_first and not folder.model.exists():
        time.sleep(1)  # the first process fits the classifier
    if folder.begin(resume=resume) if is_first else folder.model.exists():
        asked.say(f"{folder.model} is finished already.")
        return NBDT.load(folder.model)
    torch.manual_seed(asked.recipe.seed)
    run = prepare(asked, choosing=choosing)
    if run.recipe.freeze_backbone:
        from .frozen.run import fit_frozen

        model = fit_frozen(run)
    else:
        from .fit.run import fit_network
        from .frozen.run import leave_memory

        if is_first:
            check_space(folder.root, sum(value.numel() for value in run.network.parameters()))
            folder.check_same(run.facts())
        model = fit_network(run, is_first=is_first)
        if not is_first:
            return model
        if leaving_memory and run.images[TRAIN].pixels is None:
            leave_memory(run, model)
    minutes = round((time.monotonic() - started) / 60, 1)
    counts = {"minutes": minutes, "training_images": len(run.images[TRAIN].labels)}
    model.provenance |= run.facts() | counts
    write_atomic(folder.picture, summary_picture(model))
    model.save(folder.model, dtype=torch.float16, card=model_card(model))
    if model.memory_place is not None:
        model.use_memory(folder.model / FOLDER)
        shutil.rmtree(folder.memory, ignore_errors=True)
    return model
