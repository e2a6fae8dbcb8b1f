"""One training run, read top to bottom: data, network, fit, measure, save."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path
from typing import Any, cast

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.naming import rename
from nbdt.hierarchy import Hierarchy
from nbdt.model import NBDT
from nbdt.networks import create_timm
from nbdt.preprocessing import Preprocessing, timm_preprocessing

from .config import Recipe
from .data import AugmentedBatches, Labelled, PlainBatches, hold_out, normalise, read_split
from .evaluate import accuracies, flat_logits
from .module import TreeSupervised


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hierarchy: Hierarchy | None = None,
    command: str = "",
) -> NBDT:
    """Train by `recipe` on `data`; write checkpoints, log and the finished model to `out`.

    Choices are made on held-out training images, whose logits become the model's reference set;
    the test split is looked at once, at the end.

    Raises:
        NBDTError: a finished model in `out` already, or data that does not fit the recipe.
    """
    target = Path(out)
    if (target / "model").exists():
        raise NBDTError(f"{os.fspath(out)!r} holds a finished model already; name another --out.")
    target.mkdir(parents=True, exist_ok=True)
    lightning.seed_everything(recipe.seed, verbose=False)
    kept, held_out = hold_out(read_split(data, recipe.train, recipe), recipe.held_out, recipe.seed)
    network = create_timm(recipe.architecture, len(recipe.classes))
    preprocessing = _for_recipe(timm_preprocessing(network), recipe)
    if recipe.whiten:
        _whiten(network, kept, preprocessing)
    module = TreeSupervised(network, recipe, preprocessing, hierarchy)
    started = time.monotonic()
    _fit(module, kept, held_out, target)
    minutes = (time.monotonic() - started) / 60
    model = module.finished()
    _name(model)
    _measure(model, held_out, read_split(data, recipe.test, recipe))
    model.provenance |= {
        "command": command,
        "recipe": dataclasses.asdict(recipe),
        "minutes": round(minutes, 1),
        "training_images": len(kept.labels),
        "data_sha256": hashlib.sha256(kept.images.numpy().tobytes()).hexdigest(),
        "lightning": lightning.__version__,
    }
    model.save(target / "model", dtype=torch.float16, card=model_card(model))
    return model


def _for_recipe(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The whole image at the recipe's size, as it was trained."""
    return dataclasses.replace(preprocessing, size=recipe.image_size, crop_pct=1.0)


def _whiten(network: nn.Module, data: Labelled, preprocessing: Preprocessing) -> None:
    if not hasattr(network, "whiten"):
        raise NBDTError("The recipe says whiten = true, which only small_resnet networks can do.")
    images = data.images[:5000]
    cast(Any, network).whiten(normalise(images, preprocessing.mean, preprocessing.std))


def _fit(module: TreeSupervised, kept: Labelled, held_out: Labelled, out: Path) -> None:
    recipe = module.recipe
    batches = AugmentedBatches(kept, recipe)
    trainer = lightning.Trainer(
        max_epochs=recipe.epochs,
        default_root_dir=out,
        logger=CSVLogger(out, name="log"),
        callbacks=[ModelCheckpoint(out / "checkpoints", save_last=True)],
        enable_model_summary=False,
        log_every_n_steps=min(20, len(batches)),
        num_sanity_val_steps=0,
    )
    last = out / "checkpoints" / "last.ckpt"
    trainer.fit(
        module,
        batches,
        PlainBatches(held_out, batch_size=500),
        ckpt_path=last if last.exists() else None,
        weights_only=False,
    )


def _name(model: NBDT) -> None:
    """Readable names for the inner nodes of an induced tree."""
    model.head.rules = type(model.head.rules)(rename(model.hierarchy), rule=model.rule)


def _measure(model: NBDT, held_out: Labelled, test: Labelled) -> None:
    # The stored weights are rounded to half precision: round before measuring, not after.
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.copy_(value.half())
    logits = flat_logits(model, held_out)
    model.reference = {"logits": logits.half(), "labels": held_out.labels.to(torch.int16)}
    figures = {
        "held_out": accuracies(model, logits, held_out.labels),
        "test": accuracies(model, flat_logits(model, test), test.labels),
    }
    model.provenance["accuracy"] = figures


def model_card(model: NBDT) -> str:
    """What a user should know, from the model's own provenance."""
    facts = model.provenance
    rows = "\n".join(
        f"| {split} | {values['flat']:.2%} | {values['soft']:.2%} | {values['hard']:.2%} |"
        for split, values in facts["accuracy"].items()
    )
    recipe = facts["recipe"]
    return f"""# {model.architecture}, {model.hierarchy.num_classes} classes, rule {model.rule}

Trained with `{facts["command"]}` in {facts["minutes"]:g} minutes on {facts["training_images"]:,}
images of {recipe["image_size"]} pixels; {len(model.reference["labels"]):,} training images were held
out for choices, and the test images were looked at once.

| images | flat | soft | hard |
|---|---|---|---|
{rows}

```
{model.hierarchy}
```

Limits: it knows these {model.hierarchy.num_classes} classes and nothing else, and answers with one of
them whatever the photograph shows; it sees the centre square of a photograph at
{recipe["image_size"]} × {recipe["image_size"]} pixels.
"""
