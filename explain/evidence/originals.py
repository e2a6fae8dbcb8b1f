"""Opens the pictures of evidence: original file, stored thumbnail, or archive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from nbdt.images.archives import iter_tar
from nbdt.images.image import AMPLE_SIDE, ImageError, open_image, refusal
from nbdt.network.preprocessing import Preprocessing

from .store import Column, EvidenceError, blob

MAX_THUMBNAIL = 1 << 20  # pixels; ours have at most 160 × 160


class Originals:
    """Opens the square picture that a network saw of an image.

    Args:
        columns: of the index.
        preprocessing: of the model, as in the manifest.
        root: the folder or archive of the originals, None if there is none.

    Raises:
        EvidenceError: a damaged `preprocessing`.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        preprocessing: Mapping[str, Any],
        root: str | os.PathLike[str] | None,
    ) -> None:
        self.columns = columns
        self.frame = _read(preprocessing)
        self.root = None if root is None else Path(root)

    def open(self, row: int, reference: str) -> Image.Image:
        """Return the picture of a row.

        Raises:
            ImageError: there is none; the message says where it was expected.
        """
        original = self._file(reference)
        if original is not None and original.is_file():
            try:
                return self.frame.frame(open_image(original, max_side=AMPLE_SIDE))
            except ImageError:
                if "thumbnails" not in self.columns:
                    raise
        if "thumbnails" in self.columns:
            data = blob(self.columns["thumbnails"], self.columns["thumbnail_ends"], row)
            return open_image(data, name=f"thumbnail of {reference}", max_pixels=MAX_THUMBNAIL)
        if self.root is not None and self.root.is_file():
            return self._member(self.root, reference)
        raise refusal(
            reference,
            "the original image",
            f"none in {os.fspath(self.root)!r}" if self.root else "no data folder",
            "say where the data is now (data=, --data), or build the index with thumbnails",
        )

    def _file(self, reference: str) -> Path | None:
        """Return the path of the original; a reference never leads out of the data."""
        parts = PurePosixPath(reference)
        if self.root is None or parts.is_absolute() or ".." in parts.parts:
            return None
        return self.root.joinpath(*parts.parts)

    def _member(self, archive: Path, reference: str) -> Image.Image:
        """Read a member of the archive from its start: slow if it is compressed."""
        name = f"{os.fspath(archive)}!{reference}"
        for source in iter_tar(archive, max_side=AMPLE_SIDE):
            if source.reference == name:
                return self.frame.frame(source.open())
        raise refusal(name, "an image of that archive", "none", "build the index again")


def _read(values: Mapping[str, Any]) -> Preprocessing:
    try:
        return Preprocessing.from_dict(values)
    except ValueError as error:
        raise EvidenceError(f"The index's preprocessing is damaged ({error}).") from None
