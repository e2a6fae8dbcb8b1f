"""``nbdt memory show``: the photographs nearest to an image, for and against each decision."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nbdt.decide.paths import as_percent
from nbdt.files import free_name, write_atomic
from nbdt.hierarchies.shell import Json, Model, Runtime, Weights
from nbdt.images.sources import ImageSource
from nbdt.model.model import NBDT
from nbdt.progress import escape_terminal

from ..attribution import explain
from ..evidence.pictures import sheet
from ..evidence.search import NEIGHBOURS, Evidence
from ..result.explanation import Neighbour
from ..result.pictures import alike_row, png
from ..result.tiles import alike_words
from ..single_files import show_each
from .opening import Place, opened


def show(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    *,
    memory: Place = None,
    weights: Weights = None,
    runtime: Runtime = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the original photographs are now, if they moved.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Photographs a side of a decision.")] = NEIGHBOURS,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path(),
    as_json: Json = False,
) -> None:
    """Print the nearest photographs for and against each decision, and draw them."""
    loaded, found = opened(model, memory, weights, runtime)
    near = Evidence(found, data=data, k=k)
    near.for_model(loaded)  # its errors are not those of an image
    out.mkdir(parents=True, exist_ok=True)
    show_one = partial(_show_one, loaded, near, out=out, taken=set[str](), as_json=as_json)
    show_each(images, show_one, as_json=as_json)


def _show_one(
    model: NBDT, near: Evidence, source: ImageSource, *, out: Path, taken: set[str], as_json: bool
) -> None:
    explained = explain(model, source.open(), evidence=near)[0]
    path, stem = explained.path, free_name(source.reference, taken)
    drawn = {"picture": sheet(explained)}
    if explained.alike:
        drawn["regions"] = alike_row(explained)
    if lacking := explained.made.get("not_compared"):
        typer.echo(f"not compared: {lacking}", err=True)
    names = {"picture": "evidence", "regions": "regions"}
    places = {name: str(out / f"{stem}.{names[name]}.png") for name in drawn}
    for name, image in drawn.items():
        write_atomic(places[name], png(image, marked=True))
    if as_json:
        lists = [one.to_dict() for one in explained.evidence]
        record = {"file": source.reference, **path.to_dict(), "evidence": lists, **places}
        typer.echo(json.dumps(record))
        return
    typer.echo(
        f"{escape_terminal(source.reference)}: {escape_terminal(path.class_name)} {as_percent(path.probability)}"
    )
    for decision, one in zip(path, explained.evidence, strict=True):
        for sign, child, side in (("+", decision.chosen, one.chosen),
                                  ("-", decision.runner_up, one.rejected)):  # fmt: skip
            typer.echo(f"{sign} {escape_terminal(decision.children[child])}: {_listed(side)}")
    for words in alike_words(explained):
        typer.echo(escape_terminal(words))
    typer.echo(f"pictures: {', '.join(places.values())}")


def _listed(side: tuple[Neighbour, ...]) -> str:
    shown = [
        f"{n.similarity:.2f} {escape_terminal(n.label)} ({escape_terminal(n.reference)})"
        for n in side
    ]
    return ", ".join(shown) or "no photographs"
