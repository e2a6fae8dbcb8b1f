"""What the tests of batches share."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from nbdt.explain.batch import explain_all


def tiny(model):
    """The model with a small input: what is tested here is not the network."""
    from dataclasses import replace

    model.preprocess = replace(model.preprocess, size=64, crop_pct=1.0)
    return model


def draw(file, seed=0):
    """A different picture for every seed."""
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize((40, 30), Image.Resampling.BICUBIC).save(file)


def rows_of(out):
    return pq.read_table(Path(out) / "rows").sort_by("row").to_pylist()


def content(out):
    """Every file of a batch, by its place."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(Path(out).rglob("*"))
        if file.is_file()
    }


def run(model, inputs, out, **options):
    given = {"part_size": 4, "batch_size": 3, "workers": 2, "precision": "float32", **options}
    return explain_all(model, [os.fspath(item) for item in inputs], out, **given)
