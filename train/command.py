"""``nbdt train RECIPE --data DIR``."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nbdt.errors import NBDTError
from nbdt.hierarchies.library import DEFAULT_MODEL
from nbdt.model.model import NBDT
from nbdt.progress import tracked
from nbdt.tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from .fit.checkpoints import Row

app = typer.Typer(add_completion=False)


@app.command(name="train")
def train_command(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe's name, or a TOML file.")
    ] = None,
    *,
    data: Annotated[
        Path,
        typer.Option(
            help="A folder of class folders, one with train and test folders of them, CIFAR or "
            "ImageNet as torchvision keeps them, a tar archive, or a CSV or Parquet table."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where checkpoints, log and model go.")] = Path(
        "runs/run"
    ),
    hierarchy: Annotated[
        str | None,
        typer.Option(help="A tree: a file, a shipped one's name, or wordnet. Else induced."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A weights file or a saved model to start from, instead of the hub."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, changing the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in --out.")
    ] = False,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Instead of a recipe: what people said of --model, as JSON lines."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model that is corrected; else the bundled one.")
    ] = None,
) -> None:
    """Train a model. A run that was interrupted goes on with the same command and --resume.

    With --corrections, teach a model what people said of its decisions.
    """
    if (recipe is None) == (corrections is None):
        raise typer.BadParameter("give a RECIPE to train by, or --corrections to learn from")
    if corrections is not None:
        if hierarchy or weights or resume:
            raise typer.BadParameter("--hierarchy, --weights and --resume belong to a RECIPE")
        _correct(corrections, model, data, out, settings or [])
        return
    if model is not None:
        raise typer.BadParameter("--model belongs to --corrections; a recipe has --weights")
    _train(str(recipe), data, out, hierarchy, weights, settings or [], resume=resume)


def _train(  # noqa: PLR0917
    recipe: str, data: Path, out: Path, hierarchy: str | None, weights: Path | None,
    settings: list[str], *, resume: bool,
) -> None:  # fmt: skip
    from .fit.distributed import global_rank
    from .fit.run import train
    from .recipe import load_recipe

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
    model = train(
        load_recipe(recipe, settings),
        data,
        out,
        hierarchy=_hierarchy(hierarchy),
        weights=weights,
        resume=resume,
        command=shlex.join(["nbdt", *sys.argv[1:]]),
        progress=tracked,
        report=_report,
        say=_say,
    )
    if global_rank() == 0:
        _show(model, out)


def _correct(
    corrections: Path, model: Path | None, data: Path, out: Path, settings: list[str]
) -> None:
    from .corrections.run import correct, settings_from

    found = correct(
        NBDT.load(DEFAULT_MODEL if model is None else model),
        corrections,
        data,
        out,
        settings_from(settings),
        command=shlex.join(["nbdt", *sys.argv[1:]]),
        progress=tracked,
        say=_say,
    )
    table = Table(f"{len(found.applied):,} corrections", "met", "flat", "soft", "hard")
    images = len(found.model.reference["labels"])
    table.caption = f"Accuracy on {images:,} held-out image{'s' if images != 1 else ''}"
    figures = found.model.provenance["corrected"]["accuracy"]
    for name, met in (("before", found.met_before), ("after", found.met_after)):
        row = (f"{figures[name][kind]:.2%}" for kind in ("flat", "soft", "hard"))
        table.add_row(name, "" if math.isnan(met) else f"{met:.0%}", *row)
    Console().print(table)
    typer.echo(f"saved: {out / 'model'}")


def _hierarchy(text: str | None) -> Hierarchy | str | None:
    if text is None or text in ("wordnet", "induced"):
        return text if text == "wordnet" else None
    from nbdt.hierarchies.library import find

    try:
        return find(text)
    except NBDTError as error:
        raise NBDTError(f"{error} With 'wordnet' the tree is made from the class names.") from None


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _report(rows: list[Row]) -> None:
    """The epoch that has just ended, one line."""
    row = rows[-1]
    figures = [f"{kind} {row[kind]:6.2%}" for kind in ("flat", "soft", "hard") if kind in row]
    if "soft" not in row:
        figures.append("no tree yet")
    loss = f"loss {row['train_loss']:.4f}" if "train_loss" in row else ""
    _say(f"epoch {row['epoch']:>3g}  {loss}  {'  '.join(figures)}  {row['minutes']:.1f} min")


def _show(model: NBDT, out: Path) -> None:
    table = Table("images", "flat", "soft", "hard")
    for split, values in model.provenance["accuracy"].items():
        table.add_row(split, *(f"{values[kind]:.2%}" for kind in ("flat", "soft", "hard")))
    Console().print(table)
    folder = shlex.quote(str(out / "model"))
    typer.echo(f"saved: {out / 'model'}")
    _say(f"Try it: nbdt explain photo.jpg --model {folder}")
    _say(f"        nbdt hierarchy show {folder}")
