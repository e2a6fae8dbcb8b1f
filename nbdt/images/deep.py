"""Pictures of more than 8 bits a value, and TIFFs of other bands than RGB, shown in 8 bits.

The file says what is black and what is white where it can: by its bits, a TIFF's SMinSampleValue
and SMaxSampleValue, a PNG's sBIT. But 12 bits are often stored in 16, and floats have no usual
range. Such values are shown up to a percentile of theirs, and a remark says so.
"""

import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin

from .budget import DEFLATE, Refused, check_pieces, check_pixels

for _library in ("tifffile", "PIL.TiffImagePlugin"):  # they print what files say
    logging.getLogger(_library).setLevel(logging.CRITICAL)

REMARK = "remark"  # the key in `Image.info` of what a person should know about a picture
SAMPLE = 1_000_000  # values that a range is found in
_PERCENTILES = (0.5, 99.5)
_ROWS = 256  # rows that are scaled at once
_USED = 4  # a picture below this part of a range was hardly made for it
_LEAST_NODATA = 99  # -99, -9999 and lower may stand for no data where the file names no value
_FLAT, _DARK, _CLEAR = 13, 26, 100  # of 255
_SIDE, _ODD = 32, 10  # of the sample that flat pictures are found in; its values that may differ
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # orders of bytes

Array = NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """What a file says about its values."""

    full: float  # the largest value that its bits can hold; 0 if its values are floats
    low: float = 0.0  # the range that it declares, if `high` is above `low`
    high: float = 0.0
    nodata: float = math.nan  # the value of pixels without data
    inverted: bool = False  # whether low values are white


class TiffFile(TiffImagePlugin.TiffImageFile):
    """TIFF without Pillow's own limit of pixels, which is lower than ours."""

    def load_prepare(self) -> None:  # noqa: D102 - Pillow's
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()


# ---- TIFF --------------------------------------------------------------------------------------


def open_tiff(
    stream: BinaryIO, max_pixels: int, max_side: int | None = None, bands: Sequence[int] = ()
) -> Image.Image:
    """Open a TIFF: one of at most 8 bits as Pillow does, another as an 8-bit picture with a remark.

    The arguments are those of `open_image`; the picture may still be larger than `max_side`.

    Raises Refused: too many pixels, bands that have to be chosen, or values of another kind.
    """
    pillows: TiffFile | Exception
    try:
        pillows = TiffFile(stream)
        if not bands and max(pillows.tag_v2.get(258, (1,))) <= 8:  # BitsPerSample
            return _with_palette(pillows)
    except (SyntaxError, KeyError) as error:  # bits or bands that Pillow does not know
        pillows = error
    import tifffile

    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page: Any = file.pages.first
        if (depths := (page.imagedepth, page.tiledepth)) != (1, 1):
            got = f"a volume of depth {depths[0]!r:.20} in tiles of depth {depths[1]!r:.20}"
            raise Refused("a flat picture", got, "export one of its slices")
        if page.photometric in {0, 1, 2}:  # grey or RGB
            cells = max(1, page.samplesperpixel * page.dtype.itemsize / 8)  # of 8 bytes a pixel
            check_pixels((page.imagewidth, page.imagelength), int(max_pixels / cells))
            check_pixels((page.tilewidth, page.tilelength), max_pixels)
            again = partial(reopened, TiffFile, stream)
            return _deep_tiff(page, pillows, again, max_side, bands)
    if bands or isinstance(pillows, Exception):
        got = f"{page.samplesperpixel} bands of {page.bitspersample} bits, {page.photometric.name}"
        raise Refused("grey, RGB or 8-bit colours", got, "export it as RGB")
    return pillows


def _deep_tiff(
    page: Any,
    pillows: TiffFile | Exception,
    again: Callable[[], ImageFile.ImageFile],
    max_side: int | None,
    bands: Sequence[int],
) -> Image.Image:
    """Show a TIFF as tifffile decodes it; where it cannot, as `pillows`, if that is no error."""
    size, count = (page.imagewidth, page.imagelength), page.samplesperpixel
    shown, alpha = _bands(page, bands)
    scale, step = _scale(page), step_to(size, max_side)
    packed = page.bitspersample not in {8, 16, 32, 64}
    if packed or page.predictor not in {1, 2} or page.compression not in {1, *DEFLATE}:
        if bands or isinstance(pillows, Exception):
            got = f"{count} bands of {page.bitspersample} bits in {page.compression.name}"
            remedy = "save it so: gdal_translate -co COMPRESS=DEFLATE"
            raise Refused("no compression, or Deflate", got, remedy)
        found = deep_values(pillows, again)
        return pillows if found is None else eight_bit(found, scale, step)
    check_pieces(page)
    values = page.asarray(maxworkers=1)
    if page.planarconfig == 2 and count > 1:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(size[1], size[0], count)
    image = eight_bit(values[..., shown], scale, step)
    if alpha is not None:
        opacity = values[::step, ::step, alpha] // 257
        image.putalpha(Image.fromarray(opacity.astype(np.uint8)))
    elif len(shown) < count or (page.photometric != 2 and count > 1):
        named = ", ".join(str(band + 1) for band in shown)
        colours = "red, green and blue" if len(shown) == 3 else "grey"
        text = f"Of its {count} bands it shows {named} as {colours}. {image.info.get(REMARK, '')}"
        image.info[REMARK] = text.strip()
    image.getexif()[274] = page.tags.valueof(274, default=1)  # Orientation
    image.info["icc_profile"] = page.tags.valueof(34675)
    return image


def reopened(plugin: type[ImageFile.ImageFile], stream: BinaryIO) -> ImageFile.ImageFile:
    """Return a file that is open already, opened another time."""
    stream.seek(0)
    return plugin(stream)


def _with_palette(picture: TiffFile) -> TiffFile:
    """Repair a colour map that holds 8-bit numbers in 16 bits: Pillow would make all of it black."""
    colours = picture.tag_v2.get(320, ())
    if picture.mode == "P" and 0 < max(colours, default=0) < 256:
        picture.palette = ImagePalette.raw("RGB;L", bytes(colours))
    return picture


def _bands(page: Any, asked: Sequence[int]) -> tuple[list[int], int | None]:
    """Return which bands are grey or red, green and blue, and which one is opacity."""
    count = page.samplesperpixel
    if asked:
        if len(asked) not in {1, 3} or not all(1 <= band <= count for band in asked):
            wanted = ",".join(map(str, asked))
            raise Refused(f"one or three of bands 1 to {count}", f"--bands {wanted}", "name others")
        return [band - 1 for band in asked], None
    colours = 3 if page.photometric == 2 or count == 3 else 1
    extra = [int(kind) for kind in page.extrasamples]
    alpha = colours if extra[:1] in ([1], [2]) and page.dtype == np.uint16 else None
    if count < colours or (colours == 1 and count > 1 and (count, alpha) != (2, 1)):
        remedy = (
            "choose one or three: nbdt explain --bands 4,3,2, or open_image(…, bands=(4, 3, 2))"
        )
        raise Refused("a grey or an RGB picture", f"{count} bands that are neither", remedy)
    return list(range(colours)), alpha


def _scale(page: Any) -> Scale:
    def number(*tags: int) -> float:
        found = next((page.tags.valueof(tag) for tag in tags if tag in page.tags), math.nan)
        try:
            return float(found[0] if isinstance(found, tuple) else found)
        except (TypeError, ValueError):
            return math.nan

    kind, bits = page.dtype.kind, page.bitspersample - (page.dtype.kind == "i")
    # SMinSampleValue or MinSampleValue; SMaxSampleValue or MaxSampleValue; GDAL_NODATA
    low, high, nodata = number(340, 280), number(341, 281), number(42113)
    full = 0 if kind == "f" else 2.0**bits - 1
    low = 0.0 if math.isnan(low) else low
    return Scale(full, low, 0 if high == full else high, nodata, page.photometric == 0)


# ---- values ------------------------------------------------------------------------------------


def deep_values(picture: Image.Image, again: Callable[[], ImageFile.ImageFile]) -> Array | None:
    """Return the values of a picture of more than 8 bits, (height, width) or (height, width, 3).

    Pillow keeps the upper 8 bits of a colour. If they are all low, the lower ones are decoded from
    the same file, opened by `again`. None: the picture is right as it is.
    """
    picture.load()
    picture_mode = picture.mode
    if picture_mode == "F" or picture_mode.startswith("I"):
        values = np.asarray(picture)
        unsigned = getattr(picture, "tag_v2", {}).get(339, (2,))[0] == 1  # SampleFormat
        return values.view(np.uint32) if picture_mode == "I" and unsigned else values
    bounds: Any = picture.getextrema()
    if picture_mode not in ("RGB", "RGBA") or max(high for _, high in bounds[:3]) >= 256 // _USED:
        return None
    second = again()
    args: Any = second.tile[0].args
    raw = args if isinstance(args, str) else args[0]
    if raw.startswith("LA"):  # as four bytes a pixel: both of grey, both of opacity
        swapped = "RGBA"
    else:
        swapped = raw[:-1] + _SWAPPED[raw[-1]]
    args = swapped if isinstance(args, str) else (swapped, *args[1:])
    second.tile = [tile._replace(args=args) for tile in second.tile]
    values = np.empty((picture.height, picture.width, 3), np.uint16)
    kept = slice(3) if swapped != "RGBA" or raw.startswith("RGBA") else [1, 1, 1]
    for top in range(0, picture.height, _ROWS):
        box = (0, top, picture.width, min(top + _ROWS, picture.height))
        high, low = np.asarray(picture.crop(box)), np.asarray(second.crop(box))
        values[top : top + _ROWS] = high[..., :3].astype(np.uint16) << 8 | low[..., kept]
    return values


def step_to(size: tuple[int, int], max_side: int | None) -> int:
    """Return which pixels suffice: every n-th, where twice `max_side` remain."""
    return max(1, max(size) // (2 * max_side)) if max_side else 1


def eight_bit(values: Array, scale: Scale, step: int = 1) -> Image.Image:
    """Return (height, width) or (height, width, 1 or 3) values as a picture, with a remark.

    Only every pixel in `step` counts, in both directions.

    Raises Refused: no value is a finite number.
    """
    values = values[::step, ::step]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind not in "fiu":
        raise Refused("real numbers as pixel values", str(values.dtype), "export its magnitude")
    if values.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(values))
    sample, scale = _sampled(values, scale)
    black, white, remark = _range(sample, scale)

    def shown(values: Array) -> Array:
        valid = _valid(values, scale.nodata)
        with np.errstate(all="ignore"):
            scaled = (values.astype(np.float64) - black) / (white - black) * 255 + 0.5
        whole = np.where(valid, np.clip(scaled, 0, 255), 0).astype(np.uint8)
        return np.where(valid, 255 - whole, 0) if scale.inverted else whole

    pixels = np.empty(values.shape, np.uint8)
    table = shown(np.arange(1 << 16, dtype=np.uint16)) if values.dtype == np.uint16 else None
    missing = 0
    for top in range(0, len(values), _ROWS):
        rows = values[top : top + _ROWS]
        pixels[top : top + _ROWS] = shown(rows) if table is None else table[rows]
        if table is None or not math.isnan(scale.nodata):
            missing += rows.size - int(np.count_nonzero(_valid(rows, scale.nodata)))
    if missing:
        remark += f" {missing / values.size:.1%} of the values are no data, shown in black."
    image = Image.fromarray(pixels)
    image.info |= {REMARK: remark.strip()} if remark else {}
    return image


def _sampled(values: Array, scale: Scale) -> tuple[Array, Scale]:
    """Return some of the values that are data, (values,), and which value is no data."""
    step = math.ceil(math.sqrt(values.size / SAMPLE))
    sample = values[::step, ::step].ravel()
    sample = sample[_valid(sample, scale.nodata)].astype(np.float64)
    if not sample.size:
        remedy = "export the picture again"
        raise Refused("finite pixel values", "none: all are NaN, infinite or no data", remedy)
    lowest = sample.min()
    rest = sample[sample > lowest]
    far = rest.size and rest.min() - lowest > np.ptp(rest)  # from all others
    if far and lowest <= -_LEAST_NODATA and math.isnan(scale.nodata):
        return rest, replace(scale, nodata=float(lowest))
    return sample, scale


def _valid(values: Array, nodata: float) -> Array:
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if math.isnan(nodata):
        return finite
    with np.errstate(all="ignore"):  # as the file would hold it: a float32 is never -3.4e38 exactly
        rounded = values.astype(np.float64) != float(np.float32(nodata))
        return np.asarray(finite & rounded & (values != nodata))


def _range(sample: Array, scale: Scale) -> tuple[float, float, str]:
    """Return what is black, what is white, and a sentence that says so unless the bits say it."""
    low, high = float(sample.min()), float(sample.max())
    words = f"The file's values, {_number(low)} to {_number(high)}, are shown with {{}} as black and {{}} as white: "
    if scale.high > scale.low:
        ends = _number(scale.low), _number(scale.high)
        return scale.low, scale.high, words.format(*ends) + "it declares that range."
    # An integer of more bits is never used up to its largest value.
    usual = (1.0, 255.0, 65535.0) if not scale.full else (255.0, min(scale.full, 65535.0))
    for full in usual:
        if low >= 0 and full / _USED <= high <= full:
            return 0.0, full, ""
    black, white = map(float, np.percentile(sample, _PERCENTILES))
    if low >= 0 and black < white / 5:
        black = 0.0
    if white <= black:
        white = high if high > black else black + 1
    return (
        black,
        white,
        words.format(_number(black), _number(white)) + "it declares no range that fits.",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


# ---- remarks -----------------------------------------------------------------------------------


def half_clear(alpha: Image.Image) -> str:
    """Return a sentence if most of a picture is neither opaque nor fully transparent, else ""."""
    counts = alpha.histogram()
    if 2 * sum(counts[1:255]) <= sum(counts):
        return ""
    return (
        "Most of it is partly transparent, so it is shown pale: if its last band is no opacity but "
        "infrared, say, choose the others with --bands 1,2,3."
    )


def flat(image: Image.Image) -> str:
    """Return a sentence if an RGB picture is nearly black or nearly of one colour, else ""."""
    sample = image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    bounds: Any = sample.getextrema()
    if max(most - least for least, most in bounds) > _CLEAR:  # as in nearly every photograph
        return ""
    small = np.sort(np.asarray(sample).reshape(-1, 3), axis=0).astype(int)
    low, high = small[_ODD], small[-1 - _ODD]
    dark = high.max() < _DARK
    if not dark and (high - low).max() >= _FLAT:
        return ""
    bounds = image.getextrema()
    names = zip(("red", "green", "blue"), bounds, strict=True)
    values = ", ".join(f"{name} {least}–{most}" for name, (least, most) in names)
    return f"The picture is nearly {'black' if dark else 'of one colour'}: {values} of 255."
