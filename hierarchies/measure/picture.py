"""A picture of an evaluation: accuracies, and the nodes that an edit made easier or harder."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

from .comparison import Comparison, NodeChange, TreeResult

BEFORE, AFTER = "#9aa5b1", "#2166ac"
EASIER, HARDER = "#2166ac", "#d6282d"  # told apart in all common colour blindness
SHOWN = 8


def picture(flat: float, before: TreeResult, found: Comparison | None) -> bytes:
    """A PNG file; `found` is None where one tree was looked at alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    _accuracies(left, flat, before, found.after if found else None)
    if found is None:
        _hardest(right, before)
    else:
        _changes(right, [*found.easier[:SHOWN], *reversed(found.harder[:SHOWN])])
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script the font lacks
        figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def _accuracies(axes: Any, flat: float, before: TreeResult, after: TreeResult | None) -> None:
    groups = [("before" if after else "tree", before, BEFORE if after else AFTER)]
    groups += [("after", after, AFTER)] if after else []
    width = 0.8 / len(groups)
    for index, (label, result, colour) in enumerate(groups):
        places = [kind + index * width for kind in (1, 2)]
        values = [100 * result.accuracy[kind] for kind in ("soft", "hard")]
        bars = axes.bar(places, values, width, color=colour, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=2)
    centre = (len(groups) - 1) * width / 2
    bars = axes.bar([centre], [100 * flat], width, color="#444444")
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.set_xticks([kind + centre for kind in (0, 1, 2)], ["flat", "soft", "hard"])
    axes.set(ylim=(0, 125), ylabel="right answers, %", title=f"{len(before.logits):,} images")
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _changes(axes: Any, changes: Sequence[NodeChange]) -> None:
    axes.set_title("decisions that got easier (blue) or harder (red)")
    if not changes:
        axes.text(0.5, 0.5, "none", ha="center", va="center")
        axes.axis("off")
        return
    gains = [change.gain for change in changes]
    colours = [EASIER if gain > 0 else HARDER for gain in gains]
    bars = axes.barh(range(len(changes)), gains, color=colours)
    axes.bar_label(bars, fmt="%+d", padding=3)
    axes.margins(x=0.15)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("mistakes avoided, in photographs")
    _name_rows(axes, [change.name for change in changes])


def _hardest(axes: Any, result: TreeResult) -> None:
    worst = hardest(result)[:SHOWN]
    names = [result.hierarchy.names[node] for node in worst]
    shares = [100 * result.nodes[node].accuracy for node in worst]
    bars = axes.barh(range(len(worst)), shares, color=AFTER)
    images = [f"{result.nodes[node].accuracy:.1%} of {result.nodes[node].images}" for node in worst]
    axes.bar_label(bars, images, padding=3)
    axes.set(xlim=(0, 125), xlabel="right decisions, %", title="decisions with the most mistakes")
    _name_rows(axes, names)


def hardest(result: TreeResult) -> list[int]:
    """Inner nodes with mistakes, those with the most first."""
    wrong = [node for node, values in result.nodes.items() if values.mistakes]
    return sorted(wrong, key=lambda node: -result.nodes[node].mistakes)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    short = [name if len(name) <= 34 else name[:33] + "…" for name in names]
    # Names are anyone's: a dollar sign in one is no formula.
    axes.set_yticks(range(len(names)), short, parse_math=False)
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)  # downwards; few rows stay thin
    axes.spines[["top", "right"]].set_visible(False)
