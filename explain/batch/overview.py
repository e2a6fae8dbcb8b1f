"""One page that links to a batch's pages, the least sure answers first."""

import heapq
from typing import Any
from xml.etree.ElementTree import Element

from nbdt.decide.paths import percent
from nbdt.images.image import ImageError, open_image
from nbdt.progress import counted

from ..result.html import document, element
from ..result.pictures import data_url
from ..result.words import say
from .folder import BatchFolder, part_name
from .rows import FAILED, drawn_name

MOST = 500  # images on the page at most
SIDE = 96  # pixels of a thumbnail
STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 14px; margin-top: 20px; }
.cards a { display: block; color: inherit; text-decoration: none; height: 100%; padding: 10px; margin: 0; }
.cards a:hover { border-color: var(--link); }
.cards img { width: 100%; aspect-ratio: 1; border-radius: 8px; margin-bottom: 8px; }
.cards .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
"""


def overview(folder: BatchFolder, count: int) -> str:
    """Return HTML that links to the page of each image, with its answer; it needs no network.

    All `count` parts of the batch are done, with pages.
    """
    explained = (
        {**row, "part": part}
        for part in range(count) for row in folder.rows(part) if row["status"] != FAILED
    )  # fmt: skip
    shown = heapq.nsmallest(MOST, explained, key=lambda row: (row["probability"], row["row"]))
    facts = [folder.facts(part) for part in range(count)]
    failed = sum(fact["failed"] for fact in facts)
    images = sum(fact["rows"] for fact in facts) - failed
    counts = f"{counted(images, 'image')}; each leads to its explanation."
    if len(shown) < images:
        counts = f"The {MOST} least sure of {images:,} images; all are in rows/ and pages/."
    body = element(
        "main",
        element("h1", "Least sure first"),
        element("p", counts, class_="soft"),
        element("ul", *(_card(folder, row) for row in shown), class_="cards"),
    )
    if failed:
        reasons = f"{counted(failed, 'image')} not explained: see rows/, column error."
        body.append(element("p", reasons, class_="soft"))
    return document("Least sure first", body, STYLE)


def _card(folder: BatchFolder, row: dict[str, Any]) -> Element:
    where = f"{part_name('pages', row['part'])}/{drawn_name(row['row'], row['path'])}"
    share = percent(row["probability"])
    link = element(
        "a",
        _thumbnail(folder, f"{where}/photo.png"),
        element("strong", say(row["class"])),
        element("span", f" {share}", class_="soft number"),
        element("div", row["path"].rpartition("/")[2], class_="soft small name", title=row["path"]),
        href=f"{where}/index.html",
        class_="card",
    )
    return element("li", link)


def _thumbnail(folder: BatchFolder, name: str) -> Element | None:
    try:
        with folder.storage.open(name) as file:
            photo = open_image(file, name=name, max_side=SIDE)
    except (OSError, ImageError):
        return None
    return element("img", src=data_url(photo), alt="", loading="lazy")
