"""``nbdt audit MODEL --data D``: how far a model's explanations can be trusted."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import check_new
from nbdt.hierarchies.library import open_model
from nbdt.hierarchies.shell import Json, Model, Runtime, Weights, exit_with
from nbdt.hierarchies.show.tables import plain_console
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import AMPLE_SIDE, ImageError
from nbdt.images.sources import ImageSource, cores, read_each
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import tracked

from .methods import check_method, known_methods
from .report import save, tables
from .result import Audit
from .run import METHODS, audit

app = typer.Typer(add_completion=False)
WIDTH = 140  # columns, if stdout is no terminal


@app.command(name="audit")
def audit_command(
    model: Model,
    *,
    data: Annotated[Path, typer.Option(help="A folder of images, or a tar archive of them.")],
    images: Annotated[
        int, typer.Option(min=1, help="Images, drawn with the seed; 30 for a verdict.")
    ] = 30,
    methods: Annotated[
        str, typer.Option(help=f"Separated by commas: {', '.join(known_methods())}.")
    ] = ",".join(METHODS),
    seed: Annotated[int, typer.Option(help="For the draw, controls, noise and weights.")] = 0,
    weights: Weights = None,
    runtime: Runtime = None,
    out: Annotated[Path, typer.Option(help="A new folder for audit.json and index.html.")] = Path(
        "audit"
    ),
    as_json: Json = False,
) -> None:
    """Measure a model's explanations against controls and other methods."""
    check_new(out)
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        check_method(name)
    loaded = to_device(open_model(model, weights, runtime))
    batch, failed = _read(
        loaded, _drawn(iter_inputs([str(data)], max_side=AMPLE_SIDE), images, seed)
    )
    result = audit(loaded, batch, methods=names, seed=seed, progress=tracked)
    save(result, out)
    _report(result, out, as_json=as_json)
    exit_with(failed)


def _drawn(sources: Iterable[ImageSource], count: int, seed: int) -> list[ImageSource]:
    """Draw `count` sources uniformly by reservoir sampling: an archive is read only once."""
    chance = random.Random(seed)  # noqa: S311 (a sample, no secret)
    sample: list[ImageSource] = []
    for index, source in enumerate(sources):
        slot = index if index < count else chance.randrange(index + 1)
        if slot < count:
            sample[slot : slot + 1] = [source]
    return sample


def _read(model: NBDT, sources: Iterable[ImageSource]) -> tuple[Tensor, list[str]]:
    """Read the images as one batch, with a message for each unreadable one."""
    read = [*read_each(lambda source: model.preprocess(source.open()), sources, cores())]
    failed = [str(result) for _, result in read if isinstance(result, ImageError)]
    batch = [result for _, result in read if not isinstance(result, ImageError)]
    if not batch:
        first = f" The first: {failed[0]}" if failed else ""
        raise NBDTError(f"Expected at least one readable image.{first}")
    return torch.stack(batch).to(model.device), failed


def _report(result: Audit, out: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    console = plain_console(WIDTH)
    for shown in tables(result):
        console.print(shown)
    for finding in result.findings:
        console.print(f"- {finding}", markup=False)
    typer.echo(f"written: {out / 'index.html'}")
