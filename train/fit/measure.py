"""What follows training: calibrate a model, round it, measure it, describe it in a README."""

import torch
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.measure.calibrate import fitted_temperature
from nbdt.hierarchies.measure.comparison import rules_of
from nbdt.model.features import embed
from nbdt.model.hub import figures, limits
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..data.dataset import Images, PlainBatches, normalise


def features_of(model: NBDT, data: Images, progress: Progress = no_progress) -> Tensor:
    """Return a model's features of images, (count, features), on its device; files' are kept.

    Raises NBDTError: an image that cannot be read.
    """
    if data.pixels is None:
        found = embed(model, data.sources, what="features", progress=progress)
        if found.failed:
            raise NBDTError(f"{found.failed[0]} Repair it or remove it.")
        return found.values.to(model.device)
    seen, batches = model.preprocess, PlainBatches(data, model.preprocess)
    with torch.inference_mode():
        parts = [
            model.features(normalise(images.to(model.device), seen.mean, seen.std))
            for images, _ in progress(batches, len(batches), "batches measured")
        ]
    return torch.cat(parts).clone()  # the copy can take part in gradients


@torch.no_grad()
def flat_logits(model: NBDT, data: Images, progress: Progress = no_progress) -> Tensor:
    """Return the class logits of all images, without a tree: (count, classes) float32, on the CPU."""
    return model.head.logits(features_of(model, data, progress)).float().cpu()


@torch.no_grad()
def rounded(network: nn.Module) -> None:
    """Round the matrices of a network, in place, to the half precision that they are saved with."""
    for value in network.parameters():
        if value.ndim > 1:
            value.copy_(value.half())


def calibrate(model: NBDT, logits: Tensor, labels: Tensor) -> float:
    """Scale the last layer by what `fitted_temperature` finds on held-out images; return the factor.

    Flat answers do not change, nor hard ones under `representative`.
    """
    rules = rules_of(model.hierarchy, model.rule)
    factor = 1 / fitted_temperature(rules, logits.cpu(), labels)
    model.head.scale_logits(factor)
    return factor


def model_card(model: NBDT) -> str:
    """Return the README of a trained model, from the model's own provenance."""
    return f"""---
library_name: nbdt-vision
pipeline_tag: image-classification
---

# {model.architecture}, {model.hierarchy.num_classes} classes, rule {model.rule}

{_origin(model)}

{figures(model.provenance)}

```
{model.hierarchy}
```

{limits(model.hierarchy.num_classes, model.preprocess.size)}
"""


def _origin(model: NBDT) -> str:
    facts, size = model.provenance, model.preprocess.size
    held_out = f"{len(model.reference['labels']):,} training images"
    if "corrected" in facts:
        parent = facts["corrected"]
        return f"""Learned from {parent["applied"]:,} corrections of the model {parent["model"][:12]}… with
`{facts["command"]}`;
measured on {held_out} of {size} pixels. If the data are those
that the model was trained on, the same images were held out then."""
    if "memory" in facts:
        return f"""Fitted with `{facts["command"]}` in {facts["minutes"]:g} minutes on {facts["training_images"]:,}
images of {size} pixels; the backbone was not trained. Figures on the training images are of fits without
the image; the test images were used once."""
    return f"""Trained with `{facts["command"]}` in {facts["minutes"]:g} minutes on {facts["training_images"]:,}
images of {size} pixels; {held_out} were held
out for choices, and the test images were used once."""
