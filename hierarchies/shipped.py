"""The hierarchies in this package."""

import json
import lzma
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from nbdt.errors import NBDTError, listed, nearest
from nbdt.tree.hierarchy import Hierarchy

INDEX = "trees.json"


@dataclass(frozen=True)
class ShippedTree:
    """The provenance of a hierarchy in this package."""

    name: str  # the name for `load`
    title: str  # one line for people
    classes: int  # the number of classes
    source: str  # what the hierarchy was made from
    licence: str  # licence of the source, as stated there
    command: str  # rebuilds the hierarchy
    hash: str  # hash of the hierarchy

    def __str__(self) -> str:
        return f"{self.name}: {self.title}"


def available() -> dict[str, ShippedTree]:
    """Return the hierarchies in this package by name."""
    records = json.loads((_data() / INDEX).read_text(encoding="utf-8"))
    return {record["name"]: ShippedTree(**record) for record in records}


def load(name: str) -> Hierarchy:
    """Load a hierarchy of this package.

    Raises NBDTError: an unknown name, or an altered file.
    """
    trees = available()
    if name not in trees:
        raise NBDTError(
            f"There is no shipped tree {name!r}.{nearest(name, trees)} "
            f"There are: {listed(trees, len(trees))}."
        )
    hierarchy = Hierarchy.from_json(_read(name))
    if hierarchy.hash != trees[name].hash:
        raise NBDTError(
            f"The file of the shipped tree {name!r} was altered (hash {hierarchy.hash[:12]}…, "
            f"expected {trees[name].hash[:12]}…); reinstall nbdt-vision."
        )
    return hierarchy


def _read(name: str) -> bytes:
    packed = _data() / f"{name}.json.xz"
    if packed.is_file():
        return lzma.decompress(packed.read_bytes())
    return (_data() / f"{name}.json").read_bytes()


def _data() -> Traversable:
    return files("nbdt.hierarchies") / "data"
