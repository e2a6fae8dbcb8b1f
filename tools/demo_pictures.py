"""The pictures of the page in demo.md: a browser looks at it, wide and narrow, light and dark.

    python tools/demo_pictures.py [FOLDER]

Needs Chromium on the path and the extras `demo` and `dev`.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbdt.torchvision_cpu import import_torchvision

SIZES = {"desktop": (1440, 1000), "phone": (390, 844)}
COLOURS = 256  # of a picture's palette: each file stays below 500 KB


def main(folder: Path, kept: Path) -> None:
    """Write four pictures; corrections, if any, go to the folder `kept`."""
    import_torchvision()
    from playwright.sync_api import sync_playwright

    from nbdt import NBDT
    from nbdt.demo.app import build
    from nbdt.demo.server import launch
    from nbdt.demo.store import Store

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = build(
        NBDT.load("imagenet"), store=Store.open(str(kept / "store.sqlite")), source="imagenet"
    )
    launch(page, "127.0.0.1", port, block=False)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for size, (width, height) in SIZES.items():
            for theme in ("light", "dark"):
                path = folder / f"demo-{size}-{theme}.png"
                tab = browser.new_page(viewport={"width": width, "height": height})
                tab.set_default_timeout(120_000)
                tab.goto(f"http://127.0.0.1:{port}/?__theme={theme}")
                look(tab, path)
                tab.close()
        browser.close()
    page.close(verbose=False)


def look(tab: Any, path: Path) -> None:
    """The whole page with an example and a node that was clicked."""
    from PIL import Image

    tab.click(".nbdt-example:has-text('cat')")
    tab.locator(".nbdt-testing", has_text="Tested").wait_for()
    tab.locator(".nbdt-tree-name", has_text="lynx").first.click()
    tab.wait_for_selector(".nbdt-node h3")
    tab.mouse.move(1, 1)
    tab.wait_for_timeout(1500)
    tab.screenshot(path=path, full_page=True)
    with Image.open(path) as shot:
        shot.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        place = (
            Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "img"
        )
        main(place, Path(temporary))
