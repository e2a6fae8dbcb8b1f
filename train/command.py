"""``nbdt train RECIPE --data DIR``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nbdt.hierarchy import Hierarchy

app = typer.Typer(add_completion=False)


@app.command(name="train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the images.")],
    out: Annotated[Path, typer.Option(help="Where checkpoints and the model go.")] = Path(
        "runs/run"
    ),
    hierarchy: Annotated[
        Path | None, typer.Option(help="A saved hierarchy; by default one is induced.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, changing the recipe.")
    ] = None,
) -> None:
    """Train a model; running the same command again continues from the last checkpoint."""
    from .config import load_recipe
    from .run import train

    parsed = load_recipe(recipe, settings or [])
    tree = Hierarchy.load(hierarchy) if hierarchy else None
    command = shlex.join(["nbdt", *sys.argv[1:]])
    model = train(parsed, data, out, hierarchy=tree, command=command)
    table = Table("images", "flat", "soft", "hard")
    for split, values in model.provenance["accuracy"].items():
        table.add_row(split, *(f"{values[kind]:.2%}" for kind in ("flat", "soft", "hard")))
    Console().print(table)
    typer.echo(f"saved: {out / 'model'}")
