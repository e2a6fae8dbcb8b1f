"""Options and output that the commands on hierarchies share."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from nbdt.errors import NBDTError, listed
from nbdt.progress import escape_terminal
from nbdt.tree.hierarchy import Hierarchy

from .library import MODEL_HELP, RUNTIME_HELP, WEIGHTS_HELP
from .show import print_tree
from .show.picture import PICTURES, save_picture

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Weights = Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)]
Runtime: TypeAlias = Annotated[Literal["torch", "onnx"] | None, typer.Option(help=RUNTIME_HELP)]
Data = Annotated[
    Path, typer.Option(help="A folder of class folders, a tar archive of one, or a table.")
]
SplitName = Annotated[
    str | None, typer.Option("--split", help="A folder of splits inside the data.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[
    Path | None, typer.Option(help="Write the tree to .json, or a picture to .html, .png or .svg.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing file.")]
Classes = Annotated[
    str | None, typer.Option(help="Class names in order: a file with one a line, or a tree.")
]


def exit_with(failed: Collection[str]) -> None:
    """Print what failed, a line each, and exit with status 3; do nothing if nothing failed."""
    for message in failed:
        typer.echo(f"error: {message}", err=True)
    if failed:
        raise typer.Exit(3)


def echo(data: object) -> None:
    """Print JSON."""
    typer.echo(json.dumps(data, ensure_ascii=True, indent=1))


def present(
    hierarchy: Hierarchy,
    out: Path | None,
    *,
    as_json: bool,
    overwrite: bool,
    senses: object = None,
    note: str = "",
) -> None:
    """Print a new tree, with a note or as JSON with the senses of its classes; write it if asked."""
    if as_json:
        tree = json.loads(hierarchy.to_json())
        echo(tree if senses is None else {"hierarchy": tree, "senses": senses})
    else:
        print_tree(hierarchy)
        typer.echo(note, nl=bool(note))
    if out is not None:
        save(hierarchy, out, overwrite=overwrite, quiet=as_json)


def save(
    hierarchy: Hierarchy,
    path: Path,
    *,
    overwrite: bool,
    title: str = "",
    quiet: bool = False,
) -> None:
    """Write a picture, or a tree that replaces no file without `overwrite`."""
    if path.suffix.lower() in PICTURES:
        save_picture(hierarchy, path, title)
    elif path.suffix.lower() != ".json":
        raise NBDTError(
            f"{os.fspath(path)!r}: expected a file named .json for the tree, or {listed(PICTURES)} "
            "for a picture of it."
        )
    elif path.exists() and not overwrite:
        raise NBDTError(
            f"{os.fspath(path)!r} exists already; name another file, or give --overwrite."
        )
    else:
        hierarchy.save(path)
    if not quiet:
        typer.echo(f"saved: {escape_terminal(str(path))}")
