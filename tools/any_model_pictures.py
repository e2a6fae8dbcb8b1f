"""Draws the paths of any-model.md: ``.venv/bin/python tools/any_model_pictures.py``.

The licence of the photographs forbids showing them, so a picture has the maps alone. With
``--photographs`` the maps are drawn over them, into the folder given by ``--out``.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nbdt.explain import Explanation, explain
from nbdt.explain.result.pictures import heat, overlays
from nbdt.hierarchies.classifier import from_classifier
from nbdt.images.dataset import iter_images

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "img"
DATA = Path(os.environ.get("NBDT_DATA") or ROOT.parent / "shared" / "data")
WEIGHTS = DATA / "weights" / "imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
SOURCE = "timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5"
CHOSEN = (
    "African_chameleon",
    "trolleybus",
    "coyote",
    "lion",
    "tennis_ball",
    "grocery_store",
)
TILE, COLUMNS, GAP, CAPTION = 168, 5, 12, 56


def drawn(label: str, found: Explanation, *, photographs: bool) -> Image.Image:
    """The maps of a path, five in a row, with names and probabilities."""
    path = found.path
    rows = math.ceil(len(path) / COLUMNS)
    size = COLUMNS * (TILE + GAP) + GAP, 34 + rows * (TILE + CAPTION + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    right = label == path.class_name
    title = f"{label}: {'answered so' if right else f'answered {path.class_name}'}, "
    draw.text(
        (GAP, 8), title + f"{path.probability:.0%}", "#1a7f37" if right else "#b42318", font(18)
    )
    tiles = overlays(found, TILE) if photographs else [bare(found, i) for i in range(len(path))]
    for index, (tile, decision) in enumerate(zip(tiles, path, strict=True)):
        left = GAP + index % COLUMNS * (TILE + GAP)
        top = 36 + index // COLUMNS * (TILE + CAPTION + GAP)
        sheet.paste(tile, (left, top))
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline="#c8c8c8")
        other = decision.runner_up
        chance = math.exp(decision.log_probs[other])
        lines = (
            (decision.children[decision.chosen], 14, "black"),
            (f"{decision.probability:.1%}", 13, "black"),
            (f"or {decision.children[other]} {chance:.1%}", 12, "#555555"),
        )
        for row, (text, points, colour) in enumerate(lines):
            where = (left, top + TILE + 2 + 17 * row)
            draw.text(where, fitting(text, font(points)), colour, font(points))
    return sheet


def bare(found: Explanation, index: int) -> Image.Image:
    """The map of one decision on a plain ground."""
    tile = Image.new("RGBA", (TILE, TILE), "#f4f4f4")
    tile.alpha_composite(heat(found.maps[index], found.scale, TILE))
    return tile.convert("RGB")


def font(points: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which is the same everywhere."""
    return ImageFont.load_default(points)


def fitting(text: str, shape: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text`, with an ellipsis where it is wider than a tile."""
    whole = text
    while shape.getlength(text + ("…" if text != whole else "")) > TILE:
        text = text[:-1]
    return text if text == whole else text + "…"


def main() -> None:
    """Write one picture a path, each below 150 kB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("--out", type=Path, default=PICTURES)
    given = parser.parse_args()
    if given.photographs and given.out == PICTURES:
        parser.error("with --photographs, name another folder: --out FOLDER")
    given.out.mkdir(parents=True, exist_ok=True)
    model = from_classifier(SOURCE, weights=WEIGHTS)
    tree = model.hierarchy
    names = {tree.nodes[leaf].wnid: tree.names[leaf] for leaf in tree.leaf_nodes}
    for source in iter_images(DATA / "imagenet1000_s256_q90.tar"):
        wnid, _, label = Path(source.reference.rpartition("!")[2]).stem.partition("_")
        if label not in CHOSEN:
            continue
        found = explain(model, source.open())[0]
        sheet = drawn(names[wnid], found, photographs=given.photographs)
        stream = io.BytesIO()
        sheet.quantize(256).save(stream, "PNG", optimize=True)
        name = f"any-model-{CHOSEN.index(label) + 1:02d}.png"
        (given.out / name).write_bytes(stream.getvalue())
        sys.stdout.write(f"{name}: {label}, {found.path}\n")


if __name__ == "__main__":
    main()
