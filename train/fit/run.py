"""One training run, read top to bottom: data, network, fit, measure, save."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import lightning
import torch
from torch import nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.induced import check_known_words
from nbdt.hierarchies.wordnet.concepts import class_synsets
from nbdt.model.model import NBDT
from nbdt.network.preprocessing import Preprocessing, timm_preprocessing
from nbdt.progress import Progress, Say, no_progress, say_nothing
from nbdt.tree.hierarchy import Hierarchy

from ..data.class_order import ClassOrder, class_order
from ..data.dataset import Images, Labelled, PlainBatches, hold_out, training_batches, worker_count
from ..data.inspection import Scan, inspect, scan
from ..data.splits import TEST, TRAIN, VALIDATION, find_splits
from ..recipe import Recipe
from .checkpoints import Row, RunFolder, check_space, read_checkpoint
from .distributed import global_rank, raise_if_lost
from .measure import (
    accuracies,
    calibrate,
    flat_logits,
    model_card,
    pooled_features,
    round_and_measure,
)
from .module import TreeSupervised
from .network import make_network, whiten
from .trainer import make_trainer

WORDNET = "wordnet"
Report: TypeAlias = Callable[[list[Row]], None]


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hierarchy: Hierarchy | str | None = None,
    weights: str | os.PathLike[str] | None = None,
    resume: bool = False,
    command: str = "",
    progress: Progress = no_progress,
    report: Report | None = None,
    say: Say = say_nothing,
) -> NBDT:
    """Train by `recipe` on `data`; write checkpoints, log and the finished model to `out`.

    Choices are made on held-out training images, whose logits become the model's reference set. The
    test split is used once, at the end.

    Args:
        recipe: all settings.
        data: a folder or file that `nbdt.train.data.splits.find_splits` understands.
        out: a folder; it is made.
        hierarchy: a hierarchy of the data's classes, or "wordnet" for the one over their names;
            without it a hierarchy is induced.
        weights: a local file or a saved model to start from, instead of the hub.
        resume: continue the unfinished run in `out`, if there is one; a finished one is returned.
        command: for the model's card.
        progress: of the images while they are read.
        report: called after each epoch with the rows of figures so far.
        say: called with messages for people.

    Returns:
        The finished model, as saved to `out`/model.

    Raises:
        NBDTError: `out` holds a run that is not to be resumed, the data cannot be trained on, the
            folder or disk cannot take the checkpoints, or the recipe does not fit.
    """
    folder, is_first = RunFolder(Path(out)), global_rank() == 0
    say, report = (say, report) if is_first else (say_nothing, None)
    if folder.begin(resume=resume) if is_first else folder.model.exists():
        say(f"{folder.model} is finished already.")
        return NBDT.load(folder.model)
    lightning.seed_everything(recipe.seed, verbose=False)
    splits = find_splits(data, recipe)
    scans = {name: scan(split, recipe, progress) for name, split in splits.items()}
    order, hierarchy = _classes(scans, recipe, hierarchy)
    order, images = inspect(scans, recipe, order)
    images = _held_out(images, recipe)
    _announce(say, scans, images, order)

    network, knows_classes = make_network(recipe, order, weights)
    if is_first:
        check_space(folder.root, sum(value.numel() for value in network.parameters()))
    preprocessing = _preprocessing(network, recipe)
    if recipe.whiten and weights is None:
        whiten(network, images[TRAIN], preprocessing, recipe.whiten)
    facts = _facts(recipe, images[TRAIN], hierarchy, command)
    if is_first:
        folder.check_same(facts)

    module = _module(network, recipe, preprocessing, order, hierarchy, data=images[TRAIN])
    if hierarchy is None and knows_classes:
        module.induce_hierarchy()
    module.report = _reporter(folder, report)
    minutes = _fit(module, images, folder, say)
    model = module.finished()
    if not is_first:
        return model
    _measure(model, images, recipe)
    counts = {"minutes": round(minutes, 1), "training_images": len(images[TRAIN].labels)}
    model.provenance |= facts | counts
    model.save(folder.model, dtype=torch.float16, card=model_card(model))
    return model


# ---- data ----------------------------------------------------------------------------------------


def _classes(
    scans: dict[str, Scan], recipe: Recipe, hierarchy: Hierarchy | str | None
) -> tuple[ClassOrder, Hierarchy | None]:
    """Return the class order, and the hierarchy unless it is to be induced."""
    if isinstance(hierarchy, Hierarchy):
        return class_order((), recipe.classes, hierarchy), hierarchy
    order = class_order(scans[TRAIN].classes, recipe.classes)
    if hierarchy != WORDNET:
        if recipe.semantics > 0:  # fail here, not in the middle of the run
            check_known_words(order.names, class_synsets(order.names, order.known_wnids))
        return order, None
    from nbdt.hierarchies.wordnet.tree import from_wnids, from_wordnet

    wnids = [wnid for wnid in order.wnids if wnid]
    has_all = len(wnids) == len(order.names)
    made = from_wnids(wnids, order.names) if has_all else from_wordnet(order.names)
    return class_order((), order.names, made), made


def _held_out(images: dict[str, Images], recipe: Recipe) -> dict[str, Images]:
    """Return all three splits; those that the data lacks are drawn from the training images."""
    splits = dict(images)
    for name, amount, seed in (
        (TEST, recipe.held_out_test, recipe.seed + 1),
        (VALIDATION, recipe.held_out, recipe.seed),
    ):
        if name not in splits:
            splits[TRAIN], splits[name] = hold_out(splits[TRAIN], amount, seed)
    return splits


def _announce(
    say: Say, scans: dict[str, Scan], images: dict[str, Images], order: ClassOrder
) -> None:
    count = {name: len(part.labels) for name, part in images.items()}
    drawn = [name for name in (VALIDATION, TEST) if name not in scans]
    say(
        f"{len(order.names)} classes, in the order of {order.origin}. {count[TRAIN]:,} images to "
        f"train on, {count[VALIDATION]:,} for choices, {count[TEST]:,} for the test"
        + (f"; {' and '.join(drawn)} drawn from the training images." if drawn else ".")
    )
    for scanned in scans.values():
        if failed := scanned.failed:
            shown = "; ".join(failed[:3]) + ("; …" if len(failed) > 3 else "")
            say(f"Left out, unreadable ({scanned.split.name}, {len(failed):,}): {shown}")


def _preprocessing(network: nn.Module, recipe: Recipe) -> Preprocessing:
    """Return the network's preprocessing at the recipe's size; small images are used uncropped."""
    preprocessing = dataclasses.replace(timm_preprocessing(network), size=recipe.image_size)
    if recipe.augment == "shift":
        return dataclasses.replace(preprocessing, crop_pct=1.0)
    return preprocessing


def _facts(
    recipe: Recipe, data: Images, hierarchy: Hierarchy | None, command: str
) -> dict[str, Any]:
    """Return what the run depends on."""
    digest = hashlib.sha256(data.labels.numpy().tobytes())
    if isinstance(data, Labelled):
        digest = hashlib.sha256(data.images.numpy().tobytes())
    else:
        for source in data.sources:
            digest.update(source.reference.encode(errors="surrogateescape"))
    return {
        "command": command,
        "recipe": dataclasses.asdict(recipe),
        "data_sha256": digest.hexdigest(),
        "hierarchy": hierarchy.hash if hierarchy else None,
        "lightning": lightning.__version__,
    }


# ---- fit -----------------------------------------------------------------------------------------


def _module(
    network: nn.Module, recipe: Recipe, preprocessing: Preprocessing, order: ClassOrder,
    hierarchy: Hierarchy | None, *, data: Images,
) -> TreeSupervised:  # fmt: skip
    weights = None
    if recipe.balance_classes:
        counts = torch.bincount(data.labels, minlength=len(order.names))
        weights = counts.float().mean() / counts
    if recipe.freeze_backbone:
        network.requires_grad_(False)
        cast(Any, network).get_classifier().requires_grad_(True)
    return TreeSupervised(network, recipe, preprocessing, order, hierarchy, class_weights=weights)


def _reporter(folder: RunFolder, report: Report | None) -> Report:
    def log_and_report(rows: list[Row]) -> None:
        folder.log(rows)
        if report:
            report(rows)

    return log_and_report


def _fit(module: TreeSupervised, images: dict[str, Images], folder: RunFolder, say: Say) -> float:
    """Train to the end, from the last checkpoint if there is one; return the minutes of training."""
    recipe, workers = module.recipe, worker_count(module.recipe)
    trained_on, held_out = images[TRAIN], images[VALIDATION]
    if recipe.freeze_backbone:
        say("Computing the frozen backbone's features.")
        trained_on, held_out = (
            pooled_features(module.network, part, module.preprocessing, workers)
            for part in (trained_on, held_out)
        )
    checkpoint = folder.last if folder.last.exists() else None
    if checkpoint:
        say(f"Continuing from {checkpoint}.")
    module.batches = batches = training_batches(trained_on, recipe, module.preprocessing)
    module.held_out = PlainBatches(held_out, preprocessing=module.preprocessing, workers=workers)
    trainer = make_trainer(recipe, folder, len(batches))
    try:
        trainer.fit(module, batches, module.held_out, ckpt_path=checkpoint, weights_only=False)
    except RuntimeError as error:
        raise_if_lost(error, recipe)
        raise
    except (SystemExit, KeyboardInterrupt):  # Lightning raises them after SIGTERM and Ctrl-C
        raise NBDTError(
            "The run was stopped. The same command with --resume continues from the last "
            "checkpoint."
        ) from None
    minutes = module.log_of_epochs.seconds() / 60
    if recipe.early_stop_epochs and folder.best.exists():
        best = read_checkpoint(folder.best)
        module.load_state_dict(best["state_dict"])
        module.on_load_checkpoint(best)
    return minutes


# ---- measure -------------------------------------------------------------------------------------


def _measure(model: NBDT, images: dict[str, Images], recipe: Recipe) -> None:
    held_out, test, workers = images[VALIDATION], images[TEST], worker_count(recipe)
    if torch.cuda.is_available():
        model.cuda()
    if recipe.calibrate:
        logits = flat_logits(model, held_out, workers)
        model.provenance["logits_scaled_by"] = calibrate(model, logits, held_out.labels)
    on_held_out = round_and_measure(model, held_out, workers)
    on_test = accuracies(model, flat_logits(model, test, workers), test.labels)
    model.provenance["accuracy"] = {"held_out": on_held_out, "test": on_test}
    model.cpu()
