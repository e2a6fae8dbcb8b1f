"""``nbdt evaluate MODEL --data D [--hierarchy OLD] [--against NEW]``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import nbdt
from nbdt.decide.metrics import accuracy
from nbdt.files import write_atomic
from nbdt.progress import escape_terminal, tracked
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.hierarchy import Hierarchy

from ..library import find
from ..model_source import MODEL_HELP, WEIGHTS_HELP, open_model
from .comparison import (
    Comparison,
    NodeResult,
    TreeResult,
    compare,
    comparison_record,
    measure,
    quality,
    tree_record,
)
from .logits import Logits, class_logits
from .picture import hardest, picture

SHOWN = 8

app = typer.Typer(add_completion=False)


@app.command(name="evaluate")
def evaluate_command(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    *,
    data: Annotated[Path, typer.Option(help="A folder of class folders, or a tar archive of one.")],
    hierarchy: Annotated[
        str | None, typer.Option(help="A tree by name or file; by default the model's own.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="A tree to compare it with, after an edit say.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    split: Annotated[str | None, typer.Option(help="A folder of splits inside the data.")] = None,
    out: Annotated[
        Path, typer.Option(help="Where evaluation.json, its picture and the kept logits go.")
    ] = Path("evaluation"),
) -> None:
    """Measure a tree on labelled photographs, or what another tree would change."""
    loaded = open_model(model, weights)
    before_tree = _tree(hierarchy, loaded.hierarchy)
    after_tree = _tree(against, loaded.hierarchy) if against else None
    if torch.cuda.is_available():
        loaded.to("cuda")
    out.mkdir(parents=True, exist_ok=True)
    found = class_logits(loaded, data, split=split, cache=out, progress=tracked)
    before = measure(found.logits, found.labels, before_tree, loaded.rule)
    comparison = None
    if after_tree is not None:
        comparison = compare(before, measure(found.logits, found.labels, after_tree, loaded.rule))
    facts = {"model": model, "data": str(data), "rule": loaded.rule}
    _report(out, _record(facts, found, before, comparison), before, comparison)
    for message in found.failed:
        typer.echo(f"error: {message}", err=True)
    if found.failed:
        raise typer.Exit(3)


def _tree(name: str | None, own: Hierarchy) -> Hierarchy:
    if name is None:
        return own
    tree = find(name)
    check_same_classes(own, tree, repr(name))
    return tree


def _record(
    facts: dict[str, Any], found: Logits, before: TreeResult, comparison: Comparison | None
) -> dict[str, Any]:
    record = {
        "format": "nbdt-evaluation",
        "version": 1,
        **facts,
        "flat": accuracy(found.logits.argmax(dim=1), found.labels),
        "images": len(found.labels),
        "classes_without_images": before.hierarchy.num_classes - len(found.labels.unique()),
        "failed": list(found.failed),
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
        "before": {**tree_record(before), "quality": quality(before)},
    }
    if comparison:
        after = comparison.after
        record["after"] = {**tree_record(after), "quality": quality(after)}
        record["changes"] = comparison_record(comparison, found.files)
    return record


def _report(
    out: Path, record: dict[str, Any], before: TreeResult, comparison: Comparison | None
) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=True) + "\n"
    write_atomic(out / "evaluation.json", text)
    write_atomic(out / "evaluation.png", picture(record["flat"], before, comparison))
    _show(Console(highlight=False, emoji=False), record, before, comparison)
    typer.echo(f"written: {out / 'evaluation.json'}, {out / 'evaluation.png'}")


# ---- in the terminal ----------------------------------------------------------------------------


def _show(
    console: Console, record: dict[str, Any], before: TreeResult, comparison: Comparison | None
) -> None:
    console.print(_accuracy_table(record))
    if missing := record["classes_without_images"]:
        console.print(
            f"{missing} of {before.hierarchy.num_classes} classes have no photograph here."
        )
    if comparison is None:
        console.print(_hardest_table(before))
        return
    if record["rule"] == "marginal":
        console.print(
            "Under the marginal rule a tree changes paths and hard answers, never soft ones."
        )
    console.print(_verdict_line(comparison))
    if comparison.easier or comparison.harder:
        console.print(_node_table(comparison))
    changed = [row for row in record["changes"]["images"] if row["verdict"] != "other path"]
    if changed:
        console.print(_image_table(changed))


def _table(title: str, *columns: str) -> Table:
    """A table at least as wide as its title, which would break otherwise."""
    return Table(*columns, title=title, min_width=len(title))


def _accuracy_table(record: dict[str, Any]) -> Table:
    before, images = record["before"]["quality"], f"{record['images']:,} photographs"
    if "after" not in record:
        columns = ("right", "distance", "of mistakes", "calibration error")
        table = _table(f"answers on {images}", "", *columns)
        for kind, values in before.items():
            error = values.get("calibration_error")
            table.add_row(
                kind,
                f"{values['accuracy']:.2%}",
                f"{values['distance']:.3f}",
                f"{values['severity']:.2f}",
                "" if error is None else f"{error:.2%}",
            )
        table.caption = "distance: levels up the tree until an answer is right"
        return table
    table = _table(f"right answers on {images}", "", "before", "after", "change")
    for kind, values in record["after"]["quality"].items():
        old, new = before[kind]["accuracy"], values["accuracy"]
        table.add_row(kind, f"{old:.2%}", f"{new:.2%}", f"{100 * (new - old):+.2f}")
    return table


def _verdict_line(comparison: Comparison) -> str:
    counts = [f"{count} {verdict}" for verdict, count in comparison.verdicts.items() if count]
    return f"{len(comparison.images):,} photographs changed: {', '.join(counts) or 'none'}."


def _node_table(comparison: Comparison) -> Table:
    table = _table("easier and harder decisions", "decision", "mistakes before", "after", "")
    rows = [(change, "easier", "blue") for change in comparison.easier[:SHOWN]]
    rows += [(change, "harder", "red") for change in comparison.harder[:SHOWN]]
    for change, word, colour in rows:
        counts = (_mistakes(change.before), _mistakes(change.after))
        table.add_row(_cell(change.name), *counts, Text(word, style=colour))
    return table


def _mistakes(result: NodeResult | None) -> str:
    return "" if result is None else f"{result.mistakes} of {result.images}"


def _hardest_table(result: TreeResult) -> Table:
    table = _table("decisions with the most mistakes", "decision", "mistakes", "right")
    for node in hardest(result)[:SHOWN]:
        values = result.nodes[node]
        name = _cell(result.hierarchy.names[node])
        table.add_row(name, _mistakes(values), f"{values.accuracy:.1%}")
    return table


def _image_table(changed: Sequence[dict[str, Any]]) -> Table:
    title = f"{min(SHOWN, len(changed))} of {len(changed):,} photographs with another answer"
    table = _table(title, "photograph", "class", "before", "after", "")
    for row in changed[:SHOWN]:
        name = _cell(row["file"].replace("!", "/").rpartition("/")[2])
        kind = "soft" if row["verdict"] == "other soft answer" else "hard"
        answers = [_cell(row[when][kind]) for when in ("before", "after")]
        table.add_row(name, _cell(row["label"]), *answers, row["verdict"])
    return table


def _cell(name: str) -> Text:
    """Text that is not read as rich's markup."""
    return Text(escape_terminal(name), overflow="fold")
