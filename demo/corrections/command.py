"""``nbdt corrections``: list, export, apply and delete the corrections of a store."""

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from nbdt.errors import NBDTError
from nbdt.hierarchies.library import DEFAULT_MODEL, MODEL_HELP, open_model
from nbdt.hierarchies.shell import Runtime
from nbdt.progress import ProgressEvent, counted, escape_terminal, progress

from ..store.place import STORE_HELP, StoreError

if TYPE_CHECKING:
    from ..store import Store
    from ..store.schema import ModelVersion

app = typer.Typer(
    add_completion=False, no_args_is_help=True,
    help="List, export, apply and delete the corrections that people made on the page.",
)  # fmt: skip

StoreOption = Annotated[str | None, typer.Option("--store", envvar="NBDT_STORE", help=STORE_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")]
VisitorOption = Annotated[str | None, typer.Option("--visitor", help="Only this visitor's.")]


@app.command("list")
def list_command(
    store: StoreOption = None, visitor: VisitorOption = None, as_json: JsonOption = False
) -> None:
    """List corrections, oldest first."""
    with _opened(store) as opened:
        saved_corrections = opened.corrections(visitor=visitor)
        location = opened.location
    for saved in saved_corrections:
        if as_json:
            names = ("id", "visitor", "photograph", "learned_by")
            record = {name: getattr(saved, name) for name in names}
            typer.echo(json.dumps(record | json.loads(saved.correction.to_json())))
            continue
        learned = f", applied to model {saved.learned_by[-1]}" if saved.learned_by else ""
        kept = f", photograph {saved.photograph}" if saved.photograph else ""
        said = escape_terminal(saved.correction.in_words())
        said += f" ({escape_terminal(saved.correction.note)})" if saved.correction.note else ""
        who = f"visitor {saved.visitor[:8]}"
        typer.echo(f"{saved.id}  {saved.correction.time}  {said}{kept}{learned}, {who}")
    found = counted(len(saved_corrections), "correction")
    typer.echo(f"{found} in {escape_terminal(location)}", err=True)


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option(help="A file of JSON lines; it is replaced.")],
    photos: Annotated[
        Path | None, typer.Option(help="A folder for the photographs; by default next to --out.")
    ] = None,
    *,
    store: StoreOption = None,
    visitor: VisitorOption = None,
) -> None:
    """Write corrections and photographs in the form that `nbdt train --corrections` reads."""
    from .apply import export

    with _opened(store) as opened:
        saved = opened.corrections(visitor=visitor)
        folder = photos or out.parent / f"{out.stem}_photographs"
        written = export(opened, saved, out, folder)
    missing = sum(not correction.reference for correction in written.values())
    typer.echo(f"written: {out} ({counted(len(written), 'correction')})")
    if missing:
        typer.echo(f"{missing:,} of them have no photograph: it was not kept.", err=True)


@app.command("apply")
def apply_command(
    out: Annotated[Path, typer.Option(help="A new folder; the new model is in its model folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The images that the model was trained on, for --to weights."),
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    *,
    to: Annotated[
        Literal["memory", "shift", "weights"] | None,
        typer.Option(
            help="memory, or shift of decisions, where the last layer is fitted on a memory (see "
            "`review`); else weights, by training."
        ),
    ] = None,
    runtime: Runtime = None,
    store: StoreOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, as for `nbdt train --corrections`."),
    ] = None,
) -> None:
    """Teach a model the corrections that wait for it; the page then offers the result."""
    from nbdt.model.saved import bundled

    from .apply import accept_corrections, apply_corrections
    from .own import acts

    loaded, is_saved = open_model(model, None, runtime), model in bundled() or Path(model).is_dir()
    if to in {"memory", "shift"} and not acts(loaded):
        raise NBDTError(f"The last layer of {model!r} is not fitted on a memory; use --to weights.")

    def say(text: str) -> None:
        typer.echo(escape_terminal(text), err=True)

    by_training = to == "weights" or not acts(loaded)
    if by_training and data is None:
        raise typer.BadParameter("--to weights needs --data, the images of the training")
    with _opened(store) as opened:
        if not by_training:
            version = accept_corrections(opened, loaded, out, say, shift=to == "shift")
        else:
            version = _shown(
                apply_corrections(
                    opened, loaded, cast(Path, data), out,
                    source=model if is_saved else None, settings=settings or [],
                )
            )  # fmt: skip
    left_out = f"; {version.left_out:,} left out" if version.left_out else ""
    learned = counted(version.learned, "correction")
    typer.echo(f"model {version.id} learned from {learned}{left_out}")
    for kind in ("flat", "soft", "hard"):
        before, after = (version.accuracy[when][kind] for when in ("before", "after"))
        typer.echo(f"{kind} accuracy on held-out images: {before:.2%} before, {after:.2%} after")


@app.command("review")
def review_command(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL, *,
    store: StoreOption = None,
) -> None:  # fmt: skip
    """Say what helps more on photographs that were left out: rows of the memory, or a shift."""
    from .own import compared

    with _opened(store) as opened:
        found = compared(open_model(model), opened)
    if found is None:
        typer.echo("No correction of a class or a group waits for this model's memory.")
        return
    typer.echo(found.words)
    for way in found.best_first:
        typer.echo(f"nbdt corrections apply --model {model} --to {way} --out NEW")


def _shown(events: "Generator[ProgressEvent, None, ModelVersion]") -> "ModelVersion":
    """Show the progress on stderr; return the new version."""
    with progress("{task.description}") as bar:
        task = bar.add_task("starting", total=None)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                version: ModelVersion = end.value
                return version
            if event.event == "progress":
                bar.update(task, description=event.text, completed=event.done, total=event.count)
            else:
                text = "\n".join(map(escape_terminal, event.text.splitlines()))
                bar.console.print(text, markup=False, highlight=False)


@app.command("marks")
def marks_command(
    store: StoreOption = None, visitor: VisitorOption = None, as_json: JsonOption = False
) -> None:
    """List the training images that people marked as bad evidence; `apply` strikes them out."""
    with _opened(store) as opened:
        marks = opened.marks(visitor=visitor)
    for mark in marks:
        why = f": {escape_terminal(mark.why)}" if mark.why else ""
        verdict = "bad" if mark.bad else "good again"
        line = f"{mark.id}  {mark.time}  {escape_terminal(mark.reference)} {verdict}{why}"
        typer.echo(json.dumps(mark._asdict()) if as_json else line)


@app.command("delete")
def delete_command(
    numbers: Annotated[list[int] | None, typer.Argument(help="As `list` shows them.")] = None,
    *,
    visitor: Annotated[
        str | None, typer.Option("--visitor", help="Everything of this visitor.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Delete corrections, and the photographs that no other correction needs."""
    if bool(numbers) == bool(visitor):
        raise typer.BadParameter("give the numbers of corrections, or --visitor")
    with _opened(store) as opened:
        if numbers:
            opened.delete_corrections(numbers)
            typer.echo(f"deleted: {', '.join(map(str, numbers))}")
            return
        deleted, name = opened.delete_visitor(str(visitor)), str(visitor)[:64]
        if not deleted:
            raise StoreError(f"The store has nothing of visitor {name!r}; an id has 64 digits.")
    typer.echo(f"deleted: {deleted:,} corrections, photographs and marks")


def _opened(place: str | None) -> "closing[Store]":
    from ..store import Store

    return closing(Store.open(place))
