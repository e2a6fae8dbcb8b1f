"""Kept photographs: pixels alone, without loss, so that their hash still identifies them."""

from __future__ import annotations

import io

from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from nbdt.correction import picture_hash

from .database import Limits, check_room
from .schema import PhotographRow
from .url import StoreError

WEBP_SIDE = 16383  # pixels; the format's limit


def encoded(image: Image.Image, expected_hash: str, max_bytes: int) -> bytes:
    """Return a lossless WebP, or a PNG where a side is too long for WebP.

    Raises StoreError: the picture has another hash, or takes more than `max_bytes`.
    """
    if picture_hash(image) != expected_hash:
        raise StoreError(
            "The photograph is not the one that the correction is about; send both together."
        )
    rgb = image.convert("RGB")
    pixels = Image.frombytes("RGB", rgb.size, rgb.tobytes())  # no EXIF, no profile, no comment
    stream = io.BytesIO()
    if max(pixels.size) <= WEBP_SIDE:
        pixels.save(stream, "WEBP", lossless=True, method=0, exact=True)
    else:
        pixels.save(stream, "PNG", compress_level=3)
    data = stream.getvalue()
    if len(data) > max_bytes:
        raise StoreError(
            f"This photograph takes {len(data) / 1e6:.1f} MB without loss; at most "
            f"{max_bytes / 1e6:.0f} MB are kept. Make it smaller, or correct without keeping it."
        )
    return data


def suffix(data: bytes) -> str:
    """Return the suffix of a file with these bytes."""
    return ".webp" if data[8:12] == b"WEBP" else ".png"


def keep_photograph(session: Session, photo: PhotographRow, limits: Limits) -> int:
    """Store a copy, unless the visitor has one of the same hash; returns its id.

    Raises StoreError: a limit.
    """
    same = select(PhotographRow.id).filter_by(hash=photo.hash, visitor=photo.visitor)
    if (existing := session.scalar(same)) is not None:
        return existing
    check_room(
        session, PhotographRow, photo.visitor,
        (limits.photograph_bytes_of_visitor, limits.photograph_bytes_in_all),
        "bytes of photographs", size=PhotographRow.size, more=photo.size,
        instead="Delete some, or correct without keeping the photograph.",
    )  # fmt: skip
    session.add(photo)
    session.flush()
    return photo.id
