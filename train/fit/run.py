"""Training a whole network with Lightning."""

from importlib.metadata import version

import torch

from nbdt.errors import NBDTError
from nbdt.hierarchies.measure.calibrate import set_reference
from nbdt.hierarchies.measure.comparison import measure
from nbdt.images.layout import TEST, TRAIN, VALIDATION
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device

from ..data.dataset import PlainBatches, TrainingBatches, worker_count
from ..folder import Row
from ..prepare import Prepared
from .checkpoints import read_checkpoint
from .measure import calibrate, flat_logits, rounded
from .module import TreeSupervised
from .trainer import make_trainer, raise_if_lost


def fit_network(run: Prepared, *, is_first: bool) -> NBDT:
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
        run.asked.folder.log(rows)
        if run.asked.report:
            run.asked.report(rows)

    module.report = log_and_report
    _fit(module, run)
    model = module.finished()
    if is_first:
        _measure(model, run)
        model.provenance["lightning"] = version("lightning")
    return model


def _fit(module: TreeSupervised, run: Prepared) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    recipe, images, folder = run.recipe, run.images, run.asked.folder
    workers = worker_count(recipe)
    checkpoint = folder.last if folder.last.exists() else None
    if checkpoint:
        run.asked.say(f"Continuing from {checkpoint}.")
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


def _measure(model: NBDT, run: Prepared) -> None:
    held_out, test, progress = run.images[VALIDATION], run.images[TEST], run.asked.progress
    to_device(model)
    if run.recipe.calibrate:
        logits = flat_logits(model, held_out, progress)
        model.provenance["logits_scaled_by"] = calibrate(model, logits, held_out.labels)
    rounded(model)
    logits = flat_logits(model, held_out, progress)
    set_reference(model, logits, held_out.labels)
    pairs = {"held_out": (logits, held_out.labels)}
    pairs["test"] = flat_logits(model, test, progress), test.labels
    model.provenance["accuracy"] = {
        name: measure(*pair, model.hierarchy, model.rule).accuracy for name, pair in pairs.items()
    }
    model.cpu()
