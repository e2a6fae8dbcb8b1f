"""A hierarchy in a file: a drawing (PNG, SVG) or a self-contained interactive HTML page."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import os
import re
from importlib.resources import files
from pathlib import Path

import numpy as np

from nbdt.errors import NBDTError, listed
from nbdt.files import write_atomic
from nbdt.tree.hierarchy import Hierarchy

from .drawing import Drawing, Stroke, Word, draw, font

MAX_PIXELS = 120e6
PICTURES = (".html", ".png", ".svg")
_PLACEHOLDER = re.compile("@(POLICY|DATA|SCRIPT)@")


def save_picture(hierarchy: Hierarchy, path: str | os.PathLike[str], title: str = "") -> None:
    """Write a drawing (.png, .svg) or an interactive page (.html), atomically.

    Args:
        hierarchy: the hierarchy.
        path: the file; its suffix selects the kind of picture.
        title: the heading.

    Raises:
        NBDTError: another suffix.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise NBDTError(
            f"{os.fspath(path)!r}: a picture is one of {listed(PICTURES)}; other formats are "
            "written by `nbdt hierarchy convert`."
        )
    if suffix == ".html":
        write_atomic(path, interactive_page(hierarchy, title))
        return
    write_atomic(path, (png if suffix == ".png" else svg)(draw(hierarchy, title)))


def interactive_page(hierarchy: Hierarchy, title: str = "") -> str:
    """Return an HTML page with search, zoom and keyboard control that works offline.

    Its content security policy forbids every request. A script puts names on the page as text,
    never as markup.
    """
    folder = files("nbdt.hierarchies") / "data"
    script = (folder / "page.js").read_text(encoding="utf-8")
    parts = {"POLICY": _policy(script), "DATA": _data(hierarchy, title), "SCRIPT": script}
    template = (folder / "page.html").read_text(encoding="utf-8")
    # One pass: a name that looks like a placeholder stays as it is.
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], template)


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


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


# ---- drawings -------------------------------------------------------------------------------


def svg(drawing: Drawing) -> str:
    """Return the drawing as SVG. Names are text; nothing is loaded."""
    width, height = math.ceil(drawing.width), math.ceil(drawing.height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Verdana, sans-serif" '
        'dominant-baseline="central">'
    )
    lines = [
        head,
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<g fill="none" stroke-width="1.2">',
        *(f'<path d="{_path(s)}" stroke="{s.colour}"/>' for s in drawing.strokes),
        "</g>",
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{c}"/>' for x, y, r, c in drawing.dots),
        *map(_svg_text, drawing.words),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _path(stroke: Stroke) -> str:
    first, *rest = (f"{x:.1f} {y:.1f}" for x, y in stroke.points)
    return f"M{first}{'C' if len(rest) == 3 else 'L'}{' '.join(rest)}"


def _svg_text(word: Word) -> str:
    bold = ' font-weight="bold"' if word.bold else ""
    return (
        f'<text x="{word.x:.1f}" y="{word.y:.1f}" font-size="{word.size}" fill="{word.colour}"{bold}>'
        f"{html.escape(word.text)}</text>"
    )


def png(drawing: Drawing) -> bytes:
    """Return the drawing as PNG, at double resolution if it is small enough.

    Raises:
        NBDTError: the picture would have too many pixels.
    """
    from PIL import Image, ImageDraw
    from scipy.interpolate import BPoly

    area = drawing.width * drawing.height
    if area > MAX_PIXELS:
        raise NBDTError(
            f"As a PNG this tree would have {area / 1e6:,.0f} million pixels, more than "
            f"{MAX_PIXELS / 1e6:,.0f}; write .svg or .html instead."
        )
    scale = 2 if 4 * area <= MAX_PIXELS else 1
    size = (math.ceil(drawing.width * scale), math.ceil(drawing.height * scale))
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for stroke in drawing.strokes:
        curve = BPoly(np.array(stroke.points)[:, None], [0, 1])  # Bernstein's form is Bézier's
        points = (scale * curve(np.linspace(0, 1, 25))).ravel().tolist()
        pen.line(points, fill=stroke.colour, width=scale, joint="curve")
    for x, y, radius, colour in drawing.dots:
        pen.circle((x * scale, y * scale), radius * scale, fill=colour)
    for word in drawing.words:
        letters = font(word.size * scale, word.bold)
        pen.text((word.x * scale, word.y * scale), word.text, word.colour, letters, anchor="lm")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
