"""Models that learned from corrections: their family, and each loaded once if it is used."""

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..store import Store
from ..store.place import StoreError
from ..store.schema import ModelVersion, Pending, SavedCorrection

LOADED = 4  # versions in memory beside the model that the page was opened with


def lineage(model: str, versions: Sequence[ModelVersion]) -> list[str]:
    """Return the hashes from a model up to the uncorrected one, the model first."""
    parents = {version.hash: version.parent for version in versions}
    hashes = [model]
    while (parent := parents.get(hashes[-1])) and parent not in hashes:
        hashes.append(parent)
    return hashes


def descendants(model: str, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Return the versions made from a model or from one of its descendants, oldest first."""
    family = {model}
    below = []
    for version in versions:  # a parent is older than its children
        if version.parent in family:
            family.add(version.hash)
            below.append(version)
    return below


def pending(model: str, versions: Sequence[ModelVersion]) -> Pending:
    """Return which corrections wait for a model: made on its family, and not applied to it."""
    ancestors = lineage(model, versions)
    origin = ancestors[-1]
    family = {origin, *(version.hash for version in descendants(origin, versions))}
    ids = {version.id for version in versions if version.hash in ancestors}
    return Pending(frozenset(family), frozenset(ids))


def waiting(store: Store, model: NBDT, visitor: str | None = None) -> list[SavedCorrection]:
    """Return the corrections, of one visitor or of all, that wait for a model."""
    waits = pending(model_hash(model), store.model_versions())
    return store.corrections(visitor=visitor, pending=waits)


def nothing_waits(store: Store, model: NBDT) -> StoreError:
    """Return the error that a store has nothing for a model to learn."""
    return StoreError(
        f"The store {store.location!r} has nothing that this model "
        f"({model_hash(model)[:12]}…) has not learned from; `nbdt corrections list` shows what it has."
    )


class ModelVersions:
    """The versions of the page's model that a store has; visitors share the loaded ones."""

    def __init__(self, model: NBDT, store: Store) -> None:
        self.base = model
        self.store = store
        self._checked = lru_cache(LOADED)(_checked)
        self._lock = Lock()  # two visitors who want a version load it once

    def offered(self) -> list[ModelVersion]:
        """Return the versions that descend from the page's model, oldest first."""
        return descendants(model_hash(self.base), self.store.model_versions())

    def load(self, version: int) -> NBDT:
        """Return one of `offered`; 0 is the page's own model.

        Raises:
            StoreError: there is no such version, or its folder now holds another model.
            NBDTError: the folder is gone or damaged.
        """
        if version == 0:
            return self.base
        saved = next((offered for offered in self.offered() if offered.id == version), None)
        if saved is None:
            raise StoreError(f"There is no version {version} of this model.")
        with self._lock:
            return self._checked(saved.id, saved.folder, saved.hash)

    def of_hash(self, model: str) -> ModelVersion | None:
        """Return the version with a `model_hash`; None for the page's own model."""
        return next((version for version in self.offered() if version.hash == model), None)


def _checked(version: int, folder: str, expected: str) -> NBDT:
    try:
        model = NBDT.load(folder)
    except NBDTError as error:
        raise StoreError(f"Version {version} cannot be loaded: {error}") from None
    if (actual := model_hash(model)) != expected:
        raise StoreError(
            f"Version {version} has changed: the model in its folder has the hash "
            f"{actual[:12]}…, expected {expected[:12]}…."
        )
    return model
