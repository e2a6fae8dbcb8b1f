"""A hierarchy for the eye: a coloured tree in the terminal, or a picture in a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from nbdt.errors import NBDTError, listed
from nbdt.files import write_atomic
from nbdt.tree.hierarchy import MAX_SHOWN_DEPTH, Hierarchy

LINES = 80  # what fits in about two screens; larger trees are cut
WIDE = 12  # children of one group that a cut tree shows
PREVIEW = 6  # classes named beside a closed group
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")
PICTURES = (".html", ".png", ".svg")


def save_picture(hierarchy: Hierarchy, path: str | os.PathLike[str], title: str = "") -> None:
    """Write a drawing (.png, .svg) or an interactive page (.html), atomically.

    Args:
        hierarchy: the tree.
        path: the file; its suffix says what it is.
        title: heads the picture.

    Raises:
        NBDTError: another suffix.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    data: str | bytes
    if suffix == ".html":
        from .html import page

        data = page(hierarchy, title)
    elif suffix in PICTURES:
        from .drawing import draw, png, svg

        data = (png if suffix == ".png" else svg)(draw(hierarchy, title))
    else:
        raise NBDTError(
            f"{os.fspath(path)!r}: a picture is one of {listed(PICTURES)}; other formats are "
            "written by `nbdt hierarchy convert`."
        )
    write_atomic(path, data)


def print_tree(
    hierarchy: Hierarchy,
    *,
    depth: int | None = None,
    everything: bool = False,
    console: Console | None = None,
) -> None:
    """The tree in colours, in lines as wide as the terminal.

    Args:
        hierarchy: the tree.
        depth: levels below the root that are shown; by default as many as fit in 80 lines.
        everything: all of it, however long.
        console: where to; by default the terminal.
    """
    console = console or Console(highlight=False, emoji=False)
    lines = list(tree_lines(hierarchy, depth=depth, everything=everything))
    for line in lines:
        _fit_encoding(line, console.encoding)
        # A pipe has no width: names stay whole there.
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
        else:
            console.print(line, soft_wrap=True)
    summary = (
        f"{hierarchy.num_classes:,} classes, {len(hierarchy.inner_nodes):,} groups, "
        f"depth {hierarchy.depth}"
    )
    more = (
        "; not all is shown: --depth or --all show more, --out tree.html all of it"
        if len(lines) < hierarchy.num_nodes
        else ""
    )
    console.print(Text(summary + more, style="dim"), soft_wrap=True)


def _fit_encoding(line: Text, encoding: str) -> None:
    """Put "?" for what the terminal cannot show, and plain guides, rather than fail."""
    if not encoding.startswith("utf"):
        plain = line.plain.translate(str.maketrans("├└│─…", "|`|-."))
        line.plain = "".join(c.encode(encoding, "replace").decode(encoding) for c in plain)


def tree_lines(
    hierarchy: Hierarchy, *, depth: int | None = None, everything: bool = False
) -> Iterator[Text]:
    """`print_tree` line by line. A closed group shows its first classes."""
    whole = everything or (depth is None and hierarchy.num_nodes <= LINES)
    opened = _opened(hierarchy, hierarchy.depth if whole else depth)
    wide = hierarchy.num_nodes if whole or depth is not None else WIDE
    spans = hierarchy.spans
    styles = _styles(hierarchy)
    stack: list[tuple[int, str, str]] = [(0, "", "")]
    while stack:
        node, first, rest = stack.pop()
        if node < 0:  # the rest of a wide group
            yield Text.assemble((first, "dim"), (f"and {-node:,} more …", "dim italic"))
            continue
        yield _line(
            hierarchy, node, first, style=styles[node], is_open=opened[node], size=len(spans[node])
        )
        if opened[node]:
            stack.extend(reversed([*_below(hierarchy.children[node], wide, rest)]))


def _opened(hierarchy: Hierarchy, depth: int | None) -> list[bool]:
    """Which nodes show their children: whole levels, so that siblings look alike."""
    if depth is None:
        depth, lines = 1, 1 + min(len(hierarchy.children[0]), WIDE)
        for level in range(1, hierarchy.depth):
            groups = [node for node in hierarchy.inner_nodes if hierarchy.depths[node] == level]
            lines += sum(min(len(hierarchy.children[node]), WIDE + 1) for node in groups)
            if lines > LINES:
                break
            depth = level + 1
    depth = min(depth, MAX_SHOWN_DEPTH)
    return [
        bool(children) and level < depth
        for children, level in zip(hierarchy.children, hierarchy.depths, strict=True)
    ]


def _below(children: range, wide: int, rest: str) -> Iterator[tuple[int, str, str]]:
    """(child, guide, guide of what is below it); a negative child counts those left out."""
    shown: list[int] = [*children]
    if len(shown) > wide + 1:
        shown = [*shown[:wide], wide - len(children)]
    for child in shown:
        last = child == shown[-1]
        yield child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   ")


def _styles(hierarchy: Hierarchy) -> list[str]:
    """Of each group's name: the terminal's colours in turn for what `hues` tells apart."""
    found = hues(hierarchy)
    distinct = sorted({hue for hue in found if hue is not None})
    colours: dict[float | None, str] = {
        hue: f"bold {COLOURS[place % len(COLOURS)]}" for place, hue in enumerate(distinct)
    }
    return [colours.get(hue, "bold") for hue in found]


def _line(
    hierarchy: Hierarchy, node: int, guide: str, *, style: str, is_open: bool, size: int
) -> Text:
    name = hierarchy.names[node]
    if not hierarchy.children[node]:
        return Text.assemble((guide, "dim"), name)
    if is_open:
        return Text.assemble((guide, "dim"), (name, style), (f" {size:,}", "dim"))
    below = hierarchy.leaf_order[hierarchy.spans[node].start :][: min(size, PREVIEW)]
    preview = ", ".join(hierarchy.classes[index] for index in below)
    rest = ", …" if size > PREVIEW else ""
    return Text.assemble((guide, "dim"), (name, style), (f" {size:,}: {preview}{rest}", "dim"))


def hues(hierarchy: Hierarchy) -> list[float | None]:
    """A place on the colour wheel, in degrees, for each node; None for what is above colours.

    The topmost nodes with no more than a third of the classes have a colour each, and so has all
    that is below them: by levels, a tree that begins "entity, physical entity" would have but one.
    """
    size = [len(span) for span in hierarchy.spans]
    most = max(1, hierarchy.num_classes / 3)
    tops = [n for n in range(1, len(size)) if size[n] <= most < size[hierarchy.parents[n]]]
    found: list[float | None] = [None] * hierarchy.num_nodes
    total, at = sum(math.sqrt(size[node]) for node in tops), 0.0
    for node in sorted(tops, key=lambda node: hierarchy.spans[node].start):
        share = math.sqrt(size[node]) / total
        found[node] = 30 + 330 * (at + share / 2)
        at += share
    for node in range(1, hierarchy.num_nodes):
        found[node] = found[hierarchy.parents[node]] if found[node] is None else found[node]
    return found
