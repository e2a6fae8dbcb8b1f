"""An explanation as one HTML file that needs nothing else: no network, no script, no other file.

The page is built as elements, never as text, so that a name can only ever be text in it.
"""

import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any
from xml.etree.ElementTree import Element, tostring

from nbdt.decide.paths import Decision, as_percent, percent
from nbdt.images.image import ImageError

from .contributions import NOTE, Contribution, TwoSides, signed
from .drawing import compared, outlined
from .explanation import Counterfactual, Explanation, Neighbour
from .facts import blurred, stop, words
from .headline import headline
from .pictures import data_url, picture, sides
from .tiles import Tile, legend, region, tiles
from .words import count, readable, remark, say, with_article

Content = Element | str | None

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
STYLE = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
STOPS = " The answer stops here."
PICTURE = 320  # pixels of a tile's picture
MOST_CHILDREN = 5  # bars of one decision; the rest are summed


def to_html(explanation: Explanation, *, grid: bool = False) -> str:
    """Return a page with the photograph, words, path, tiles, and how it was made.

    With `grid`, the pictures have the cells that the network sees. The page's policy forbids it to load or run anything; it has a light, a dark, a narrow and a wide layout.
    """
    path = explanation.path
    body = element(
        "main",
        _answer(explanation),
        _path(explanation),
        *(_tile(explanation, *tile, grid) for tile in enumerate(tiles(explanation))),
        _made(explanation),
    )
    return document(f"Why “{path.class_name}”?", body)


def document(title: str, body: Element, style: str = "") -> str:
    """Return a page as text, with a policy that lets it load and run nothing."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", title),
        element("style", STYLE + style),
    )
    html = element("html", head, element("body", body), lang="en")
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def notebook_html(explanation: Explanation) -> str:
    """Return the path as a table, the picture if there is a photograph, and the sums if any."""
    shown = f'<img alt="" src="{data_url(picture(explanation))}">' if explanation.photo else ""
    sums = element("div")
    for decision, found in zip(explanation.path, explanation.contributions, strict=False):
        name = _name(decision.children[decision.chosen])
        sums.append(element("p", element("b", name), f": {found.words}"))
        for one in (*found.supporting, *found.opposing):
            image = _thumbnail(one)
            image.set("style", "width:80px; margin-right:4px")
            image.set("title", f"{one.label} {signed(one.value, 2)} ({one.reference})")
            sums.append(image)
    if explanation.no_contributions:
        sums.append(element("p", explanation.no_contributions))
    shown += tostring(sums, encoding="unicode", method="html") if len(sums) else ""
    return explanation.path._repr_html_() + shown


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """Return an element; `class_` means ``class``. Text and attributes are escaped when written."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        elif part and len(made):
            made[-1].tail = (made[-1].tail or "") + part
        elif part:
            made.text = (made.text or "") + part
    return made


# ---- parts of the page -------------------------------------------------------------------------


def _answer(explanation: Explanation) -> Element:
    answer, photo = headline(explanation.path, explanation.answer), explanation.photo
    text = element("div", element("h1", _name(answer.title)))
    text.append(element("p", answer.text, class_="soft sure"))
    text.append(element("p", words(explanation), class_="words"))
    for name in ("remark", "left_out", "answered_by", "promise", "no_contributions"):
        if note := getattr(explanation, name):
            text.append(element("p", note, class_="soft small"))
    if photo is None:
        return element("header", text, class_="card answer bare")
    alt = "The photograph, as much of it as the model saw"
    image = element("img", src=data_url(photo), alt=alt)
    return element("header", image, text, class_="card answer")


def _path(explanation: Explanation) -> Element:
    path, answer, steps = explanation.path, explanation.answer, element("ol", class_="path")
    end = answer.depth if answer else len(path)
    for number, decision in enumerate(path, start=1):
        chosen, rival = decision.chosen, decision.runner_up
        link = element("a", _name(decision.children[chosen]), href=f"#decision-{number}")
        beaten = as_percent(math.exp(decision.log_probs[rival]), unit=" %")
        rather = element("p", "rather than ", _name(decision.children[rival]), f", {beaten}")
        if not decision.is_likeliest:
            rather = element("p", remark(decision))
        rather.set("class", "soft small")
        shown = element("div", *_bar(link, decision, chosen), rather, class_="chosen")
        steps.append(element("li", shown, class_="beyond" if number > end else "step"))
        if number == end < len(path):
            shown.append(element("strong", STOPS, class_="small"))
    start = element("p", "From ", _name(path.decisions[0].node), " down; each step is a decision.")
    if not end:
        start.append(element("strong", STOPS))
    start.set("class", "soft small")
    return element("section", element("h2", "The path"), start, steps, class_="card")


def _tile(explanation: Explanation, number: int, tile: Tile, grid: bool) -> Element:
    """One picture, beside a runner-up's two, with all about the decisions that it stands for."""
    path, is_one = explanation.path.decisions, len(tile.decisions) == 1
    names = [readable(path[i].children[path[i].chosen]) for i in tile.decisions]
    title = element("h2", f"{tile.steps}: ", _name(", ".join(names)))
    facts = element("div", class_="facts")
    parts = element("div", _pictures(explanation, tile, grid), facts, class_="parts")
    kinds = ["card tile", *(["first"] if not number else []), *(["pair"] if tile.rival else [])]
    section = element("section", title, parts, class_=" ".join(kinds))
    for index in tile.decisions:
        rival = _name(path[index].children[path[index].runner_up])
        beaten = element("span", " rather than ", rival, class_="soft")
        shown = element(
            "div", *_children(path[index]), id=f"decision-{index + 1}", class_="decision"
        )
        if is_one:
            title.append(beaten)
        else:
            shown.insert(0, element("h3", _name(names[index - tile.decisions[0]]), beaten))
        facts.append(shown)
        shown.extend(
            _change(c, path[index]) for c in explanation.counterfactuals if c.decision == index
        )
        section.extend(_asides(explanation, index))
    return section


def _asides(explanation: Explanation, index: int) -> Iterable[Element]:
    """Where the answer stops, and the training photographs of a decision."""
    decision = explanation.path.decisions[index]
    if text := stop(explanation, index):
        yield element("p", text, class_="aside")
    if index < len(explanation.evidence):
        near = explanation.evidence[index]
        columns = _beside(near, decision, "Nearest training photographs of")
        yield element("div", columns, class_="aside")
    if explanation.alike and explanation.alike[0].decision == index:
        figures = element("div", class_="aside alike")
        for text, image in compared(explanation, PICTURE):
            shown = element("img", src=data_url(image), alt=text)
            figures.append(element("figure", shown, element("figcaption", text)))
        yield figures
    if index < len(explanation.contributions):
        found = explanation.contributions[index]
        columns = _beside(found, decision, "Contributed most to")
        yield element("div", element("p", found.words), columns, class_="aside")


def _pictures(explanation: Explanation, tile: Tile, grid: bool) -> Element:
    drawn = "a region outlined" if region(explanation, tile.shown) else "contours of its map"
    figures = element("div", class_="pictures")
    for title, image in sides(explanation, tile, PICTURE, grid=grid):
        alt = f"The photograph for {title}, with {'contours of its map' if len(figures) else drawn}"
        caption = element("figcaption", element("strong", title), " ")
        if not len(figures):
            caption.append(element("span", tile.words))
        figures.append(element("figure", element("img", src=data_url(image), alt=alt), caption))
    return figures


def _children(decision: Decision) -> tuple[Element, Element]:
    ranked = sorted(range(len(decision.children)), key=lambda i: -decision.log_probs[i])
    shown = [decision.chosen, *(i for i in ranked if i != decision.chosen)][:MOST_CHILDREN]
    bars = element("ul", class_="children")
    for child in sorted(shown, key=ranked.index):
        kind = "chosen" if child == decision.chosen else "other"
        label = element("span", _name(decision.children[child]))
        bars.append(element("li", *_bar(label, decision, child), class_=kind))
    rest = [math.exp(decision.log_probs[i]) for i in ranked if i not in shown]
    if rest:
        text = f"and {count(len(rest))} more, {as_percent(sum(rest), unit=' %')} together"
        bars.append(element("li", text, class_="soft small"))
    note = "" if decision.is_likeliest else f": {remark(decision)}"
    return element("p", "At ", _name(decision.node), note, class_="soft small"), bars


def _bar(label: Element, decision: Decision, child: int) -> tuple[Element, Element]:
    chance = math.exp(decision.log_probs[child])
    number = element("span", as_percent(chance, unit=" %"), class_="number")
    fill = element("i", style=f"width:{100 * chance:.2f}%")
    bar = element("div", fill, class_="bar", **{"aria-hidden": "true"})
    return element("div", label, number, class_="row"), bar


def _change(change: Counterfactual, decision: Decision) -> Element:
    title = element("h3", "What would change it")
    text = element("div", title, element("p", _outcome(change, decision)))
    if change.margin >= 0 and change.flipped:
        before, after = (signed(value, 2) for value in change.log_odds)
        odds = f"Log-odds {before} before, {after} after."
        text.append(element("p", odds, class_="soft small"))
    rival = element("bdi", str(change.runner_up_path))
    text.append(element("p", "The other path: ", rival, class_="soft small"))
    if change.picture is None:
        return element("div", text, class_="change bare")
    alt = f"The photograph, {blurred(change)} blurred"
    shown = (
        outlined(change.picture, change.regions, dim=False) if change.regions else change.picture
    )
    return element("div", element("img", src=data_url(shown), alt=alt), text, class_="change")


def _outcome(change: Counterfactual, decision: Decision) -> str:
    name = say(decision.children[decision.chosen])
    if change.margin < 0:
        return "The model’s own path takes another child."
    if change.flipped:
        return f"Blurring {blurred(change)} turns {name} into {say(str(change.becomes))}."
    if change.overtaken:
        return "Nothing that was tried flips this step: blurring changed an earlier one first."
    most = percent(change.searched)
    return f"Nothing that was tried: with up to {most} of the picture blurred it stays {name}."


def _beside(found: TwoSides, decision: Decision, title: str) -> Element:
    """Training photographs for the chosen child and for its rival, in two columns."""
    columns, children = element("div", class_="evidence"), (decision.chosen, decision.runner_up)
    for child, photographs in zip(children, found.sides.values(), strict=True):
        head = element("h3", f"{title} {say(decision.children[child])}")
        columns.append(element("div", head, _thumbnails(photographs)))
    return columns


def _thumbnails(photographs: Iterable[Neighbour | Contribution]) -> Element:
    thumbs = element("ul", class_="thumbs")
    for one in photographs:
        if isinstance(one, Contribution):
            text = signed(one.value, 2)
        else:
            text = f"{one.similarity:.2f}"
        caption = element("figcaption", _name(one.label), f" {text}")
        shown = element("figure", _thumbnail(one), caption, title=one.reference)
        thumbs.append(element("li", shown))
    return thumbs if len(thumbs) else element("p", "none", class_="soft small")


def _thumbnail(photograph: Neighbour | Contribution) -> Element:
    try:
        image = photograph.open()
    except ImageError:  # its original is gone
        return element("div", "no picture kept", class_="none")
    alt = f"Training photograph of {with_article(photograph.label)}"
    return element("img", src=data_url(image), alt=alt)


def _made(explanation: Explanation) -> Element:
    note = (
        f"{legend(explanation)} The words at the top are built from these measurements alone. They say "
        "what moved the model, not what is right."
    )
    if explanation.contributions:
        note += f" {NOTE}"
    facts = element("dl", class_="made")
    baselines = {found.baseline for found in explanation.counterfactuals}
    shown = {"promise", "no_contributions", "remark", "answered_by"}  # at the top
    made = {key: value for key, value in explanation.made.items() if key not in shown}
    for key, value in [*_flat(made), *(("blurred with", b) for b in sorted(baselines))]:
        facts.extend([element("dt", key), element("dd", value)])
    note_ = element("p", note, class_="soft small")
    return element("footer", element("h2", "How this was made"), note_, facts, class_="card")


def _name(text: str) -> Element:
    """A name, in whichever direction its script runs."""
    return element("bdi", readable(text))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key} ")
        elif value is not None:
            parts = value if isinstance(value, list | tuple) else [value]
            shown = [f"{part:.4g}" if isinstance(part, float) else str(part) for part in parts]
            yield (above + key).replace("_", " "), " × ".join(shown)
