"""``nbdt evidence build | info | show | mark``: training images for and against an answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from nbdt.decide.paths import Path as DecisionPath
from nbdt.decide.paths import as_percent
from nbdt.errors import NBDTError
from nbdt.files import free_name, write_atomic
from nbdt.hierarchies.library import DEFAULT_MODEL, MODEL_HELP, WEIGHTS_HELP, open_model
from nbdt.images.image import open_image
from nbdt.images.sources import ImageSource
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import escape_terminal, tracked

from ..attribution import explain
from ..result.explanation import DecisionEvidence, Neighbour
from ..result.pictures import png
from ..single_files import show_each
from .build import forward
from .index import AMONG, EvidenceIndex, vote_changes
from .pictures import linked, sheet
from .search import NEIGHBOURS, ModelEvidence, path_changes

SHOWN = 8  # changed images in the terminal

INDEX_HELP = "A folder that `nbdt evidence build` made."
DATA_HELP = "Where the original images are now, if they moved."

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def evidence() -> None:
    """Training images that are nearest to a photograph, for and against each decision."""


@app.command()
def build(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    *,
    data: Annotated[
        Path, typer.Option(help="A folder of class folders, a tar archive of one, or a table.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the index.")] = Path("evidence"),
    split: Annotated[str | None, typer.Option(help="A folder of splits inside the data.")] = None,
    thumbnails: Annotated[
        bool,
        typer.Option(
            "--thumbnails", help="Store small pictures, so that the index works without the data."
        ),
    ] = False,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
) -> None:
    """Store the embeddings of labelled images."""
    loaded = to_device(open_model(model, weights))
    index = EvidenceIndex.build(
        loaded, data, out, split=split, thumbnails=thumbnails, progress=tracked
    )
    for message in index.failed:
        typer.echo(f"error: {message}", err=True)
    typer.echo(f"written: {out} ({_size(index)})")
    if index.failed:
        typer.echo(f"left out, unreadable: {len(index.failed):,}", err=True)
        raise typer.Exit(3)


@app.command()
def info(
    index: Annotated[Path, typer.Argument(help=INDEX_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what an index contains, and its marks."""
    opened = EvidenceIndex.load(index)
    if as_json:
        record = {**opened.manifest, "bytes": opened.nbytes, "excluded": sorted(opened.excluded)}
        typer.echo(json.dumps({**record, "marks": [asdict(mark) for mark in opened.marks]}))
        return
    facts = opened.manifest
    typer.echo(f"{index}: {_size(opened)}")
    typer.echo(f"classes: {len(opened.classes):,}; unreadable images left out: {facts['failed']}")
    typer.echo(f"network: {facts['architecture']}, embedding hash {facts['embedding_hash'][:12]}…")
    typer.echo(
        f"images from: {escape_terminal(str(facts['data']))}; stored: {', '.join(facts['columns'])}"
    )
    for mark in opened.marks:
        verdict = "bad" if mark.bad else "good again"
        why = f": {escape_terminal(mark.why)}" if mark.why else ""
        typer.echo(f"{mark.when} {escape_terminal(mark.reference)} {verdict}{why}")


@app.command()
def show(
    index: Annotated[Path, typer.Argument(help=INDEX_HELP)],
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    k: Annotated[int, typer.Option(min=1, help="Images a side of a decision.")] = NEIGHBOURS,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the nearest images for and against each decision, and draw them."""
    loaded = open_model(model, weights)
    near = EvidenceIndex.load(index, data=data).for_model(loaded)
    out.mkdir(parents=True, exist_ok=True)
    taken = set[str]()
    show_one = partial(_show_one, near, k=k, out=out, taken=taken, as_json=as_json)
    show_each(images, show_one, as_json=as_json)


def _show_one(
    near: ModelEvidence, source: ImageSource, *, k: int, out: Path, taken: set[str], as_json: bool
) -> None:
    image = source.open()
    feature_map, features, path = _query(near.model, image)
    found = near.for_path(features, path, k)
    photo = near.model.preprocess.frame(image, 320)
    closest = _closest_decision(path, found)
    compared = [side[0] for side in (found[closest].chosen, found[closest].rejected) if side]
    node_map = explain(near.model, image)[0].maps[closest]
    stem = free_name(source.reference, taken)
    pictures = {"picture": out / f"{stem}.evidence.png"}
    write_atomic(pictures["picture"], png(sheet(photo, path, found)))
    try:
        views = near.look_closer(feature_map, compared, node_map)
    except NBDTError as error:  # an original is missing, or there is no grid of regions
        typer.echo(f"no picture of regions: {error}", err=True)
    else:
        pictures["regions"] = out / f"{stem}.regions.png"
        write_atomic(pictures["regions"], png(linked(photo, compared, views)))
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


@app.command()
def mark(
    index: Annotated[Path, typer.Argument(help=INDEX_HELP)],
    reference: Annotated[str, typer.Argument(help="The image, as `show` names it.")],
    *,
    bad: Annotated[
        bool, typer.Option("--bad/--good", help="Exclude it from now on, or include it again.")
    ],
    why: Annotated[str | None, typer.Option(help="The reason.")] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="A photograph whose evidence to compare; repeatable.")
    ] = None,
    model: Annotated[str, typer.Option(help=f"For --on. {MODEL_HELP}")] = DEFAULT_MODEL,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
) -> None:
    """Mark an image as bad evidence, and show what that changes."""
    opened = EvidenceIndex.load(index)
    near = opened.for_model(open_model(model, weights)) if on else None
    queries = [(name, _query(near.model, open_image(name))) for name in on or ()] if near else []
    rows = opened.rows_of(reference)
    done = opened.mark(reference, bad=bad, why=why)
    verb = "no longer counts" if bad else "counts again"
    typer.echo(
        f"{escape_terminal(done.reference)} ({escape_terminal(opened.label(rows[0]))}) {verb}."
    )
    _show_votes(opened, rows, bad=bad)
    for name, (_, features, path) in queries:
        changes = path_changes(near, features, path, rows) if near else ()
        typer.echo(
            f"{escape_terminal(name)}: the evidence of {len(changes)} of {len(path)} decisions changes"
        )
        for change in changes:
            old, new = _ordered(change.before, change.after, bad)
            typer.echo(
                f"  {escape_terminal(change.decision.node)}, vote {_vote(old)} -> {_vote(new)}"
            )
            for side in ("chosen", "rejected"):
                lists = (getattr(old, side), getattr(new, side))
                if lists[0] != lists[1]:
                    typer.echo(f"    before: {_listed(lists[0])}\n    after:  {_listed(lists[1])}")


def _show_votes(index: EvidenceIndex, rows: tuple[int, ...], *, bad: bool) -> None:
    changes = vote_changes(index, rows)
    turned = [change for change in changes if change.votes[0] != change.votes[1]]
    typer.echo(
        f"Of its {AMONG} nearest images in the index, {len(changes)} have it among their {NEIGHBOURS} "
        f"nearest; the most frequent class of the neighbours changes for {len(turned)}."
    )
    for change in turned[:SHOWN]:
        old, new = _ordered(*change.votes, bad)
        names = [escape_terminal(name) for name in (change.reference, change.label, old, new)]
        typer.echo("  {} ({}): {} -> {}".format(*names))


def _ordered(with_it: Any, without_it: Any, bad: bool) -> tuple[Any, Any]:
    """Order a pair as before and after the mark."""
    return (with_it, without_it) if bad else (without_it, with_it)


def _query(model: NBDT, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor, DecisionPath]:
    """Return feature map, features and path of one photograph."""
    with torch.inference_mode():
        feature_map, pooled = forward(model, [image])
        return feature_map[0], pooled[0], model.head.paths(pooled)[0]


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
    return ", ".join(shown) or "no images"


def _vote(found: DecisionEvidence) -> str:
    return "none" if found.vote is None else f"{found.vote:.0%}"


def _size(index: EvidenceIndex) -> str:
    return f"{len(index):,} images, {index.nbytes / 1e6:.1f} MB"
