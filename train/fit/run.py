"""Training a whole network with Lightning."""

from __future__ import annotations

from importlib.metadata import version

import torch

from nbdt.errors import NBDTError
from nbdt.hierarchies.measure.calibrate import set_reference
from nbdt.images.layout import TEST, TRAIN, VALIDATION
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import Progress, Say

from ..data.dataset import Images, PlainBatches, TrainingBatches, worker_count
from ..folder import Report, Row, RunFolder
from ..prepare import Prepared
from ..recipe import Recipe
from .checkpoints import read_checkpoint
from .distributed import raise_if_lost
from .measure import accuracies, calibrate, flat_logits, rounded
from .module import TreeSupervised
from .trainer import make_trainer


def fit_network(
    run: Prepared, progress: Progress, report: Report | None, say: Say, *, is_first: bool
) -> NBDT:
    """Train a network to the end, from the last checkpoint of the run's folder if there is one.

    Only the first of several processes measures the model.

    Raises NBDTError: the run diverged or was stopped, or a device was lost.
    """
    weights, recipe, labels = None, run.recipe, run.images[TRAIN].labels
    if recipe.balance_classes:
        counts = torch.bincount(labels[labels >= 0], minlength=len(run.order.names))
        weights = counts.float().mean() / counts
    module = TreeSupervised(
        run.network, recipe, run.preprocessing, run.order, run.hierarchy,
        class_weights=weights, has_groups=bool((labels < 0).any()),
    )  # fmt: skip
    if run.hierarchy is None and run.knows_classes:
        module.induce_hierarchy()

    def log_and_report(rows: list[Row]) -> None:
        run.folder.log(rows)
        if report:
            report(rows)

    module.report = log_and_report
    _fit(module, run.images, run.folder, say)
    model = module.finished()
    if is_first:
        _measure(model, run.images, recipe, progress)
        model.provenance["lightning"] = version("lightning")
    return model


def _fit(module: TreeSupervised, images: dict[str, Images], folder: RunFolder, say: Say) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    recipe, workers = module.recipe, worker_count(module.recipe)
    checkpoint = folder.last if folder.last.exists() else None
    if checkpoint:
        say(f"Continuing from {checkpoint}.")
    module.batches = batches = TrainingBatches(images[TRAIN], recipe, module.preprocessing)
    module.held_out = PlainBatches(images[VALIDATION], module.preprocessing, workers)
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
    if recipe.early_stop_epochs and folder.best.exists():
        best = read_checkpoint(folder.best)
        module.on_load_checkpoint(best)  # first: the loss of another tree has other buffers
        module.load_state_dict(best["state_dict"])


def _measure(model: NBDT, images: dict[str, Images], recipe: Recipe, progress: Progress) -> None:
    held_out, test = images[VALIDATION], images[TEST]
    to_device(model)
    if recipe.calibrate:
        logits = flat_logits(model, held_out, progress)
        model.provenance["logits_scaled_by"] = calibrate(model, logits, held_out.labels)
    rounded(model)
    logits = flat_logits(model, held_out, progress)
    set_reference(model, logits, held_out.labels)
    on_held_out = accuracies(model, logits, held_out.labels)
    on_test = accuracies(model, flat_logits(model, test, progress), test.labels)
    model.provenance["accuracy"] = {"held_out": on_held_out, "test": on_test}
    model.cpu()
