"""``nbdt explain``: single files are shown; collections of images become a batch.

Single files: a tree in the terminal and a picture each; see `nbdt.explain.single_files`. A folder,
pattern, list, archive or table of images: rows in a folder; see `nbdt.explain.batch.command`.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from nbdt.decide.answer import DEFAULT_ACCURACY, check_target
from nbdt.errors import NBDTError
from nbdt.hierarchies.library import DEFAULT_MODEL, MODEL_HELP, WEIGHTS_HELP, find, open_model
from nbdt.hierarchies.shell import Runtime
from nbdt.images.dataset import is_collection
from nbdt.model.remember import open_memory
from nbdt.model.restrict import read_names
from nbdt.storage import is_uri

from .attribution import Level, Method
from .batch.options import LOCAL, Engine, Maps, Precision
from .maps.levels import DEFAULT, FAST
from .single_files import explain_files

app = typer.Typer(add_completion=False)


@app.command(name="explain")
def explain_command(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files; or a collection: a folder, a quoted pattern, a list (.txt), a tar "
            "archive, or a .parquet or .csv table with a column of paths."
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    runtime: Runtime = None,
    hierarchy: Annotated[
        str | None, typer.Option(help="Another hierarchy for the model, by name or file.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder of the pictures, by default this one; or the batch's folder or URI (s3://…), "
            "by default ./explained. The same command continues a batch that was stopped."
        ),
    ] = None,
    rows: Annotated[
        bool | None,
        typer.Option(
            "--rows/--pictures",
            help="Make a batch of single files; or show each image of a collection.",
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How maps are computed.")] = "grad-cam",
    level: Annotated[
        Level | None,
        typer.Option(
            help="fast (1 pass), default (about 20) or careful (about 50); a batch is always fast."
        ),
    ] = None,
    maps: Annotated[
        Maps, typer.Option(help="Maps of a batch: npz (raw arrays), png (pictures) or none.")
    ] = "npz",
    column: Annotated[
        str | None, typer.Option(help="The tables' column of paths, if not 'path'.")
    ] = None,
    bands: Annotated[
        str,
        typer.Option(
            metavar="N,N,N",
            help="Bands of TIFFs to show, counted from 1, as red, green and blue; or one.",
        ),
    ] = "",
    shard: Annotated[
        str, typer.Option(help="For a batch on n machines: i/n, the i-th share, all in one folder.")
    ] = "1/1",
    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of a batch: float32, bfloat16, or auto: bfloat16 if the hardware has it."
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass.")] = 32,
    engine: Annotated[
        Engine, typer.Option(help="Where a batch runs: local, or ray for a cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running cluster; by default $RAY_ADDRESS, else this machine."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Decoding threads, by default one for each core; with --engine ray processes that "
            "hold the model, by default one for each GPU, else one for each node.",
        ),
    ] = None,
    accuracy: Annotated[
        str,
        typer.Option(
            help="Share of answers that are to be right: where it is not sure enough, the answer is "
            "a group. 'none': always a class."
        ),
    ] = str(DEFAULT_ACCURACY),
    only: Annotated[
        str | None,
        typer.Option(
            help="Classes or groups that can occur, separated by commas, or a file with one a line."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            "--evidence",
            metavar="M",
            help="Photographs that --pages compares with, by default the model's memory; 'none'.",
        ),
    ] = None,
    counterfactuals: Annotated[
        bool, typer.Option("--counterfactuals", help="Find regions whose blur flips a decision.")
    ] = False,
    pages: Annotated[
        bool,
        typer.Option(
            "--pages", help="Write a folder with an HTML page for each image, not one picture."
        ),
    ] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Draw the cells that the network sees.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead of trees.")
    ] = False,
) -> None:
    """Explain photographs: the path with its probabilities, and one picture or page each.

    A batch writes Parquet rows and raw maps instead, and a manifest once it is complete.
    """
    share, is_remote = _share(shard), is_uri(out or "")
    loaded = open_model(model, weights, runtime)
    if hierarchy:
        loaded = loaded.with_hierarchy(find(hierarchy))
    chosen: dict[str, Any] = {
        "model": loaded.restrict(read_names(only)) if only else loaded,
        "images": images,
        "out": out,
        "method": method,
        "accuracy": target(accuracy),
        "evidence": None if memory is None else memory != "none" and open_memory(loaded, memory),
        "counterfactuals": counterfactuals,
        "bands": _bands(bands),
        "pages": pages,
        "as_json": as_json,
    }
    if rows is None:
        rows = is_remote or engine != LOCAL or any(map(is_collection, images))
    if rows:
        from .batch.command import explain_batch

        if level not in {None, FAST}:
            raise typer.BadParameter(
                f"A batch has --level fast, not {level}; --pictures explains each image on its own."
            )
        if grid:
            raise typer.BadParameter("--grid needs --pictures; a batch draws no cells.")

        explain_batch(
            **chosen, maps=maps, column=column, shard=share, precision=precision,
            batch_size=batch_size, engine=engine, ray_address=ray_address, workers=workers,
        )  # fmt: skip
    elif share != (1, 1) or is_remote:
        raise typer.BadParameter(
            "--shard, and an --out that is a URI, need a batch; leave out --pictures, or add --rows."
        )
    else:
        explain_files(**chosen, level=level or DEFAULT, grid=grid)


def target(text: str) -> float | None:
    """Return the accuracy that a text means, None for "none"; anything else is a usage error."""
    if text.casefold() == "none":
        return None
    try:
        return check_target(float(text.rstrip("% ")) / (100 if "%" in text else 1))
    except (ValueError, NBDTError):
        raise typer.BadParameter(
            f"Expected an accuracy between 0 and 1, such as 0.95, or none; got {text!r}."
        ) from None


def _bands(text: str) -> tuple[int, ...]:
    """Return (4, 3, 2) for "4,3,2"; anything but one or three numbers is a usage error."""
    if text and not re.fullmatch(r"\d{1,5}(,\d{1,5},\d{1,5})?", text, re.ASCII):
        raise typer.BadParameter(f"Expected --bands such as 4,3,2, or one number; got {text!r}.")
    return tuple(map(int, filter(None, text.split(","))))


def _share(text: str) -> tuple[int, int]:
    """Return (3, 8) for "3/8"; anything but i/n with 1 ≤ i ≤ n is a usage error."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(
            f"Expected --shard i/n with 1 ≤ i ≤ n, such as 1/8 to 8/8 on eight machines; got {text!r}."
        )
    return int(match[1]), int(match[2])
