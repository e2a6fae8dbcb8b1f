"""The page's scripts, styles and photographs: real files beside the Python."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "static"


def static_text(name: str) -> str:
    """One file's text."""
    return (FOLDER / name).read_text(encoding="utf-8")


def scripts(*names: str) -> str:
    """Several files as one script: a component's `js_on_load` can import nothing."""
    return "\n".join(static_text(name) for name in names)


def styles() -> list[str]:
    """Paths of all style sheets, the page's own first: it names the colours."""
    found = sorted(str(path) for path in FOLDER.glob("*.css"))
    return sorted(found, key=lambda path: not path.endswith("page.css"))
