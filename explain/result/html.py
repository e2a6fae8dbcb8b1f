"""An explanation as one HTML file that needs nothing else: no network, no script, no other file.

The page is built as elements, never as text, so that a name can only ever be text in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any
from xml.etree.ElementTree import Element, tostring

import numpy as np
from PIL import Image

from nbdt.decide.paths import Decision, Path, as_percent, percent
from nbdt.images.image import ImageError

from .explanation import Counterfactual, DecisionEvidence, Explanation, Neighbour
from .facts import place
from .pictures import TILE, data_url, heat, overlays
from .regions import Region
from .words import count, say, with_article, words

Content = Element | str | None

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
STYLE = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
MOST_CHILDREN = 5  # bars of one decision; the rest are summed


def page(explanation: Explanation) -> str:
    """The explanation for a browser: photograph, words, path, every decision, how it was made.

    Its policy forbids it to load or run anything; it reads in light and dark, narrow and wide.
    """
    path = explanation.path
    body = make(
        "main",
        _answer(explanation),
        _way(path),
        *(_decision(explanation, index, tile) for index, tile in enumerate(_tiles(explanation))),
        _made(explanation),
    )
    return document(f"Why “{path.class_name}”?", body)


def document(title: str, body: Element, style: str = "") -> str:
    """A page as text: its elements, and a policy that lets it load and run nothing."""
    head = make(
        "head",
        make("meta", charset="utf-8"),
        make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make("meta", name="color-scheme", content="light dark"),
        make("meta", name="referrer", content="no-referrer"),
        make("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        make("title", title),
        make("style", STYLE + style),
    )
    html = make("html", head, make("body", body), lang="en")
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def make(tag: str, *content: Content, **attributes: str) -> Element:
    """An element; `class_` stands for ``class``. Text and attributes are escaped when written."""
    element = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            element.append(part)
        elif part and len(element):
            element[-1].tail = (element[-1].tail or "") + part
        elif part:
            element.text = (element.text or "") + part
    return element


# ---- parts of the page -------------------------------------------------------------------------


def _answer(explanation: Explanation) -> Element:
    path, photo = explanation.path, explanation.photo
    text = make(
        "div",
        make("h1", _name(path.class_name)),
        make(
            "p",
            f"{as_percent(path.probability, unit=' %')} over the whole path",
            class_="soft number",
        ),
        make("p", words(explanation), class_="words"),
    )
    if photo is None:
        return make("header", text, class_="card answer bare")
    image = make(
        "img", src=data_url(plain(photo)), alt="The photograph, as much of it as the model saw"
    )
    return make("header", image, text, class_="card answer")


def _way(path: Path) -> Element:
    steps = make("ol", class_="path")
    for number, decision in enumerate(path, start=1):
        chosen, rival = decision.chosen, decision.runner_up
        link = make("a", _name(decision.children[chosen]), href=f"#decision-{number}")
        beaten = as_percent(math.exp(decision.log_probs[rival]), unit=" %")
        rather = make("p", "rather than ", _name(decision.children[rival]), f", {beaten}")
        rather.set("class", "soft small")
        steps.append(
            make("li", make("div", *_bar(link, decision, chosen), rather, class_="chosen"))
        )
    start = make("p", "From ", _name(path.decisions[0].node), " down; each step is a decision.")
    start.set("class", "soft small")
    return make("section", make("h2", "The path"), start, steps, class_="card")


def _decision(explanation: Explanation, index: int, tile: Image.Image) -> Element:
    decision = explanation.path.decisions[index]
    chosen, rival = (_name(decision.children[i]) for i in (decision.chosen, decision.runner_up))
    title = make(
        "h2", f"{index + 1}. ", chosen, make("span", " rather than ", rival, class_="soft")
    )
    facts = make("div", *_children(decision))
    facts.extend(_change(c, decision) for c in explanation.counterfactuals if c.decision == index)
    parts = make("div", _map(explanation, index, tile), facts, class_="parts")
    section = make("section", title, parts, class_="card decision", id=f"decision-{index + 1}")
    if index < len(explanation.evidence):
        section.append(_evidence(explanation.evidence[index], decision))
    return section


def _map(explanation: Explanation, index: int, tile: Image.Image) -> Element:
    decision = explanation.path.decisions[index]
    name = say(decision.children[decision.chosen])
    where = place(explanation.maps[index])
    alt = f"Heat map of what supports and opposes {name}" + (f": {where[0]}" if where else "")
    caption = make(
        "figcaption",
        make("span", class_="key for"),
        "supports it, ",
        make("span", class_="key against"),
        "against it",
    )
    return make("figure", make("img", src=data_url(tile), alt=alt), caption, class_="map")


def _children(decision: Decision) -> tuple[Element, Element]:
    ranked = sorted(range(len(decision.children)), key=lambda i: -decision.log_probs[i])
    shown = [decision.chosen, *(i for i in ranked if i != decision.chosen)][:MOST_CHILDREN]
    bars = make("ul", class_="children")
    for child in sorted(shown, key=ranked.index):
        kind = "chosen" if child == decision.chosen else "other"
        label = make("span", _name(decision.children[child]))
        bars.append(make("li", *_bar(label, decision, child), class_=kind))
    rest = [math.exp(decision.log_probs[i]) for i in ranked if i not in shown]
    if rest:
        text = f"and {count(len(rest))} more, {as_percent(sum(rest), unit=' %')} together"
        bars.append(make("li", text, class_="soft small"))
    return make("p", "At ", _name(decision.node), class_="soft small"), bars


def _bar(label: Element, decision: Decision, child: int) -> tuple[Element, Element]:
    chance = math.exp(decision.log_probs[child])
    row = make(
        "div", label, make("span", as_percent(chance, unit=" %"), class_="number"), class_="row"
    )
    fill = make("i", style=f"width:{100 * chance:.2f}%")
    return row, make("div", fill, class_="bar", **{"aria-hidden": "true"})


def _change(found: Counterfactual, decision: Decision) -> Element:
    name = say(decision.children[decision.chosen])
    said = make("div", make("h3", "What would change it"))
    if found.margin < 0:
        said.append(make("p", "The model itself would go the other way."))
    elif not found.flipped and found.overtaken:
        text = "Nothing that was tried flips this step: blurring changed an earlier one first."
        said.append(make("p", text))
    elif not found.flipped:
        most = percent(found.searched)
        text = f"Nothing that was tried: with up to {most} of the picture blurred it stays {name}."
        said.append(make("p", text))
    else:
        text = f"Blurring {_blurred(found)} turns {name} into {say(str(found.becomes))}."
        before, after = (_signed(value) for value in found.log_odds)
        odds = f"Log-odds {before} before, {after} after."
        said.extend([make("p", text), make("p", odds, class_="soft small")])
    rival = make("bdi", str(found.runner_up_path))
    said.append(make("p", "The other way: ", rival, class_="soft small"))
    if found.picture is None:
        return make("div", said, class_="change bare")
    alt = f"The photograph, {_blurred(found)} blurred"
    image = make("img", src=data_url(plain(found.picture)), alt=alt)
    frame = make("div", image, _outline(found.regions), class_="frame")
    return make("div", frame, said, class_="change")


def _blurred(found: Counterfactual) -> str:
    number = len(found.regions)
    share = percent(found.share)
    return f"{count(number)} region{'s' if number > 1 else ''} ({share} of the picture)"


def _outline(regions: Iterable[Region]) -> Element:
    """The border of the regions' cells, in white on black: seen on any picture."""
    steps, grid = [], (1, 1)
    for region in regions:
        grid, inside = region.grid, set(region.cells)
        for r, c in region.cells:
            steps += [f"M{c} {r}h1"] if (r - 1, c) not in inside else []
            steps += [f"M{c} {r + 1}h1"] if (r + 1, c) not in inside else []
            steps += [f"M{c} {r}v1"] if (r, c - 1) not in inside else []
            steps += [f"M{c + 1} {r}v1"] if (r, c + 1) not in inside else []
    lines = [make("path", class_=kind, d="".join(steps)) for kind in ("halo", "edge")]
    box = {"viewBox": f"0 0 {grid[1]} {grid[0]}", "preserveAspectRatio": "none"}
    return make("svg", *lines, **box, **{"aria-hidden": "true"})


def _evidence(found: DecisionEvidence, decision: Decision) -> Element:
    sides = (
        (decision.children[decision.chosen], found.chosen),
        (decision.children[decision.runner_up], found.rejected),
    )
    columns = [
        make("div", make("h3", f"Nearest training photographs of {say(name)}"), _thumbnails(rows))
        for name, rows in sides
    ]
    return make("div", *columns, class_="aside evidence")


def _thumbnails(neighbours: Iterable[Neighbour]) -> Element:
    thumbs = make("ul", class_="thumbs")
    for neighbour in neighbours:
        caption = make("figcaption", _name(neighbour.label), f" {neighbour.similarity:.2f}")
        shown = make("figure", _thumbnail(neighbour), caption, title=neighbour.reference)
        thumbs.append(make("li", shown))
    return thumbs if len(thumbs) else make("p", "none", class_="soft small")


def _thumbnail(neighbour: Neighbour) -> Element:
    try:
        image = neighbour.open()
    except ImageError:  # its original is gone
        return make("div", "no picture kept", class_="none")
    alt = f"Training photograph of {with_article(neighbour.label)}"
    return make("img", src=data_url(plain(image)), alt=alt)


def _made(explanation: Explanation) -> Element:
    rows, columns = explanation.resolution
    note = (
        "In the maps red speaks for a step and blue against it, with one scale for the whole path; "
        f"they have {columns} × {rows} positions and are drawn smoothed. The words at the top are "
        "built from these measurements alone. A map says what moved the model, not what is right."
    )
    facts = make("dl", class_="made")
    baselines = {found.baseline for found in explanation.counterfactuals}
    for key, value in [*_flat(explanation.made), *(("blurred with", b) for b in sorted(baselines))]:
        facts.extend([make("dt", key), make("dd", value)])
    note_ = make("p", note, class_="soft small")
    return make("footer", make("h2", "How this was made"), note_, facts, class_="card")


# ---- pictures and words ------------------------------------------------------------------------


def plain(image: Image.Image) -> Image.Image:
    """The pixels alone: no EXIF, no profile, no text."""
    return Image.fromarray(np.asarray(image.convert("RGB")))


def _tiles(explanation: Explanation) -> list[Image.Image]:
    """Each decision's map over the photograph, or on grey where there is none."""
    if explanation.photo is not None:
        return overlays(explanation)
    tiles = []
    for values in explanation.maps:
        tile = Image.new("RGBA", (TILE, TILE), "#e4e6e9")
        tile.alpha_composite(heat(values, explanation.scale, TILE))
        tiles.append(tile.convert("RGB"))
    return tiles


def _name(text: str) -> Element:
    """A name, in whichever direction its script runs."""
    return make("bdi", text)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key} ")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            shown = [f"{part:.4g}" if isinstance(part, float) else str(part) for part in parts]
            yield (above + key).replace("_", " "), " × ".join(shown)


def _signed(value: float) -> str:
    """Two digits with a sign; a rounded zero has none."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")
