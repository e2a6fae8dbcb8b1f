"""A run with a frozen backbone: features, a convex fit, a tree, measurement."""

from typing import Any, cast

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.hierarchies.measure.comparison import measure, quality
from nbdt.images.layout import TEST, TRAIN
from nbdt.memory.fit import Design
from nbdt.memory.refit import balanced
from nbdt.memory.tuning import ROUGHLY
from nbdt.model.features import Features, embed
from nbdt.model.model import NBDT
from nbdt.model.remember import make_memory
from nbdt.network.encoder import Encoder, to_device
from nbdt.runtime.accelerate import accelerate
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.labels import label_nodes

from ..data.dataset import KEPT, worker_count
from ..data.inspection import say_left_out, unreadable
from ..fit.measure import rounded
from ..prepare import Prepared
from ..tree import TreePlan, describe

NO_LABEL = -1  # the root
MIDDLING = 10.0  # strength for features of mean squared length 1; the tree hardly depends on it


def fit_frozen(run: Prepared) -> NBDT:
    """Fit a classifier and its tree on the features of a frozen network.

    All images but the test split take part in the fit. Its penalty and the temperature are chosen
    by cross-validation, whose logits become the model's reference set.

    Raises NBDTError: unreadable images, or too few of a class.
    """
    network = cast(Any, run.network).eval()
    network.reset_classifier(0)
    rounded(network)  # to what is saved, so that a saved model has these features
    encoder = Encoder(to_device(network), run.recipe.architecture, run.preprocessing)
    accelerate(network, run.recipe.architecture)
    found = {name: _features(run, name, encoder) for name in (TRAIN, TEST)}
    features, labels = found[TRAIN]
    labelled = labels != NO_LABEL
    features, labels = features.pick(labelled), labels[labelled]
    hierarchy = run.hierarchy
    if hierarchy is None:
        hierarchy = cast(TreePlan, run.plan).make(_first_weight(features.values, labels))
    hierarchy = cast(Hierarchy, hierarchy)  # it has weights to make one from
    describe(hierarchy, run.asked.say)
    model = _model(run, hierarchy)
    remember(run, model, features, labels)
    model.refit(progress=run.asked.progress)
    reference = model.reference
    cross_validated = _figures(model, reference["logits"].float(), reference["labels"].long())
    accuracy = {"cross-validated": cross_validated}
    test, test_labels = found[TEST]
    if len(test_labels):
        with torch.inference_mode():
            accuracy["test"] = _figures(model, model.head.logits(test.values), test_labels)
    model.provenance["accuracy"] = accuracy
    return model


def remember(run: Prepared, model: NBDT, features: Features, labels: Tensor) -> None:
    """Make the memory of a model from the features of labelled images."""
    memory = make_memory(model, run.asked.folder.memory)
    ids = [model.hierarchy.ids[node] for node in label_nodes(model.hierarchy)[labels].tolist()]
    added = memory.insert(features, ids, by="training")
    model.use_memory(run.asked.folder.memory)
    if added.failed:
        run.asked.say(f"Left out, {len(added.failed):,} photographs, the first: {added.failed[0]}")


def _first_weight(features: Tensor, labels: Tensor) -> Tensor:
    """Return the weights of a quick fit, for a tree to be made from."""
    exact = labels >= 0
    features, labels = features[exact], labels[exact]
    design = Design(features)
    targets = balanced(labels, int(labels.max()) + 1)
    strength = MIDDLING / float(design.basis.variances.sum())
    return design.fit(targets, strength, tolerance=ROUGHLY).weight


def _features(run: Prepared, name: str, encoder: Encoder) -> tuple[Features, Tensor]:
    """Return features and labels of a split's readable images."""
    data = run.images[name]
    threads, what = worker_count(run.recipe), f"features of {name} images"
    progress = run.asked.progress
    found = embed(encoder, data.sources, threads=threads, what=what, progress=progress)
    if found.failed and not run.recipe.skip_corrupt:
        raise NBDTError(unreadable(name, found.failed, len(data.labels)))
    say_left_out(run.asked.say, name, found.failed)
    labels = data.labels[list(found.places)]
    counts = torch.bincount(labels[labels >= 0], minlength=len(run.order.names)).tolist()
    few = [label for label, count in zip(run.order.names, counts, strict=True) if count < KEPT]
    if few and name == TRAIN:
        raise NBDTError(
            f"Fewer than {KEPT} readable images of {few}. Add images, or remove the class."
        )
    return found, labels


def _model(run: Prepared, hierarchy: Hierarchy) -> NBDT:
    network = cast(Any, run.network).cpu()
    network.reset_classifier(len(run.order.names))
    recipe = run.recipe
    model = NBDT.from_network(network, recipe.architecture, hierarchy, rule=recipe.rule)
    model.preprocess = run.preprocessing
    return model.eval()


def _figures(model: NBDT, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the shares of right answers, and the calibration error of the shown probability."""
    result = measure(logits, labels, model.hierarchy, model.rule)
    return {
        **result.accuracy,
        "calibration error": quality(result)["soft"]["calibration_error"],
    }


def leave_memory(run: Prepared, model: NBDT) -> None:
    """Make the memory of a model whose network was trained, on its final features."""
    data = run.images[TRAIN]
    data = data.pick(data.labels != NO_LABEL)
    found = embed(model, data.sources, what="features", progress=run.asked.progress)
    labels = data.labels[list(found.places)]
    remember(run, model, found, labels)
