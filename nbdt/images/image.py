"""Open one image safely, whatever its file holds.

Every image of this project is opened here, without Pillow's global settings. `MAX_PIXELS` admits the
largest photographs people have, 20,000 x 20,000. Decoded they take 4 bytes a pixel, at most 2 GB,
and twice that while a copy is made: a service for strangers should pass a lower limit (50 million
pixels admit most cameras).
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NoReturn, TypeAlias, cast

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ..errors import NBDTError
from .budget import TRUST, Refused, check_exif, check_headers, check_pixels, check_scans
from .deep import (
    REMARK,
    Scale,
    TiffFile,
    deep_values,
    eight_bit,
    flat,
    half_clear,
    open_tiff,
    reopened,
    step_to,
)

MAX_PIXELS = 500_000_000
MAX_BYTES = 2 << 30  # an uncompressed file of MAX_PIXELS takes 1.5 GB
AMPLE_SIDE = 2048

StrPath: TypeAlias = "str | os.PathLike[str]"

_FORMATS = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_MAX_ICC_BYTES = 4 << 20
_PIECE = 1 << 20
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_TURN = Image.Transpose
_TURNS = {2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM}
_TURNS |= {5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90}


class ImageError(NBDTError):
    """A refused image or archive: which one, what was expected, what came, what to do."""


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """JPEG whose EXIF is not read while it is opened: it is checked first."""

    def _read_dpi_from_exif(self) -> None:
        pass


# Not `Image.open`: its limit of pixels is global to the process and below ours. Each of these
# classes decodes only its own format, and none starts another program.
_SIGNATURES: tuple[tuple[bytes, str, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", "JPEG", _JpegFile),
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImagePlugin.PngImageFile),
    (b"GIF87a", "GIF", GifImagePlugin.GifImageFile),
    (b"GIF89a", "GIF", GifImagePlugin.GifImageFile),
    (b"BM", "BMP", BmpImagePlugin.BmpImageFile),
    *((start, "TIFF", TiffFile) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)


def open_image(
    source: StrPath | BinaryIO | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    max_side: int | None = None,
    bands: Sequence[int] = (),
) -> Image.Image:
    """Open an image as 8-bit RGB: upright, opaque (on white), in sRGB, without any metadata.

    An animation gives its first frame. A binary stream is read from its current position. If there
    is something to know about the pixels, such as how 12 bits were scaled, or that all is nearly
    black, ``info["remark"]`` says so.

    Args:
        source: a path, a binary stream, or the file's bytes; messages call it `name`.
        max_pixels: refuse an image whose header claims more, before decoding anything.
        max_bytes: refuse a larger file.
        max_side: reduce the image until no side is longer, a JPEG while it is decoded. Off by
            default, because training and measurements need the pixels as stored; code that shows an
            image should pass `AMPLE_SIDE`.
        bands: the numbers, from 1, of the bands of a TIFF to show: as red, green and blue, or one.

    Raises:
        ImageError: missing, unreadable, not a regular file, empty, too large, of another format,
            damaged or truncated. No file content raises anything else.
        ValueError: `max_side` is below 1.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: expected at least 1 or None, got {max_side}")
    name = _name_of(source) if name is None else name
    with _stream(source, name, max_bytes) as stream:
        form, plugin = _recognise(stream, name)
        try:
            bits = check_headers(stream, form)
            if form == "TIFF":
                picture = open_tiff(stream, max_pixels, max_side, bands)
            else:
                picture = plugin(stream)
            check_pixels(picture.size, max_pixels)
            return _decode(picture, partial(reopened, plugin, stream), bits, max_side)
        except Refused as error:
            raise refusal(name, *error.args) from None
        except Exception as error:  # parsers of hostile bytes raise nearly everything there is
            expected = f"a complete, undamaged {form} image"
            got = f"one that cannot be decoded ({type(error).__name__}: {error})"
            remedy = "fetch it again, or export it as an 8-bit RGB JPEG or PNG"
            raise refusal(name, expected, got, remedy) from error


def read_file(path: StrPath, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a file's bytes, with the checks of `open_image` on the file.

    Raises ImageError: missing, unreadable, not a regular file, empty or too large.
    """
    name = _name_of(path)
    with _stream(path, name, max_bytes) as stream:
        return _read(stream, name, max_bytes)


def refusal(name: str, expected: str, got: str, remedy: str) -> ImageError:
    """Return an error of one line, without control codes of file names or decoders."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in got)
    return ImageError(f"{name!r}: expected {expected}, got {plain[:300]}; {remedy}")


def refuse(error: ImageError) -> NoReturn:
    """Raise `error`; serves as the `open` and `read` of a source that cannot be opened."""
    raise error


def _name_of(source: StrPath | BinaryIO | bytes) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    given = getattr(source, "name", None)  # of an open file; it may be a descriptor
    return given if isinstance(given, str) else "<bytes>"


# --- bytes in: a stream whose size was checked ---


@contextmanager
def _stream(source: StrPath | BinaryIO | bytes, name: str, limit: int) -> Iterator[BinaryIO]:
    if isinstance(source, str | os.PathLike):
        with regular_file(source, name) as file:
            check_size(os.fstat(file.fileno()).st_size, name, limit)
            yield file
        return
    data = source if isinstance(source, bytes) else _read(source, name, limit)
    check_size(len(data), name, limit)
    yield io.BytesIO(data)


def check_size(size: int, name: str, limit: int) -> None:
    """Raise ImageError if a file is empty or larger than `limit` bytes."""
    if size == 0:
        raise refusal(name, "an image", "an empty file", "fetch or export it again")
    if size > limit:
        raise refusal(name, f"at most {limit:,} bytes", f"{size:,} or more", TRUST)


def _read(source: BinaryIO, name: str, limit: int) -> bytes:
    pieces, size = [], 0
    try:
        # In pieces, because a reader sets aside all that it is asked for.
        while size <= limit and (piece := source.read(min(_PIECE, limit + 1 - size))):
            if not isinstance(piece, bytes):
                raise refusal(name, "bytes", type(piece).__name__, "open it in binary mode")
            pieces.append(piece)
            size += len(piece)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        raise refusal(name, "a readable stream", str(error), "open it again") from error
    return b"".join(pieces)


def regular_file(path: StrPath, name: str) -> BinaryIO:
    """Open a file, but refuse what can block or act when opened, such as pipes and devices."""
    try:
        _check_regular(os.stat(path), name)
        file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | _NONBLOCK))  # noqa: SIM115
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise refusal(name, "a readable file", reason, "check path and permissions") from error
    try:
        _check_regular(os.fstat(file.fileno()), name)  # it may have been exchanged in between
    except ImageError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise refusal(name, "a file", "a folder", "name the files inside")
    if not stat.S_ISREG(status.st_mode):
        raise refusal(name, "a regular file", "a pipe, socket or device", "save it to a file")


def _recognise(stream: BinaryIO, name: str) -> tuple[str, type[ImageFile.ImageFile]]:
    """Return the format by the first bytes, whatever the file's name."""
    try:
        head = stream.read(16)
        stream.seek(0)
    except OSError as error:
        raise refusal(name, "a readable file", str(error), "check the disk") from error
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP", WebPImagePlugin.WebPImageFile
    for signature, form, plugin in _SIGNATURES:
        if head.startswith(signature):
            return form, plugin
    apple = head[4:8] == b"ftyp"  # as telephones write them
    got = "HEIC, AVIF or a film" if apple else f"a file that starts with {head[:8]!r}"
    raise refusal(name, f"an image ({_FORMATS})", got, "convert it to one of these")


# --- pixels out ---


def _decode(
    picture: Image.Image, again: Callable[[], Any], bits: int, max_side: int | None
) -> Image.Image:
    deep = any("16" in str(tile.args) for tile in getattr(picture, "tile", ()))
    if isinstance(picture, TiffFile) and "jpeg" in str(picture.info.get("compression")):
        _check_jpeg_pieces(picture)
    if deep:
        picture.info.pop("transparency", None)  # a 16-bit colour: no 8-bit pixel can match it
    if max_side is not None:
        picture.draft(None, _target(picture.size, max_side))  # JPEG: decode at 1/2, 1/4 or 1/8
    picture.load()
    step = step_to(picture.size, max_side)
    turn = _TURNS.get(_orientation(picture))
    image = _eight_bit(picture, again, bits, step) if deep else _plain(picture)
    remarks = [image.info.get(REMARK, "")]
    if max_side is not None and max(image.size) > max_side:
        target = _target(image.size, max_side)
        image = image.resize(target, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if image.mode in ("LA", "RGBA"):
        remarks.append(half_clear(image.getchannel("A")))
    image = _srgb(_opaque(image), picture.info.get("icc_profile"))
    if turn is not None:
        image = image.transpose(turn)
    if isinstance(image, ImageFile.ImageFile):
        image = image.copy()  # without the parsed headers
    remark = " ".join(filter(None, [*remarks, flat(image)]))
    image.info = {REMARK: remark} if remark else {}
    return image


def _check_jpeg_pieces(picture: TiffFile) -> None:
    """Check the scans of the JPEG pictures that a TIFF's strips or tiles are."""
    tags, stream = picture.tag_v2, cast(BinaryIO, picture.fp)
    pieces = len(tags.get(273) or tags.get(324) or [0])
    stream.seek(0)
    check_scans(stream, picture.width * picture.height // pieces, pieces)


def _target(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _orientation(picture: Image.Image) -> int:
    info = picture.info
    try:
        if "exif" not in info and "Raw profile type exif" in info:  # a PNG's, in hexadecimal
            info["exif"] = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
        if info.get("exif"):
            check_exif(info["exif"])
        value = picture.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - broken EXIF costs the orientation, not the photograph
        return 1
    return value if isinstance(value, int) else 1


def _plain(image: Image.Image) -> Image.Image:
    """Convert to a mode that can be resized well: L, LA, RGB, RGBA or CMYK."""
    if image.has_transparency_data and image.mode not in ("LA", "RGBA", "CMYK"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _eight_bit(picture: Image.Image, again: Callable[[], Any], bits: int, step: int) -> Image.Image:
    """Show a PNG of 16 bits, of which its chunk sBIT may say that only `bits` are used."""
    values = deep_values(picture, again)
    if values is None:
        return _plain(picture)
    high = 2.0**bits - 1 if 0 < bits < 16 and values.max() < 2**bits else 0
    image = eight_bit(values, Scale(65535, high=high), step)
    if picture.mode == "RGBA":
        image.putalpha(picture.getchannel("A").resize(image.size, Image.Resampling.NEAREST))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert by the image's colour profile if it can be used, else by the mode alone."""
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_ICC_BYTES:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(given):
                srgb = ImageCms.createProfile("sRGB")
                image = ImageCms.profileToProfile(image, given, srgb, outputMode="RGB") or image
        except Exception:  # noqa: BLE001 - a broken profile costs the colours' precision only
            return image.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
