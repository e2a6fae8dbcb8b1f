"""``nbdt explain``: files named one by one are shown, a tree in the terminal and a picture each;
a folder, pattern, list, archive or table of them becomes a batch of rows; see `nbdt.explain.batch.run`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from nbdt.decide.paths import as_percent
from nbdt.errors import NBDTError
from nbdt.files import free_name, write_atomic
from nbdt.hierarchies.library import find
from nbdt.hierarchies.model_source import DEFAULT_MODEL, MODEL_HELP, WEIGHTS_HELP, open_model
from nbdt.images.image import AMPLE_SIDE, ImageError
from nbdt.images.inputs import is_collection
from nbdt.images.sources import ImageSource, iter_files
from nbdt.model.model import NBDT
from nbdt.progress import escape_terminal
from nbdt.storage import is_uri

from .attribution import Method, explain
from .batch.options import LOCAL, Engine, Maps, Precision
from .evidence.index import EvidenceIndex
from .result.explanation import Explanation
from .result.pictures import picture, png

BATCH_FOLDER = "explained"

app = typer.Typer(add_completion=False)


@app.command(name="explain")
def explain_command(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files; or any number of them: a folder, a quoted pattern, a list (.txt), a "
            "tar archive, or a .parquet or .csv table with a column of paths."
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    hierarchy: Annotated[
        str | None, typer.Option(help="Another tree for the model, by name or file: an edited one.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Where pictures go, by default here; or the batch's folder or URI (s3://…), by "
            "default ./explained. The same command goes on with a batch that was stopped."
        ),
    ] = None,
    rows: Annotated[
        bool | None,
        typer.Option(
            "--rows/--pictures",
            help="Make a batch of files named one by one; or show each image of a folder.",
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How maps are made.")] = "grad-cam",
    maps: Annotated[
        Maps, typer.Option(help="Of a batch: npz (raw arrays), png (pictures) or none.")
    ] = "npz",
    column: Annotated[
        str | None, typer.Option(help="The tables' column of paths, if not 'path'.")
    ] = None,
    shard: Annotated[
        str, typer.Option(help="Of a batch on n machines: i/n, its i-th share, in one folder.")
    ] = "1/1",
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of a batch: float32, bfloat16, or auto: bfloat16 if the hardware has it."
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass.")] = 32,
    engine: Annotated[
        Engine, typer.Option(help="Of a batch: local, or ray for a cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of a running cluster; by default $RAY_ADDRESS, else this machine."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Threads that decode, by default one a core; with --engine ray processes that "
            "hold the model, by default one a GPU or else one a node.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read the finished files of a batch again, all of them."),
    ] = False,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Training images to compare with: a folder of nbdt evidence build."),
    ] = None,
    counterfactuals: Annotated[
        bool, typer.Option("--counterfactuals", help="Look for regions whose blur flips a step.")
    ] = False,
    pages: Annotated[
        bool, typer.Option("--pages", help="A folder with an HTML page for each, not one picture.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line instead of trees.")
    ] = False,
) -> None:
    """Explain photographs: the path with its probabilities, and one picture or page each.

    A batch leaves Parquet rows and raw maps instead, and a manifest once it is complete.
    """
    share = _share(shard)
    loaded = open_model(model, weights)
    if hierarchy:
        loaded = loaded.with_hierarchy(find(hierarchy))
    index = EvidenceIndex.load(evidence) if evidence else None
    many = engine != LOCAL or is_uri(out or "") or any(map(is_collection, images))
    if rows or (rows is None and many):
        from .batch.command import explain_batch

        explain_batch(
            loaded, images, out or BATCH_FOLDER, share=share, column=column, as_json=as_json,
            maps=maps, pages=pages, method=method, evidence=index, counterfactuals=counterfactuals,
            precision=precision, batch_size=batch_size, engine=engine, ray_address=ray_address,
            workers=workers, verify=verify,
        )  # fmt: skip
        return
    if share != (1, 1) or is_uri(out or ""):
        raise typer.BadParameter(
            "--shard, and an --out that is a URI, are of a batch; leave out --pictures, or add --rows."
        )
    _explain_files(
        loaded, images, Path(out or ""), method=method, evidence=index,
        counterfactuals=counterfactuals, pages=pages, as_json=as_json,
    )  # fmt: skip


def _explain_files(
    model: NBDT, images: list[str], out: Path, *, pages: bool, as_json: bool, **how: Any
) -> None:
    """Show each; those that fail are told of at once, and in the end by exit status 3."""
    out.mkdir(parents=True, exist_ok=True)
    failed, taken = 0, set[str]()
    for source in iter_files(images, max_side=AMPLE_SIDE):
        try:
            explanation = explain(model, source.open(), **how)[0]
            name = free_name(source.reference, taken, ".nbdt")
            target = _write(explanation, out, name, pages=pages)
        except (ImageError, NBDTError) as error:
            failed += 1
            _report_failure(source, error, as_json=as_json)
            continue
        _report(source, explanation, target, as_json=as_json)
    if failed:
        raise typer.Exit(3)


def _share(text: str) -> tuple[int, int]:
    """(3, 8) for "3/8"; a usage error for anything but i/n with 1 ≤ i ≤ n."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(
            f"Expected --shard i/n with 1 ≤ i ≤ n, such as 1/8 to 8/8 on eight machines; got {text!r}."
        )
    return int(match[1]), int(match[2])


def _write(explanation: Explanation, out: Path, name: str, *, pages: bool) -> Path:
    """The picture or, in a folder of its own, the page."""
    if pages:
        explanation.save(out / name)
        return out / name / "index.html"
    target = out / f"{name}.png"
    write_atomic(target, png(picture(explanation)))
    return target


def _report(source: ImageSource, explanation: Explanation, target: Path, *, as_json: bool) -> None:
    if as_json:
        facts = {"words": explanation.words, "picture": str(target)}
        record = {"file": source.reference, **explanation.path.to_dict(), **facts}
        typer.echo(json.dumps(record, ensure_ascii=True))
        return
    console = Console(highlight=False, emoji=False)
    console.print(_tree(source.reference, explanation))
    console.print(Text(explanation.words))
    console.print(
        Text(f"{'page' if target.suffix == '.html' else 'picture'}: {target}", style="dim")
    )


def _report_failure(source: ImageSource, error: Exception, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"file": source.reference, "error": str(error)}))
    typer.echo(f"error: {error}", err=True)


def _tree(reference: str, explanation: Explanation) -> RichTree:
    """The path as nested branches, the runner-up of each decision dimmed beside it."""
    path = explanation.path
    head = Text.assemble(escape_terminal(reference), ": ", (path.class_name, "bold"))
    root = branch = RichTree(Text.assemble(head, f"  {as_percent(path.probability)}"))
    branch = branch.add(Text(path.decisions[0].node))
    for decision in path:
        runner_up = decision.runner_up
        chance = math.exp(decision.log_probs[runner_up])
        dimmed = f"   not {decision.children[runner_up]} {as_percent(chance)}"
        name = (decision.children[decision.chosen], "bold green")
        step = Text.assemble(name, f" {as_percent(decision.probability)}", (dimmed, "dim"))
        branch = branch.add(step)
    return root
