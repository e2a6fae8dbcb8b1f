"""The batch half of ``nbdt explain``: a progress bar, lines for machines, an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from nbdt.images.inputs import count_inputs
from nbdt.model.model import NBDT
from nbdt.progress import escape_terminal, progress

from .device import to_device
from .folder import OVERVIEW
from .rows import FAILED, json_line
from .run import Batch, explain_all
from .work import Row

SHOWN = 20  # failures in the terminal; the rows have all
INTERRUPTED = 130


def explain_batch(
    model: NBDT,
    inputs: Sequence[str],
    out: str,
    *,
    share: tuple[int, int],
    column: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Explain them all, and leave with exit status 3 if some failed."""
    reporter = _Reporter(as_json=as_json)
    with _bar(inputs, column, share) as advance:
        try:
            done = explain_all(
                to_device(model), inputs, out, shard=share, column=column,
                on_images=advance, on_rows=reporter, **options,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(_summary(done), err=as_json)
    if options["pages"] and not done.missing_parts:
        typer.echo(f"to look at: {escape_terminal(done.folder)}/{OVERVIEW}", err=as_json)
    if done.failed:
        raise typer.Exit(3)


class _Reporter:
    """Each new part's rows as JSON lines, its failures on stderr."""

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
        parts.append(f"{done.missing_parts:,} parts of other shards are still missing")
    return f"written: {escape_terminal(done.folder)} ({', '.join(parts)})"


@contextmanager
def _bar(inputs: Sequence[str], column: str | None, shard: tuple[int, int]) -> Iterator[Any]:
    """What to tell of finished images: a bar on stderr, or nobody if that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    total = count_inputs(inputs, column)
    with progress("images") as bar:
        # A shard's images are its parts'; n-th of them is near enough for the time left.
        task = bar.add_task("", total=total and -(-total // shard[1]))
        yield lambda count: bar.advance(task, count)
