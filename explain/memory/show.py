"""``nbdt memory show``: the photographs nearest to an image, for and against each decision."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nbdt.decide.paths import Path as DecisionPath
from nbdt.decide.paths import as_percent
from nbdt.errors import NBDTError
from nbdt.files import free_name, write_atomic
from nbdt.images.sources import ImageSource
from nbdt.progress import escape_terminal

from ..attribution import explain
from ..evidence.pictures import linked, sheet
from ..evidence.regions import forward
from ..evidence.search import NEIGHBOURS, Evidence, ModelEvidence
from ..result.explanation import DecisionEvidence, Neighbour
from ..result.pictures import png
from ..single_files import show_each
from .opening import Json, Model, Place, Weights, opened


def show(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    *,
    memory: Place = None,
    weights: Weights = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the original photographs are now, if they moved.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Photographs a side of a decision.")] = NEIGHBOURS,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path(),
    as_json: Json = False,
) -> None:
    """Print the nearest photographs for and against each decision, and draw them."""
    loaded, found = opened(model, memory, weights)
    near = Evidence(found, data=data).for_model(loaded)
    out.mkdir(parents=True, exist_ok=True)
    show_one = partial(_show_one, near, k=k, out=out, taken=set[str](), as_json=as_json)
    show_each(images, show_one, as_json=as_json)


def _show_one(
    near: ModelEvidence, source: ImageSource, *, k: int, out: Path, taken: set[str], as_json: bool
) -> None:
    image = source.open()
    explained, (feature_map, features) = (
        explain(near.model, image, level="fast")[0],
        forward(near.model, [image]),
    )
    path, found = explained.path, near.for_path(features[0], explained.path, k)
    photo = near.model.preprocess.frame(image, 320)
    closest = _closest_decision(path, found)
    compared = [side[0] for side in (found[closest].chosen, found[closest].rejected) if side]
    stem = free_name(source.reference, taken)
    pictures = {"picture": out / f"{stem}.evidence.png"}
    write_atomic(pictures["picture"], png(sheet(photo, path, found), marked=True))
    try:
        views = near.look_closer(feature_map[0], compared, explained.maps[closest])
    except NBDTError as error:  # an original is missing, or there is no grid of regions
        typer.echo(f"no picture of regions: {error}", err=True)
    else:
        pictures["regions"] = out / f"{stem}.regions.png"
        write_atomic(pictures["regions"], png(linked(photo, compared, views), marked=True))
    places = {name: str(place) for name, place in pictures.items()}
    if as_json:
        lists = [one.to_dict() for one in found]
        record = {"file": source.reference, **path.to_dict(), "evidence": lists, **places}
        typer.echo(json.dumps(record))
        return
    typer.echo(
        f"{escape_terminal(source.reference)}: {escape_terminal(path.class_name)} {as_percent(path.probability)}"
    )
    for decision, one in zip(path, found, strict=True):
        for sign, child, side in (("+", decision.chosen, one.chosen),
                                  ("-", decision.runner_up, one.rejected)):  # fmt: skip
            typer.echo(f"{sign} {escape_terminal(decision.children[child])}: {_listed(side)}")
    typer.echo(f"pictures: {', '.join(places.values())}")


def _closest_decision(path: DecisionPath, found: tuple[DecisionEvidence, ...]) -> int:
    """Return the index of the least sure decision with evidence on both sides."""
    margins = [
        decision.margin if one.chosen and one.rejected else float("inf")
        for decision, one in zip(path, found, strict=True)
    ]
    return margins.index(min(margins))


def _listed(side: tuple[Neighbour, ...]) -> str:
    shown = [
        f"{n.similarity:.2f} {escape_terminal(n.label)} ({escape_terminal(n.reference)})"
        for n in side
    ]
    return ", ".join(shown) or "no photographs"
