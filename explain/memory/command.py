"""``nbdt memory``: make, list and change the labelled photographs that a model decides by."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nbdt.errors import NBDTError
from nbdt.files import new_folder
from nbdt.hierarchies.library import open_model
from nbdt.hierarchies.shell import Json, Model, Runtime, SplitName, Weights
from nbdt.images.dataset import iter_images
from nbdt.model.remember import make_memory
from nbdt.network.encoder import to_device
from nbdt.progress import counted, escape_terminal, tracked

from . import changes, grow
from .convert import convert
from .opening import DATA, By, Pictures, Place, opened, report
from .review import review
from .show import show

COUNTED = 20  # versions whose photographs are counted: each is opened

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def memory() -> None:
    """Labelled photographs: a model's last layer is fitted on them, and they are its evidence."""


@app.command()
def build(
    model: Model,
    *,
    data: Annotated[Path, DATA],
    out: Annotated[Path, typer.Option(metavar="M", help="A new folder for the memory.")],
    split: SplitName = None,
    pictures: Pictures = False,
    by: By = "",
    weights: Weights = None,
    runtime: Runtime = None,
) -> None:
    """Make a memory for any model; its last layer stays as it is."""
    loaded = to_device(open_model(model, weights, runtime))
    sources = list(iter_images(data, split))
    with new_folder(out) as aside:
        made = make_memory(loaded, aside)
        added = made.add(sources, by=by, pictures=pictures, progress=tracked)
        if not added.ids:
            raise NBDTError(
                f"None of {counted(len(sources), 'photograph')} can be added; the first: {added.failed[0]}"
            )
    typer.echo(f"written: {out} ({counted(len(added.ids), 'photograph')})")
    report(added.failed)


@app.command()
def info(model: Model, *, memory: Place = None, as_json: Json = False) -> None:
    """Show what a memory contains."""
    _, found = opened(model, memory)
    table, (active, struck) = found.table, found.table.counts()
    labels = table.columns(["label"], "active")["label"].value_counts().to_pylist()
    counts = {found.name_of(one["values"]): one["counts"] for one in labels}
    record = {
        "place": table.place,
        "photographs": active,
        "struck_out": struck,
        "version": table.version,
        "architecture": table.facts["architecture"],
        "embedding_hash": table.facts["embedding_hash"],
        "labels": dict(sorted(counts.items())),
    }
    if as_json:
        typer.echo(json.dumps(record))
        return
    typer.echo(f"{record['place']}, version {record['version']}")
    typer.echo(f"{counted(active, 'photograph')}, {struck:,} struck out")
    typer.echo(
        f"network: {record['architecture']}, embedding hash {record['embedding_hash'][:12]}…"
    )
    for label, count in record["labels"].items():
        typer.echo(f"{count:7,}  {escape_terminal(label)}")


@app.command("list")
def list_rows(
    model: Model,
    *,
    label: Annotated[
        str | None, typer.Option(help="Only those of a class, or at or below a group.")
    ] = None,
    struck_out: Annotated[
        bool, typer.Option("--struck-out", help="Only those that were struck out.")
    ] = False,
    memory: Place = None,
    as_json: Json = False,
) -> None:
    """List the photographs of a memory, a line each."""
    _, found = opened(model, memory)
    tree = found.hierarchy
    node = None if label is None else tree.index(found.node_of(label))
    below = {key for at, key in enumerate(tree.ids) if node in tree.path_to(at)}
    listed = [
        row for row in found.table.described()
        if (node is None or row["label"] in below) and not (struck_out and row["active"])
    ]  # fmt: skip
    for row in listed:
        row["label"] = found.name_of(row["label"])
        typer.echo(json.dumps(row) if as_json else _line(row))
    if not listed:
        what = f"No photographs{' that were struck out' if struck_out else ''}"
        where = f" are at or below {label!r}" if label else " are in the memory"
        typer.echo(
            f"{escape_terminal(what + where)}. `nbdt memory info {model}` counts the labels, and "
            f"`nbdt memory versions {model}` lists earlier states.",
            err=True,
        )


def _line(record: dict[str, Any]) -> str:
    state = "" if record["active"] else "  struck out"
    said = ": ".join(filter(None, (record["by"], record["why"])))
    line = f"{record['id'][:12]}  {record['label']}  {record['reference']}{state}"
    return escape_terminal(f"{line}  {said}" if said else line)


@app.command()
def versions(model: Model, *, memory: Place = None) -> None:
    """List the states that `restore` can bring back, oldest first; the newest 20 with their size."""
    _, found = opened(model, memory)
    listed = found.versions()
    for place, version in enumerate(listed, start=-len(listed)):
        size = ""
        if place >= -COUNTED:
            active, struck = found.table.at(version.number).counts()
            struck_out = f", {struck:,} struck out" if struck else ""
            size = f"  {counted(active, 'photograph')}{struck_out}"
        typer.echo(f"{version.number:6}  {version.when}{size}")


for name, command in (
    ("add", changes.add),
    ("strike", changes.strike),
    ("take-back", changes.take_back),
    ("relabel", changes.relabel),
    ("restore", changes.restore),
    ("refit", changes.refit),
    ("review", review),
    ("new-class", grow.new_class),
    ("split", grow.split),
    ("merge", grow.merge),
    ("new-group", grow.new_group),
    ("show", show),
    ("convert", convert),
):
    app.command(name)(command)
