"""One training run, read top to bottom: data, network, fit, measure, save."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

from nbdt.progress import Progress, no_progress
from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import torch
from torch import nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.induced import check_known_words
from nbdt.hierarchies.wordnet.concepts import class_synsets
from nbdt.model.model import NBDT
from nbdt.network.preprocessing import Preprocessing, timm_preprocessing
from nbdt.tree.hierarchy import Hierarchy

from .data.class_order import ClassOrder, class_order
from .data.dataset import Images, Labelled, PlainBatches, hold_out, training_batches, worker_count
from .data.inspection import Scan, inspect, scan
from .data.splits import TEST, TRAIN, VALIDATION, find_splits
from .fit.calibration import calibrate
from .fit.checkpoints import check_room, read_checkpoint
from .fit.distributed import global_rank, raise_if_lost
from .fit.evaluate import accuracies, features, flat_logits
from .fit.model_card import model_card
from .fit.module import Row, TreeSupervised
from .fit.network import Start, make_network, whiten
from .fit.run_folder import RunFolder
from .fit.trainer import make_trainer
from .recipe import Recipe

WORDNET = "wordnet"
Say: TypeAlias = Callable[[str], None]
Report: TypeAlias = Callable[[list[Row]], None]


def print_nothing(_text: str) -> None:
    """Keep quiet."""


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
    say: Say = print_nothing,
) -> NBDT:
    """Train by `recipe` on `data`; write checkpoints, log and the finished model to `out`.

    Choices are made on held-out training images, whose logits become the model's reference set;
    the test split is looked at once, at the end.

    Args:
        recipe: all settings.
        data: what `nbdt.train.data.splits.find_splits` understands.
        out: a folder; it is made.
        hierarchy: a tree whose classes are the data's, or "wordnet" for the one over their names;
            without it a tree is induced.
        weights: a local file or a saved model to start from, instead of the hub.
        resume: continue the unfinished run in `out`, if there is one; a finished one is returned.
        command: for the model's card.
        progress: of the images while they are read.
        report: called after each epoch with the rows of figures so far.
        say: called with messages for people.

    Returns:
        The finished model, as saved to `out`/model.

    Raises:
        NBDTError: a run in `out` already that is not to be resumed, data that cannot be trained
            on, a folder or disk that cannot take the checkpoints, or a recipe that does not fit.
    """
    folder, first = RunFolder(Path(out)), global_rank() == 0
    say, report = (say, report) if first else (print_nothing, None)
    if folder.begin(resume=resume) if first else folder.model.exists():
        say(f"{folder.model} is finished already.")
        return NBDT.load(folder.model)
    lightning.seed_everything(recipe.seed, verbose=False)
    scans = {name: scan(part, recipe, progress) for name, part in find_splits(data, recipe).items()}
    order, tree = _classes(scans, recipe, hierarchy)
    order, images = inspect(scans, recipe, order)
    images = _held_out(images, recipe)
    _announce(say, scans, images, order)

    network, knows_classes = make_network(recipe, order, weights)
    if first:
        check_room(folder.root, sum(value.numel() for value in network.parameters()))
    preprocessing = _preprocessing(network, recipe)
    if recipe.whiten and weights is None:
        whiten(network, images[TRAIN], preprocessing, recipe.whiten)
    facts = _facts(recipe, images[TRAIN], tree, command)
    if first:
        folder.check_same(facts)

    start = Start(network, knows_classes)
    module = _module(start, recipe, preprocessing, order, tree, data=images[TRAIN])
    module.report = _reporter(folder, report)
    minutes = _fit(module, images, folder, say)
    model = module.finished()
    if not first:
        return model
    _measure(model, images, recipe)
    counts = {"minutes": round(minutes, 1), "training_images": len(images[TRAIN].labels)}
    model.provenance |= facts | counts
    model.save(folder.model, dtype=torch.float16, card=model_card(model))
    return model


# ---- data ---------------------------------------------------------------------------------------


def _classes(
    scans: dict[str, Scan], recipe: Recipe, hierarchy: Hierarchy | str | None
) -> tuple[ClassOrder, Hierarchy | None]:
    """The class order, and the tree if there is one already."""
    if isinstance(hierarchy, Hierarchy):
        return class_order((), recipe.classes, hierarchy), hierarchy
    order = class_order(scans[TRAIN].classes, recipe.classes)
    if hierarchy != WORDNET:
        if recipe.semantics > 0:  # said now, not in the middle of the run
            check_known_words(order.names, class_synsets(order.names, order.known_wnids))
        return order, None
    from nbdt.hierarchies.wordnet.tree import from_wnids, from_wordnet

    known = [wnid for wnid in order.wnids if wnid]
    everyone = len(known) == len(order.names)
    tree = from_wnids(known, order.names) if everyone else from_wordnet(order.names)
    return class_order((), order.names, tree), tree


def _held_out(images: dict[str, Images], recipe: Recipe) -> dict[str, Images]:
    """All three splits: what the data lacks is drawn from the training images."""
    found = dict(images)
    if TEST not in found:
        found[TRAIN], found[TEST] = hold_out(found[TRAIN], recipe.held_out_test, recipe.seed + 1)
    if VALIDATION not in found:
        found[TRAIN], found[VALIDATION] = hold_out(found[TRAIN], recipe.held_out, recipe.seed)
    return found


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
    for found in scans.values():
        if found.failed:
            count_failed = len(found.failed)
            shown = "; ".join(found.failed[:3]) + ("; …" if count_failed > 3 else "")
            say(f"Left out, unreadable ({found.split.name}, {count_failed:,}): {shown}")


def _preprocessing(network: nn.Module, recipe: Recipe) -> Preprocessing:
    """At the recipe's size; of small images the whole, as they are trained on."""
    found = dataclasses.replace(timm_preprocessing(network), size=recipe.image_size)
    return dataclasses.replace(found, crop_pct=1.0) if recipe.augment == "shift" else found


def _facts(
    recipe: Recipe, data: Images, hierarchy: Hierarchy | None, command: str
) -> dict[str, Any]:
    """What a run rests on."""
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


# ---- fit ----------------------------------------------------------------------------------------


def _module(
    start: Start,
    recipe: Recipe,
    preprocessing: Preprocessing,
    order: ClassOrder,
    hierarchy: Hierarchy | None,
    *,
    data: Images,
) -> TreeSupervised:
    weights = None
    if recipe.balance_classes:
        counts = torch.bincount(data.labels, minlength=len(order.names))
        weights = counts.float().mean() / counts
    if recipe.freeze_backbone:
        start.network.requires_grad_(False)
        cast(Any, start.network).get_classifier().requires_grad_(True)
    module = TreeSupervised(
        start.network, recipe, preprocessing, order, hierarchy, class_weights=weights
    )
    if hierarchy is None and start.knows_classes:
        module.induce_tree()
    return module


def _reporter(folder: RunFolder, report: Report | None) -> Report:
    def log_and_report(rows: list[Row]) -> None:
        folder.log(rows)
        if report:
            report(rows)

    return log_and_report


def _fit(module: TreeSupervised, images: dict[str, Images], folder: RunFolder, say: Say) -> float:
    """Train to the end, or on from the last checkpoint; minutes of training in all."""
    recipe, workers = module.recipe, worker_count(module.recipe)
    kept, held_out = images[TRAIN], images[VALIDATION]
    if recipe.freeze_backbone:
        say("Computing the frozen backbone's features.")
        kept, held_out = (features(module, part, workers) for part in (kept, held_out))
    checkpoint = folder.last if folder.last.exists() else None
    if checkpoint:
        say(f"Continuing from {checkpoint}.")
    module.batches = batches = training_batches(kept, recipe, module.preprocessing)
    module.held_out = plain = PlainBatches(
        held_out, preprocessing=module.preprocessing, workers=workers
    )
    trainer = make_trainer(recipe, folder, len(batches))
    try:
        trainer.fit(module, batches, plain, ckpt_path=checkpoint, weights_only=False)
    except RuntimeError as error:
        raise_if_lost(error, recipe)
        raise
    except (SystemExit, KeyboardInterrupt):  # what Lightning makes of SIGTERM and Ctrl-C
        raise NBDTError(
            "The run was stopped. The same command with --resume goes on from the last checkpoint."
        ) from None
    minutes = module.elapsed() / 60
    if recipe.early_stop_epochs and folder.best.exists():
        best = read_checkpoint(folder.best)
        module.load_state_dict(best["state_dict"])
        module.on_load_checkpoint(best)
    return minutes


# ---- measure ------------------------------------------------------------------------------------


def _measure(model: NBDT, images: dict[str, Images], recipe: Recipe) -> None:
    held_out, test, workers = images[VALIDATION], images[TEST], worker_count(recipe)
    if torch.cuda.is_available():
        model.cuda()
    if recipe.calibrate:
        logits = flat_logits(model, held_out, workers=workers)
        model.provenance["logits_scaled_by"] = calibrate(model, logits, held_out.labels)
    # The stored weights are rounded to half precision: round before measuring, not after.
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.copy_(value.half())
    logits = flat_logits(model, held_out, workers=workers)
    tested = flat_logits(model, test, workers=workers)
    model.cpu()
    kind = torch.int16 if model.hierarchy.num_classes < 2**15 else torch.int32
    model.reference = {"logits": logits.half(), "labels": held_out.labels.to(kind)}
    model.provenance["accuracy"] = {
        "held_out": accuracies(model, logits, held_out.labels),
        "test": accuracies(model, tested, test.labels),
    }
