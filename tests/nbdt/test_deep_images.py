"""Pictures of more than 8 bits and of other bands: the right picture, with a word about it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nbdt.images.image import ImageError, open_image

Array = NDArray[Any]


@pytest.fixture(scope="module")
def rgb() -> Array:
    """A picture that uses all of 0 to 255, and whose bands differ."""
    ramp = np.asarray(Image.linear_gradient("L").resize((64, 48)))
    return np.stack([ramp, ramp[:, ::-1], 255 - ramp[::-1]], axis=2)


def tiff(values: Array, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def png(values: Array, kind: int, sbit: bytes = b"") -> bytes:
    """A PNG of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    extra = chunk(b"sBIT", sbit) if sbit else b""
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + chunk(b"IEND", b"")


def difference(image: Image.Image, expected: Array) -> float:
    """The largest difference from the picture it was made of; percentiles cut off 1 %."""
    if expected.ndim == 2:
        expected = np.stack([expected] * 3, axis=2)
    return float(np.abs(np.asarray(image).astype(int) - expected).max())


@pytest.mark.parametrize("factor", [4, 10, 16, 60])  # 10 bits, reflectances, 12 bits, 14 bits
@pytest.mark.parametrize("form", ["png", "contig", "separate", "deflate", "tiles"])
def test_rgb_of_fewer_bits_in_16(rgb: Array, factor: int, form: str) -> None:
    values = rgb.astype(np.uint16) * factor
    if form == "png":
        data = png(values, 2)
    elif form == "separate":
        data = tiff(np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate")
    else:
        options = {"deflate": {"compression": "deflate"}, "tiles": {"tile": (16, 16)}}
        data = tiff(values, photometric="rgb", **options.get(form, {}))
    image = open_image(data)
    assert difference(image, rgb) < 6
    assert f"{int(rgb.max()) * factor:,}" in image.info["remark"]
    assert "declares no range" in image.info["remark"]
    assert open_image(data, max_side=32).info == image.info


@pytest.mark.parametrize("factor", [7, 16])
@pytest.mark.parametrize("form", ["png", "tiff", "lzw", "big-endian", "inverted", "opaque"])
def test_grey_of_fewer_bits_in_16(rgb: Array, factor: int, form: str) -> None:
    grey, full = rgb[..., 0], 255 * factor
    values = grey.astype(np.uint16) * factor
    if form == "png":
        data = png(values, 0)
    elif form == "opaque":
        data = png(np.dstack([values, np.full_like(values, 65535)]), 4)
    elif form == "lzw":
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
        data = stream.getvalue()
    elif form == "inverted":
        data = tiff(full - values, photometric="miniswhite")
    else:
        data = tiff(values, byteorder=">" if form == "big-endian" else "<")
    image = open_image(data)
    assert difference(image, grey) < 6
    assert "declares no range" in image.info["remark"]


def test_full_16_bits_stay_what_they_were(rgb: Array) -> None:
    values = rgb.astype(np.uint16) * 257
    planes = np.moveaxis(values, 2, 0)
    for data in (
        png(values, 2),
        tiff(values, photometric="rgb"),
        tiff(planes, photometric="rgb", planarconfig="separate"),
        tiff(planes, photometric="rgb", planarconfig="separate", compression="deflate"),
    ):
        image = open_image(data)
        assert difference(image, rgb) == 0
        assert image.info == {}


def test_declared_ranges_are_used(rgb: Array) -> None:
    dark = rgb // 2
    values = dark.astype(np.uint16) * 16
    tags = [(340, "H", 1, 0, True), (341, "H", 1, 4080, True)]
    of_float = [(340, "f", 1, -1.0, True), (341, "f", 1, 1.0, True)]
    for data in (
        png(values, 2, b"\x0c\x0c\x0c"),
        tiff(values, photometric="rgb", extratags=tags),
        tiff(values, photometric="rgb", extratags=[(281, "H", 1, 4080, True)]),
        tiff(dark.astype(np.float32) / 127.5 - 1, photometric="rgb", extratags=of_float),
    ):
        image = open_image(data)
        assert difference(image, dark) < 2  # not made brighter
        assert "declares that range" in image.info["remark"]
    # The values exceed the chunk's bits: they were scaled to all 16, as the standard says.
    assert open_image(png(rgb.astype(np.uint16) * 257, 2, b"\x0c\x0c\x0c")).info == {}


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("f4", 0.0123), ("f8", 0.0123), *((kind, 11) for kind in ("f4", "i2", "i4", "u4", "u8")),
     *((kind, 1e6) for kind in ("f4", "f8", "i4", "u4", "u8"))],
)  # fmt: skip
def test_other_ranges(rgb: Array, kind: str, factor: float) -> None:
    grey = rgb[..., 0]
    values = grey.astype(float) * factor
    image = open_image(tiff(values.astype(kind)))
    assert difference(image, grey) < 6
    if factor > 11:
        assert "declares no range" in image.info["remark"]


def test_unsigned_32_bits_do_not_wrap(rgb: Array) -> None:
    values = rgb[..., 0].astype(np.uint32) * ((1 << 32) // 256)
    assert difference(open_image(tiff(values)), rgb[..., 0]) < 6


@pytest.mark.parametrize(
    ("nodata", "tag"),
    [(-9999, ""), (-9999, "-9999"), (-32768, ""), (0, "0"), (-3.4028234663852886e38, "-3.4028234663852886e+38"),
     (np.nan, ""), (np.nan, "nan"), (np.inf, "")],
)  # fmt: skip
def test_pixels_without_data_do_not_count(rgb: Array, nodata: float, tag: str) -> None:
    grey = rgb[..., 0]
    hole = np.zeros(grey.shape, bool)
    hole[:12, :16] = True
    values = np.where(hole, nodata, grey * 3.0 + 100).astype(np.float32)
    image = open_image(tiff(values, extratags=[(42113, "s", 0, tag, True)] if tag else None))
    shown = np.asarray(image)[..., 0]
    assert (shown[hole] == 0).all()
    rest = (grey * 3.0 + 100)[~hole]
    expected = np.clip((rest - rest.min()) / np.ptp(rest) * 255, 0, 255)
    assert np.abs(shown[~hole] - expected).max() < 40  # black may be at zero
    assert np.corrcoef(shown[~hole], expected)[0, 1] > 0.999
    assert "6.2% of the values are no data" in image.info["remark"]


def test_nothing_but_no_data_is_refused() -> None:
    for values in (np.full((4, 4), np.nan), np.full((4, 4), -np.inf)):
        with pytest.raises(ImageError, match="finite pixel values"):
            open_image(tiff(values.astype(np.float32)))
    with pytest.raises(ImageError, match="real numbers"):
        open_image(tiff(np.zeros((4, 4), np.complex64)))


# ---- bands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_bands_are_chosen_or_named(rgb: Array, kind: type) -> None:
    scale = 1 if kind is np.uint8 else 10
    bands = np.concatenate([np.zeros_like(rgb), rgb[..., ::-1], np.zeros_like(rgb)], axis=2)
    data = tiff((bands * kind(scale)).astype(kind), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"got 9 bands .*--bands 4,3,2"):
        open_image(data)
    image = open_image(data, bands=(6, 5, 4))
    assert difference(image, rgb) < 6
    assert image.info["remark"].startswith(
        "Of its 9 bands it shows 6, 5, 4 as red, green and blue."
    )
    assert difference(open_image(data, bands=(5,)), rgb[..., 1]) < 6
    for wrong in ((0, 1, 2), (8, 9, 10), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(ImageError, match="one or three of bands 1 to 9"):
            open_image(data, bands=wrong)


def test_infrared_beside_rgb(rgb: Array) -> None:
    infrared = 128 + rgb[..., :1] // 4
    four = np.concatenate([rgb, infrared], axis=2)
    data = tiff(four.astype(np.uint16) * 16, photometric="rgb", extrasamples=["unspecified"])
    image = open_image(data)
    assert difference(image, rgb) < 6
    assert "Of its 4 bands it shows 1, 2, 3" in image.info["remark"]
    as_alpha = tiff(four, photometric="rgb", extrasamples=["unassalpha"])
    assert "--bands 1,2,3" in open_image(as_alpha).info["remark"]
    assert difference(open_image(as_alpha, bands=(1, 2, 3)), rgb) == 0


def test_opacity_of_16_bits(rgb: Array) -> None:
    clear = np.full(rgb.shape[:2], 65535, np.uint16)
    clear[:, :10] = 0
    values = np.dstack([rgb.astype(np.uint16) * 16, clear])
    for data in (png(values, 6), tiff(values, photometric="rgb", extrasamples=["unassalpha"])):
        shown = np.asarray(open_image(data))
        assert (shown[:, :10] == 255).all()
        assert np.abs(shown[:, 10:].astype(int) - rgb[:, 10:]).max() < 6


def test_compressions_without_a_decoder_name_the_remedy(rgb: Array) -> None:
    data = bytearray(tiff(rgb.astype(np.float32), photometric="rgb", compression="deflate"))
    where = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    data[where : where + 2] = struct.pack("<H", 5)  # LZW
    with pytest.raises(ImageError, match="32 bits in LZW; save it so: .*DEFLATE"):
        open_image(bytes(data))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation(rgb: Array, orientation: int) -> None:
    deep = tiff(
        rgb.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
    )
    plain = tiff(rgb, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    assert open_image(deep).tobytes() == open_image(plain).tobytes()


@pytest.mark.parametrize("top", [255, 65535])
def test_colour_maps_of_8_and_16_bits(rgb: Array, top: int) -> None:
    colours = np.stack([np.arange(256)] * 3).astype(np.uint16) * (top // 255)
    data = tiff(rgb[..., 0], photometric="palette", colormap=colours)
    assert difference(open_image(data), rgb[..., 0]) == 0


# ---- remarks about any picture -----------------------------------------------------------------


def test_flat_pictures_get_a_remark(rgb: Array) -> None:
    def remark(values: Array) -> str:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG")
        return str(open_image(stream.getvalue()).info.get("remark", ""))

    assert remark(rgb) == ""
    assert remark(rgb // 4) == ""  # dark, but a picture
    assert "nearly black: red 0–15, green 0–15, blue 0–15 of 255" in remark(rgb // 16)
    assert "of one colour: red 200–207" in remark(200 + rgb // 32)
    stars = np.zeros((400, 400, 3), np.uint8)
    stars[7, 7] = 255
    assert "nearly black: red 0–255" in remark(stars)


def test_a_flat_picture_of_16_bits_gets_a_remark_too() -> None:
    for value in (0, 7, 65535):
        image = open_image(tiff(np.full((9, 9), value, np.uint16)))
        assert "of one colour" in image.info["remark"] or "nearly black" in image.info["remark"]


@pytest.mark.parametrize("tile", [None, (2, 16, 16)])
def test_a_volume_is_refused_before_it_is_decoded(
    rgb: Array, tile: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ImageDepth multiplies the pixels that a decoder makes."""
    values = np.stack([rgb[..., 0].astype(np.uint16)] * 4)
    data = tiff(values, volumetric=True, photometric="minisblack", tile=tile)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="depth 4"):
        open_image(data)
