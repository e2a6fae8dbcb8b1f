"""What a file may ask of its decoder, checked on the headers before anything is decoded.

Decoders work as long as a file tells them to: for every tag, comment, chunk and scan. Photographs
need few of these, so a file with more is refused. A check reads headers alone and takes a
millisecond at most; only the scans of a progressive JPEG are counted through its bytes.
"""

import io
import math
import os
import struct
import zlib
from typing import Any, BinaryIO

MAX_TAGS = 1_000  # in one directory of a TIFF or of EXIF
MAX_PIECES = 100_000  # strips or tiles of a TIFF, chunks of a PNG
MAX_SEGMENTS = 1_000  # of metadata
MAX_METADATA = 32 << 20  # bytes, in all segments before a JPEG's pixels
MAX_GIF_METADATA = 1 << 20  # bytes: Pillow joins a comment's pieces one by one
MAX_EXIF_SEGMENTS = 16
MAX_RLE_BYTES = 4 << 20  # of a run-length encoded BMP, which Pillow decodes in Python
FREE_SCANS, MAX_SCANS = 16, 1_000  # of a JPEG; encoders write about ten
MAX_SCANNED = 1_000_000_000  # scans x pixels, where there are more than FREE_SCANS
DEFLATE = {8, 32946}  # the compression of a TIFF that tifffile has code for
TRUST = "make it smaller, or raise the limit if you trust it"
PLAIN = "export it again as a plain JPEG or PNG"
_PIECE = 1 << 20
_POINTERS = {34665, 34853, 40965}  # tags that lead to the directories of EXIF, GPS and Interop
_PIECE_OFFSETS = {273, 324}  # StripOffsets, TileOffsets
_TYPE_SIZES = (1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8)  # bytes, by TIFF's type


class Refused(ValueError):  # noqa: N818 - `open_image` turns it into an ImageError
    """An image that is not decoded; its arguments are what was expected, what came, what to do."""


def check_headers(stream: BinaryIO, form: str) -> int:
    """Check a file's headers; return how many bits a PNG says are significant, else 0.

    The stream ends where it began. Headers that make no sense pass: the decoder refuses them.

    Raises Refused: too many tags, segments, chunks, strips or scans, or too much metadata.
    """
    check = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff}.get(form)
    bits = check(stream) if check else 0
    stream.seek(0)
    return bits or 0


def check_exif(exif: bytes) -> None:
    """Check the tags of a block of EXIF. Raises Refused."""
    _tiff(io.BytesIO(exif.removeprefix(b"Exif\0\0")))


def check_scans(stream: BinaryIO, pixels: int, pictures: int = 1) -> None:
    """Check the number of scans in a stream that holds some JPEG pictures. Raises Refused."""
    scans, last = 0, b""
    while piece := stream.read(_PIECE):
        scans += piece.count(b"\xff\xda") + (last + piece[:1] == b"\xff\xda")
        last = piece[-1:]
    _at_most(scans, MAX_SCANS * pictures, "scans")
    if scans > FREE_SCANS * pictures:
        _at_most(scans * pixels, MAX_SCANNED * pictures, "pixels in all scans")


def check_pieces(page: Any) -> None:
    """Check the strips or tiles of a page of tifffile's before it decodes them.

    Raises Refused: they share bytes, or are larger than they say once unpacked.
    """
    file = page.parent.filehandle
    if sum(page.databytecounts) > file.size:
        raise Refused("strips or tiles that fit in the file", "some that share their bytes", PLAIN)
    most = math.prod(page.chunks) * page.dtype.itemsize + 1
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        if page.compression not in DEFLATE:
            return
        file.seek(start)
        unpacking = zlib.decompressobj()
        unpacking.decompress(file.read(size), most)
        if unpacking.unconsumed_tail:
            raise Refused(f"strips or tiles of {most - 1:,} bytes", "larger ones", PLAIN)


def check_pixels(size: tuple[int, int], limit: int) -> None:
    """Check the number of pixels. Raises Refused."""
    pixels = size[0] * size[1]
    if pixels > limit:
        got = f"{size[0]:,} x {size[1]:,} = {pixels:,}"
        raise Refused(f"at most {limit:,} pixels", got, TRUST)


def _at_most(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise Refused(f"at most {limit:,} {what}", f"{number:,} or more", PLAIN)


def _jpeg(stream: BinaryIO) -> None:
    stream.seek(2)
    segments = metadata = exif = skipped = pixels = components = 0
    while len(head := stream.read(4)) == 4 and head[:2] != b"\xff\xd9":
        if head[0] != 0xFF or head[1] in {0, 0xFF}:  # a decoder skips such bytes one by one
            skipped += 1
            _at_most(skipped, MAX_PIECES, "bytes between segments")
            stream.seek(-3, os.SEEK_CUR)
            continue
        marker, length = head[1:2], int.from_bytes(head[2:], "big") - 2
        segments, metadata = segments + 1, metadata + length
        start = stream.read(min(max(length, 0), 8))
        exif += marker == b"\xe1" and start[:4] == b"Exif"
        _at_most(segments, MAX_SEGMENTS, "segments")
        _at_most(metadata, MAX_METADATA, "bytes of metadata")
        _at_most(exif, MAX_EXIF_SEGMENTS, "segments of EXIF")
        if b"\xc0" <= marker <= b"\xcf" and marker not in b"\xc4\xc8\xcc" and len(start) >= 6:
            pixels = int.from_bytes(start[1:3], "big") * int.from_bytes(start[3:5], "big")
            components = 255 if marker in b"\xc2\xc6\xca\xce" else start[5]  # 255: progressive
        if marker == b"\xda":
            if start[:1] and start[0] < components:  # the pixels take several scans
                check_scans(stream, pixels)
            return
        stream.seek(length - len(start), os.SEEK_CUR)


def _png(stream: BinaryIO) -> int:
    stream.seek(8)
    chunks = metadata = bits = 0
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"sBIT":
            bits = max(stream.read(min(length, 4)), default=0)
            stream.seek(-min(length, 4), os.SEEK_CUR)
        chunks += 1
        metadata += kind not in {b"IDAT", b"fdAT", b"fcTL"}
        _at_most(chunks, MAX_PIECES, "chunks")
        _at_most(metadata, MAX_SEGMENTS, "chunks of metadata")
        stream.seek(length + 4, os.SEEK_CUR)
    return bits


def _gif(stream: BinaryIO) -> None:
    stream.seek(10)
    flags = (stream.read(3) or b"\0")[0]
    stream.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, os.SEEK_CUR)
    blocks = size = 0
    while (kind := stream.read(1)) not in (b",", b";", b""):
        blocks += 1
        _at_most(blocks, MAX_SEGMENTS, "blocks before the first picture")
        if kind != b"!":
            continue
        stream.read(1)
        while length := stream.read(1).ljust(1, b"\0")[0]:
            size += length
            _at_most(size, MAX_GIF_METADATA, "bytes of metadata")
            stream.seek(length, os.SEEK_CUR)


def _bmp(stream: BinaryIO) -> None:
    head = stream.read(34)
    if len(head) == 34 and head[14] >= 40 and head[30] in {1, 2}:
        _at_most(stream.seek(0, os.SEEK_END), MAX_RLE_BYTES, "bytes of run-length encoding")


def _tiff(stream: BinaryIO) -> None:
    """Check the first directory of a TIFF, and those of its EXIF and GPS."""
    head = stream.read(16)
    if len(head) < 8:
        return
    order = ">" if head[:1] == b"M" else "<"
    big = head[2:4] in (b"+\0", b"\0+")
    size = stream.seek(0, os.SEEK_END)
    starts = [struct.unpack(f"{order}8xQ" if big else f"{order}4xI", head[: 16 if big else 8])[0]]
    left, seen = size, set[int]()
    while starts:
        start = starts.pop()
        if start in seen or start >= size:
            continue
        seen.add(start)
        stream.seek(start)
        for tag, kind, count, value in _entries(stream, order, big=big):
            if tag in _PIECE_OFFSETS:
                _at_most(count, MAX_PIECES, "strips or tiles")
            if tag in _POINTERS and len(seen) < 4:
                starts.append(value)
            # Tags that share their bytes can claim any amount of memory.
            left -= count * (_TYPE_SIZES[kind] if kind < len(_TYPE_SIZES) else 1)
            if left < 0:
                raise Refused(f"tags that fit in its {size:,} bytes", "tags that claim more", PLAIN)


def _entries(stream: BinaryIO, order: str, *, big: bool) -> list[tuple[int, int, int, int]]:
    """Return (tag, type, count, value or offset) of each entry of the directory here."""
    form = f"{order}HHQQ" if big else f"{order}HHII"
    number = int.from_bytes(stream.read(8 if big else 2), "big" if order == ">" else "little")
    _at_most(number, MAX_TAGS, "tags")
    data = stream.read(number * struct.calcsize(form))
    whole = len(data) - len(data) % struct.calcsize(form)
    return list(struct.iter_unpack(form, data[:whole]))
