"""Photographs as they are kept: pixels alone, without loss, so that their hash is still theirs."""

from __future__ import annotations

import io

from PIL import Image

from nbdt.correction import picture_hash
from nbdt.images.image import open_image

from .place import StoreError

WEBP_SIDE = 16383  # pixels; the format's limit


def encoded(image: Image.Image, expected_hash: str, max_bytes: int) -> bytes:
    """A lossless WebP, or a PNG where a side is too long for it.

    Raises:
        StoreError: another picture than the one of that hash, or more than `max_bytes`.
    """
    if picture_hash(image) != expected_hash:
        raise StoreError(
            "The photograph is not the one that the correction is about; send both together."
        )
    rgb = image.convert("RGB")
    plain = Image.frombytes("RGB", rgb.size, rgb.tobytes())  # no EXIF, no profile, no comment
    stream = io.BytesIO()
    if max(plain.size) <= WEBP_SIDE:
        plain.save(stream, "WEBP", lossless=True, method=0, exact=True)
    else:
        plain.save(stream, "PNG", compress_level=3)
    data = stream.getvalue()
    if len(data) > max_bytes:
        raise StoreError(
            f"This photograph takes {len(data) / 1e6:.1f} MB without loss; at most "
            f"{max_bytes / 1e6:.0f} MB are kept. Make it smaller, or correct without keeping it."
        )
    return data


def decoded(data: bytes, name: str) -> Image.Image:
    """The photograph again. Raises ImageError if the database is damaged."""
    return open_image(data, name=name)


def suffix(data: bytes) -> str:
    """Of a file with these bytes."""
    return ".webp" if data[8:12] == b"WEBP" else ".png"
