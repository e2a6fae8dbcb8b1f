"""``nbdt evaluate MODEL --data D [--unknown D2] [--hierarchy OLD] [--against NEW]``."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import nbdt
from nbdt.decide.answer import check_target
from nbdt.decide.metrics import accuracy as share_right
from nbdt.files import write_atomic
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import tracked
from nbdt.tree.class_names import check_same_classes
from nbdt.tree.hierarchy import Hierarchy

from ..library import find, open_model
from ..shell import Data, Model, Runtime, SplitName, Weights, exit_with
from .answers import answer_record, group_record, without
from .comparison import VERDICTS, Comparison, TreeResult, measure, quality
from .effect import Reference
from .logits import Logits, class_logits, unlabelled_logits
from .report import picture, show

app = typer.Typer(add_completion=False)


@app.command(name="evaluate")
def evaluate_command(
    model: Model,
    *,
    data: Data,
    hierarchy: Annotated[
        str | None, typer.Option(help="A tree by name or file; by default the model's own.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="A tree to compare it with, such as one after an edit.")
    ] = None,
    unknown: Annotated[
        Path | None, typer.Option(help="Photographs of things that the model does not know.")
    ] = None,
    accuracy: Annotated[
        float,
        typer.Option(help="The share of answers that are to be right, beside 90, 95 and 99 %."),
    ] = 0.95,
    better_mistakes: Annotated[
        bool, typer.Option("--better-mistakes", help="Also reorder the eight likeliest classes.")
    ] = False,
    weights: Weights = None,
    runtime: Runtime = None,
    split: SplitName = None,
    out: Annotated[Path, typer.Option(help="Where evaluation.json and its picture go.")] = Path(
        "evaluation"
    ),
) -> None:
    """Measure a tree's answers on labelled photographs, or what another tree changes."""
    check_target(accuracy)
    loaded = to_device(open_model(model, weights, runtime))
    Reference.of(loaded)  # refuses a damaged one
    names = [hierarchy, against] if against else [hierarchy]
    hierarchies = [_hierarchy(name, loaded.hierarchy) for name in names]
    out.mkdir(parents=True, exist_ok=True)
    labelled = class_logits(loaded, data, split=split, hierarchy=hierarchies[0], progress=tracked)
    strange = unlabelled_logits(loaded, unknown, progress=tracked) if unknown else None
    record = {"format": "nbdt-evaluation", "version": 1, "model": model, "data": str(data)}
    record |= _measured(
        loaded, labelled, hierarchies, accuracy=accuracy, better_mistakes=better_mistakes,
        unknown=strange.logits if strange else None,
    )  # fmt: skip
    write_atomic(out / "evaluation.json", json.dumps(record, indent=1, ensure_ascii=True) + "\n")
    written = ["evaluation.json"]
    if "before" in record:
        write_atomic(out / "evaluation.png", picture(record))
        written.append("evaluation.png")
    show(record)
    typer.echo(f"written: {', '.join(str(out / name) for name in written)}")
    exit_with([*labelled.failed, *(strange.failed if strange else ())])


def _hierarchy(name: str | None, own: Hierarchy) -> Hierarchy:
    if name is None:
        return own
    hierarchy = find(name)
    check_same_classes(own.classes, hierarchy.classes, repr(name))
    return hierarchy


def _measured(
    model: NBDT, labelled: Logits, trees: Sequence[Hierarchy], **options: Any
) -> dict[str, Any]:
    """Return plain data for JSON, of one tree or of the change from the first to the second.

    Labels are classes and groups of the first tree; `options` are those of `answer_record`.
    """
    exact = labelled.labels >= 0
    photographs, grouped = labelled.pick(exact), labelled.pick(~exact)
    logits, labels = photographs.logits, photographs.labels
    record: dict[str, Any] = {
        "rule": model.rule,
        "images": len(labels),
        "failed": list(labelled.failed),
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
    if len(grouped.labels):
        given = grouped.logits, grouped.labels, trees[0], model.rule
        record["groups"] = group_record(*given, without(model.reference, logits))
    if not len(labels):
        return record
    before, *others = (measure(logits, labels, tree, model.rule) for tree in trees)
    classes = before.hierarchy.num_classes
    record |= {
        "flat": share_right(logits.argmax(dim=1), labels),
        "classes": classes,
        "classes_without_images": classes - len(labels.unique()),
        "before": tree_record(before),
        "answers": answer_record(before, without(model.reference, grouped.logits), **options),
    }
    for after in others:
        record["after"] = tree_record(after)
        record["changes"] = comparison_record(Comparison(before, after), photographs.files)
    return record


def tree_record(result: TreeResult) -> dict[str, Any]:
    """Return plain data for JSON: accuracies and every inner node that has images."""
    hierarchy = result.hierarchy
    nodes = [
        {"node": hierarchy.ids[node], "name": hierarchy.names[node], **values._asdict()}
        for node, values in result.nodes.items()
    ]
    measured = {"nodes": nodes, "quality": quality(result)}
    return {"hierarchy": hierarchy.hash, **result.accuracy, **measured}


def comparison_record(comparison: Comparison, files: Sequence[str]) -> dict[str, Any]:
    """Return plain data for JSON: the images and nodes that changed."""
    classes, labels = comparison.before.hierarchy.classes, comparison.before.known_labels

    def answer(result: TreeResult, image: int) -> dict[str, Any]:
        hard, tree = int(result.hard[image]), result.hierarchy
        path = [tree.names[node] for node in tree.path_of_class(hard)]
        return {"hard": classes[hard], "soft": classes[int(result.soft[image])], "path": path}

    images = [
        {"file": files[image], "label": classes[int(labels[image])], "verdict": verdict,
         "before": answer(comparison.before, image), "after": answer(comparison.after, image)}
        for image, verdict in comparison.images.items()
    ]  # fmt: skip
    nodes = [
        {"node": change.node, "name": change.name, "gain": change.gain,
         "before": change.before and change.before._asdict(),
         "after": change.after and change.after._asdict()}
        for change in comparison.nodes if change.before != change.after
    ]  # fmt: skip
    counts = Counter(comparison.images.values())
    verdicts = {verdict: counts[verdict] for verdict in VERDICTS}
    return {"verdicts": verdicts, "images": images, "nodes": nodes}
