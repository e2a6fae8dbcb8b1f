"""Models that learnt from corrections: who descends from whom, and each loaded once, if at all."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..store import Store
from ..store.records import ModelVersion, Pending
from ..store.url import StoreError

LOADED = 4  # versions in memory beside the model that the page was opened with


def lineage(model: str, versions: Sequence[ModelVersion]) -> list[str]:
    """Hashes from a model up to the one that nobody corrected, itself first."""
    parents = {version.hash: version.parent for version in versions}
    found = [model]
    while (parent := parents.get(found[-1])) and parent not in found:
        found.append(parent)
    return found


def descendants(model: str, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The versions that learnt from a model or from one of its descendants, oldest first."""
    known = {model}
    found = []
    for version in versions:  # a parent is older than its children
        if version.parent in known:
            known.add(version.hash)
            found.append(version)
    return found


def pending(model: str, versions: Sequence[ModelVersion]) -> Pending:
    """What was said of a model, its forebears or their descendants, and it has not learnt yet."""
    above = lineage(model, versions)
    family = {above[-1], *(version.hash for version in descendants(above[-1], versions))}
    known = {version.id for version in versions if version.hash in above}
    return Pending(frozenset(family), frozenset(known))


class ModelVersions:
    """The versions of the page's model that a store knows; visitors share what is loaded.

    Args:
        model: what the page was opened with.
        store: that knows the others.
    """

    def __init__(self, model: NBDT, store: Store) -> None:
        self.base = model
        self.store = store
        self._loaded: dict[str, NBDT] = {model_hash(model): model}
        self._lock = Lock()

    def offered(self) -> list[ModelVersion]:
        """Those that descend from the page's model, oldest first."""
        return descendants(model_hash(self.base), self.store.model_versions())

    def load(self, version: int) -> NBDT:
        """One of `offered`, or with 0 the page's own model.

        Raises:
            StoreError: no such version, or its folder holds another model by now.
            NBDTError: the folder is gone or damaged.
        """
        if version == 0:
            return self.base
        wanted = next((one for one in self.offered() if one.id == version), None)
        if wanted is None:
            raise StoreError(f"There is no version {version} of this model.")
        return self._loaded_once(wanted)

    def by_hash(self, model: str) -> NBDT:
        """One of `offered`, or the page's own model. Raises as `load`."""
        number = next((one.id for one in self.offered() if one.hash == model), 0)
        return self.load(number)

    def folder(self, model: str) -> str | None:
        """Where a version lies; None for the page's own model."""
        return next((one.folder for one in self.offered() if one.hash == model), None)

    def _loaded_once(self, wanted: ModelVersion) -> NBDT:
        with self._lock:
            if wanted.hash not in self._loaded:
                self._make_room()
                self._loaded[wanted.hash] = _checked(wanted)
            return self._loaded[wanted.hash]

    def _make_room(self) -> None:
        """Visitors who use the oldest keep it; it is only loaded again for the next one."""
        while len(self._loaded) > LOADED:
            self._loaded.pop(list(self._loaded)[1])


def _checked(version: ModelVersion) -> NBDT:
    try:
        model = NBDT.load(version.folder)
    except NBDTError as error:
        raise StoreError(f"Version {version.id} cannot be loaded: {error}") from None
    if (found := model_hash(model)) != version.hash:
        raise StoreError(
            f"Version {version.id} is not what it was: the model in its folder has the hash "
            f"{found[:12]}…, expected {version.hash[:12]}…."
        )
    return model
