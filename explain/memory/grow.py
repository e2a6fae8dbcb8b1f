"""``nbdt memory new-class | split | merge | new-group``: a new model with other classes or groups."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from nbdt.errors import NBDTError, listed
from nbdt.files import check_new
from nbdt.hierarchies.edit.operations import group
from nbdt.hierarchies.shell import Model, Runtime
from nbdt.hierarchies.wordnet.concepts import MIN_CONTENT, leaf_synsets
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.hierarchies.wordnet.known import known_senses
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import AMPLE_SIDE
from nbdt.memory.grow import Growth, add_class, grow, merge_classes, split_class
from nbdt.memory.memory import Memory
from nbdt.memory.refit import LEAST, FittedHead
from nbdt.model.features import embed
from nbdt.model.model import NBDT
from nbdt.network.encoder import to_device
from nbdt.progress import counted, escape_terminal, tracked
from nbdt.tree.hierarchy import Hierarchy

from .opening import By, Pictures, Place, Why, opened, report

SHOWN = 8  # photographs of a part that a person confirms

Out = Annotated[Path, typer.Option(metavar="NEW", help="A new folder for the new model.")]
Yes = Annotated[bool, typer.Option("--yes", help="Accept what is proposed, without a question.")]


def new_class(
    model: Model,
    name: Annotated[str, typer.Argument(help="Of the class.")],
    images: Annotated[list[str], typer.Argument(help="Its photographs, or folders; five will do.")],
    *,
    out: Out,
    parent: Annotated[
        str | None, typer.Option(help="The group that it joins; by default one is proposed.")
    ] = None,
    yes: Yes = False,
    pictures: Pictures = False,
    why: Why = "",
    by: By = "",
    memory: Place = None,
    runtime: Runtime = None,
) -> None:
    """Make a model that also knows a class of which there are a few photographs."""
    check_new(out)
    loaded, known = opened(model, memory, runtime=runtime)
    to_device(loaded)
    sources = list(iter_inputs(images, max_side=AMPLE_SIDE))
    if parent is None:
        add_class(loaded.hierarchy, name, loaded.hierarchy.ids[0])  # a name that is taken
        found = embed(loaded, sources, progress=tracked)
        if not found.sources:
            raise NBDTError(
                f"None of {counted(len(sources), 'photograph')} can be read: {found.failed[0]}"
            )
        place = propose_place(known, name, found.values)
        typer.echo(escape_terminal(_proposal(loaded, name, place)))
        if not yes:
            typer.confirm("Is that right? Else give --parent GROUP", abort=True)
    else:
        place = ProposedPlace(parent, "")
    growth, failed = add_class(loaded.hierarchy, name, place.parent, place.wnid), list[str]()

    def fill(memory: Memory) -> None:
        added = memory.add(sources, name, by=by, why=why, pictures=pictures, progress=tracked)
        failed.extend(added.failed)
        if len(added.ids) < LEAST:
            listed = "\n".join(["", *failed])
            raise NBDTError(
                f"A class needs {LEAST} photographs that are not in the memory yet, got "
                f"{len(added.ids)}. Nothing was written.{listed}"
            )

    _write(loaded, growth, out, fill)
    report(failed)


def _proposal(model: NBDT, name: str, place: "ProposedPlace") -> str:
    tree = model.hierarchy
    node = tree.index(place.parent)
    beside = [tree.names[child] for child in tree.children[node]]
    shown = ", ".join(beside[:SHOWN]) + (", …" if len(beside) > SHOWN else "")
    return f"{name} joins the group {tree.names[node]} ({shown}): {place.reason}"


def split(
    model: Model,
    name: Annotated[str, typer.Argument(metavar="CLASS", help="The class; it becomes a group.")],
    one: Annotated[str, typer.Argument(help="The name of its first part.")],
    two: Annotated[str, typer.Argument(help="The name of its second part.")],
    *,
    out: Out,
    first: Annotated[
        list[str],
        typer.Option(
            metavar="ROW",
            help="A photograph of the first part, by id or reference; repeatable. The others are of "
            "the second.",
        ),
    ],
    by: By = "",
    memory: Place = None,
) -> None:
    """Make a model in which one class is two, and its photographs are divided between them."""
    check_new(out)
    loaded, known = opened(model, memory)
    growth = split_class(loaded.hierarchy, name, (one, two))
    rows, label = known.rows, loaded.hierarchy.ids[loaded.hierarchy.index(name)]
    places = [n for n, of in enumerate(rows.labels) if of == label]
    chosen = {rows.place(row) for row in first}
    if strange := sorted(rows.references[n] for n in chosen - {*places}):
        raise NBDTError(f"These are not photographs of {name!r}: {', '.join(strange[:5])}.")
    parts = {n: one if n in chosen else two for n in places}
    for part in (one, two):
        named = [rows.references[n] for n in places if parts[n] == part]
        more = ", …" if len(named) > SHOWN else ""
        line = f"{part}: {counted(len(named), 'photograph')}: {', '.join(named[:SHOWN])}{more}"
        typer.echo(escape_terminal(line))
    changes = {
        rows.ids[n]: {"label": part, "by": by, "why": f"{name} was split"}
        for n, part in parts.items()
    }
    _write(loaded, growth, out, lambda memory: memory.table.update_each(changes))


def merge(
    model: Model,
    one: Annotated[str, typer.Argument(metavar="CLASS", help="A class.")],
    other: Annotated[str, typer.Argument(metavar="CLASS", help="Another.")],
    *,
    out: Out,
    name: Annotated[str | None, typer.Option(help="Of the result; by default the first's.")] = None,
    memory: Place = None,
) -> None:
    """Make a model in which two classes are one, at the place of the first."""
    check_new(out)
    loaded, _ = opened(model, memory)
    _write(loaded, merge_classes(loaded.hierarchy, one, other, name), out)


def new_group(
    model: Model,
    name: Annotated[str, typer.Argument(help="Of the group.")],
    nodes: Annotated[list[str], typer.Argument(help="Children of one group, which it will hold.")],
    *,
    out: Out,
    memory: Place = None,
) -> None:
    """Make a model in which some classes or groups are in a new group."""
    check_new(out)
    loaded, _ = opened(model, memory)
    hierarchy, edit = group(loaded.hierarchy, nodes, name)
    typer.echo(escape_terminal(edit.summary))
    _write(loaded, Growth(hierarchy), out)


# ---- where a new class belongs ------------------------------------------------------------


@dataclass(frozen=True)
class ProposedPlace:
    """A place for a new class."""

    parent: str  # id of the group that it would join
    reason: str  # in words, with the classes that it is like
    wnid: str | None = None  # the WordNet id of its name, if that is known


def propose_place(memory: Memory, name: str, features: Tensor) -> ProposedPlace:
    """Propose where a new class belongs; a person decides.

    `features`: (images, features) of its photographs.
    """
    return by_name(memory.hierarchy, name) or by_features(memory, features)


def by_name(hierarchy: Hierarchy, name: str) -> ProposedPlace | None:
    """Propose the smallest group with all classes that share the most specific WordNet concept.

    Returns None where WordNet does not know the name, or only general concepts are shared.
    """
    net, known = wordnet(), leaf_synsets(hierarchy.classes, hierarchy.class_wnids)
    meanings: dict[str | int, str] = {
        place: net.wnid(synset) for place, synset in enumerate(known) if synset is not None
    }
    wnid = known_senses((*hierarchy.classes, name), meanings).wnids[-1]
    synset = net.find(wnid)
    if synset is None:
        return None
    mine = {synset, *net.ancestors(synset)}
    shared = {
        place: max(float(net.information_content[one]) for one in both)
        for place, other in enumerate(known)
        if other is not None and (both := mine & {other, *net.ancestors(other)})
    }
    best = max(shared.values(), default=0.0)
    if best < MIN_CONTENT:
        return None
    like = [place for place, content in shared.items() if content > best - 1e-6]
    names = listed((hierarchy.classes[place] for place in like), limit=3)
    return ProposedPlace(_around(hierarchy, like), f"by its name it is akin to {names}", wnid)


def by_features(memory: Memory, features: Tensor) -> ProposedPlace:
    """Propose the group around the class whose mean photograph is most like the mean of these."""
    rows, hierarchy = memory.rows, memory.hierarchy
    values = torch.from_numpy(rows.features[rows.active]).float()
    labels = np.array(rows.labels)[rows.active]
    centre, mean = values.mean(dim=0), features.float().mean(dim=0)
    means = torch.stack([values[labels == name].mean(dim=0) for name in hierarchy.classes])
    cosines = torch.nn.functional.cosine_similarity(means - centre, mean - centre)
    nearest = int(cosines.nan_to_num(-1.0).argmax())
    reason = f"its photographs are most like those of {hierarchy.classes[nearest]!r}"
    return ProposedPlace(_around(hierarchy, [nearest]), reason)


def _around(hierarchy: Hierarchy, classes: Sequence[int]) -> str:
    """Return the id of the smallest group that holds classes."""
    groups = (hierarchy.parents[hierarchy.leaf_nodes[index]] for index in classes)
    return hierarchy.ids[hierarchy.common_ancestor(groups)]


# ---- shared -------------------------------------------------------------------------------


def _write(
    model: NBDT, growth: Growth, out: Path, fill: Callable[[Memory], Any] | None = None
) -> None:
    """Write the grown model, fitted on its memory after `fill`; nothing is written if that fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside:
        grown = grow(model, growth, Path(aside, "memory"))
        if grown.memory is not None and fill is not None:
            fill(grown.memory)
        fitted = grown.refit(choose=True, progress=tracked)
        grown.save(out)
    for line in _accuracies(model, grown, fitted):
        typer.echo(escape_terminal(line))
    typer.echo(f"written: {escape_terminal(str(out))}")


def _accuracies(model: NBDT, grown: NBDT, fitted: FittedHead) -> list[str]:
    """Return the cross-validated accuracy of old and new classes in words."""
    old = {*model.hierarchy.classes}

    def share(of: NBDT, head: FittedHead | None, wanted: set[str]) -> str:
        if head is None:
            return "unknown"
        answers = of.head.rules(head.logits.float()).argmax(dim=1)
        index = [n for n, name in enumerate(of.hierarchy.classes) if name in wanted]
        rows = torch.isin(head.labels, torch.tensor(index))
        return f"{100 * float((answers == head.labels)[rows].float().mean()):.1f} %"

    kept, new = old & {*grown.hierarchy.classes}, {*grown.hierarchy.classes} - old
    before, after = share(model, model.fitted, kept), share(grown, fitted, kept)
    lines = [f"right among the photographs of other classes: {after} (before: {before})"]
    lines += [
        f"right among those of {name}: {share(grown, fitted, {name})}" for name in sorted(new)
    ]
    return [*lines, "Each photograph was answered by a fit without it."]
