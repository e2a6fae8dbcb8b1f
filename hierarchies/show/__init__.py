"""A hierarchy as a coloured tree in the terminal."""

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from nbdt.tree.hierarchy import MAX_SHOWN_DEPTH, Hierarchy

from .drawing import hues
from .tables import plain_console

LINES = 80  # about two screens; a larger tree is cut
WIDE = 12  # children of one group that a cut tree shows
PREVIEW = 6  # classes named beside a closed group
PIPE = 100_000  # columns where there is no terminal, so that names stay complete
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
        depth: levels shown below the root; by default whole ones, as many as fit in 80 lines.
        everything: show all of it, however long.
        console: where to print; the terminal by default.
    """
    console = console or plain_console()
    if not console.is_terminal:
        console.width = PIPE
    whole = everything or (depth is None and hierarchy.num_nodes <= LINES)
    wide = hierarchy.num_nodes if whole or depth is not None else WIDE
    depth = hierarchy.depth if whole else depth or _fitting_depth(hierarchy)
    depth, styles, shown = min(depth, MAX_SHOWN_DEPTH), _styles(hierarchy), 0
    top = Tree("", guide_style="dim", hide_root=True)
    stack = [(top, range(1))]
    while stack:
        branch, nodes = stack.pop()
        cut = nodes if len(nodes) <= wide + 1 else nodes[:wide]
        for node in cut:
            is_open = hierarchy.depths[node] < depth
            label = _label(hierarchy, node, style=styles[node], is_open=is_open)
            below = branch.add(_encodable(label, console.encoding))
            if is_open:
                stack.append((below, hierarchy.children[node]))
        if rest := len(nodes) - len(cut):
            branch.add(_encodable(Text(f"and {rest:,} more …", "dim italic"), console.encoding))
        shown += len(cut)
    console.print(top, no_wrap=True, overflow="ellipsis")
    summary = (
        f"{hierarchy.num_classes:,} classes, {len(hierarchy.inner_nodes):,} groups, "
        f"depth {hierarchy.depth}"
    )
    if shown < hierarchy.num_nodes:
        summary += (
            "; not all is shown: see --depth and --all of nbdt hierarchy show, or --out tree.html"
        )
    console.print(Text(summary, style="dim"), soft_wrap=True)


def _encodable(label: Text, encoding: str) -> Text:
    """Replace characters that the terminal cannot show."""
    label.plain = label.plain.encode(encoding, "replace").decode(encoding)
    return label


def _fitting_depth(hierarchy: Hierarchy) -> int:
    """Return how many levels fit in `LINES`; at least one."""
    lines = 1 + min(len(hierarchy.children[0]), WIDE)
    for level in range(1, hierarchy.depth):
        groups = [node for node in hierarchy.inner_nodes if hierarchy.depths[node] == level]
        lines += sum(min(len(hierarchy.children[node]), WIDE + 1) for node in groups)
        if lines > LINES:
            return level
    return hierarchy.depth


def _styles(hierarchy: Hierarchy) -> list[str]:
    """Return the style of each group's name: one terminal colour after the other, by hue."""
    node_hues = hues(hierarchy)
    distinct = sorted({hue for hue in node_hues if hue is not None})
    colours: dict[float | None, str] = {
        hue: f"bold {COLOURS[place % len(COLOURS)]}" for place, hue in enumerate(distinct)
    }
    return [colours.get(hue, "bold") for hue in node_hues]


def _label(hierarchy: Hierarchy, node: int, *, style: str, is_open: bool) -> Text:
    """Return a node's name; for a group with its size, for a closed one with its first classes."""
    name, size = hierarchy.names[node], len(hierarchy.spans[node])
    if not hierarchy.children[node]:
        return Text(name)
    if is_open:
        return Text.assemble((name, style), (f" {size:,}", "dim"))
    preview = ", ".join(
        hierarchy.classes[index] for index in hierarchy.classes_under(node)[:PREVIEW]
    )
    rest = ", …" if size > PREVIEW else ""
    return Text.assemble((name, style), (f" {size:,}: {preview}{rest}", "dim"))
