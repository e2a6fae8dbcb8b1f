"""``nbdt compress MODEL --data D --out NEW``: a smaller and faster model, compared with the original."""

from __future__ import annotations

import copy
import json
import math
import random
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
import typer
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.images.image import ImageError
from nbdt.images.labelled import LabelledImages
from nbdt.images.sources import ImageSource, cores, read_each
from nbdt.model.cascade import refuse_cascade
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import tracked, working
from nbdt.runtime.accelerate import TORCH
from nbdt.runtime.convert import INT8, LEAST, convert

from ..library import open_model
from ..shell import Data, Json, Model, SplitName, Weights, exit_with
from .calibrate import fitted_temperature
from .comparison import rules_of
from .compressed import compared, show
from .cost import file_bytes, memory, speed, weight_bytes
from .logits import Logits, class_logits

Kind: TypeAlias = Literal["float32", "int8", "float16-file"]
STORED = {"float32": None, "int8": torch.int8, "float16-file": torch.float16}  # the last layer
MOST = 32  # photographs to calibrate int8 with; sixteen are as good as three hundred
SHARE = 4  # one in so many at most, but `LEAST`

app = typer.Typer(add_completion=False)


def compress(
    model: NBDT, sources: list[ImageSource], to: str
) -> tuple[NBDT, list[ImageSource], list[str]]:
    """Return a model with the backbone in ONNX Runtime, and the photographs that it has not seen.

    Its head, tree, temperature and reference set are the model's. A memory is left out: its
    embeddings are those of the original.

    Args:
        model: in evaluation mode, of timm and torch, on the CPU.
        sources: labelled photographs, in any order.
        to: "float32", "int8" or "float16-file", see `nbdt.runtime.convert`.

    Returns:
        The new model, the sources that calibrated nothing, and a message for each that cannot be read.

    Raises NBDTError: fewer than 8 readable photographs for int8, none left to measure with, or what
        `convert` raises.
    """
    refuse_cascade(model, "compressed", "Compress its two models, then make the cascade of those.")
    shuffled = random.Random(0).sample(sources, len(sources))  # noqa: S311 (a sample, no secret)
    count = 0 if to != INT8 else min(MOST, max(LEAST, len(shuffled) // SHARE))
    seen: list[Tensor] = []
    failed: list[str] = []
    read = read_each(lambda source: model.preprocess(source.open()), shuffled, cores())
    used = 0
    for _, result in read if count else ():
        used += 1
        if isinstance(result, ImageError):
            failed.append(str(result))
        else:
            seen.append(result)
        if len(seen) == count:
            break
    read.close()
    if used == len(shuffled) and len(seen) >= count:
        raise NBDTError(
            f"All {used} photographs went into the calibration; add some to compare the models with."
        )
    example = model.preprocess.example(model.head.linear.weight)
    backbone = convert(model.backbone, model.architecture, example, to, seen)
    head = copy.deepcopy(model.head)
    small = NBDT(backbone, head, model.architecture, model.preprocess).eval()
    small.reference = model.reference
    kept = {key: value for key, value in model.provenance.items() if key != "memory"}
    facts = {"to": to, "parent": model_hash(model), "calibration_photographs": len(seen)}
    facts["onnxruntime"] = version("onnxruntime")  # it quantised, and it ran what is measured
    small.provenance = {**kept, "compression": facts}
    return small, shuffled[used:], failed


def fit_temperature(small: NBDT, before: Logits, after: Logits) -> tuple[Logits, dict[str, float]]:
    """Scale the last layer so that it is as well calibrated as the original's.

    Args:
        small: the compressed model, whose last layer changes.
        before: the original's logits of labelled photographs.
        after: its own, of the same.

    Returns:
        Its scaled logits, and the temperatures of both on these photographs.
    """
    rules = rules_of(small.hierarchy, small.rule)
    old, new = (fitted_temperature(rules, one.logits, one.labels) for one in (before, after))
    small.head.scale_logits(old / new)
    scaled = replace(after, logits=after.logits * (old / new))
    return scaled, {"original": old, "compressed": new}


@app.command(name="compress")
def compress_command(
    model: Model,
    *,
    data: Data,
    out: Annotated[Path, typer.Option(help="A new folder for the compressed model.")],
    to: Annotated[
        Kind,
        typer.Option(
            help="int8; float32, which is exact; or float16-file: half the size, float32 arithmetic."
        ),
    ] = "int8",
    max_loss: Annotated[
        float,
        typer.Option(min=0, help="Points of accuracy that it may lose; else nothing is written."),
    ] = 0.5,
    weights: Weights = None,
    split: SplitName = None,
    as_json: Json = False,
) -> None:
    """Make a model smaller and faster in ONNX Runtime, and compare it with the original.

    Compare on photographs that the model was not trained on.
    """
    check_new(out)
    original = open_model(model, weights, runtime=TORCH)
    sources = [*LabelledImages(data, original.hierarchy, split)]
    with tempfile.TemporaryDirectory() as aside:
        with working(f"Converting {model} to {to}"):
            small, rest, failed = compress(original, sources, to)
        folder = Path(aside, "model")
        small.save(folder, dtype=STORED[to])
        small = NBDT.load(folder)  # with what rounding left of the last layer
        before, after = (class_logits(one, rest, progress=tracked) for one in (original, small))
        after, temperatures = fit_temperature(small, before, after)
        record = compared(original, small, before, after)
        record |= {"temperature": temperatures}
        record["bytes"] = {"original": weight_bytes(original), "compressed": file_bytes(folder)}
        with working("Measuring speed and memory"):
            record["speed"] = speed(original, small)
            used = memory(model, weights, TORCH), memory(str(folder))
        record["memory"] = {"original": used[0], "compressed": used[1]}
        if not as_json:
            show(record, to)
        _check_loss(record, to, max_loss)
        small.provenance["compression"] |= record
        small.save(out, dtype=STORED[to])
    typer.echo(json.dumps(record) if as_json else f"written: {out}")
    if original.memory_place is not None:
        typer.echo(
            f"note: the memory is not part of it; make one: nbdt memory build {out} --data D --out M",
            err=True,
        )
    if to == INT8 and original.calibration is not None:
        typer.echo(
            "note: where its answers stop is still fitted to the original; nbdt calibrate fits it to "
            "the new model, on photographs that it was not trained on",
            err=True,
        )
    if few := _too_few(record["images"], max_loss):
        typer.echo(f"note: {few}", err=True)
    exit_with([*failed, *after.failed])


def _check_loss(record: dict[str, Any], to: str, most: float) -> None:
    kinds = [record[kind] for kind in ("flat", "shown")]  # greedy descent answers nothing
    lost = 100 * max(kind["original"] - kind["compressed"] for kind in kinds)
    if lost > most:
        raise NBDTError(
            f"The {to} model loses {lost:.2f} points of accuracy on {record['images']:,} photographs; "
            f"--max-loss is {most:g}. Nothing is written. Use --to float32, which loses nothing, or "
            f"allow more. {_too_few(record['images'], most)}".rstrip()
        )


def _too_few(images: int, most: float) -> str:
    """Return a sentence if one photograph weighs more than the loss that is allowed, else ""."""
    if not 0 < images * most < 100:
        return ""
    return (
        f"One of {images} photographs is {100 / images:.2f} points: a loss of {most:g} shows in "
        f"{math.ceil(100 / most)} or more."
    )
