"""The memory of a model: made, opened and checked against its network."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import NBDTError
from ..storage import is_uri
from .features import embed
from .fingerprint import Classifier, Embedder, embedding_hash

if TYPE_CHECKING:
    from ..memory.memory import Memory
    from ..memory.table import Table

FOLDER = "memory"  # inside the folder of a saved model
PICTURE_SIDE = 160  # pixels of a kept picture at most; smaller where the network sees less


def make_memory(
    model: Classifier, place: str | os.PathLike[str], *, facts: Mapping[str, Any] | None = None
) -> Memory:
    """Make an empty memory for a model's network.

    Args:
        model: whose network makes the embeddings.
        place: a new folder or URI.
        facts: further ones to keep; "directions_only" if the lengths of embeddings are not known.

    Raises NBDTError: there is one, or the place cannot be written.
    """
    from ..memory.table import Table

    kept = {
        **(facts or {}),
        "embedding_hash": embedding_hash(model),
        "architecture": model.architecture,
        "preprocessing": model.preprocess.facts(),
    }
    width = model.head.linear.in_features
    return _memory(model, Table.create(os.fspath(place), width, kept))


def open_memory(model: Classifier, place: str | os.PathLike[str]) -> Memory:
    """Open a memory for a model.

    Raises NBDTError: there is none, a damaged one, or one of another network or preprocessing.
    """
    from ..memory.table import Table

    named = os.fspath(place)
    if not is_uri(named) and Path(named, FOLDER).is_dir() and Path(named, "config.json").is_file():
        named = os.path.join(named, FOLDER)  # the folder of a saved model
    table = Table.open(named)
    check_network(model, table.facts, table.place)
    return _memory(model, table)


def check_network(model: Embedder, facts: Mapping[str, Any], place: str) -> None:
    """Raise NBDTError unless a memory's embeddings are those of a model's network."""
    if (theirs := facts.get("embedding_hash")) != (ours := embedding_hash(model)):
        raise NBDTError(
            f"The memory at {place!r} has embeddings of another network or preprocessing "
            f"({facts.get('architecture')!r}, hash {theirs!s:.12}…); this model is "
            f"{model.architecture!r}, hash {ours:.12}…. Use the model that it was made with, or make "
            "a new memory: nbdt memory build MODEL --data D --out M"
        )


def _memory(model: Classifier, table: Table) -> Memory:
    from ..memory.memory import Memory

    def shown(image: Image.Image) -> bytes:
        small = model.preprocess.frame(image, min(model.preprocess.size, PICTURE_SIDE))
        small.info = {}
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=90, exif=b"", icc_profile=b"", xmp=b"")
        return stream.getvalue()

    return Memory(table, model.head.hierarchy, partial(embed, model), shown)
