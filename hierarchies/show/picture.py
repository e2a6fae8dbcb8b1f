"""A hierarchy in a file: a drawing (PNG, SVG) or a self-contained interactive HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from importlib.resources import files
from pathlib import Path

from nbdt.errors import NBDTError, listed
from nbdt.files import write_atomic
from nbdt.tree.hierarchy import Hierarchy

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
    from .drawing import draw, png, svg

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
