"""A hierarchy as a coloured tree in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from nbdt.tree.hierarchy import MAX_SHOWN_DEPTH, Hierarchy

from .drawing import hues

LINES = 80  # about two screens; a larger tree is cut
WIDE = 12  # children of one group that a cut tree shows
PREVIEW = 6  # classes named beside a closed group
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")


def print_tree(
    hierarchy: Hierarchy,
    *,
    depth: int | None = None,
    everything: bool = False,
    console: Console | None = None,
) -> None:
    """Print the hierarchy in colours, in lines as wide as the terminal.

    Args:
        hierarchy: the hierarchy.
        depth: levels shown below the root; by default as many as fit in 80 lines.
        everything: show all of it, however long.
        console: where to print; the terminal by default.
    """
    console = console or Console(highlight=False, emoji=False)
    lines = list(tree_lines(hierarchy, depth=depth, everything=everything))
    for line in lines:
        _fit_encoding(line, console.encoding)
        # A pipe has no width, so names stay complete there.
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
    """Replace characters that the terminal cannot show."""
    if not encoding.startswith("utf"):
        ascii_guides = line.plain.translate(str.maketrans("├└│─…", "|`|-."))
        line.plain = "".join(c.encode(encoding, "replace").decode(encoding) for c in ascii_guides)


def tree_lines(
    hierarchy: Hierarchy, *, depth: int | None = None, everything: bool = False
) -> Iterator[Text]:
    """Yield the lines of `print_tree`. A closed group shows its first classes."""
    complete = everything or (depth is None and hierarchy.num_nodes <= LINES)
    is_open = _open_nodes(hierarchy, hierarchy.depth if complete else depth)
    wide = hierarchy.num_nodes if complete or depth is not None else WIDE
    styles = _styles(hierarchy)
    stack: list[tuple[int, str, str]] = [(0, "", "")]
    while stack:
        node, guide, guide_below = stack.pop()
        if node < 0:  # stands for the other children of a wide group
            yield Text.assemble((guide, "dim"), (f"and {-node:,} more …", "dim italic"))
            continue
        yield _line(hierarchy, node, guide, style=styles[node], is_open=is_open[node])
        if is_open[node]:
            stack.extend(reversed([*_below(hierarchy.children[node], wide, guide_below)]))


def _open_nodes(hierarchy: Hierarchy, depth: int | None) -> list[bool]:
    """Return which nodes show their children: always whole levels, so that siblings look alike."""
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


def _below(children: range, wide: int, guide: str) -> Iterator[tuple[int, str, str]]:
    """Yield (child, its guide, the guide below it); a negative child counts those left out."""
    shown: list[int] = [*children]
    if len(shown) > wide + 1:
        shown = [*shown[:wide], wide - len(children)]
    for child in shown:
        last = child == shown[-1]
        yield child, guide + ("└── " if last else "├── "), guide + ("    " if last else "│   ")


def _styles(hierarchy: Hierarchy) -> list[str]:
    """Return the style of each group's name: one terminal colour after the other, by hue."""
    node_hues = hues(hierarchy)
    distinct = sorted({hue for hue in node_hues if hue is not None})
    colours: dict[float | None, str] = {
        hue: f"bold {COLOURS[place % len(COLOURS)]}" for place, hue in enumerate(distinct)
    }
    return [colours.get(hue, "bold") for hue in node_hues]


def _line(hierarchy: Hierarchy, node: int, guide: str, *, style: str, is_open: bool) -> Text:
    name = hierarchy.names[node]
    if not hierarchy.children[node]:
        return Text.assemble((guide, "dim"), name)
    size = len(hierarchy.spans[node])
    if is_open:
        return Text.assemble((guide, "dim"), (name, style), (f" {size:,}", "dim"))
    below = hierarchy.leaf_order[hierarchy.spans[node].start :][: min(size, PREVIEW)]
    preview = ", ".join(hierarchy.classes[index] for index in below)
    rest = ", …" if size > PREVIEW else ""
    return Text.assemble((guide, "dim"), (name, style), (f" {size:,}: {preview}{rest}", "dim"))
