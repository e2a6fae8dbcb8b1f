"""Trees that come with the package, each with its provenance, and trees found by a name people type."""

from __future__ import annotations

import json
import lzma
import os
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from nbdt.errors import NBDTError, listed, nearest
from nbdt.progress import escape_terminal
from nbdt.tree.hierarchy import Hierarchy

from . import formats
from .edit.history import History

INDEX = "trees.json"
MAX_LIST = 2**24  # bytes of a file of class names


@dataclass(frozen=True)
class ShippedTree:
    """Where a shipped tree comes from.

    Attributes:
        name: what `load` takes.
        title: one line for people.
        classes: how many it has.
        source: what it was made from.
        licence: of that source, as stated there.
        command: rebuilds it.
        hash: of the hierarchy.
    """

    name: str
    title: str
    classes: int
    source: str
    licence: str
    command: str
    hash: str

    def __str__(self) -> str:
        return f"{self.name}: {self.title}"

    def to_dict(self) -> dict[str, str | int]:
        """The attributes as JSON."""
        return asdict(self)


def available() -> dict[str, ShippedTree]:
    """The shipped trees by name."""
    return dict(_index())


def load(name: str) -> Hierarchy:
    """A shipped tree.

    Raises:
        NBDTError: there is none of this name, or its file was altered.
    """
    if name not in _index():
        raise NBDTError(
            f"There is no shipped tree {name!r}.{_near(name)} "
            f"There are: {listed(_index(), len(_index()))}."
        )
    tree = Hierarchy.from_json(_read(name))
    if tree.hash != _index()[name].hash:
        raise NBDTError(
            f"The shipped tree {name!r} is not what it was (hash {tree.hash[:12]}…, expected "
            f"{_index()[name].hash[:12]}…); reinstall nbdt-vision."
        )
    return tree


def find(tree: str | os.PathLike[str]) -> Hierarchy:
    """A tree by what people type: a shipped one's name, a model, a history, or a file.

    A model is a bundled one's name or a saved one's folder; of a history's folder it is the latest
    version; a file has any known format. Where a name is also that of a file,
    ``./name`` is the file.

    Raises:
        NBDTError: none of these, or a file that is no hierarchy.
        OSError: the file cannot be read.
    """
    name = os.fspath(tree)
    if name in _index():
        return load(name)
    bundled = _bundled()
    if name in bundled:
        return Hierarchy.from_json(bundled[name].read_bytes())
    path = Path(name)
    if (path / "hierarchy.json").is_file():
        return Hierarchy.load(path / "hierarchy.json")
    if path.is_dir():
        if History(path).latest() is None:
            raise NBDTError(f"{name!r} is a folder of neither a saved model nor a history.")
        return History(path).load()
    if not path.exists():
        raise NBDTError(
            f"There is no tree {name!r}: no such file, and no shipped tree or model of that name."
            f"{_near(name)} `nbdt hierarchy list` shows them."
        )
    return formats.read(path)


def class_list(source: str) -> tuple[list[str], list[str | None] | None]:
    """Class names in order, and their WordNet ids where known.

    Args:
        source: a text file with a name a line, or a tree as in `find`.

    Raises:
        NBDTError: neither, or an empty file.
        OSError: the file cannot be read.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() not in (".json", ".csv"):
        return _lines(path), None
    tree = find(source)
    wnids = [*tree.class_wnids]
    return [*tree.classes], wnids if any(wnids) else None


def models() -> list[str]:
    """Names of the bundled models; each has a tree."""
    return sorted(_bundled())


def is_model(name: str) -> bool:
    """Whether this is a bundled model's name or the folder of a saved one."""
    return name in _bundled() or (Path(name) / "config.json").is_file()


def title_of(tree: str | os.PathLike[str]) -> str:
    """What a picture of it is headed: a shipped tree's title, else the last part of its path."""
    name = os.fspath(tree)
    shown = _index()[name].title if name in _index() else Path(name).name or name
    return escape_terminal(shown)


@cache
def _index() -> dict[str, ShippedTree]:
    records = json.loads((_data() / INDEX).read_text(encoding="utf-8"))
    return {record["name"]: ShippedTree(**record) for record in records}


def _read(name: str) -> bytes:
    packed = _data() / f"{name}.json.xz"
    if packed.is_file():
        return lzma.decompress(packed.read_bytes())
    return (_data() / f"{name}.json").read_bytes()


def _data() -> Traversable:
    return files("nbdt.hierarchies.data")


def _bundled() -> dict[str, Traversable]:
    """The hierarchy file of each bundled model; listed here since `nbdt.model.model` imports torch."""
    root = files("nbdt") / "bundled"
    folders = root.iterdir() if root.is_dir() else ()
    found = {folder.name: folder / "hierarchy.json" for folder in folders}
    return {name: file for name, file in found.items() if file.is_file()}


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        data = file.read(MAX_LIST + 1)
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise NBDTError(f"{str(path)!r} is no UTF-8 text; expected a class name a line.") from None
    if len(data) > MAX_LIST or not any(names):
        raise NBDTError(
            f"{str(path)!r} is empty or has more than {MAX_LIST:,} bytes; expected a class name a "
            "line."
        )
    return [name for name in names if name]


def _near(name: str) -> str:
    return nearest(name, [*_index(), *_bundled()])
