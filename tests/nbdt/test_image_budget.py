"""Small files that ask their decoder for too much, and decoding in a process of its own."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nbdt.errors import NBDTError
from nbdt.images import apart
from nbdt.images.apart import open_apart
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import ImageError, open_image

LIMITS = {"name": "photograph", "max_pixels": 50_000_000, "max_side": 512}


def saved(form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, form, **options)
    return stream.getvalue()


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of 8 x 8 grey pixels with further entries: (tag, type, count, value or offset)."""
    known = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1)]
    every = sorted([*known, (273, 4, 1, 8), (277, 4, 1, 1), (279, 4, 1, 64), *entries])
    data = b"II*\0" if order == "<" else b"MM\0*"
    data += struct.pack(f"{order}IH", 8, len(every))
    data += b"".join(struct.pack(f"{order}HHII", *entry) for entry in every)
    return data + bytes(4) + tail


def shared_tags(order: str = "<") -> bytes:
    """Two hundred tags that are all the same half megabyte."""
    return tiff(
        *[(40_000 + i, 1, 1 << 19, 8) for i in range(200)], tail=bytes(1 << 19), order=order
    )


def shared_in_exif() -> bytes:
    """The same in the EXIF of a TIFF, whose directory stands behind that of the picture."""
    start = len(tiff((34665, 4, 1, 0)))
    tags = b"".join(struct.pack("<HHII", 50_000 + i, 1, 1 << 19, 8) for i in range(200))
    tail = struct.pack("<H", 200) + tags + bytes(4) + bytes(1 << 19)
    return tiff((34665, 4, 1, start), tail=tail)


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = saved("JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * scans + data[end:]


def scans_in_tiff() -> bytes:
    """A TIFF whose only strip is such a JPEG."""
    data = many_scans(2_000)
    fields = [(256, 256), (257, 256), (258, 8), (259, 7), (262, 6), (277, 3), (278, 256)]
    fields += [(273, 8 + 2 + 12 * 9 + 4), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields))
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + data


def segments(marker: bytes, content: bytes, number: int) -> bytes:
    data = saved("JPEG")
    one = b"\xff" + marker + struct.pack(">H", len(content) + 2) + content
    return data[:2] + one * number + data[2:]


def chunks(name: bytes, content: bytes, number: int, *, before: bool = True) -> bytes:
    data = saved("PNG")
    where = data.index(b"IDAT") - 4 if before else data.index(b"IEND") - 4
    body = name + content
    one = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:where] + one * number + data[where:]


def blocks(block: bytes, number: int = 1) -> bytes:
    data = saved("GIF")
    where = 13 + (3 << (data[10] & 7) + 1)
    return data[:where] + block * number + data[where:]


def run_lengths() -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + head + bytes(1024) + b"\1\0" * (3 << 20)


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "tags that share a block": (shared_tags, "tags that claim more"),
    "the same, big-endian": (lambda: shared_tags(">"), "tags that claim more"),
    "tags of EXIF that share a block": (shared_in_exif, "tags that claim more"),
    "a tag that claims gigabytes": (lambda: tiff((40_000, 5, 1 << 29, 8)), "tags that claim more"),
    "tags": (lambda: tiff(*[(40_000 + i, 3, 1, 1) for i in range(2_000)]), "1,000 tags"),
    "strips": (lambda: tiff((324, 4, 200_000, 8), tail=bytes(800_000)), "strips or tiles"),
    "scans": (lambda: many_scans(1_500), "1,000 scans"),
    "scans in a TIFF": (scans_in_tiff, "1,000 scans"),
    "comments": (lambda: segments(b"\xfe", b"", 5_000), "1,000 segments"),
    "EXIF in pieces": (lambda: segments(b"\xe1", b"Exif\0\0ABCD", 50), "16 segments of EXIF"),
    "metadata": (lambda: segments(b"\xe3", bytes(65_000), 600), "bytes of metadata"),
    "fill": (lambda: b"\xff\xd8" + b"\xff" * 300_000 + saved("JPEG")[2:], "between segments"),
    "junk": (lambda: b"\xff\xd8\xff" + bytes(300_000) + saved("JPEG")[2:], "between segments"),
    "tiny chunks": (lambda: chunks(b"abCd", b"", 5_000), "chunks of metadata"),
    "chunks after the pixels": (lambda: chunks(b"tEXt", b"a\0b", 5_000, before=False), "metadata"),
    "empty chunks of pixels": (lambda: chunks(b"IDAT", b"", 110_000), "100,000 chunks"),
    "profiles": (lambda: chunks(b"iCCP", b"a\0\0" + zlib.compress(bytes(99)), 2_000), "metadata"),
    "a long comment": (lambda: blocks(b"!\xfe" + (b"\xff" + bytes(255)) * 9_000 + b"\0"), "1,048,576"),
    "many comments": (lambda: blocks(b"!\xfe\1a\0", 5_000), "blocks before the first picture"),
    "nothing": (lambda: blocks(b"\0", 5_000), "blocks before the first picture"),
    "run lengths": (run_lengths, "run-length"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_more_than_a_photograph_needs_is_refused_at_once(attack: str) -> None:
    make, part = ATTACKS[attack]
    data = make()
    tracemalloc.start()
    try:
        start = time.process_time()
        with pytest.raises(ImageError) as caught:
            open_image(data, name="x")
        assert time.process_time() - start < 5  # with tracing, which is slow
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert part in str(caught.value)
    assert str(caught.value).endswith("export it again as a plain JPEG or PNG")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_tags_of_exif_that_share_a_block_cost_the_orientation_alone(form: str) -> None:
    size = 50_000 if form == "JPEG" else 1 << 19
    tags = b"".join(struct.pack("<HHII", 50_000 + i, 1, size, 8) for i in range(800))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 800) + tags + bytes(4) + bytes(size)
    data = saved(form) if form == "JPEG" else saved(form, exif=exif)
    if form == "JPEG":
        exif = exif[:65_000]
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    tracemalloc.start()
    try:
        assert open_image(data).size == (256, 256)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_what_photographs_have_passes() -> None:
    extended = b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)
    for data in (
        segments(b"\xe1", extended, 160),  # the depth map of a telephone
        segments(b"\xe2", b"ICC_PROFILE\0\1\1" + bytes(500), 1),
        many_scans(5),
        chunks(b"tEXt", b"a\0b", 200),
        saved("TIFF", compression="jpeg"),
        saved("TIFF", compression="tiff_lzw"),
        saved("GIF", comment=b"c" * 5_000),
    ):
        assert open_image(data).size == (256, 256)


# ---- apart -------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved("JPEG"))
    return path


def test_the_same_pixels_from_many_threads(photo: Path) -> None:
    expected = open_image(photo, **LIMITS).tobytes()
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: open_apart(photo, **LIMITS), range(24)))
    assert {image.tobytes() for image in images} == {expected}
    assert len(apart._idle) <= apart.MOST


def test_a_refusal_keeps_the_process(photo: Path, tmp_path: Path) -> None:
    open_apart(photo, **LIMITS)
    before = [idle.process.pid for idle in apart._idle]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    for path, part in (
        (tmp_path / "bad.jpg", "expected an image"),
        (tmp_path / "a", "No such file"),
    ):
        with pytest.raises(ImageError, match=part):
            open_apart(path, **LIMITS)
    with pytest.raises(ImageError, match="at most 9 pixels"):
        open_apart(photo, **(LIMITS | {"max_pixels": 9}))
    assert [idle.process.pid for idle in apart._idle] == before


@pytest.mark.skipif(os.name == "nt", reason="the system limits memory and time only on POSIX")
def test_memory_is_limited(photo: Path, tmp_path: Path) -> None:
    data = saved("PNG")
    head = b"IHDR" + struct.pack(">IIBB", 40_000, 12_000, 8, 6) + bytes(3)
    data = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    (tmp_path / "vast.png").write_bytes(data)  # 1.9 GB as RGBA
    with pytest.raises(ImageError):
        open_apart(tmp_path / "vast.png", **(LIMITS | {"max_pixels": 10**9}))
    assert open_apart(photo, **LIMITS).size == (256, 256)


def test_a_slow_image_ends_its_process_and_no_other(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_apart(photo, **LIMITS)
    used = apart._idle[-1].process
    monkeypatch.setattr(apart, "DEADLINE_S", 0)
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timer.function())  # not later
    with pytest.raises(ImageError, match="within 4 seconds"):
        open_apart(photo, **LIMITS)
    monkeypatch.undo()
    assert used.returncode is not None  # waited for: no zombie
    assert open_apart(photo, **LIMITS).size == (256, 256)


def test_a_process_that_died_is_replaced(photo: Path) -> None:
    open_apart(photo, **LIMITS)
    apart._idle[-1].process.kill()
    apart._idle[-1].process.wait()
    assert open_apart(photo, **LIMITS).size == (256, 256)


def deep_tiff(payload: bytes, *, strips: int = 1) -> bytes:
    """A TIFF of 16 bits in Deflate, 100 x `strips` pixels, whose strips are all the same bytes."""
    fields = {256: 100, 257: strips, 258: 16, 259: 8, 262: 1, 277: 1, 278: 1}
    start = 8 + 2 + 12 * 9 + 4
    data = start if strips == 1 else start + 8 * strips
    places = struct.pack("<I", data) * strips + struct.pack("<I", len(payload)) * strips
    where = {273: data, 279: len(payload)} if strips == 1 else {273: start, 279: start + 4 * strips}
    entries = [(tag, 1, value) for tag, value in fields.items()]
    entries += [(tag, strips, value) for tag, value in where.items()]
    content = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, 9) + content + bytes(4)
    return head + (b"" if strips == 1 else places) + payload


def test_strips_that_unpack_to_more_than_they_say() -> None:
    assert open_image(deep_tiff(zlib.compress(bytes(200)))).size == (100, 1)
    with pytest.raises(ImageError, match=r"expected strips or tiles of 200 bytes, got larger ones"):
        open_image(deep_tiff(zlib.compress(bytes(50_000_000))))


def test_strips_that_share_their_bytes() -> None:
    with pytest.raises(ImageError, match="got some that share their bytes"):
        open_image(deep_tiff(zlib.compress(os.urandom(100) * 2), strips=9_000))


# ---- tables ------------------------------------------------------------------------------------


def test_a_cell_that_is_stored_once_for_many_rows(tmp_path: Path) -> None:
    """Such a table has kilobytes; read as text, its rows would take a hundred gigabytes."""
    path, rows = tmp_path / "a.parquet", pa.array([0] * 100_000, pa.int32())
    long = pa.DictionaryArray.from_arrays(rows, pa.array(["a" * (1 << 20)]))
    pq.write_table(pa.table({"path": long}), path)
    with pytest.raises(NBDTError, match=r"at most 32,768 bytes in a cell, got 1,048,576"):
        next(iter_inputs([path]))
    image = pa.DictionaryArray.from_arrays(rows[:300], pa.array([saved("PNG")]))
    pq.write_table(pa.table({"image": image}), path)
    assert [source.open().size for source in iter_inputs([path])][::150] == [(256, 256)] * 2
