"""``nbdt cascade SMALL LARGE --data D --out M``: two models as one, the large one where it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from nbdt.errors import NBDTError
from nbdt.files import check_new, write_atomic
from nbdt.images.labelled import LabelledImages
from nbdt.model.cascade import LARGE, SMALL, members
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import tracked
from nbdt.runtime.accelerate import TORCH, runs_in_onnx
from nbdt.runtime.backbone import OnnxBackbone
from nbdt.runtime.convert import FLOAT32, convert

from ..library import MODEL_HELP, WEIGHTS_HELP, open_model
from ..shell import Data, Json, Runtime, SplitName, exit_with
from ..show.picture import saved
from ..show.tables import plain_console, table
from .cascade import CASCADE, check_promise, costs, fit_cascade, in_cascade
from .logits import class_logits

PICTURE = "cascade.png"  # the operating curve, in the folder
IN_ONNX = "ONNX Runtime"
COLOURS = "#2166ac", "#b35806"

app = typer.Typer(add_completion=False)


@app.command(name="cascade")
def cascade_command(
    small: Annotated[str, typer.Argument(help=f"Answers where it is sure enough. {MODEL_HELP}")],
    large: Annotated[str, typer.Argument(help="Answers the others; it has the same classes.")],
    *,
    data: Data,
    out: Annotated[Path, typer.Option(help="A new folder for the cascade.")],
    agreement: Annotated[
        float,
        typer.Option(help="The share of answers, below 1, that are to be the large model's."),
    ] = 0.98,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="How many decisions from the root are to agree; by default all."),
    ] = None,
    small_size: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the small model's input; it may be the same network."),
    ] = None,
    small_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    large_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    runtime: Runtime = None,
    split: SplitName = None,
    as_json: Json = False,
) -> None:
    """Make one model of two: the small one answers where it is sure, and elsewhere the large one.

    Use photographs that neither was trained on.
    """
    check_new(out)
    first = open_model(small, small_weights, runtime)
    model = open_model(large, large_weights, runtime)
    if small_size is not None:
        first = at_size(first, small_size)
    elif model_hash(first) == model_hash(model):
        raise NBDTError(
            f"{small!r} and {large!r} are the same model; give another, or --small-size for fewer pixels."
        )
    model = in_cascade(first, model)
    sources = [*LabelledImages(data, model.hierarchy, split, groups=True)]
    check_promise(agreement, len(sources))
    both = members(model)
    before, after = (class_logits(one, sources, progress=tracked) for one in both.values())
    record = fit_cascade(model, before, after, agreement=agreement, depth=depth)
    record["cost"] = costs(model, record["answered_by_small"]["value"])
    record["runtime"] = {
        name: IN_ONNX if runs_in_onnx(one.backbone, one.preprocess.size) else TORCH
        for name, one in both.items()
    }
    if not as_json:
        show(record)
    if min(row[CASCADE] for row in record["cost"].values()) >= 1:
        raise NBDTError(
            f"This cascade would cost as much as the large model alone, or more: the small one answers "
            f"{record['answered_by_small']['value']:.1%}. Nothing is written. Ask for a smaller "
            "--agreement, or take a smaller or better small model."
        )
    model.provenance[CASCADE] |= record
    model.save(out)
    write_atomic(out / PICTURE, drawn(record))
    typer.echo(json.dumps(record) if as_json else f"written: {out}")
    exit_with(after.failed)


def at_size(model: NBDT, size: int) -> NBDT:
    """Return the same network for another size of input, in the runtime that the model has.

    Raises NBDTError: its backbone is ONNX, which has one size.
    """
    if isinstance(model.backbone, OnnxBackbone):
        raise NBDTError(
            f"This small model is ONNX, for {model.preprocess.size} pixels alone; give the model that it "
            "was made from."
        )
    own = model.with_hierarchy(model.hierarchy)
    own.preprocess = replace(model.preprocess, size=size)
    if runs_in_onnx(model.backbone) and find_spec("onnxscript"):
        example = own.preprocess.example(own.head.linear.weight)
        own.backbone = convert(model.backbone, model.architecture, example, FLOAT32)
    return own.eval()


def show(record: dict[str, Any]) -> None:
    """Print what was measured, for a person to read."""
    names = SMALL, LARGE, CASCADE
    rows = [
        (f"{text}, right, %", *(_share(record["accuracy"][kind][name]) for name in names))
        for kind, text in (("flat", "flat"), ("shown", "path shown"))
    ]
    for size, ratio in record["cost"].items():
        ratios = (f"{ratio[SMALL]:.2f}", "1", f"{ratio[CASCADE]:.2f}")
        rows.append((f"CPU time (large: 1), batch {size}", *ratios))
    gain = _share(record["accuracy"]["shown"]["cascade - large"], "+")
    rows.append(("path shown, cascade − large, points", "", "", gain))
    console = plain_console(100)
    console.print(table(f"{record['images']:,} held-out photographs", ("", *names), rows))
    for line in _sentences(record):
        console.print(line, soft_wrap=True)


def _sentences(record: dict[str, Any]) -> Iterator[str]:
    used, first = record["runtime"], next(iter(record["cost"].values()))
    where = "path" if record["depth"] is None else f"path to depth {record['depth']}"
    yield (
        f"same {where} as the large model: {_share(record['agreement'])} % (asked for: "
        f"{100 * record['asked']:.4g} %)"
    )
    yield (
        f"answered by the small model: {_share(record['answered_by_small'])} %, where its weakest "
        f"decision is above {record['threshold']:.4f}"
    )
    yield (
        f"±: one standard error; the large model takes {first['large_ms']:.1f} ms at batch 1 in "
        f"{used[LARGE]}, the small one runs in {used[SMALL]}"
    )
    if record["answered_by_small"]["value"] == 1:
        yield "note: the large model answers none of these; ask for more --agreement to use it"
    if used[SMALL] != used[LARGE] == IN_ONNX:
        yield "note: nbdt compress SMALL makes the small model two to three times as fast"
    if not record["reference"]:
        yield "note: too few photographs to calibrate answers; nbdt calibrate does, with more"


def _share(row: dict[str, float], sign: str = "") -> str:
    value = f"{100 * row['value']:{sign}.2f}".replace("-", "−")
    return f"{value} ± {100 * row['standard_error']:.2f}"


def drawn(record: dict[str, Any]) -> bytes:
    """Draw a PNG of agreement and accuracy against the mean cost, with the chosen threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    cost = next(reversed(record["cost"].values()))[SMALL]
    rows = [*record["curve"], record]
    *places, at = (cost + 1 - row["answered_by_small"]["value"] for row in rows)
    shares = {
        "same path as the large model": [100 * row["agreement"]["value"] for row in rows],
        "right, cascade": [100 * row["accuracy"]["shown"][CASCADE]["value"] for row in rows],
    }
    for (label, (*values, chosen)), colour in zip(shares.items(), COLOURS, strict=True):
        axes.plot(places, values, color=colour, label=label)
        axes.plot(at, chosen, "o", color=colour)
    large = 100 * record["accuracy"]["shown"][LARGE]["value"]
    axes.axhline(large, color=COLOURS[1], linewidth=0.8, linestyle=":", label="right, large model")
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    title = (
        f"{record['images']:,} held-out photographs; dots: {100 * record['asked']:.4g} % asked for"
    )
    axes.set(xlabel="mean CPU time, the large model is 1", ylabel="photographs, %", title=title)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return saved(figure)
