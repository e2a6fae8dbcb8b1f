"""``nbdt memory add | strike | take-back | relabel | restore | refit``: what changes a memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from nbdt.errors import NBDTError
from nbdt.hierarchies.shell import Model, Runtime, SplitName, Weights
from nbdt.images.dataset import iter_images, iter_inputs
from nbdt.images.image import AMPLE_SIDE
from nbdt.memory.memory import Memory
from nbdt.model.model import NBDT
from nbdt.model.writing import is_own_memory, save_head
from nbdt.network.encoder import to_device
from nbdt.progress import counted, escape_terminal, tracked

from . import opening
from .opening import By, Place, Refit, Rows, Why, opened, report

SHOWN = 5  # photographs that a change names


def add(
    model: Model,
    images: Annotated[
        list[str] | None, typer.Argument(help="Photographs, or folders of them, with --label.")
    ] = None,
    *,
    label: Annotated[str | None, typer.Option(help="Their class or group.")] = None,
    data: Annotated[Path | None, opening.DATA] = None,
    split: SplitName = None,
    pictures: opening.Pictures = False,
    why: Why = "",
    by: By = "",
    memory: Place = None,
    weights: Weights = None,
    runtime: Runtime = None,
    refit: Refit = False,
) -> None:
    """Add labelled photographs; those that cannot be added are listed, a line each."""
    if bool(images and label) == bool(data) or bool(images) != bool(label):
        raise typer.BadParameter("give photographs and --label, or --data")
    loaded, found, done = changing(model, memory, weights, runtime, refit=refit)
    to_device(loaded)
    sources = iter_images(data, split) if data else iter_inputs(images or (), max_side=AMPLE_SIDE)
    added = found.add([*sources], label, by=by, why=why, pictures=pictures, progress=tracked)
    if added.ids:
        done(f"added: {counted(len(added.ids), 'photograph')}")
    report(added.failed)


def strike(
    model: Model,
    rows: Rows,
    *,
    why: Annotated[str, typer.Option(help="The reason, which is kept.")],
    by: By = "",
    memory: Place = None,
    refit: Refit = False,
) -> None:
    """Strike photographs out: they take no part in the fit and are not shown as evidence."""
    _, found, done = changing(model, memory, refit=refit)
    done(f"struck out: {_named(found, found.strike(rows, why, by=by))}")


def take_back(
    model: Model,
    rows: Rows,
    *,
    why: Why = "",
    by: By = "",
    memory: Place = None,
    refit: Refit = False,
) -> None:
    """Let photographs that were struck out count again."""
    _, found, done = changing(model, memory, refit=refit)
    done(f"taken back: {_named(found, found.take_back(rows, why, by=by))}")


def relabel(
    model: Model,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A class or a group.")],
    rows: Rows,
    *,
    why: Why = "",
    by: By = "",
    memory: Place = None,
    refit: Refit = False,
) -> None:
    """Give photographs another label."""
    _, found, done = changing(model, memory, refit=refit)
    done(f"relabelled: {_named(found, found.relabel(rows, label, why, by=by))}")


def restore(
    model: Model,
    version: Annotated[int, typer.Argument(help="As `nbdt memory versions` lists it.")],
    *,
    memory: Place = None,
    refit: Refit = False,
) -> None:
    """Make the rows of an earlier version the newest ones."""
    loaded, found, done = changing(model, memory, refit=refit)
    past = found.table.at(version)
    if refit:
        found.with_table(past).examples(loaded.head.rules)
    found.restore(version)
    if not past.counts()[0]:
        typer.echo(
            f"Version {version} has no active photographs: add some before the next fit.", err=True
        )
    done(f"restored: version {version}")


def refit(
    model: Model,
    *,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the model, instead of its own.")
    ] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Choose the penalty again by cross-validation.")
    ] = False,
    memory: Place = None,
    weights: Weights = None,
) -> None:
    """Fit the model's last layer on the active photographs, and write it into the model."""
    loaded, _ = opened(model, memory, weights)
    fit(model, loaded, memory, out=out, choose=choose)


def changing(
    source: str,
    place: str | None,
    weights: Path | None = None,
    runtime: str | None = None,
    *,
    refit: bool,
) -> tuple[NBDT, Memory, Callable[[str], None]]:
    """Open a model and its memory for a change.

    Returns:
        Both, and a function to call after the change with what it did: it says so and how to go
        back, and makes the change act or says how.

    Raises NBDTError: as `opened`, or a model whose last layer cannot be written.
    """
    model, memory = opened(source, place, weights, runtime)
    if refit:
        check_own(model, source, place)
    before, named = memory.version, "" if place is None else f" --memory {place}"

    def done(what: str) -> None:
        typer.echo(f"{what} (version {memory.version})")
        typer.echo(f"To go back: nbdt memory restore {source} {before}{named}", err=True)
        if refit:
            fit(source, model, place)
        else:
            typer.echo(f"It acts after: nbdt memory refit {source}{named}", err=True)

    return model, memory, done


def fit(
    source: str, model: NBDT, place: str | None, *, out: Path | None = None, choose: bool = False
) -> None:
    """Fit a model's last layer on its memory and write it.

    Raises NBDTError: a model that has no folder, or another memory than its own, without `out`.
    """
    if out is None:
        check_own(model, source, place)
    before = model.provenance.get("memory", {}).get("key")
    fitted = model.refit(choose=choose, progress=tracked)
    if out is not None:
        model.save(out)
    elif fitted.key != before or choose:
        save_head(model, source)
    written = escape_terminal(str(out or source))
    count, active = len(fitted.labels), model.memory.table.counts()[0] if model.memory else 0
    some = f" of {active:,}, as many of each label" if count < active else ""
    typer.echo(f"fitted on {counted(count, 'photograph')}{some}; written: {written}")


def check_own(model: NBDT, source: str, place: str | None) -> None:
    """Raise NBDTError for a model that has no folder, or with another memory than its own."""
    if not is_own_memory(model, source):
        raise NBDTError(
            f"The last layer can be written only into the folder of a saved model with a memory of "
            f"its own, not for {source!r} with {place!r}. Name a new folder: nbdt memory refit "
            f"{source} --memory {place} --out NEW"
        )


def _named(memory: Memory, keys: Sequence[str]) -> str:
    rows = memory.table.described(keys[:SHOWN])
    shown = ", ".join(f"{row['reference']} ({memory.name_of(row['label'])})" for row in rows)
    more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
    return escape_terminal(shown) + more
