"""Draws the paths of any-model.md: ``.venv/bin/python tools/any_model_pictures.py``.

The licence of the photographs forbids showing them, so a picture has plain grey for them. With
``--photographs`` they are drawn, into the folder given by ``--out``.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from dataclasses import replace
from pathlib import Path

from nbdt.explain import explain
from nbdt.explain.result.pictures import picture
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
    for source in iter_images(DATA / "imagenet1000_s256_q90.tar"):
        label = Path(source.reference.rpartition("!")[2]).stem.partition("_")[2]
        if label not in CHOSEN:
            continue
        found = explain(model, source.open())[0]
        sheet = picture(found if given.photographs else replace(found, photo=None))
        stream = io.BytesIO()
        sheet.quantize(256).save(stream, "PNG", optimize=True)
        name = f"any-model-{CHOSEN.index(label) + 1:02d}.png"
        (given.out / name).write_bytes(stream.getvalue())
        sys.stdout.write(f"{name}: {label}, {found.path}\n")


if __name__ == "__main__":
    main()
