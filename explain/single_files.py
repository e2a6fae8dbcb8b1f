"""``nbdt explain`` for single files: each as a tree in the terminal and a picture or page."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.text import Text
from rich.tree import Tree as RichTree

from nbdt.decide.answer import promise
from nbdt.decide.paths import as_percent
from nbdt.errors import NBDTError
from nbdt.files import free_name, write_atomic
from nbdt.hierarchies.show.tables import plain_console
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import AMPLE_SIDE
from nbdt.images.sources import ImageSource
from nbdt.model.model import NBDT
from nbdt.progress import escape_terminal

from .attribution import explain
from .result.contributions import NOTE
from .result.explanation import Explanation
from .result.headline import headline
from .result.pictures import picture, png
from .result.tiles import region, tiles
from .result.words import readable, remark

SUMS = ("contributions", "no_contributions")


def explain_files(
    model: NBDT, images: Sequence[str], out: str | None, *, bands: Sequence[int], pages: bool,
    grid: bool, as_json: bool, **how: Any,
) -> None:  # fmt: skip
    """Show each image, explained as `how` says; report failures at once, and by exit status 3."""
    folder = Path(out or "")
    folder.mkdir(parents=True, exist_ok=True)
    taken = set[str]()

    def show(source: ImageSource) -> None:
        explanation = explain(model, source.open(), **how)[0]
        name = free_name(source.reference, taken, ".nbdt")
        target = _write(explanation, folder, name, pages=pages, grid=grid)
        _report(source, explanation, target, as_json=as_json)

    last = "" if as_json else promise(model.calibration, how["accuracy"])
    show_each(images, show, as_json=as_json, last=last, bands=bands)


def show_each(
    images: Sequence[str],
    show: Callable[[ImageSource], None],
    *,
    as_json: bool,
    last: str = "",
    bands: Sequence[int] = (),
) -> None:
    """Show each image, then the text `last` if any was shown; failures are reported at once.

    `bands` are as in `open_image`.

    Raises typer.Exit: with status 3, in the end, if some images failed.
    """
    shown = failed = False
    for source in iter_inputs(images, max_side=AMPLE_SIDE, bands=bands):
        try:
            show(source)
            shown = True
        except NBDTError as error:
            failed = True
            if as_json:
                typer.echo(json.dumps({"file": source.reference, "error": str(error)}))
            typer.echo(f"error: {error}", err=True)
    if last and shown:
        typer.echo(last)
    if failed:
        raise typer.Exit(3)


def _write(explanation: Explanation, out: Path, name: str, *, pages: bool, grid: bool) -> Path:
    """Write the picture or, in a new folder, the page; return its path."""
    if pages:
        explanation.save(out / name, grid=grid)
        return out / name / "index.html"
    target = out / f"{name}.png"
    write_atomic(target, png(picture(explanation, grid=grid), marked=True))
    return target


def _report(source: ImageSource, explanation: Explanation, target: Path, *, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {"headline": explanation.headline, "words": explanation.words}
        facts |= {"picture": str(target), "answer": explanation.made["answer"]}
        facts["tiles"] = list(map(vars, tiles(explanation)))
        optional = {
            "remark": explanation.remark,
            "answered_by": explanation.made.get("answered_by"),
        }
        facts |= {name: value for name, value in optional.items() if value}
        facts |= {key: value for key, value in explanation.to_dict().items() if key in SUMS}
        record = {"file": source.reference, **explanation.path.to_dict(), **facts}
        typer.echo(json.dumps(record, ensure_ascii=True))
        return
    console = plain_console()
    console.print(_tree(source.reference, explanation))
    console.print(Text(explanation.words))
    if explanation.answered_by:
        console.print(Text(escape_terminal(explanation.answered_by), style="dim"))
    if explanation.remark:
        console.print(Text(explanation.remark, style="yellow"))
    for decision, found in zip(explanation.path, explanation.contributions, strict=False):
        name = escape_terminal(readable(decision.children[decision.chosen]))
        console.print(Text(f"{name}: {found.words}"))
        console.print(Text(escape_terminal(f"  {found.named}"), style="dim"))
    if last := explanation.no_contributions or (NOTE if explanation.contributions else ""):
        console.print(Text(escape_terminal(last), style="dim"))
    console.print(
        Text(f"{'page' if target.suffix == '.html' else 'picture'}: {target}", style="dim")
    )


def _tree(reference: str, explanation: Explanation) -> RichTree:
    """The path as nested branches, with each decision's runner-up and what was tested, dimmed."""
    path, stop = explanation.path, explanation.answer
    answer = headline(path, stop)
    head = (f"{escape_terminal(reference)}\n", (answer.title, "bold"), f": {answer.text}")
    root = branch = RichTree(Text.assemble(*head))
    stops = [
        "   the answer stops here" if stop and stop.depth == d else "" for d in range(len(path))
    ]
    branch = branch.add(Text.assemble(readable(path.decisions[0].node), (stops[0], "yellow")))
    for depth, decision in enumerate(path, start=1):
        runner_up = decision.runner_up
        second = as_percent(math.exp(decision.log_probs[runner_up]))
        dimmed = f"   not {readable(decision.children[runner_up])} {second}"
        if not decision.is_likeliest:
            dimmed = f"   {remark(decision)}"
        committed = stop is None or depth <= stop.depth
        if tested := region(explanation, depth - 1):
            dimmed += f"   {as_percent(tested.probabilities[1])} without its region"
        name = (readable(decision.children[decision.chosen]), "bold green" if committed else "dim")
        chance = f" {as_percent(decision.probability)}"
        mark = (stops[depth] if depth < len(path) else "", "yellow")
        branch = branch.add(Text.assemble(name, chance, (dimmed, "dim"), mark))
    return root
