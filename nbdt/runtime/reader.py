"""Read photographs with a file of `nbdt export --format onnx`, without torch: class, path, maps.

It needs ONNX Runtime, NumPy and Pillow. Copied alone, it runs: python reader.py model.onnx cat.jpg
"""

from __future__ import annotations

import argparse
import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFile, ImageFont, ImageOps, UnidentifiedImageError

FORMATS = "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"
STRIP = 16  # ratio of length to width above which an image's ends are cut off first
OPACITY = 0.6  # of a map's strongest place
TILE, GAP, CAPTION, LETTERS = 224, 6, 26, 15  # pixels: least width, between, below; size of letters
FOR, AGAINST = (200, 16, 46), (33, 102, 200)  # red, green and blue
File: TypeAlias = str | os.PathLike[str]


class ReaderError(Exception):
    """A file or a photograph that cannot be read."""


class Step(NamedTuple):
    """A node of the hierarchy with its probability."""

    node: int  # its place in `Reader.nodes`, which has its id
    name: str
    probability: float


@dataclass(frozen=True)
class Reading:
    """What a model says about a photograph."""

    class_name: str  # the most probable class
    probability: float
    path: list[Step]  # from below the root to the class; probabilities among siblings
    answer: Step | None  # the node that the model commits to; None without `export --accuracy`
    unknown: bool | None  # whether the photograph is unlike what the model knows; None likewise
    maps: NDArray[Any] | None  # (steps, height, width), log-odds; None with `--no-maps`
    picture: Image.Image  # the square that the network sees

    def __str__(self) -> str:
        text = f"{self.class_name} {self.probability:.1%}: "
        text += " → ".join(f"{step.name} {step.probability:.1%}" for step in self.path)
        if self.answer:
            text += f"; answer: {self.answer.name} {self.answer.probability:.1%}"
        return text + ("; unlike what the model knows" if self.unknown else "")

    def draw(self) -> Image.Image:
        """Return a tile a step: red argues for it, blue against. Raises ReaderError: no maps."""
        if self.maps is None:
            raise ReaderError("This file has no maps: export the model without --no-maps.")
        side = max(self.picture.width, TILE)
        photo = np.asarray(self.picture.resize((side, side), Image.Resampling.BICUBIC))
        width = (side + GAP) * len(self.path) - GAP
        sheet = Image.new("RGB", (width, side + CAPTION), "white")
        for index, (step, values) in enumerate(zip(self.path, self.maps, strict=True)):
            fine = Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
            share = np.asarray(fine)[..., None] / max(float(np.abs(values).max()), 1e-9)
            opacity = OPACITY * np.abs(share).clip(0, 1)
            mixed = opacity * np.where(share > 0, FOR, AGAINST) + (1 - opacity) * photo
            left = index * (side + GAP)
            sheet.paste(Image.fromarray(mixed.astype(np.uint8)), (left, 0))
            text = f"{step.name} {step.probability:.1%}"
            font = _font(text, side)
            ImageDraw.Draw(sheet).text((left, side + 3), text, fill="black", font=font)
        return sheet


class Reader:
    """A file of `nbdt export --format onnx`, read by some threads; 0: one for each core.

    Raises ReaderError: a file that is missing, or that `nbdt export` did not write.
    """

    def __init__(self, file: File, threads: int = 0) -> None:
        cpu = ["CPUExecutionProvider"]
        if not os.path.isfile(file):
            raise ReaderError(f"There is no file {os.fspath(file)!r}; make one with nbdt export.")
        try:
            self._session = onnxruntime.InferenceSession(file, session_options(threads), cpu)
            about = self._session.get_modelmeta().custom_metadata_map
            kind = about.get("format"), about.get("version")
            if kind != ("nbdt-export", "1"):
                raise ValueError(f"its format is {kind[0]!r}, version {kind[1]!r}")
            self.classes = json.loads(about["classes"])
            self.nodes = json.loads(about["hierarchy"])["nodes"]
            self.preprocessing = json.loads(about["preprocessing"])
            self._names = [n.get("name", n["id"]).replace("_", " ") for n in self.nodes]
            self._places = {node["id"]: place for place, node in enumerate(self.nodes)}
            self._parents = [0, *(self._places[node["parent"]] for node in self.nodes[1:])]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's have no common type
            raise ReaderError(f"{os.fspath(file)!r} is no file of nbdt export: {error!r}") from None
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, photograph: File | Image.Image) -> Reading:
        """Read one photograph, a file or a PIL image. Raises ReaderError: it cannot be read."""
        image = photograph if isinstance(photograph, Image.Image) else open_photograph(photograph)
        picture = self.frame(image)
        found = {name: values[0] for name, values in self.run(self.pixels(picture)[None]).items()}
        chances, decisions = (np.exp(found[name]).tolist() for name in ("log_probs", "decisions"))
        best = chances.index(max(chances))
        route = [self._places[self.classes[best]]]
        while 0 < self._parents[route[0]] < route[0]:  # a parent comes before its children
            route.insert(0, self._parents[route[0]])
        path = [Step(node, self._names[node], decisions[node]) for node in route]
        answer = unknown = None
        if "answer" in found:
            node, chance = (found[name].item() for name in ("answer", "answer_probability"))
            answer, unknown = Step(node, self._names[node], chance), found["unknown"].item()
        maps = found["maps"][route] if "maps" in found else None
        return Reading(self.classes[best], chances[best], path, answer, unknown, maps, picture)

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the file's outputs for (batch, 3, size, size) float32, in the order of `nodes`."""
        return dict(zip(self.outputs, self._session.run(None, {"images": images}), strict=True))

    def frame(self, image: Image.Image) -> Image.Image:
        """Return the square that the network sees: the shorter side resized, the centre cropped."""
        side, most = self.preprocessing["size"], STRIP * min(image.size)
        left, top = ((length - min(length, most)) // 2 for length in image.size)
        image = image.convert("RGB").crop((left, top, image.width - left, image.height - top))
        shorter, least = int(side / self.preprocessing["crop_pct"]), min(image.size)
        width, height = (int(shorter * length / least) for length in image.size)
        method = Image.Resampling[self.preprocessing["interpolation"].upper()]
        left, top = round((width - side) / 2), round((height - side) / 2)
        return image.resize((width, height), method).crop((left, top, left + side, top + side))

    def pixels(self, picture: Image.Image) -> NDArray[Any]:
        """Return what `run` takes of a `frame`, (3, size, size) float32."""
        mean, std = (np.float32(self.preprocessing[name]) for name in ("mean", "std"))
        return ((np.asarray(picture, np.float32) / 255 - mean) / std).transpose(2, 0, 1)


def session_options(threads: int) -> Any:
    """Return options of a session whose threads do not spin while they wait: processes share cores."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_photograph(file: File) -> Image.Image:
    """Open a photograph as 8-bit RGB: upright, opaque (on white), in sRGB; see `nbdt.images.image`.

    Raises ReaderError: it is missing, damaged, of another format, or of 16 bits that it hardly uses.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            found = _plain(image)
            with suppress(Exception):  # a broken profile costs the colours' precision only
                given = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
                if "sRGB" not in ImageCms.getProfileDescription(given):
                    to = ImageCms.createProfile("sRGB")
                    found = ImageCms.profileToProfile(found, given, to, outputMode="RGB") or found
            upright = found.convert("RGB")
            upright.getexif()[274] = image.getexif().get(274, 1)  # its orientation
            return ImageOps.exif_transpose(upright)
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise nearly everything
        plain: dict[type[Exception], str] = {
            FileNotFoundError: "there is no such file",
            UnidentifiedImageError: f"expected one of {', '.join(FORMATS)}",
        }
        why = plain.get(type(error), error)
        raise ReaderError(f"{os.fspath(file)!r} cannot be read as a photograph: {why}") from None


def _font(text: str, width: int) -> Any:
    """Return the largest font, up to `LETTERS`, in which a text is no wider than `width` pixels."""
    fonts = map(ImageFont.load_default, range(LETTERS, 1, -1))
    return next((font for font in fonts if font.getlength(text) <= width), None)


def _plain(image: ImageFile.ImageFile) -> Image.Image:
    """Return an opaque picture of 8 bits, in L, RGB or CMYK."""
    if image.mode in ("I", "F") or any("16" in str(tile.args) for tile in image.tile):
        grey = image.mode.startswith("I;16")  # of a colour Pillow gives the upper 8 bits
        if image.mode in ("I", "F") or np.asarray(image).max() < (2**14 if grey else 2**6):
            raise ReaderError("its values do not fill 16 bits; save it with 8 bits")
        if grey:
            return Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8))
    if not image.has_transparency_data or image.mode == "CMYK":
        return image if image.mode in ("L", "CMYK") else image.convert("RGB")
    layer, white = image.convert("RGBA"), Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer)
    return white


def main() -> None:
    """Print what a model says about a photograph."""
    parser = argparse.ArgumentParser(
        prog="reader", description="Say what a model sees in a photograph."
    )
    parser.add_argument("model", help="what nbdt export --format onnx wrote")
    parser.add_argument("photograph", help=", ".join(FORMATS))
    parser.add_argument(
        "--maps", metavar="PNG", help="draw each step: red argues for it, blue against"
    )
    options = parser.parse_args()
    try:
        reading = Reader(options.model)(options.photograph)
        print(reading)  # noqa: T201
        if options.maps:
            reading.draw().save(options.maps, "PNG")
    except (ReaderError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
