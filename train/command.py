"""``nbdt train RECIPE --data DIR``, and ``nbdt train --corrections FILE --data DIR``."""

import contextlib
import logging
import math
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from nbdt.errors import NBDTError
from nbdt.hierarchies.library import DEFAULT_MODEL
from nbdt.hierarchies.show.tables import plain_console, table
from nbdt.hierarchies.wordnet.command import meanings_of
from nbdt.model.model import NBDT
from nbdt.progress import JsonProgress, counted, tracked
from nbdt.tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from .corrections.run import CorrectionFit
    from .folder import Row

KINDS = ("flat", "soft", "hard")
KINDS_OF_TREE = ("readable", "induced")
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
    out: Annotated[Path, typer.Option(help="A folder for checkpoints, log and model.")] = Path(
        "runs/run"
    ),
    hierarchy: Annotated[
        str | None,
        typer.Option(
            help="A hierarchy: a file, a shipped one's name, or how it is made: readable, from the "
            "names of the classes, or induced, from the classifier."
        ),
    ] = None,
    sense: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MEANING: what a class is, a WordNet id or a noun; repeatable."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A weights file or a saved model to start from, instead of the hub."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, which changes the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in --out.")
    ] = False,
    finetune: Annotated[
        bool | None,
        typer.Option(
            "--finetune/--no-finetune",
            help="After a frozen backbone, train the whole network; by default if there is a GPU.",
        ),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Instead of a recipe: corrections of --model, as JSON lines."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model that is corrected; by default the bundled one.")
    ] = None,
    progress: Annotated[
        Literal["bar", "json"],
        typer.Option(help="With --corrections: json writes one event a line on stdout."),
    ] = "bar",
) -> None:
    """Train a model. To continue an interrupted run, add --resume to the same command.

    With --corrections, train a model with corrections of its decisions.
    """
    if (recipe is None) == (corrections is None):
        raise typer.BadParameter("give a RECIPE to train by, or --corrections to learn from")
    if corrections is None:
        if model is not None or progress != "bar":
            raise typer.BadParameter(
                "--model and --progress belong to --corrections; a recipe has --weights"
            )
        trained = _train(
            str(recipe), settings or [], data, out, hierarchy=_hierarchy(hierarchy),
            meanings=meanings_of(sense), weights=weights, resume=resume, finetune=finetune,
        )  # fmt: skip
        if trained:
            _show(trained, out)
        return
    if hierarchy or sense or weights or resume or finetune is not None:
        raise typer.BadParameter(
            "--hierarchy, --sense, --weights, --resume and --finetune belong to a RECIPE"
        )
    _correct(corrections, model, data, out, settings or [], as_json=progress == "json")


def _train(
    recipe: str,
    settings: list[str],
    data: Path,
    out: Path,
    *,
    finetune: bool | None,
    **options: Any,
) -> NBDT | None:
    """Train as `nbdt.train.run.train` does; return the model in the first of several processes."""
    import torch

    from .folder import global_rank
    from .recipe import load_recipe
    from .run import train

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
    finetune = torch.cuda.is_available() if finetune is None else finetune
    model = train(
        load_recipe(recipe, settings), data, out, finetune=finetune, command=_command_line(),
        progress=tracked, report=_report, say=_say, **options,
    )  # fmt: skip
    return model if global_rank() == 0 else None


def _hierarchy(text: str | None) -> Hierarchy | str | None:
    if text is None or text in KINDS_OF_TREE:
        return text
    from nbdt.hierarchies.library import find

    try:
        return find(text)
    except NBDTError as error:
        raise NBDTError(
            f"{error} It may also be {', '.join(KINDS_OF_TREE)}: then it is made in this run."
        ) from None


def _report(rows: "list[Row]") -> None:
    """Print one line about the epoch that has just ended."""
    row = rows[-1]
    figures = [f"{kind} {row[kind]:6.2%}" for kind in KINDS if kind in row]
    if "soft" not in row:
        figures.append("no tree yet")
    loss = f"loss {row['train_loss']:.4f}" if "train_loss" in row else ""
    _say(f"epoch {row['epoch']:>3g}  {loss}  {'  '.join(figures)}  {row['minutes']:.1f} min")


def _show(model: NBDT, out: Path) -> None:
    figures = model.provenance["accuracy"]
    columns = dict.fromkeys(kind for values in figures.values() for kind in values)
    rows = [(split, *(f"{one[kind]:.2%}" for kind in columns)) for split, one in figures.items()]
    plain_console().print(table("", ("images", *columns), rows))
    folder = shlex.quote(str(out / "model"))
    typer.echo(f"saved: {out / 'model'}; what is confused with what: {out / 'summary.png'}")
    _say(f"Look at it: nbdt hierarchy show {folder}")
    _say(f"Try it: nbdt demo --model {folder}")


def _correct(
    corrections: Path, model: Path | None, data: Path, out: Path, settings: list[str], *,
    as_json: bool,
) -> None:  # fmt: skip
    from .corrections.run import correct, settings_from

    events = JsonProgress(sys.stdout) if as_json else None
    # Another process reads the events, so nothing else is written on stdout.
    with contextlib.redirect_stdout(sys.stderr if events else sys.stdout):
        try:
            fitted = correct(
                NBDT.load(DEFAULT_MODEL if model is None else model),
                corrections,
                data,
                out,
                settings_from(settings),
                command=_command_line(),
                progress=events or tracked,
                say=events.say if events else _say,
            )
        except NBDTError as error:
            if events is None:
                raise
            events.fail(str(error))
            raise typer.Exit(1) from None
    if events is None:
        plain_console().print(_table(fitted))
        typer.echo(f"saved: {out / 'model'}")


def _table(fitted: "CorrectionFit") -> Table:
    figures, rows = fitted.model.provenance["corrected"]["accuracy"], []
    for name, met in (("before", fitted.met_before), ("after", fitted.met_after)):
        shares = (f"{figures[name][kind]:.2%}" for kind in KINDS)
        rows.append((name, "" if math.isnan(met) else f"{met:.0%}", *shares))
    columns = (counted(len(fitted.applied), "correction"), "met", *KINDS)
    count = counted(len(fitted.model.reference["labels"]), "test image")
    return table("", columns, rows, f"Accuracy on {count}")


def _command_line() -> str:
    return shlex.join(["nbdt", *sys.argv[1:]])


def _say(text: str) -> None:
    typer.echo(text, err=True)
