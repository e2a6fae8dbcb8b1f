"""``nbdt explain`` for a batch: a progress bar, JSON lines, and an exit status."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import typer

from nbdt.decide.answer import promise
from nbdt.images.dataset import count_inputs
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import counted, escape_terminal, progress

from .folder import OVERVIEW
from .rows import FAILED, json_line
from .run import Batch, explain_all
from .writer import Row

FOLDER = "explained"  # the batch's folder by default
SHOWN = 20  # failures in the terminal at most; the rows have all
INTERRUPTED = 130


def explain_batch(
    model: NBDT, images: Sequence[str], out: str | None, *, as_json: bool, **options: Any
) -> None:
    """Explain all images, as `explain_all` does, and exit with status 3 if some failed."""
    model = to_device(model)
    errors = count(1)

    def report(rows: Sequence[Row]) -> None:
        if as_json:
            typer.echo("\n".join(map(json_line, rows)))
        for row in (row for row in rows if row["status"] == FAILED):
            number = next(errors)
            if number <= SHOWN:
                typer.echo(f"error: {row['error']}", err=True)
            elif number == SHOWN + 1:
                typer.echo("further errors are in the rows, column 'error'", err=True)

    with _bar(images, options["column"], options["shard"]) as advance:
        try:
            done = explain_all(
                model, images, out or FOLDER, on_images=advance, on_rows=report, **options
            )
        except KeyboardInterrupt:
            typer.echo("stopped; the same command continues from here", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(_summary(done), err=as_json)
    if promised := promise(model.calibration, options["accuracy"]):
        typer.echo(promised, err=as_json)
    if options["pages"] and not done.missing_parts:
        typer.echo(f"overview: {escape_terminal(done.folder)}/{OVERVIEW}", err=as_json)
    if done.failed:
        raise typer.Exit(3)


def _summary(done: Batch) -> str:
    parts = [f"{done.images - done.failed:,} of {done.images:,} images explained"]
    if done.repeated:
        parts.append(f"{done.repeated:,} of them before")
    if done.missing_parts:
        parts.append(f"{counted(done.missing_parts, 'part')} missing: of other shards, or removed")
    return f"written: {escape_terminal(done.folder)} ({', '.join(parts)})"


@contextmanager
def _bar(
    images: Sequence[str], column: str | None, shard: tuple[int, int]
) -> Iterator[Callable[[int], None] | None]:
    """Give the callback for finished images: it moves a bar on stderr; None if that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    total = count_inputs(images, column)
    with progress("images") as bar:
        # One n-th of the images is close enough to a shard's number for the time left.
        task = bar.add_task("", total=total and -(-total // shard[1]))
        yield lambda number: bar.advance(task, number)
