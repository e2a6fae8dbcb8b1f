"""``nbdt corrections``: what people said on the page, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nbdt.correction import Correction
from nbdt.hierarchies.library import DEFAULT_MODEL, MODEL_HELP
from nbdt.progress import counted, escape_terminal

from ..store.url import STORE_HELP, StoreError

app = typer.Typer(add_completion=False, no_args_is_help=True)
photos_app = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(photos_app, name="photos", help="Photographs that people agreed to have kept.")

StoreOption = Annotated[str | None, typer.Option("--store", envvar="NBDT_STORE", help=STORE_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
VisitorOption = Annotated[str | None, typer.Option("--visitor", help="One visitor's only.")]
SearchOption = Annotated[
    list[str] | None,
    typer.Option("--search", help="Where photographs that were not kept may lie; repeatable."),
]


@app.callback()
def corrections() -> None:
    """What people said of answers: list, export, teach to a model, delete."""


@app.command("list")
def list_command(
    store: StoreOption = None, visitor: VisitorOption = None, as_json: JsonOption = False
) -> None:
    """List corrections, oldest first."""
    with _opened(store) as opened:
        found = opened.corrections(visitor=visitor)
        location = opened.location
    for saved in found:
        if as_json:
            record = json.loads(saved.correction.to_json())
            rest = {"photograph": saved.photograph, "learned_by": saved.learned_by}
            typer.echo(json.dumps({"id": saved.id, "visitor": saved.visitor, **rest, **record}))
            continue
        learned = f", learnt by model {saved.learned_by[-1]}" if saved.learned_by else ""
        kept = f", photograph {saved.photograph}" if saved.photograph else ""
        typer.echo(
            f"{saved.id}  {saved.correction.time}  {_statement(saved.correction)}"
            f"{kept}{learned}, visitor {saved.visitor[:8]}"
        )
    typer.echo(f"{counted(len(found), 'correction')} in {escape_terminal(location)}", err=True)


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option(help="A file of JSON lines, which is replaced.")],
    photos: Annotated[
        Path | None, typer.Option(help="A folder for the photographs; by default beside --out.")
    ] = None,
    *,
    store: StoreOption = None,
    visitor: VisitorOption = None,
    search: SearchOption = None,
) -> None:
    """Write corrections as `nbdt train --corrections` reads them, and their photographs."""
    from .export import export

    with _opened(store) as opened:
        found = opened.corrections(visitor=visitor)
        folder = photos or out.parent / f"{out.stem}_photographs"
        written = export(opened, found, out, folder, search or [])
    lost = sum(not said.reference for said in written.values())
    typer.echo(f"written: {out} ({counted(len(written), 'correction')})")
    if lost:
        typer.echo(
            f"{lost:,} of them have no photograph: it was not kept. If you have it, name its "
            "folder with --search.",
            err=True,
        )


@app.command("apply")
def apply_command(
    data: Annotated[Path, typer.Option(help="What the model was trained on.")],
    out: Annotated[Path, typer.Option(help="A new folder; the new model is its model.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    *,
    store: StoreOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as of `nbdt train --corrections`.")
    ] = None,
    search: SearchOption = None,
) -> None:
    """Teach a model what was said of it, and offer the result on the page."""
    from .apply import apply_corrections

    with _opened(store) as opened:
        version = apply_corrections(
            opened, model, data, out, settings=settings or [], search=search or []
        )
    typer.echo(
        f"model {version.id} learnt from {counted(version.learned, 'correction')}"
        + (f"; {version.left_out:,} were left out" if version.left_out else "")
    )


@app.command("models")
def models_command(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the models that learnt from corrections."""
    with _opened(store) as opened:
        found = opened.model_versions()
    for version in found:
        if as_json:
            typer.echo(json.dumps(asdict(version)))
            continue
        soft = (f"{version.accuracy[when]['soft']:.2%}" for when in ("before", "after"))
        typer.echo(
            f"{version.id}  {version.time}  {escape_terminal(version.folder)}: {version.learned:,} "
            f"corrections, soft accuracy {' -> '.join(soft)}"
        )
    typer.echo(counted(len(found), "model"), err=True)


@app.command("marks")
def marks_command(
    into: Annotated[
        Path | None, typer.Option(help="An evidence index in which they are to count for all.")
    ] = None,
    *,
    store: StoreOption = None,
    visitor: VisitorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List training images that people called bad evidence; or make that count for everybody."""
    from ..store.marks import mark_index

    with _opened(store) as opened:
        found = opened.marks(visitor=visitor)
    for mark in found:
        if as_json:
            typer.echo(json.dumps(asdict(mark)))
        else:
            why = f": {escape_terminal(mark.why)}" if mark.why else ""
            verdict = "bad" if mark.bad else "good again"
            typer.echo(f"{mark.id}  {mark.time}  {escape_terminal(mark.reference)} {verdict}{why}")
    if into is not None:
        typer.echo(f"{mark_index(into, found):,} images of {into} marked", err=True)


@app.command("delete")
def delete_command(
    numbers: Annotated[list[int] | None, typer.Argument(help="As `list` shows them.")] = None,
    *,
    visitor: Annotated[
        str | None, typer.Option("--visitor", help="Everything that this visitor left.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Delete corrections; a photograph that no other needs goes with them."""
    if bool(numbers) == bool(visitor):
        raise typer.BadParameter("give the numbers of corrections, or --visitor")
    with _opened(store) as opened:
        if numbers:
            opened.delete_corrections(numbers)
            typer.echo(f"deleted: {', '.join(map(str, numbers))}")
            return
        gone = opened.delete_visitor(str(visitor))
        if not gone:
            raise StoreError(f"Visitor {str(visitor)[:64]!r} left nothing; ids are 64 digits long.")
    typer.echo(f"deleted: {gone:,} corrections, photographs and marks")


@photos_app.callback()
def photos() -> None:
    """List or delete photographs that people agreed to have kept."""


@photos_app.command("list")
def list_photos(
    store: StoreOption = None, visitor: VisitorOption = None, as_json: JsonOption = False
) -> None:
    """List them, oldest first."""
    with _opened(store) as opened:
        found = opened.photographs(visitor=visitor)
    for photo in found:
        if as_json:
            typer.echo(json.dumps(asdict(photo)))
            continue
        typer.echo(
            f"{photo.id}  {photo.time}  {photo.width} × {photo.height}, {photo.size:,} bytes, "
            f"visitor {photo.visitor[:8]}"
        )
    size = sum(photo.size for photo in found)
    typer.echo(f"{counted(len(found), 'photograph')}, {size / 1e6:.1f} MB", err=True)


@photos_app.command("delete")
def delete_photos(
    numbers: Annotated[list[int] | None, typer.Argument(help="As `list` shows them.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete photographs; the corrections stay."""
    if bool(numbers) == everything:
        raise typer.BadParameter("give the numbers of photographs, or --all")
    with _opened(store) as opened:
        typer.echo(f"deleted: {opened.delete_photographs(numbers or None):,} photographs")


@contextmanager
def _opened(place: str | None) -> Iterator[Any]:
    from ..store import Store

    with closing(Store.open(place)) as store:
        yield store


def _statement(said: Correction) -> str:
    """One correction in words, with ids for names."""
    box = ", ".join(f"{value:.2f}" for value in said.region or ())
    text = {
        "step": f"at {said.node}: should have gone to {said.child}",
        "label": f"it is: {said.label}",
        "region": f"at {said.node}: irrelevant region {box}",
    }[said.kind]
    return escape_terminal(text) + (f" ({escape_terminal(said.note)})" if said.note else "")
