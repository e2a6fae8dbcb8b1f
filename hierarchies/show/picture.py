"""A hierarchy in a file: a drawing (PNG, SVG) or a self-contained interactive HTML page."""

import base64
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbdt.errors import NBDTError, listed
from nbdt.files import write_atomic
from nbdt.tree.hierarchy import Hierarchy

from .drawing import DPI, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PIXELS, MAX_SIDE = 120e6, 65_000  # matplotlib draws at most 2**16 on a side
LONGEST = 34  # characters of a name beside a bar
PICTURES = (".html", ".png", ".svg")
_PLACEHOLDER = re.compile("@(POLICY|DATA|SCRIPT)@")


def save_picture(hierarchy: Hierarchy, path: str | os.PathLike[str], title: str = "") -> None:
    """Write a drawing (.png, .svg) or an interactive page (.html), by the suffix, atomically.

    Raises:
        NBDTError: another suffix, or a drawing of too many pixels.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise NBDTError(f"{os.fspath(path)!r}: expected a picture, one of {listed(PICTURES)}.")
    if suffix == ".html":
        write_atomic(path, interactive_page(hierarchy, title))
    else:
        write_atomic(path, rendered(draw(hierarchy, title), suffix[1:]))


def interactive_page(hierarchy: Hierarchy, title: str = "") -> str:
    """Return an HTML page with search, zoom and keyboard control that works offline.

    Its content security policy forbids every request. A script puts names on the page as text,
    never as markup.
    """
    folder = files("nbdt.hierarchies") / "data"
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"POLICY": policy, "DATA": _data(hierarchy, title), "SCRIPT": script}
    template = (folder / "page.html").read_text(encoding="utf-8")
    # One pass: a name that looks like a placeholder stays as it is.
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], template)


def _data(hierarchy: Hierarchy, title: str) -> str:
    """Return JSON in which no HTML parser finds the end of a script or the start of a comment."""
    text = json.dumps(
        {
            "title": title,
            "names": hierarchy.names,
            "parents": hierarchy.parents,
            "wnids": [node.wnid for node in hierarchy.nodes],
        },
        separators=(",", ":"),
    )
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def rendered(figure: "Figure", kind: str) -> bytes:
    """Return the file of a drawing as "png", at double resolution if it is small enough, or "svg".

    In an SVG names are text; nothing is loaded.

    Raises NBDTError: as a PNG it would have too many pixels.
    """
    width, height = figure.get_size_inches() * DPI
    if kind == "png" and (width * height > MAX_PIXELS or max(width, height) > MAX_SIDE):
        raise NBDTError(
            f"As a PNG this tree would have {width * height / 1e6:,.0f} million pixels, more than "
            f"{MAX_PIXELS / 1e6:,.0f} or than {MAX_SIDE:,} on a side; write .svg or .html instead."
        )
    doubled = 4 * width * height <= MAX_PIXELS and 2 * max(width, height) <= MAX_SIDE
    return saved(figure, kind, dpi=2 * DPI if doubled else DPI)


def bars(
    axes: "Axes",
    names: Sequence[str],
    values: Sequence[float],
    labels: Sequence[object],
    **options: Any,
) -> None:
    """Draw a named horizontal bar for each value, from the top down; `options` are those of ``barh``."""
    drawn = axes.barh(range(len(names)), values, **options)
    axes.bar_label(drawn, [str(label) for label in labels], padding=3)
    short = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in names]
    # A dollar sign in a name does not begin a formula.
    axes.set_yticks(range(len(names)), short, parse_math=False)
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)  # few rows stay thin
    axes.spines[["top", "right"]].set_visible(False)


def saved(figure: "Figure", kind: str = "png", dpi: float = 100) -> bytes:
    """Return the file of a figure, the same bytes each time; text stays text in an "svg"."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "nbdt", "font.family": "DejaVu Sans"}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script the font lacks
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata)
    return stream.getvalue()
