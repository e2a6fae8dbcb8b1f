"""``nbdt hierarchy``: show, list, make, edit, compare, check and convert hierarchies."""

import getpass
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nbdt.errors import NBDTError
from nbdt.progress import escape_terminal
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from . import formats, library, oddities, shell, shipped
from .edit.difference import diff
from .edit.history import History, HistoryError, Version
from .edit.operations import make
from .edit.record import KINDS, Edit, EditError, EditRequest, check_complete, check_kind
from .formats.class_order import check_order
from .show import print_tree
from .show.tables import plain_console
from .wordnet.command import readable, wordnet

app = typer.Typer(add_completion=False, no_args_is_help=True)
USAGE = "; ".join(f"{kind} {takes.usage}" for kind, takes in KINDS.items())

Source = Annotated[
    str,
    typer.Argument(
        metavar="TREE",
        help="A shipped tree's name, a model's name or folder, a history's folder, or a file.",
    ),
]


@app.callback()
def main() -> None:
    """Show, make, edit, compare and convert class hierarchies."""


@app.command()
def show(
    source: Source,
    *,
    out: shell.Out = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Show this many levels below the root.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the whole tree.")] = False,
    as_json: shell.Json = False,
    overwrite: shell.Overwrite = False,
) -> None:
    """Show a tree in the terminal or write it as a picture."""
    hierarchy = library.find(source)
    if out is not None:
        return shell.save(hierarchy, out, overwrite=overwrite, title=library.title_of(source))
    if as_json:
        return shell.echo(json.loads(hierarchy.to_json()))
    return print_tree(hierarchy, depth=depth, everything=everything)


@app.command(name="list")
def list_command(as_json: shell.Json = False) -> None:
    """List the trees that come with this package."""
    trees = shipped.available().values()
    if as_json:
        return shell.echo([vars(tree) for tree in trees])
    lines = Text()
    for tree in trees:
        lines.append(tree.name, "bold").append(f"  {tree.title}, {tree.classes:,} classes\n")
        lines.append(f"  from {tree.source} ({tree.licence})\n", "dim")
    lines.append(f"Models with a tree of their own: {', '.join(library.models()) or 'none'}")
    return plain_console().print(lines, soft_wrap=True)


app.command()(wordnet)
app.command()(readable)


@app.command()
def induce(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name or folder, or timm:NAME.")
    ],
    *,
    rule: Annotated[str | None, typer.Option(help="marginal or representative.")] = None,
    linkage: Annotated[str | None, typer.Option(help="average, ward or complete.")] = None,
    branching: Annotated[
        int | None, typer.Option(help="Largest number of children of a group.")
    ] = None,
    semantics: Annotated[
        float | None, typer.Option(help="From 0, weights alone, to 1, WordNet alone.")
    ] = None,
    out: shell.Out = None,
    as_json: shell.Json = False,
    overwrite: shell.Overwrite = False,
) -> None:
    """Build a tree of the classes that a classifier finds alike, from its last layer's weights."""
    from .induced import induce as induce_hierarchy

    model = library.open_model(source)
    hierarchy = induce_hierarchy(
        model, rule=rule or model.rule, linkage=linkage, branching=branching, semantics=semantics
    )
    shell.present(hierarchy, out, as_json=as_json, overwrite=overwrite)


@app.command(help=f"Change a tree; the result goes to --out. {USAGE}.")
def edit(
    source: Source,
    kind: Annotated[
        str, typer.Argument(help="move, group, ungroup, rename, swap, merge or split.")
    ],
    nodes: Annotated[list[str], typer.Argument(help="Nodes, by name or id.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the new group.")] = None,
    out: shell.Out = None,
    history: Annotated[
        Path | None, typer.Option(help="Save the result as the next version in this folder.")
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, for --history.")] = "",
    as_json: shell.Json = False,
    overwrite: shell.Overwrite = False,
) -> None:
    """Change a copy of a tree."""
    before = library.find(source)
    changed, record = _make_edit(before, kind, nodes, name)
    saved = "Nothing was saved; --out FILE or --history FOLDER saves the result."
    if out is not None:
        shell.save(changed, out, overwrite=overwrite, quiet=True)
        saved = f"saved: {escape_terminal(str(out))}"
    if history is not None:
        version = _keep_edit(History(history), before, changed, record, why)
        saved = f"saved: version {version.number} in {escape_terminal(str(history))}"
    if as_json:
        return shell.echo({"edit": record.to_dict(), "hierarchy": json.loads(changed.to_json())})
    typer.echo(record.summary)
    for rule in _rules_of(source):
        typer.echo(f"  {record.consequences(rule)}")
    return typer.echo(saved)


def _make_edit(
    hierarchy: Hierarchy, kind: str, words: Sequence[str], name: str | None
) -> tuple[Hierarchy, Edit]:
    """Make the edit that the words of a command line ask for.

    Raises:
        typer.BadParameter: an unknown kind, or words other than its kind takes.
        EditError: it cannot be made on this hierarchy.
    """
    try:
        check_kind(kind)
        takes, nodes = KINDS[kind], [*words]
        if takes.name == "none" and name is not None:
            raise EditError(f"{kind!r} takes no name, got {short(name)}.")
        if takes.name == "required" and not takes.members and name is None and nodes:
            name = nodes.pop()
        to = nodes.pop() if takes.to and nodes else None
        request = EditRequest(kind, tuple(nodes), to, name)
        check_complete(request)
    except EditError as error:
        usage = f"{kind} {KINDS[kind].usage}" if kind in KINDS else USAGE
        raise typer.BadParameter(f"{error} Usage: nbdt hierarchy edit TREE {usage}") from None
    return make(hierarchy, request)


def _keep_edit(
    history: History, before: Hierarchy, after: Hierarchy, record: Edit, why: str = ""
) -> Version:
    """Save what one edit made as a version, by the user of this process.

    An empty history begins with the tree before the edit. The reason is by default what the edit did.

    Raises:
        HistoryError: `before` is none of the versions.
        OSError: the folder cannot be written.
    """
    versions, who = history.versions(), _user()
    same = [version.number for version in versions if version.hash == before.hash]
    if versions and not same:
        raise HistoryError(
            f"The tree to be changed is no version in {history.where}; name the folder "
            "itself to change its latest version, or another folder."
        )
    parent = same[-1] if same else history.save(before, who=who, why="before the edits").number
    return history.save(after, who=who, why=why or record.summary, parent=parent, edits=[record])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in many containers
        return f"user {os.getuid()}"


def _rules_of(source: str) -> tuple[str, ...]:
    """Return a model's rule, or both rules for a tree without a model."""
    if not library.is_model(source):
        return "marginal", "representative"
    from nbdt.model.saved import open_saved

    return (open_saved(source).config["rule"],)


@app.command(name="history")
def history_command(
    folder: Annotated[Path, typer.Argument(help="The folder that `edit --history` wrote.")],
    as_json: shell.Json = False,
) -> None:
    """List the versions of a tree, oldest first, with time, author and reason."""
    versions = History(folder).versions()
    if not versions:
        raise NBDTError(
            f"There are no versions in {os.fspath(folder)!r}; `edit --history` writes them."
        )
    if as_json:
        return shell.echo([version.to_dict() for version in versions])
    return typer.echo("\n".join(escape_terminal(str(version)) for version in versions))


@app.command(name="diff")
def diff_command(before: Source, after: Source, as_json: shell.Json = False) -> None:
    """List the changes that turn the first tree into the second."""
    difference = diff(library.find(before), library.find(after))
    if as_json:
        return shell.echo(difference.to_dict())
    note = f"\n{len(difference.decisions):,} decisions can differ." if difference else ""
    return typer.echo(f"{difference}{note}")


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="A file, or a tree as in `show`.")],
    classes: shell.Classes = None,
    as_json: shell.Json = False,
) -> None:
    """Check that a file contains a valid tree; if not, report why (exit status 1)."""
    notes: list[str] = []
    try:
        names = None if classes is None else library.class_list(classes)[0]
        hierarchy = library.find(file, notes, names)
        check_order(hierarchy.classes, names)
    except (NBDTError, OSError) as error:
        if not as_json:
            raise
        shell.echo({"file": file, "valid": False, "error": str(error)})
        raise typer.Exit(1) from None
    remarks = [*notes, *oddities.remarks(hierarchy)]
    if as_json:
        return shell.echo({"file": file, "valid": True, "hash": hierarchy.hash, "remarks": remarks})
    summary = f"{escape_terminal(file)}: {hierarchy!r}, hash {hierarchy.hash[:12]}"
    return typer.echo("\n  remark: ".join([summary, *map(escape_terminal, remarks)]))


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A tree in any format that is read.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    classes: shell.Classes = None,
    wnids: Annotated[
        Path | None, typer.Option(help="The original NBDT's file of WordNet ids, in class order.")
    ] = None,
    collapse: Annotated[bool, typer.Option(help="Remove groups with a single child.")] = False,
    overwrite: shell.Overwrite = False,
) -> None:
    """Convert a tree in any known format to the JSON of this package, or to a picture."""
    if wnids is None and not collapse and not source.is_file():
        hierarchy = library.find(source)
    else:
        labels = library.class_list(classes)[0] if classes else None
        notes: list[str] = []
        hierarchy = formats.read(source, labels, wnids, collapse=collapse, notes=notes)
        for note in notes:
            typer.echo(f"note: {escape_terminal(note)}", err=True)
    shell.save(hierarchy, target, overwrite=overwrite)
