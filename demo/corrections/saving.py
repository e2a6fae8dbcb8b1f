"""A correction goes to the store, once."""

from __future__ import annotations

from PIL import Image

from nbdt.correction import Correction

from ..store import Store
from ..store.place import StoreError

_SAME = ("kind", "image", "node", "child", "label", "region", "model", "hierarchy")


def save_once(store: Store, said: Correction, *, visitor: str, photo: Image.Image | None) -> int:
    """The correction's number, once it is on the disk.

    A second click keeps no second copy, which would count twice when the model learns.

    Args:
        store: where.
        said: the correction.
        visitor: who said it, as `visitor_id`.
        photo: to be kept with it, if the visitor agrees.

    Raises:
        StoreError: this visitor said it already; or the store refuses it.
    """
    for kept in reversed(store.corrections(visitor=visitor)):
        if all(getattr(kept.correction, name) == getattr(said, name) for name in _SAME):
            raise StoreError(
                f"This is saved already, as correction {kept.id}. To say it anew, delete that one."
            )
    return store.add_correction(said, visitor=visitor, photo=photo)
