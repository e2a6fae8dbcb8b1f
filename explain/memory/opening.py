"""What every command of ``nbdt memory`` shares: options, opening, and reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nbdt.errors import NBDTError
from nbdt.hierarchies.library import open_model
from nbdt.memory.memory import Memory
from nbdt.model.model import NBDT
from nbdt.progress import escape_terminal

Place = Annotated[
    str | None, typer.Option("--memory", metavar="M", help="A memory, if not the model's own.")
]
Rows = Annotated[
    list[str],
    typer.Argument(metavar="ROW...", help="Ids or references, as `nbdt memory list` prints them."),
]
DATA = typer.Option(help="Labelled photographs: class folders, an archive of them, or a table.")
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures", "--thumbnails", help="Keep small pictures, to show without the originals."
    ),
]
Why = Annotated[str, typer.Option(help="The reason.")]
By = Annotated[str, typer.Option(help="Who says so.")]
Refit = Annotated[bool, typer.Option("--refit", help="Fit the model's last layer at once.")]


def opened(
    source: str,
    place: str | None = None,
    weights: Path | None = None,
    runtime: str | None = None,
) -> tuple[NBDT, Memory]:
    """Open a model and its memory, or the memory at a place.

    Raises NBDTError: a model without a memory, or what opening either raises.
    """
    model = open_model(source, weights, runtime)
    if place is not None:
        model.use_memory(place)
    if (memory := model.memory) is None:
        raise NBDTError(
            f"The model {source!r} has no memory of its own. Name one with --memory, or make one: "
            f"nbdt memory build {source} --data D --out M"
        )
    return model, memory


def report(failed: Sequence[str]) -> None:
    """Print what failed, a line each, and exit with status 3 if anything did."""
    for line in failed:
        typer.echo(f"error: {escape_terminal(line)}", err=True)
    if failed:
        typer.echo(f"left out: {len(failed):,}", err=True)
        raise typer.Exit(3)
