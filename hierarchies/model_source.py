"""What every command's ``--model`` and ``--weights`` mean: one text, one model."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.model.saved import bundled
from nbdt.network.load import import_timm

from .induction.classifier import PREFIX, from_classifier

DEFAULT_MODEL = "cifar100"  # of every command that is not told
MODEL_HELP = (
    "A bundled model's name, a saved model's folder, or any pretrained timm model: timm:resnet101"
)
WEIGHTS_HELP = "A local weights file for a timm: model, instead of the Hugging Face hub."


def open_model(source: str, weights: str | os.PathLike[str] | None = None) -> NBDT:
    """A model in evaluation mode.

    Args:
        source: a bundled model's name, a saved model's folder, or ``timm:`` and an architecture,
            which is pretrained and whose tree is induced; see `from_classifier`.
        weights: a local file for the last kind.

    Raises:
        NBDTError: no such model, one that cannot be read, or weights for a model that has its own.
    """
    if source.startswith(PREFIX):
        return from_classifier(source, weights=weights)
    if weights is not None:
        raise NBDTError(
            f"Weights go with a timm architecture, as in --model timm:resnet101; {source!r} is a "
            "saved model, which has its own."
        )
    try:
        return NBDT.load(source)
    except NBDTError as error:
        unknown = source not in bundled() and not Path(source).exists()
        name = re.split(r"[,.]", source, maxsplit=1)[0]
        if unknown and import_timm().is_model(name):
            raise NBDTError(
                f"{error} For timm's pretrained model, write {PREFIX}{source}."
            ) from None
        raise
