"""Hierarchies and models by the names that people type."""

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from nbdt.errors import NBDTError, nearest
from nbdt.network import TIMM
from nbdt.progress import escape_terminal
from nbdt.tree.hierarchy import Hierarchy

from . import formats
from .edit.history import History
from .shipped import available, load

if TYPE_CHECKING:
    from nbdt.model.model import NBDT

DEFAULT_MODEL = "imagenet"  # what a command uses without --model
MODEL_HELP = (
    "A bundled model's name, a saved model's folder, or any pretrained timm model: timm:resnet101"
)
RUNTIME_HELP = (
    "What computes on a CPU: torch, or onnx, which is two to three times as fast; by default onnx where "
    "it is installed and the model allows it."
)
WEIGHTS_HELP = "A local weights file for a timm: model, instead of the Hugging Face hub."


def find(
    tree: str | os.PathLike[str],
    notes: list[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Hierarchy:
    """Find the hierarchy that a text means.

    The text is the name of a shipped hierarchy or of a bundled model, the folder of a saved model
    or of a history (its latest version counts), or a file in any known format. A shipped name wins
    over a file of the same name; ``./name`` is the file. `notes` and the `classes` of
    a file are as for `formats.read`.

    Raises:
        NBDTError: none of these, or a file without a hierarchy.
        OSError: the file cannot be read.
    """
    name = os.fspath(tree)
    if name in available():
        return load(name)
    bundled = _bundled()
    if name in bundled:
        return Hierarchy.from_json(bundled[name].read_bytes())
    path = Path(name)
    if (path / "hierarchy.json").is_file():
        return Hierarchy.load(path / "hierarchy.json")
    if path.is_dir():
        if History(path).latest() is None:
            raise NBDTError(
                f"The folder {name!r} contains neither a saved model nor a history; name one that "
                "does, or a file."
            )
        return History(path).load()
    if not path.exists():
        raise NBDTError(
            f"There is no tree {name!r}: no such file, and no shipped tree or model of that name."
            f"{nearest(name, [*available(), *bundled])} `nbdt hierarchy list` shows them."
        )
    return formats.read(path, classes=classes, notes=notes)


def open_model(
    source: str, weights: str | os.PathLike[str] | None = None, runtime: str | None = None
) -> "NBDT":
    """Load the model that a command's ``--model``, ``--weights`` and ``--runtime`` mean.

    It is in evaluation mode; for the runtime see `NBDT.load`.

    The source is a bundled model's name, a saved model's folder, or ``timm:`` and an architecture,
    which is pretrained or has a local weights file; for its hierarchy see `from_classifier`.

    Raises NBDTError: an unknown or unreadable model, or weights for a model that has its own.
    """
    if source.startswith(TIMM):
        from nbdt.model.loading import choose_runtime

        from .classifier import from_classifier

        model = from_classifier(source, weights=weights)
        choose_runtime(model, runtime, source)
        return model
    if weights is not None:
        raise NBDTError(
            f"Weights need a timm architecture, as in --model timm:resnet101; {source!r} is a saved "
            "model with weights of its own."
        )
    from nbdt.model.model import NBDT
    from nbdt.network.load import import_timm

    try:
        return NBDT.load(source, runtime=runtime)
    except NBDTError as error:
        unknown = source not in _bundled() and not Path(source).exists()
        architecture = re.split(r"[,.]", source, maxsplit=1)[0]
        if unknown and import_timm().is_model(architecture):
            raise NBDTError(f"{error} For timm's pretrained model, write {TIMM}{source}.") from None
        raise


def class_list(source: str) -> tuple[list[str], Sequence[str | None] | None]:
    """Return class names in order, and their WordNet ids if known.

    `source` is a text file with one name a line, JSON with names by index, or a hierarchy as in `find`.

    Raises:
        NBDTError: neither of these, or an empty file.
        OSError: the file cannot be read.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() not in (".json", ".csv"):
        return formats.read_lines(path), None
    if path.is_file() and path.suffix.lower() == ".json" and (names := formats.read_names(path)):
        return names, None
    hierarchy = find(source)
    wnids = hierarchy.class_wnids
    return [*hierarchy.classes], wnids if any(wnids) else None


def models() -> list[str]:
    """Return the names of the bundled models; each has a hierarchy."""
    return sorted(_bundled())


def is_model(name: str) -> bool:
    """Return whether this is a bundled model's name or a saved model's folder."""
    return name in _bundled() or (Path(name) / "config.json").is_file()


def title_of(tree: str | os.PathLike[str]) -> str:
    """Return a heading: a shipped hierarchy's title, else the last part of the path."""
    name = os.fspath(tree)
    shown = available()[name].title if name in available() else Path(name).name or name
    return escape_terminal(shown)


def _bundled() -> dict[str, Traversable]:
    """Return each bundled model's hierarchy file, without the torch import of `nbdt.model`."""
    root = files("nbdt") / "bundled"
    folders = root.iterdir() if root.is_dir() else ()
    trees = {folder.name: folder / "hierarchy.json" for folder in folders}
    return {name: file for name, file in trees.items() if file.is_file()}
