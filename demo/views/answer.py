"""The answer in large type, how sure each part of it is, and the path as a list."""

from dataclasses import asdict
from functools import lru_cache

import gradio as gr

from nbdt.correction import picture_hash
from nbdt.decide.paths import percent
from nbdt.explain import Explanation
from nbdt.explain.result.headline import headline
from nbdt.explain.result.words import remark
from nbdt.model.model import NBDT

from ..photographs import examples, knows, opened
from ..ui.component import component, dump
from ..visitor import Photograph, Visitor

SMALL = 0.75  # of the network's input: below, enlarging matters
SAME = 0.99999  # similarity of a photograph and its copy in a memory
FITTED_ON = (
    "This photograph is one of those that the model learnt from, so its answer promises nothing about "
    "other photographs."
)
LISTED = 200  # class names that are listed; the tree's search finds all


def answer_view(model: NBDT) -> gr.HTML:
    """Return the component, as it is before there is a photograph."""
    return component("answer", "answer.js", label="The answer", record=dump(_knowledge(model)))


def draw_answer(visitor: Visitor) -> gr.HTML:
    """Draw the answer for the visitor's photograph, under their hierarchy."""
    if visitor.photo is None:
        return gr.HTML(record=dump(_knowledge(visitor.answering)))
    explanation = visitor.explanation()
    path, answer = explanation.path, explanation.answer
    names = [path.decisions[0].node, *(d.children[d.chosen] for d in path)]
    trail = [{"name": name.replace("_", " ")} for name in names]
    steps = [{"probability": d.probability, "remark": remark(d)} for d in path]
    fitted_on = _is_fitted_on(visitor.answering, explanation)
    record = {
        **_knowledge(visitor.answering),
        **asdict(headline(path, answer)),
        "trail": [one | step for one, step in zip(trail, [{}, *steps], strict=True)],
        "stop": answer.depth if answer else len(path),
        "promise": "" if fitted_on else explanation.promise,
        "cautions": [
            *([FITTED_ON] if fitted_on else []),
            *_cautions(visitor.answering, visitor.photo, explanation.remark),
        ],
        "left_out": " ".join(filter(None, [_left_out(visitor), explanation.answered_by])),
    }
    return gr.HTML(record=dump(record))


def _is_fitted_on(model: NBDT, explanation: Explanation) -> bool:
    """Whether the photograph is in the memory that the model's last layer was fitted on."""
    near = [one for found in explanation.evidence for one in (*found.chosen, *found.rejected)]
    return "memory" in model.provenance and any(one.similarity > SAME for one in near)


def _cautions(model: NBDT, photo: Photograph, remark: str) -> list[str]:
    """Return reasons why this answer may be worth less than it seems."""
    cautions = [remark] if remark else []
    name = _example_hashes().get(photo.hash)
    if name is not None and not knows(model, name):
        cautions.append(f"This example shows “{name}”, which is not one of its classes.")
    (width, height), side = photo.image.size, model.preprocess.size
    if min(width, height) < SMALL * side:
        cautions.append(
            f"This picture is small: {width:,} × {height:,} pixels, fewer than the {side:,} × {side:,} "
            "that the network looks at. It is enlarged, and detail that it lacks cannot count."
        )
    return cautions


@lru_cache(maxsize=1)
def _example_hashes() -> dict[str, str]:
    """Return the names of the examples by the hash of the photograph."""
    return {picture_hash(opened(str(path))): name for name, path in examples().items()}


def _left_out(visitor: Visitor) -> str:
    """Return what the classes had that cannot occur, and the likeliest one."""
    text, only, photo = visitor.explanation().left_out, visitor.only, visitor.photo
    if only is None or photo is None or not text:
        return text
    classes, chances = visitor.hierarchy.classes, visitor.logits(photo, every=True).softmax(dim=0)
    chances[list(only)] = 0
    best = int(chances.argmax())
    return (
        f"Only {len(only):,} of {len(classes):,} classes can occur. {text} The likeliest of them: "
        f"{classes[best]}, {percent(float(chances[best]))}."
    )


def _knowledge(model: NBDT) -> dict[str, str]:
    """Describe what the model can answer."""
    classes = model.hierarchy.classes
    rest = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
    others = "shown anything else, it still answers with one of them"
    if model.calibration is not None:
        others = "most other things, but not all, it marks as unknown"
    return {
        "knows": f"It knows {len(classes):,} classes and nothing else; {others}.",
        "classes": ", ".join(classes[:LISTED]) + rest + ".",
    }
