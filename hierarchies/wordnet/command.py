"""``nbdt hierarchy wordnet`` and ``readable``: trees from class names."""

from collections.abc import Sequence
from typing import Annotated

import typer

from .. import library
from ..shell import Json, Out, Overwrite, present

Names = Annotated[
    list[str], typer.Argument(help="Class names; or one file with a name a line; or one tree.")
]
Senses = Annotated[
    list[str] | None,
    typer.Option(
        "--sense", help="NAME=MEANING corrects a sense; MEANING is a WordNet id or a noun."
    ),
]


def wordnet(
    names: Names,
    *,
    sense: Senses = None,
    out: Out = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Build the WordNet tree over class names, and list the names whose sense is unsure."""
    from .known import to_check
    from .senses import senses
    from .tree import from_wnids

    meanings = meanings_of(sense)
    report = senses(_class_list(names)[0], meanings)
    hierarchy = from_wnids(report.wnids, report.labels)
    present(
        hierarchy, out, as_json=as_json, overwrite=overwrite,
        senses=report.to_dict()["choices"], note="\n".join(to_check(report.ambiguous)),
    )  # fmt: skip


def readable(
    names: Names,
    *,
    sense: Senses = None,
    out: Out = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Build a tree of everyday groups over any class names, and say how each was read."""
    from .known import known_senses
    from .readable import readable as readable_hierarchy

    meanings = meanings_of(sense)
    labels, wnids = _class_list(names)
    report = None if wnids and not meanings else known_senses(labels, meanings)
    hierarchy = readable_hierarchy(labels, wnids if report is None else report.wnids)
    chosen, note = ({}, "") if report is None else (report.to_dict(), str(report))
    present(hierarchy, out, as_json=as_json, overwrite=overwrite, senses=chosen, note=note)


def _class_list(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str | None] | None]:
    """Return the classes, and their ids if they come from a tree that has some."""
    return library.class_list(names[0]) if len(names) == 1 else (names, None)


def meanings_of(senses: Sequence[str] | None) -> dict[str | int, str]:
    """Return the meanings that --sense options give. Raises typer.BadParameter."""
    pairs = [text.partition("=") for text in senses or ()]
    wrong = ["".join(pair) for pair in pairs if not all(pair)]
    if wrong:
        raise typer.BadParameter(f"Expected --sense NAME=MEANING, got {wrong[0]!r}.")
    return {name: meaning for name, _, meaning in pairs}
