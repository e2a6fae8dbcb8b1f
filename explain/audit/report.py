"""An audit as tables in the terminal, JSON, and one HTML page with plots that works offline."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

import numpy as np
from PIL import Image
from rich.table import Table

from nbdt.files import new_folder
from nbdt.hierarchies.show.picture import saved
from nbdt.hierarchies.show.tables import table

from ..result.html import document, element
from ..result.pictures import data_url
from .methods import CONTROLS
from .result import CURVES, Audit, MethodAudit, beaten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2166ac", "#d6282d", "#1b9e77", "#7b3294", "#e08214", "#8c510a", "#c51b7d", "#4d4d4d")
OWN = ("specificity path_share blur", "specificity path_share mean", "swap blur", "swap mean")
CHECKS = ("randomised: all", "randomised, absolute: all", "max sensitivity")
TABLE_STYLE = """
main { max-width: 1280px; }
table { border-collapse: collapse; font-size: .875rem; }
td, th { padding: 4px 10px 4px 0; text-align: left; vertical-align: bottom; }
.findings { list-style: disc; padding-left: 1.3em; margin: 4px 0 14px; }
"""


def tables(audit: Audit) -> list[Table]:
    """Return the measures as three tables: means over images and 95 % intervals."""
    made, methods = audit.made, audit.methods.values()
    return [
        table(
            f"does it find what decides? {made['images']} images, {made['decisions']} decisions",
            ("method", "deletion, blur ↓", "insertion, blur ↑", "deletion, mean ↓",
             "insertion, mean ↑", "beats controls"),
            [_faithful_row(audit, method) for method in methods],
            "Area under the decision's probability while regions are hidden (deletion) or shown "
            "(insertion), highest in the map first. The last column counts the curves on which a "
            "method is better than both controls.",
        ),
        table(
            "is it this decision's?",
            ("method", "specific, blur ↑", "specific, mean ↑", "swap, blur ↑", "swap, mean ↑"),
            [_row(method, OWN) for method in methods],
            f"Specific: how often hiding a map's top {made['top_share']:.0%} (or the region that a level "
            "tested) moves its own decision more than the others on the path; one map for all decisions "
            "reaches at most 50 %. Swap: how often it lowers the decision more than hiding what another "
            "decision's map shows; one map for all reaches exactly 50 %. Levels choose regions under "
            "blur: for them only the columns 'mean' are evidence.",
        ),
        table(
            f"is it the weights'? ({made['checked_images']} images)",
            ("method", "random weights ↓", "absolute ↓", "noise ↓", "passes", "seconds"),
            [(*_row(m, CHECKS), f"{m.passes:.0f}", f"{m.seconds:.2f}") for m in methods],
            "Random weights: rank correlation with the map of random weights, signed and absolute. "
            f"Noise: largest relative change of the map under {made['noise_samples']} draws of "
            f"± {made['noise_radius']:.0%}. Passes: forward passes for the maps of an image; seconds: on "
            "this machine.",
        ),
    ]  # fmt: skip


def _faithful_row(audit: Audit, method: MethodAudit) -> tuple[str, ...]:
    measured = [str(method.estimates[name]) for name in CURVES]
    if method.method in CONTROLS:
        return (method.method, *measured, "control")
    won = beaten(audit.methods, method.method).values()
    count = sum(len(controls) == len(CONTROLS) for controls in won)
    return (method.method, *measured, f"{count} of {len(CURVES)}")


def _row(method: MethodAudit, names: Sequence[str]) -> tuple[str, ...]:
    values = [method.estimates.get(name) for name in names]
    return (method.method, *("–" if value is None else str(value) for value in values))


def curve_plot(audit: Audit) -> "Figure":
    """Draw deletion and insertion curves for both baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2, sharex=True).flat, CURVES, strict=True):
        for index, method in enumerate(audit.methods.values()):
            values = method.curves[name]
            shares = np.linspace(0, 100, len(values))
            axes.plot(shares, values, label=method.method, **_look(method.method, index))
        kind, baseline = name.split()
        better = "lower is better" if kind == "deletion" else "higher is better"
        axes.set(title=f"{kind}, {baseline} ({better})", ylabel="probability of the decision")
        axes.set_xlabel(f"regions {'hidden' if kind == 'deletion' else 'shown'}, %")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize="small")
    return figure


def _look(method: str, index: int) -> dict[str, Any]:
    """Return the line style: grey and dashed for controls, coloured for methods."""
    if method in CONTROLS:
        return {"color": "#777777", "linestyle": ("--", ":")[list(CONTROLS).index(method)]}
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": "-"}


def page(audit: Audit) -> str:
    """Return one HTML file without scripts or links: findings, tables, plots, settings."""
    title = "How far its explanations can be trusted"
    body = element(
        "main",
        element("h1", title),
        element("section", *_findings(audit), class_="card"),
        *map(_section, tables(audit)),
        _figure(curve_plot(audit)),
        element("pre", json.dumps(dict(audit.made), indent=1), class_="card small"),
    )
    return document(title, body, TABLE_STYLE)


def _findings(audit: Audit) -> Iterator[Element]:
    """Group the sentences by method."""
    split = (finding.partition(": ") for finding in audit.findings)
    for method, group in groupby(split, key=itemgetter(0)):
        lines = (element("li", sentence[0].upper() + sentence[1:]) for *_, sentence in group)
        yield element("h3", method)
        yield element("ul", *lines, class_="findings")


def _section(shown: Table) -> Element:
    header = element("tr", *(element("th", str(column.header)) for column in shown.columns))
    rows = [
        element("tr", *(element("td", str(cell), class_="number") for cell in row))
        for row in zip(*(column.cells for column in shown.columns), strict=True)
    ]
    scrolled = element("div", element("table", header, *rows), style="overflow-x: auto")
    title, note = element("h2", str(shown.title)), element("p", str(shown.caption))
    return element("section", title, note, scrolled, class_="card")


def _figure(figure: "Figure") -> Element:
    with Image.open(io.BytesIO(saved(figure))) as image:
        return element("figure", element("img", src=data_url(image), alt="plot"), class_="card")


def save(audit: Audit, folder: str | os.PathLike[str]) -> None:
    """Write audit.json and index.html to a new folder, atomically; manifest.json has every file's hash.

    Raises:
        NBDTError: the folder exists.
        OSError: it cannot be written.
    """
    files = {
        "audit.json": (json.dumps(audit.to_dict(), indent=1) + "\n").encode(),
        "index.html": page(audit).encode(),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = {"format": "nbdt-audit", "version": 1, "files": hashes}
    with new_folder(folder) as aside:
        for name, data in files.items():
            (aside / name).write_bytes(data)
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
