"""``nbdt audit MODEL --data D``: how far a model's explanations can be trusted."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.hierarchies.model_source import MODEL_HELP, WEIGHTS_HELP, open_model
from nbdt.images.image import AMPLE_SIDE, ImageError
from nbdt.images.sources import ImageSource, iter_files, iter_tar
from nbdt.model.model import NBDT
from nbdt.progress import progress

from .methods import check_method
from .report import save, tables
from .run import Audit, audit, count_steps, default_methods

app = typer.Typer(add_completion=False)
WIDTH = 140  # columns of a terminal that does not say how wide it is


@app.command(name="audit")
def audit_command(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    *,
    data: Annotated[Path, typer.Option(help="A folder of images, or a tar archive of them.")],
    images: Annotated[int, typer.Option(min=1, help="How many, drawn by the seed.")] = 50,
    methods: Annotated[
        str | None, typer.Option(help="Separated by commas; by default those worth comparing.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw, controls, noise and weights.")] = 0,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    split: Annotated[str | None, typer.Option(help="A folder of splits inside the data.")] = None,
    out: Annotated[Path, typer.Option(help="A new folder for JSON, plots and page.")] = Path(
        "audit"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Measure a model's explanations against controls and other methods."""
    check_new(out)
    names = None if methods is None else [name.strip() for name in methods.split(",")]
    for name in names or ():
        check_method(name)
    loaded = open_model(model, weights)
    if torch.cuda.is_available():
        loaded.to("cuda")
    batch, failed = _read(loaded, _drawn(_sources(data, split), images, seed))
    names = list(default_methods(loaded, batch[:1])) if names is None else names
    with progress("steps") as bar:
        steps = bar.add_task("", total=count_steps(len(batch), _count(names)))
        watch = partial(bar.advance, steps)
        found = audit(loaded, batch, methods=names, seed=seed, watch=watch)
    save(found, out)
    _report(found, out, as_json=as_json)
    for message in failed:
        typer.echo(f"error: {message}", err=True)
    if failed:
        raise typer.Exit(3)


def _count(names: Sequence[str]) -> int:
    """Methods and controls; an audit always has both controls."""
    return len({*names, "random", "centre"})


def _sources(data: Path, split: str | None) -> Iterable[ImageSource]:
    """Class folders or a plain folder, else an archive."""
    if data.is_dir():
        return iter_files([data / (split or "")], max_side=AMPLE_SIDE)
    return iter_tar(data, split, max_side=AMPLE_SIDE)


def _drawn(sources: Iterable[ImageSource], count: int, seed: int) -> list[ImageSource]:
    """`count` of the sources, each as likely as any other; of an archive, only those are kept."""
    chance = random.Random(seed)  # noqa: S311 (a sample, no secret)
    kept: list[ImageSource] = []
    for index, source in enumerate(sources):
        place = index if index < count else chance.randrange(index + 1)
        if place >= count:
            continue
        kept[place : place + 1] = [source]
    return kept


def _read(model: NBDT, sources: Iterable[ImageSource]) -> tuple[Tensor, list[str]]:
    """The images as one batch, and a message for each that cannot be read."""
    batch, failed = [], []
    for source in sources:
        try:
            batch.append(model.preprocess(source.open()))
        except ImageError as error:
            failed.append(str(error))
    if not batch:
        first = f" The first: {failed[0]}" if failed else ""
        raise NBDTError(f"There are no readable images to audit on.{first}")
    return torch.stack(batch).to(model.device), failed


def _report(found: Audit, out: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    for table in tables(found):
        console.print(table)
    for finding in found.findings:
        console.print(f"- {finding}", markup=False)
    typer.echo(f"written: {out / 'index.html'}")
