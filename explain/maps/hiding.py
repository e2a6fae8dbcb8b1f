"""Pictures with some cells hidden: masks, what replaces a hidden part, what the model says then.

Tested regions, counterfactuals, occlusion, LIME and the audit all hide parts of pictures with it.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from nbdt.decide.rules import full_precision
from nbdt.model.model import NBDT

from .candidates import Mask, distinct
from .log_odds import pictures_at_once

BLUR = 1 / 4  # standard deviation of what is blurred, as a share of the shorter side
AUDIT_BLUR = 1 / 8  # the same where audits hide regions


def mean_coloured(images: Tensor) -> Tensor:
    """Replace each image by its mean colour."""
    return images.mean(dim=(-2, -1), keepdim=True).expand_as(images)


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """Blur each image with a Gaussian of that share of its shorter side."""
    return gaussian_blur(images, share * min(images.shape[-2:]))


# What audits hide with.
BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "blur": partial(blurred, share=AUDIT_BLUR),
    "mean": mean_coloured,
}
BLURRED = f"Gaussian blur, standard deviation {BLUR:.3g} of the side"  # for a person to read


def hidden(images: Tensor, baseline: Tensor, masks: Tensor) -> Tensor:
    """Replace the cells of masks in images by their baseline.

    Args:
        images: (batch, 3, height, width).
        baseline: of the same shape: what takes their place.
        masks: (batch, rows, columns), bool: what is hidden.
    """
    pixels = interpolate(masks[:, None].float(), images.shape[-2:], mode="nearest-exact").bool()
    return torch.where(pixels.to(images.device), baseline, images)


def hidden_logits(
    model: NBDT, images: Tensor, baseline: Tensor, rows: Tensor, masks: Tensor
) -> Tensor:
    """Return float32 class logits (pictures, classes), on the CPU, of images with hidden cells.

    Picture k is image ``rows[k]`` with the cells of ``masks[k]`` replaced by its baseline. They run
    in parts that bound the memory; each is one forward pass.

    Args:
        images: (batch, 3, height, width), preprocessed.
        rows: (pictures,) indices of images.
        masks: (pictures, rows, columns), bool.
    """
    size = pictures_at_once(model, images)
    found = [torch.empty(0, model.hierarchy.num_classes)]
    if not len(rows):  # some networks take no batch of 0
        return found[0]
    with torch.inference_mode(), full_precision(images):
        for part, own in zip(rows.to(images.device).split(size), masks.split(size), strict=True):
            pictures = hidden(images[part], baseline[part], own)
            logits = model.logits(pictures)
            found.append(logits.float().cpu())
    return torch.cat(found).clone()


class HiddenPictures:
    """One image with sets of cells hidden: each set runs once, whoever asks for it.

    Args:
        image: (3, height, width), preprocessed, on the model's device.
        way: what takes the place of hidden cells, from images (batch, 3, height, width).
    """

    def __init__(
        self, model: NBDT, image: Tensor, way: Callable[[Tensor], Tensor] = blurred
    ) -> None:
        self.model, self.pair, self.passes = model, (image[None], way(image[None])), 0
        self.masks: dict[bytes, Mask] = {}
        self.known: dict[bytes, Tensor] = {}

    def add(self, masks: Mask, logits: Tensor) -> None:
        """Take the logits (sets, classes) of sets that ran elsewhere."""
        for mask, row in zip(masks, logits, strict=True):
            self.masks[mask.tobytes()], self.known[mask.tobytes()] = mask, row

    def logits(self, masks: Mask) -> Tensor:
        """Return class logits (sets, classes) with each set hidden, on the model's device."""
        new = distinct([mask for mask in masks if mask.tobytes() not in self.masks])
        if len(new):
            rows = torch.zeros(len(new), dtype=torch.long)
            self.add(new, hidden_logits(self.model, *self.pair, rows, torch.from_numpy(new)))
            self.passes += len(new)
        return torch.stack([self.known[mask.tobytes()] for mask in masks]).to(self.model.device)

    def log_probs(self, masks: Mask) -> Tensor:
        """Return the log-probabilities of all classes, (sets, classes), on the CPU."""
        found: Tensor = self.model.head.rules(self.logits(masks)).cpu()
        return found

    def picture(self, mask: Mask) -> Image.Image:
        """Return what the model sees with one set hidden, as colours again."""
        shown = hidden(*self.pair, torch.from_numpy(mask[None]))[0]
        return self.model.preprocess.colours(shown.cpu())


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Each pixel as the Gaussian-weighted mean of those there are: no colour enters from outside.

    Args:
        image: (…, height, width).
        sigma: standard deviation in pixels.
    """
    height, width = image.shape[-2:]
    rows, columns = (_gaussian(length, sigma).to(image) for length in (height, width))
    return rows @ image @ columns.t()


def _gaussian(length: int, sigma: float) -> Tensor:
    """(length, length): Gaussian weights of all positions around each; rows sum to 1."""
    places = torch.arange(length, dtype=torch.float64)
    weights: Tensor = (-0.5 * ((places[:, None] - places) / sigma) ** 2).softmax(dim=1)
    return weights.float()
