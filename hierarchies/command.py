"""``nbdt hierarchy``: show, list, make, edit, compare, check and convert trees."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from nbdt.errors import NBDTError, listed
from nbdt.progress import escape_terminal
from nbdt.tree.hierarchy import Hierarchy

from . import formats, library
from .edit.command import USAGE, make_edit
from .edit.difference import diff
from .edit.history import History, keep_edit
from .formats.class_order import check_order
from .show.text import PICTURES, print_tree, save_picture

app = typer.Typer(add_completion=False, no_args_is_help=True)

WIDE, DEEP = 30, 30  # children and levels beyond which a person loses the overview

Tree = Annotated[
    str,
    typer.Argument(
        help="A shipped tree's name, a model's name or folder, a history's folder, or a file."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write it: .json, .txt, .csv, .nwk, or as a picture .html, .png, .svg."),
]
Overwrite = Annotated[bool, typer.Option(help="Replace a tree that is there.")]
Depth = Annotated[int | None, typer.Option(min=1, help="Levels shown below the root.")]
Everything = Annotated[bool, typer.Option("--all", help="Show all of it, however long.")]
Classes = Annotated[
    str | None, typer.Option(help="Class names in order: a file, one a line, or a tree.")
]


@app.callback()
def hierarchy() -> None:
    """Show, make, edit, compare and convert class hierarchies."""


@app.command()
def show(
    tree: Tree,
    *,
    out: Out = None,
    depth: Depth = None,
    everything: Everything = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Show a tree, in the terminal or as a picture."""
    found = library.find(tree)
    if out is not None:
        return _save(found, out, overwrite=overwrite, title=library.title_of(tree))
    return _print(found, depth=depth, everything=everything, as_json=as_json)


@app.command(name="list")
def list_command(as_json: Json = False) -> None:
    """List the trees that come with this package."""
    trees = library.available().values()
    if as_json:
        return _echo([tree.to_dict() for tree in trees])
    for tree in trees:
        _print_line((tree.name, "bold"), f"  {tree.title}, {tree.classes:,} classes")
        _print_line((f"  from {tree.source} ({tree.licence})", "dim"))
    return _print_line(f"Models with a tree of their own: {', '.join(library.models()) or 'none'}")


@app.command()
def wordnet(
    names: Annotated[list[str] | None, typer.Argument(help="Class names.")] = None,
    *,
    classes: Classes = None,
    sense: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MEANING, where a name was misunderstood; a wnid or another noun."),
    ] = None,
    out: Out = None,
    depth: Depth = None,
    everything: Everything = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """The WordNet tree over classes, from their names alone; says which it is unsure about."""
    from .wordnet.senses import senses
    from .wordnet.tree import from_wnids

    given = [*(names or ()), *(library.class_list(classes)[0] if classes else ())]
    if not given:
        raise typer.BadParameter("Name the classes, or give a file of them: --classes names.txt.")
    report = senses(given, dict(_pair(text) for text in sense or ()))
    tree = from_wnids(report.wnids, report.labels)
    if as_json:
        _echo({"hierarchy": json.loads(tree.to_json()), "senses": report.to_dict()["choices"]})
    else:
        print_tree(tree, depth=depth, everything=everything)
        _echo_doubts([str(choice).removeprefix("? ") for choice in report.ambiguous])
    if out is not None:
        _save(tree, out, overwrite=overwrite, quiet=as_json)


@app.command()
def induce(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_WEIGHTS",
            help="A model's name or folder, timm:NAME, or a file of tensors.",
        ),
    ],
    *,
    classes: Classes = None,
    tensor: Annotated[str | None, typer.Option(help="Name of the class weights' matrix.")] = None,
    rule: Annotated[str | None, typer.Option(help="marginal or representative.")] = None,
    linkage: Annotated[str | None, typer.Option(help="average, ward or complete.")] = None,
    branching: Annotated[int | None, typer.Option(help="Most children of a group.")] = None,
    semantics: Annotated[
        float | None, typer.Option(help="From 0, weights alone, to 1, WordNet alone.")
    ] = None,
    out: Out = None,
    depth: Depth = None,
    everything: Everything = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """A tree of the classes that a classifier finds alike, from its last layer's weights."""
    settings = {"linkage": linkage, "branching": branching, "semantics": semantics}
    if source.startswith("timm:") or library.is_model(source):
        if classes is not None or tensor is not None:
            raise typer.BadParameter(
                "A model knows its classes; --classes and --tensor go with a file."
            )
        tree = _induced_from_model(source, rule, settings)
    elif classes is None:
        raise typer.BadParameter("Weights do not name their classes: give --classes.")
    else:
        tree = _induced_from_file(source, classes, tensor, rule, settings)
    if out is None or as_json:
        _print(tree, depth=depth, everything=everything, as_json=as_json)
    if out is not None:
        _save(tree, out, overwrite=overwrite, quiet=as_json)


def _induced_from_model(source: str, rule: str | None, settings: dict[str, Any]) -> Hierarchy:
    from .induction.induced import induce as induce_tree
    from .model_source import open_model

    model = open_model(source)
    return induce_tree(model, rule=rule or model.rule, **settings)


def _induced_from_file(
    source: str, classes: str, tensor: str | None, rule: str | None, settings: dict[str, Any]
) -> Hierarchy:
    from nbdt.network.weights import class_weights

    from .induction.induced import induce as induce_tree

    labels, wnids = library.class_list(classes)
    rows = class_weights(source, len(labels), tensor)
    return induce_tree(rows, labels, rule=rule or "marginal", wnids=wnids, **settings)


@app.command(help=f"Change a tree; the result goes to --out. {USAGE}.")
def edit(
    tree: Tree,
    kind: Annotated[
        str, typer.Argument(help="move, group, ungroup, rename, swap, merge or split.")
    ],
    nodes: Annotated[list[str], typer.Argument(help="Nodes, by name or id.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the group that results.")] = None,
    out: Out = None,
    history: Annotated[
        Path | None, typer.Option(help="Keep it as the next version in this folder.")
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, for --history.")] = "",
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Change a tree; the given one stays as it is."""
    before = library.find(tree)
    changed, record = make_edit(before, kind, nodes, name)
    saved = "Nothing was saved; --out FILE or --history FOLDER saves the result."
    if out is not None:
        _save(changed, out, overwrite=overwrite, quiet=True)
        saved = f"saved: {escape_terminal(str(out))}"
    if history is not None:
        version = keep_edit(History(history), before, changed, record, why)
        saved = f"saved: version {version.number} in {escape_terminal(str(history))}"
    if as_json:
        return _echo({"edit": record.to_dict(), "hierarchy": json.loads(changed.to_json())})
    typer.echo(record.summary)
    for rule in _rules_of(tree):
        typer.echo(f"  {record.consequences(rule)}")
    return typer.echo(saved)


def _rules_of(tree: str) -> tuple[str, ...]:
    """The rule that a model answers by; of a tree alone, both that there are."""
    if not library.is_model(tree):
        return "marginal", "representative"
    from nbdt.model.saved import open_saved

    return (open_saved(tree).config["rule"],)


@app.command(name="history")
def history_command(
    folder: Annotated[Path, typer.Argument(help="What `edit --history` wrote.")],
    as_json: Json = False,
) -> None:
    """List the versions of a tree, oldest first: when, who and why."""
    versions = History(folder).versions()
    if not versions:
        raise NBDTError(f"There are no versions in {os.fspath(folder)!r}.")
    if as_json:
        return _echo([version.to_dict() for version in versions])
    for version in versions:
        _print_line(escape_terminal(str(version)))
    return None


@app.command(name="diff")
def diff_command(before: Tree, after: Tree, as_json: Json = False) -> None:
    """Say what was done to the first tree to arrive at the second."""
    difference = diff(library.find(before), library.find(after))
    if as_json:
        return _echo(difference.to_dict())
    typer.echo(str(difference))
    if difference:
        typer.echo(f"{len(difference.decisions):,} decisions can differ.")
    return None


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="A file, or a tree as in `show`.")],
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Say whether a file is a hierarchy and, if not, what is wrong (exit status 1)."""
    try:
        tree = library.find(file)
        if classes is not None:
            check_order(tree.classes, library.class_list(classes)[0])
    except (NBDTError, OSError) as error:
        if not as_json:
            raise
        _echo({"file": file, "valid": False, "error": str(error)})
        raise typer.Exit(1) from None
    remarks = _remarks(tree)
    if as_json:
        return _echo({"file": file, "valid": True, "hash": tree.hash, "remarks": remarks})
    typer.echo(f"{escape_terminal(file)}: {tree!r}, hash {tree.hash[:12]}")
    for remark in remarks:
        typer.echo(f"  remark: {remark}")
    return None


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A tree in any known format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    from_format: Annotated[
        str | None, typer.Option("--from", help="Format of IN; told from its content by default.")
    ] = None,
    to_format: Annotated[
        str | None, typer.Option("--to", help="Format of OUT; by default that of its suffix.")
    ] = None,
    classes: Classes = None,
    wnids: Annotated[
        Path | None, typer.Option(help="The original NBDT's file of ids, in class order.")
    ] = None,
    collapse: Annotated[bool, typer.Option(help="Remove groups that hold a single node.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Rewrite a tree in another format: nbdt, node-link, nested, paths, csv or newick."""
    if from_format is None and wnids is None and not collapse and not source.is_file():
        tree = library.find(source)
    else:
        labels = library.class_list(classes)[0] if classes else None
        tree = formats.read(source, from_format, labels, wnids, collapse=collapse)
    _save(tree, target, overwrite=overwrite, kind=to_format)


# ---- what the commands share ------------------------------------------------------------------


def _echo(data: object) -> None:
    typer.echo(json.dumps(data, ensure_ascii=True, indent=1))


def _print_line(*parts: str | tuple[str, str]) -> None:
    console = Console(highlight=False, emoji=False)
    console.print(Text.assemble(*parts), soft_wrap=True)


def _print(tree: Hierarchy, *, depth: int | None, everything: bool, as_json: bool) -> None:
    if as_json:
        _echo(json.loads(tree.to_json()))
    else:
        print_tree(tree, depth=depth, everything=everything)


def _echo_doubts(doubts: list[str]) -> None:
    if doubts:
        typer.echo(f"{len(doubts)} to look at (mend one with --sense NAME=MEANING):")
    for doubt in doubts:
        typer.echo(f"  {doubt.strip()}")


def _remarks(tree: Hierarchy) -> list[str]:
    """What is allowed, yet worth a look."""
    times = Counter(tree.names[node] for node in tree.inner_nodes)
    twice = [name for name, count in times.items() if count > 1]
    wide = [node for node in tree.inner_nodes if len(tree.children[node]) > WIDE]
    deep = [f"the tree has {tree.depth} levels"] if tree.depth > DEEP else []
    return [
        *([f"groups share a name: {listed(twice)}"] if twice else []),
        *(f"{tree.names[n]!r} has {len(tree.children[n])} children" for n in wide[:5]),
        *deep,
    ]


def _pair(text: str) -> tuple[str, str]:
    name, equals, meaning = text.partition("=")
    if not (name and equals and meaning):
        raise typer.BadParameter(f"Expected --sense NAME=MEANING, got {text!r}.")
    return name, meaning


def _save(
    tree: Hierarchy,
    path: Path,
    *,
    overwrite: bool,
    title: str = "",
    kind: str | None = None,
    quiet: bool = False,
) -> None:
    """A picture, or the tree in a format; a tree that is there stays, unless told otherwise."""
    if kind is None and path.suffix.lower() in PICTURES:
        save_picture(tree, path, title)
    elif path.exists() and not overwrite:
        raise NBDTError(f"{os.fspath(path)!r} is there already; name another file, or --overwrite.")
    else:
        formats.write(tree, path, kind)
    if not quiet:
        typer.echo(f"saved: {escape_terminal(str(path))}")
