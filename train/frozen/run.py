"""A run with a frozen backbone: features, a convex fit, a tree, measurement."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.evidence import make_index
from nbdt.hierarchies.measure.calibrate import set_reference
from nbdt.hierarchies.measure.comparison import measure, quality
from nbdt.model.features import Features, embed
from nbdt.model.model import NBDT
from nbdt.network.encoder import Encoder, to_device
from nbdt.progress import Progress, Say
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.labels import classes_below, label_nodes

from ..data.dataset import KEPT, worker_count
from ..data.inspection import say_left_out, unreadable
from ..data.splits import TEST, TRAIN
from ..fit.measure import calibrate, rounded
from ..prepare import Prepared
from ..tree import TreePlan, describe
from .classifier import LinearFit, fit_linear


def fit_frozen(run: Prepared, progress: Progress, say: Say) -> NBDT:
    """Fit a classifier and its tree on the features of a frozen network.

    All images but the test split take part in the fit. Its penalty and the temperature are chosen
    by cross-validation, whose logits become the model's reference set.

    Raises:
        NBDTError: unreadable images, or too few of a class.
    """
    network = cast(Any, run.network).eval()
    network.reset_classifier(0)
    rounded(network)  # to what is saved, so that a saved model has these features
    encoder = Encoder(to_device(network), run.recipe.architecture, run.preprocessing)
    found = {name: _features(run, name, encoder, progress, say) for name in (TRAIN, TEST)}
    features, labels = found[TRAIN]
    exact, grouped = labels >= 0, labels < -1  # the root, -1, says nothing
    groups = None
    if grouped.any():
        tree = cast(Hierarchy, run.hierarchy)
        below = classes_below(tree)[label_nodes(tree)[labels[grouped]]]
        groups = features.values[grouped], below
    features, labels = features.pick(exact), labels[exact]
    fitted = fit_linear(features.values, labels, groups, seed=run.recipe.seed, progress=progress)
    hierarchy = run.hierarchy or cast(TreePlan, run.plan).make(fitted.weight)
    hierarchy = cast(Hierarchy, hierarchy)  # it has weights to make one from
    describe(hierarchy, say)
    model = _model(run, fitted, hierarchy)
    logits, factor = fitted.logits, fitted.factor
    if run.recipe.rule != "marginal":  # under marginal the tree's answer is the softmax
        more = calibrate(model, logits, labels)
        logits, factor = logits * more, factor * more
    model.provenance |= {"logits_scaled_by": factor, "penalty_inverse": fitted.strength}
    rounded(model)
    set_reference(model, logits, labels)
    accuracy = {"cross-validated": _figures(model, logits, labels)}
    test, test_labels = found[TEST]
    if len(test_labels):
        with torch.inference_mode():
            accuracy["test"] = _figures(model, model.head.logits(test.values), test_labels)
    model.provenance["accuracy"] = accuracy
    make_index(model, features, labels, run.data, run.folder.evidence)
    return model


def _features(
    run: Prepared, name: str, encoder: Encoder, progress: Progress, say: Say
) -> tuple[Features, Tensor]:
    """Return features and labels of a split's readable images."""
    data = run.images[name]
    threads, what = worker_count(run.recipe), f"features of {name} images"
    found = embed(encoder, data.sources, threads=threads, what=what, progress=progress)
    if found.failed and not run.recipe.skip_corrupt:
        raise NBDTError(unreadable(name, found.failed, len(data.labels)))
    say_left_out(say, name, found.failed)
    labels = data.labels[list(found.places)]
    counts = torch.bincount(labels[labels >= 0], minlength=len(run.order.names)).tolist()
    few = [label for label, count in zip(run.order.names, counts, strict=True) if count < KEPT]
    if few and name == TRAIN:
        raise NBDTError(
            f"Fewer than {KEPT} readable images of {few}. Add images, or remove the class."
        )
    return found, labels


def _model(run: Prepared, fitted: LinearFit, hierarchy: Hierarchy) -> NBDT:
    network = cast(Any, run.network).cpu()
    network.reset_classifier(len(run.order.names))
    linear = network.get_classifier()
    with torch.no_grad():
        linear.weight.copy_(fitted.weight)
        linear.bias.copy_(fitted.bias)
    recipe = run.recipe
    model = NBDT.from_network(network, recipe.architecture, hierarchy, rule=recipe.rule)
    model.preprocess = run.preprocessing
    return model.eval()


def _figures(model: NBDT, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the shares of right answers, and the calibration error of the shown probability."""
    found = quality(measure(logits, labels, model.hierarchy, model.rule))
    shares = {kind: values["accuracy"] for kind, values in found.items()}
    return shares | {"calibration error": found["soft"]["calibration_error"]}


def leave_evidence(run: Prepared, model: NBDT, progress: Progress) -> None:
    """Write the evidence index of a model whose network was trained."""
    data = run.images[TRAIN]
    data = data.pick(data.labels >= 0)
    found = embed(model, data.sources, what="features", progress=progress)
    make_index(model, found, data.labels[list(found.places)], run.data, run.folder.evidence)
