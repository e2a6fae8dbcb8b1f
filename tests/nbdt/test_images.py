"""Hostile and unusual images: each opens to the right pixels or raises one clear `ImageError`."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from nbdt import NBDTError
from nbdt.images.archives import iter_tar
from nbdt.images.dataset import iter_images, iter_inputs
from nbdt.images.image import ImageError, open_image

pytestmark = pytest.mark.filterwarnings("error")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
needs_posix = pytest.mark.skipif(os.name == "nt", reason="pipes, modes and links of POSIX")


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def gradient(width: int = 9, height: int = 7) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            image.putpixel((x, y), (x * 255 // width, y * 255 // height, 90))
    return image


def row(image: Image.Image) -> list[object]:
    return [image.getpixel((x, 0)) for x in range(image.width)]


def grey_row(mode: str, *values: float) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG made by hand; `extra` chunks (name and data) stand before the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [header, *extra, b"IDAT" + zlib.compress(rows), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def refusal(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


# --- what opens ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", [str, Path, bytes, open])
def test_formats_from_every_kind_of_source(
    tmp_path: Path, form: str, kind: Callable[..., object]
) -> None:
    path = tmp_path / "image.dat"  # the content decides, not the name
    path.write_bytes(encoded(gradient(), form))
    with Image.open(path) as reference:
        expected = reference.convert("RGB")
    if kind is open:
        with path.open("rb") as file:
            image = open_image(file)
    else:
        image = open_image(path.read_bytes() if kind is bytes else kind(path))
    assert type(image) is Image.Image
    assert (image.mode, image.size) == ("RGB", (9, 7))
    assert image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", FORMATS)
def test_one_pixel(form: str) -> None:
    image = open_image(encoded(Image.new("RGB", (1, 1), (10, 200, 30)), form), max_side=64)
    assert image.size == (1, 1)
    assert max(abs(a - b) for a, b in zip(image.getpixel((0, 0)), (10, 200, 30), strict=True)) < 12


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(9))
def test_orientation_is_applied_once(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(gradient(), form, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as reference:
        expected = ImageOps.exif_transpose(reference).convert("RGB")
    image = open_image(data)
    assert image.size == ((7, 9) if orientation >= 5 else (9, 7))
    assert image.tobytes() == expected.tobytes()


def test_broken_exif_costs_only_the_orientation() -> None:
    for exif in (
        b"Exif\0\0junk",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ):
        assert open_image(encoded(gradient(), "PNG", exif=exif)).tobytes() == gradient().tobytes()


def test_metadata_is_stripped() -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        image = open_image(encoded(gradient(), form, exif=exif))
        assert image.info == {}
        assert not image.getexif()
        assert not hasattr(image, "fp")
        for again in ("JPEG", "PNG", "WEBP", "TIFF"):
            assert b"SECRET" not in encoded(image, again)


def test_cmyk() -> None:
    inks = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for form in ("JPEG", "TIFF"):  # JPEG: stored inverted, as Adobe does
        red, green, blue = open_image(encoded(inks, form)).getpixel((4, 4))
        assert (red < 6, green > 249, blue > 249) == (True, True, True)


def test_transparency_is_laid_on_white() -> None:
    colours = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    colours.putpixel((1, 0), (0, 0, 255, 255))
    colours.putpixel((2, 0), (0, 0, 0, 128))
    expected = [(255, 255, 255), (0, 0, 255), (127, 127, 127)]
    assert row(open_image(encoded(colours))) == expected
    assert row(open_image(encoded(colours, "WEBP", lossless=True, exact=True))) == expected
    grey = Image.merge("LA", [grey_row("L", 0, 0, 80), grey_row("L", 0, 255, 255)])
    assert row(open_image(encoded(grey))) == [(255,) * 3, (0,) * 3, (80,) * 3]


def test_palette_with_transparency() -> None:
    image = grey_row("P", 0, 1, 2)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    alphas = encoded(image, "PNG", transparency=bytes([0, 255, 255]))
    one = encoded(image, "GIF", transparency=0)
    for data in (alphas, one):
        assert row(open_image(data)) == [(255, 255, 255), (0, 255, 0), (0, 0, 255)]
    keyed = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert row(open_image(keyed)) == [(255, 255, 255)]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_16_bit_grey_is_scaled_not_clipped(mode: str) -> None:
    image = grey_row(mode, 0, 255, 32768, 65535)
    forms = ["TIFF", "PNG"] if mode == "I;16" else ["TIFF"]
    for form in forms:
        assert row(open_image(encoded(image, form))) == [(v,) * 3 for v in (0, 1, 128, 255)]


def test_ranges_of_modes_that_do_not_state_theirs() -> None:
    def opened(mode: str, *values: float) -> list[int]:
        return [pixel[0] for pixel in row(open_image(encoded(grey_row(mode, *values), "TIFF")))]

    assert opened("F", 0.0, 0.5, 1.0) == [0, 128, 255]
    assert opened("F", 0.0, 100.0, 255.0) == [0, 100, 255]
    assert opened("F", -1.0, 0.0, 1.0)[::2] == [0, 255]
    assert opened("I", 0, 7, 200) == [0, 7, 200]
    assert opened("I", 0, 1 << 29, 1 << 30) == [0, 128, 255]
    assert opened("I", 0, 0, 0) == [0, 0, 0]
    assert opened("F", float("inf"), 0.0, 1.0) == [0, 0, 255]  # what is no number is black
    assert "finite" in refusal(encoded(grey_row("F", float("inf"), float("nan")), "TIFF"))


def test_16_bit_tiff_where_zero_is_white() -> None:
    data = encoded(grey_row("I;16", 0, 65535), "TIFF", tiffinfo={262: 0})
    assert row(open_image(data)) == [(255,) * 3, (0,) * 3]


def test_12_bit_tiff() -> None:
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    assert row(open_image(data + b"\x80\x0f\xff")) == [(128,) * 3, (255,) * 3]


def test_16_bit_rgb() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 32768, 0, 256, 255, 65280)
    data = png(2, 1, 16, 2, rows)
    assert row(open_image(data)) == [(255, 128, 0), (1, 0, 255)]
    keyed = png(2, 1, 16, 2, rows, b"tRNS" + struct.pack(">3H", 65535, 32768, 1))
    assert row(open_image(keyed)) == [(255, 128, 0), (1, 0, 255)]


def test_other_modes() -> None:
    assert row(open_image(encoded(grey_row("1", 0, 1)))) == [(0,) * 3, (255,) * 3]
    assert row(open_image(encoded(grey_row("L", 0, 77)))) == [(0,) * 3, (77,) * 3]
    luma = encoded(Image.new("RGB", (8, 8), (200, 30, 30)).convert("YCbCr"), "JPEG", quality=95)
    assert open_image(luma).getpixel((3, 3))[0] > 190


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_colour_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    directory = named[128:].replace(b"rXYZ", b"tmp ", 1).replace(b"gXYZ", b"rXYZ", 1)
    swapped = named[:128] + directory.replace(b"tmp ", b"gXYZ", 1)
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert open_image(encoded(red, icc_profile=srgb)).getpixel((0, 0)) == (255, 0, 0)
    assert open_image(encoded(red, icc_profile=swapped)).getpixel((0, 0)) == (0, 255, 0)
    for broken in (b"junk" * 50, swapped[:300]):
        assert open_image(encoded(red, icc_profile=broken)).getpixel((0, 0)) == (255, 0, 0)


# --- size ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (20_000, 30)])
def test_long_images(form: str, size: tuple[int, int]) -> None:
    if form == "WEBP":
        size = tuple(min(side, 16_383) for side in size)
    data = encoded(Image.new("RGB", size, "navy"), form)
    assert open_image(data).size == size
    small = open_image(data, max_side=2048)
    assert max(small.size) == 2048
    assert min(small.size) == max(1, round(min(size) * 2048 / max(size)))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
def test_max_side_keeps_shape_and_content(mode: str) -> None:
    grey = Image.linear_gradient("L").resize((600, 300))
    image = grey.convert("I").point(lambda v: v * 257) if mode == "I;16" else grey.convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    data = encoded(image.convert("I;16") if mode == "I;16" else image, form)
    full, small = open_image(data), open_image(data, max_side=60)
    assert small.size == (60, 30)
    assert open_image(data, max_side=600).tobytes() == full.tobytes()
    for y in (5, 15, 25):
        assert abs(small.getpixel((30, y))[0] - full.resize((60, 30)).getpixel((30, y))[0]) <= 3


def test_max_side_below_one() -> None:
    with pytest.raises(ValueError, match="max_side: expected at least 1"):
        open_image(encoded(gradient()), max_side=0)


def test_bomb_is_refused_by_its_header() -> None:
    message = refusal(png(60_000, 60_000, 8, 2, b""), name="bomb.png")
    assert message.startswith(
        "'bomb.png': expected at most 500,000,000 pixels, got 60,000 x 60,000"
    )
    for form in FORMATS:
        message = refusal(encoded(gradient(), form), max_pixels=62)
        assert "9 x 7 = 63" in message
        open_image(encoded(gradient(), form), max_pixels=63)


def test_vast_webp_canvas() -> None:
    frame = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    side = (0xFFFE).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 2) + side + side
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(16) + frame
    message = refusal(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert "got 65,535 x 65,535" in message


def test_pillows_own_limit_neither_matters_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    for form in FORMATS:
        assert open_image(encoded(gradient(), form)).size == (9, 7)
    assert open_image(encoded(gradient(), "TIFF", compression="tiff_lzw")).size == (9, 7)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (2, False)


def test_max_bytes(tmp_path: Path) -> None:
    data = encoded(gradient())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, io.BytesIO(data), path):
        assert "bytes" in refusal(source, max_bytes=len(data) - 1)
    assert open_image(path, max_bytes=len(data)).size == (9, 7)


# --- what is refused ---


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "got an empty file"),
        (b"hello, I am text\n", "got a file that starts with b'hello, I'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "b'%!PS-Ado'"),
        (b"%PDF-1.7\n", "b'%PDF-1.7'"),
        (b"\0\0\0\x18ftypheic" + bytes(90), "got HEIC, AVIF or a film; convert it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "expected an image (JPEG, PNG"),
        (b"\x1b[2J\x1b[31m", "b'\\x1b[2J\\x1b[31'"),
        (b"\0", "expected an image"),
        (b"\xff\xd8\xff", "undamaged JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "undamaged PNG image"),
        (b"RIFF\0\0\0\0WEBP", "undamaged WebP image"),
        (b"GIF89a", "undamaged GIF image"),
        (b"BM", "undamaged BMP image"),
        (b"II*\0", "undamaged TIFF image"),
    ],
)
def test_content_that_is_no_image(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{str(path)!r}: expected ")
    assert part in message
    assert "; " in message


@pytest.mark.parametrize("form", ["EPS", "ICO", "PPM", "TGA", "PDF", "PCX", "JPEG2000", "ICNS"])
def test_formats_outside_the_list(form: str) -> None:
    assert "expected an image (JPEG" in refusal(encoded(gradient(32, 32), form))


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.jpg")
    assert "got a folder" in refusal(tmp_path)
    assert "null" in refusal("a\0b.jpg")
    assert "too long" in refusal("a" * 5000)


@needs_posix
def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(gradient()))

    def denied(*_: object, **__: object) -> int:  # chmod alone does not stop root
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied; check path and permissions" in refusal(path)


@needs_posix
def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        assert "a pipe, socket or device" in refusal(path)


@needs_posix
def test_hostile_file_name(tmp_path: Path) -> None:
    path = tmp_path / "\x1b]0;owned\x07\n\u202e.jpg"
    path.write_bytes(b"x")
    assert "\\x1b]0;owned\\x07\\n\\u202e.jpg" in refusal(path)


def test_streams_that_are_not_bytes() -> None:
    assert "got str" in refusal(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    assert "closed" in refusal(closed)


def test_broken_palette_and_chunks() -> None:
    good = png(2, 1, 8, 3, b"\0\0\1", b"PLTE" + bytes(6))
    assert open_image(good).size == (2, 1)
    for bad in (
        png(2, 1, 8, 3, b"\0\0\1", b"PLTE" + bytes(5)),
        png(2, 1, 8, 3, b"\0\0\1", b"PLTE"),
        png(2, 1, 7, 3, b"\0\0\1"),
        good.replace(b"PLTE", b"PL\x1bE"),
        good.replace(b"PLTE\0", b"PLTE\1"),
        png(2, 1, 8, 3, b""),
        png(0, 1, 8, 2, b""),
        png(2, 1, 8, 2, b"\0", b"zTXta\0\0" + zlib.compress(bytes(1 << 22))),
    ):
        opened_or_refused(bad)


# --- damage of every kind: an image or an ImageError, nothing else ---


def opened_or_refused(data: bytes) -> Image.Image | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in production; the other tests have them as errors
        try:
            image = open_image(data, max_pixels=1_000_000)
        except ImageError as error:
            assert str(error).isprintable()
            return None
    assert (type(image), image.mode) == (Image.Image, "RGB")
    return image


@cache
def valid_files() -> tuple[bytes, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = gradient()
    files = [encoded(image, form) for form in FORMATS]
    files += [encoded(image, form, exif=exif) for form in ("JPEG", "PNG", "WEBP", "TIFF")]
    files += [encoded(image, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "packbits")]
    files += [encoded(image, "JPEG", progressive=True), encoded(image.convert("CMYK"), "JPEG")]
    files += [encoded(image.convert(mode)) for mode in ("P", "1", "LA", "RGBA")]
    files += [encoded(image.convert("P"), "BMP"), encoded(image.convert("RGBA"), "WEBP")]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    return (*files, encoded(image, icc_profile=profile))


@pytest.mark.parametrize("number", range(len(FORMATS)))
def test_truncation_at_any_byte(number: int) -> None:
    data = valid_files()[number]
    whole = opened_or_refused(data)
    assert whole is not None
    for end in range(0, len(data), max(1, len(data) // 200)):
        image = opened_or_refused(data[:end])
        assert image is None or end > len(data) // 2  # only an end mark may be missed


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_bit_flips(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(valid_files())))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) * 8 - 1))
        content[where // 8] ^= 1 << where % 8
    opened_or_refused(bytes(content))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", *(data[:n] for data in valid_files() for n in (4, 12, 40))]), st.binary()
)
def test_random_bytes(start: bytes, rest: bytes) -> None:
    opened_or_refused(start + rest)


# --- files and folders ---


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(gradient()))
    return path


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a.png", "c/d/e.jpeg", "._a.png", ".git/x.png", "n.txt"):
        save(tmp_path / "in" / name)
    odd = save(tmp_path / "photo.dat")
    gone = tmp_path / "missing.jpg"
    sources = list(iter_inputs([gone, tmp_path / "in", odd, str(tmp_path / "n")]))
    inside = [
        str(tmp_path / "in" / name) for name in ("a.png", "b/10.png", "b/2.PNG", "c/d/e.jpeg")
    ]
    expected = [str(gone), *inside, str(odd), str(tmp_path / "n")]
    assert [source.reference for source in sources] == expected
    assert {source.label for source in sources} == {None}
    for source in sources[1:6]:
        assert pickle.loads(pickle.dumps(source)).open().size == (9, 7)
    for source in (sources[0], sources[6]):
        with pytest.raises(ImageError, match="No such file"):
            source.open()


def test_limits_reach_the_opener(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png")
    small, refused = {"max_side": 3}, {"max_pixels": 3}
    for iterate in (lambda o: iter_inputs([tmp_path], **o), lambda o: iter_images(tmp_path, **o)):
        assert next(iterate(small)).open().size == (3, 2)
        with pytest.raises(ImageError, match="at most 3 pixels"):
            next(iterate(refused)).open()


def test_folder_without_images_is_a_failing_source(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (source,) = iter_inputs([tmp_path])
    with pytest.raises(ImageError, match="expected image files, got a folder without any"):
        source.open()


def test_unreadable_folder_is_a_failing_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "2.png")
    scan = os.scandir

    def denied(path: str) -> object:
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    first, second = iter_inputs([tmp_path])
    assert second.open().size == (9, 7)
    with pytest.raises(ImageError, match="Permission denied"):
        first.open()


@needs_posix
def test_links(tmp_path: Path) -> None:
    real = save(tmp_path / "in" / "1.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "2.png").symlink_to(real)
    (tmp_path / "in" / "3.png").symlink_to(tmp_path / "in" / "3.png")
    sources = list(iter_inputs([tmp_path / "in"]))
    assert [Path(source.reference).name for source in sources] == ["1.png", "2.png", "3.png"]
    assert sources[1].open().size == (9, 7)
    with pytest.raises(ImageError):
        sources[2].open()


def test_deep_folders(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 300)
    save(deep / "1.png")
    (source,) = iter_inputs([tmp_path])
    assert source.open().size == (9, 7)


def test_class_folders(tmp_path: Path) -> None:
    for name in ("train/dog/1.png", "train/cat/2.png", "train/cat/1.png", "val/cat/9.png"):
        save(tmp_path / name)
    save(tmp_path / "train" / "stray.png")
    save(tmp_path / "train" / "cat" / ".hidden.png")
    found = [(Path(s.reference).name, s.label) for s in iter_images(tmp_path, "train")]
    assert found == [("1.png", "cat"), ("2.png", "cat"), ("1.png", "dog")]
    assert [s.open().size for s in iter_images(tmp_path, "val")] == [(9, 7)]


def test_class_folders_that_are_not(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "1.png")
    save(tmp_path / "root" / "train" / "cat" / "1.png")
    save(tmp_path / "root" / "val" / "cat" / "1.png")
    with pytest.raises(ImageError, match=r"expected class folders \(<class>/<image>\), got none"):
        iter_images(tmp_path / "flat")
    with pytest.raises(NBDTError, match="has no split 'exam'; it has 'train', 'val'"):
        iter_images(tmp_path / "root", "exam")
    assert [s.label for s in iter_images(tmp_path / "root")] == ["cat", "cat"]


# --- archives ---


def packed(path: Path, names: list[str], mode: str = "w", content: bytes | None = None) -> Path:
    content = encoded(gradient()) if content is None else content
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


NAMES = ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "./test/cat/x/4.png"]


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_tar(tmp_path: Path, kind: str) -> None:
    path = packed(
        tmp_path / "archive.tar", [*NAMES, "readme.txt", "train/cat/._1.png"], f"w:{kind}"
    )
    sources = list(iter_images(path, "train"))
    expected = [f"{path}!{NAMES[i]}" for i in (0, 1)]
    assert [source.reference for source in sources] == expected
    assert [source.label for source in sources] == ["cat", "dog"]
    assert all(source.open().size == (9, 7) for source in sources)  # later, the archive closed
    assert [source.open().size for source in iter_images(path)] == [(9, 7)] * 4  # at once


def test_tar_writes_nothing_and_follows_nothing(tmp_path: Path) -> None:
    names = ["../../evil/1.png", "/etc/2.png", "C:\\x\\3.png", "a/\x1b[2J/4.png"]
    path = packed(tmp_path / "a.tar", names)
    with tarfile.open(path, "a") as archive:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
        for name, kind in (("f.png", tarfile.FIFOTYPE), ("d.png", tarfile.DIRTYPE)):
            other = tarfile.TarInfo(name)
            other.type = kind
            archive.addfile(other)
    before = sorted(tmp_path.rglob("*"))
    *sources, soft, hard = iter_tar(path)
    for link in (soft, hard):
        with pytest.raises(
            ImageError, match="expected an image, got a link; pack what it leads to"
        ):
            link.open()
    assert [source.reference.partition("!")[2] for source in sources] == names
    folders = [("evil",), ("etc",), (), ("a", "\x1b[2J")]
    assert [source.folders for source in sources] == folders
    assert all(source.open().size == (9, 7) for source in sources)
    assert sorted(tmp_path.rglob("*")) == before


def test_tar_members_that_are_no_images(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ["cat/\x1b.jpg"], content=b"text")
    (source,) = iter_tar(path)
    with pytest.raises(ImageError, match=r"a\.tar!cat/\\x1b\.jpg': expected an image"):
        source.open()
    (source,) = iter_tar(path, max_member_bytes=3)
    with pytest.raises(ImageError, match="at most 3 bytes"):
        source.open()


def test_tar_without_images(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ["readme.txt"])
    with pytest.raises(ImageError, match="expected images, got an archive without any"):
        list(iter_images(path))
    with pytest.raises(ImageError, match="No such file"):
        list(iter_images(tmp_path / "missing.tar"))
    with pytest.raises(ImageError, match="expected a whole tar archive"):
        list(iter_tar(save(tmp_path / "1.png")))


@pytest.mark.parametrize("kind", ["", "gz", "xz"])
def test_truncated_tar_never_loses_members_quietly(tmp_path: Path, kind: str) -> None:
    data = packed(tmp_path / "whole.tar", NAMES, f"w:{kind}").read_bytes()
    end = len(data) if kind else 4 * 1024  # an uncompressed archive ends with kilobytes of zeros
    path = tmp_path / "cut.tar"
    for size in range(0, end, end // 40):
        path.write_bytes(data[:size])
        try:
            assert len(list(iter_tar(path))) == len(NAMES)  # only padding is missing
        except ImageError as error:
            assert "a whole tar archive" in str(error)


def test_damaged_tar_header(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "a.tar", NAMES).read_bytes())
    data[1024 + 3] ^= 1  # the second member's name
    (tmp_path / "a.tar").write_bytes(data)
    sources = iter_tar(tmp_path / "a.tar")
    assert next(sources).open().size == (9, 7)
    with pytest.raises(ImageError, match="bad checksum"):
        next(sources)


def test_tar_memory_stays_flat(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [f"c/{i}.png" for i in range(600)], content=bytes(2048))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_tar(path)) == 600
        assert tracemalloc.get_traced_memory()[1] < 400_000  # all of it: 1.2 MB, all headers: 1 MB
    finally:
        tracemalloc.stop()


def test_vast_tar_header_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo("x")
        member.type, member.size = kind, 1 << 40
        path = tmp_path / "a.tar"
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(ImageError, match="a header of 1,099,511,627,776 bytes"):
            list(iter_tar(path))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4 * 1024 - 1), st.integers(1, 255)), max_size=5))
def test_damaged_tar(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.tar"
    data = bytearray(packed(path, NAMES).read_bytes())
    for where, change in changes:
        data[where] ^= change
    path.write_bytes(data)
    try:
        for source in iter_tar(path):
            opened_or_refused(source.read())
    except ImageError as error:
        assert str(error).isprintable()
