"""One self-contained HTML file that shows a hierarchy: search, collapse, zoom, keyboard, offline."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files

from nbdt.tree.hierarchy import Hierarchy

_PLACE = re.compile("@(POLICY|DATA|SCRIPT)@")


def page(hierarchy: Hierarchy, title: str = "") -> str:
    """The page as text. It asks for nothing from outside, and its policy forbids it to.

    Names are data in it: a script puts them on the page as text, never as markup.

    Args:
        hierarchy: the tree.
        title: heads the page.
    """
    data = files("nbdt.hierarchies.data")
    script = (data / "page.js").read_text(encoding="utf-8")
    parts = {"POLICY": _policy(script), "DATA": _data(hierarchy, title), "SCRIPT": script}
    template = (data / "page.html").read_text(encoding="utf-8")
    # In one pass, so that a name which looks like a place is left alone.
    return _PLACE.sub(lambda place: parts[place[1]], template)


def _policy(script: str) -> str:
    """Nothing may be loaded, and no script may run but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(hierarchy: Hierarchy, title: str) -> str:
    """JSON that no HTML parser can take for the end of the script or the start of a comment."""
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
