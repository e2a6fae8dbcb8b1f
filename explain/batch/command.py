"""``nbdt explain`` for a batch: a progress bar, JSON lines, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer

from nbdt.images.dataset import count_inputs
from nbdt.network.encoder import to_device
from nbdt.progress import counted, escape_terminal, progress

from ..options import ExplainOptions
from .folder import OVERVIEW
from .rows import FAILED, json_line
from .run import Batch, explain_all
from .writer import Row

FOLDER = "explained"  # the batch's folder by default
SHOWN = 20  # failures in the terminal at most; the rows have all
INTERRUPTED = 130


def explain_batch(options: ExplainOptions) -> None:
    """Explain all images, and exit with status 3 if some failed."""
    as_json = options.as_json
    with _bar(options) as advance:
        try:
            done = explain_all(
                to_device(options.model),
                options.images,
                options.out or FOLDER,
                pages=options.pages,
                method=options.method,
                accuracy=options.accuracy,
                evidence=options.evidence,
                counterfactuals=options.counterfactuals,
                on_images=advance,
                on_rows=_Reporter(as_json=as_json),
                **options.batch,
            )
        except KeyboardInterrupt:
            typer.echo("stopped; the same command continues from here", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(_summary(done), err=as_json)
    if options.promise:
        typer.echo(options.promise, err=as_json)
    if options.pages and not done.missing_parts:
        typer.echo(f"overview: {escape_terminal(done.folder)}/{OVERVIEW}", err=as_json)
    if done.failed:
        raise typer.Exit(3)


class _Reporter:
    """Prints each new part's rows as JSON lines, and its failures on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.failed = 0

    def __call__(self, rows: Sequence[Row]) -> None:
        if self.as_json:
            typer.echo("\n".join(map(json_line, rows)))
        for row in rows:
            if row["status"] == FAILED:
                self.failed += 1
                if self.failed <= SHOWN:
                    typer.echo(f"error: {row['error']}", err=True)
                elif self.failed == SHOWN + 1:
                    typer.echo("further errors are in the rows, column 'error'", err=True)


def _summary(done: Batch) -> str:
    parts = [f"{done.images - done.failed:,} of {done.images:,} images explained"]
    if done.repeated:
        parts.append(f"{done.repeated:,} of them before")
    if done.missing_parts:
        parts.append(f"{counted(done.missing_parts, 'part')} missing: of other shards, or removed")
    return f"written: {escape_terminal(done.folder)} ({', '.join(parts)})"


@contextmanager
def _bar(options: ExplainOptions) -> Iterator[Callable[[int], None] | None]:
    """Give the callback for finished images: it moves a bar on stderr; None if that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    total = count_inputs(options.images, options.batch["column"])
    shards = options.batch["shard"][1]
    with progress("images") as bar:
        # One n-th of the images is close enough to a shard's number for the time left.
        task = bar.add_task("", total=total and -(-total // shards))
        yield lambda count: bar.advance(task, count)
