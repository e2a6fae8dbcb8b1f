"""Deeper levels of the explanation on the page: asked by the strip, computed in the background."""

import asyncio
import copy
from functools import partial
from typing import Any

import gradio as gr
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.explain import Explanation
from nbdt.explain.evidence.regions import with_alike
from nbdt.explain.maps.layers import any_layer
from nbdt.explain.maps.levels import FAST, at_level, check_level
from nbdt.model.cascade import LARGE, SMALL, members
from nbdt.model.model import NBDT

from ..background import Background, Pause
from ..ui.component import dump
from ..ui.events import FORGOTTEN, QUICK, PageContext, payload, sequence_number
from ..visitor import Photograph, Visitor

PATIENCE_S = 20  # until a request is answered without a result; the strip then asks again


def level_panel(context: PageContext, *parts: gr.HTML) -> None:
    """Wire the requests of the strip, the first of `parts`; an answer draws all of them again."""
    background, strip = Background(), parts[0]
    draws = [draw for part, draw in context.components if part in parts]

    async def deepen(visitor: Visitor, event: gr.EventData) -> list[Any]:
        sent = payload(event)
        reply: dict[str, Any] = {"seq": sequence_number(sent)}
        try:
            if not visitor.arrived:
                raise NBDTError(FORGOTTEN)
            levels = await _computed(background, visitor, str(sent.get("level")))
            if levels is not None:
                drawn = await asyncio.to_thread(lambda: [draw(visitor) for draw in draws])
                if visitor.photo and visitor.levels() is levels:  # nothing changed meanwhile
                    return drawn
        except NBDTError as error:
            reply["error"] = str(error)
        return [gr.HTML(waiting=dump(reply)), *(gr.skip() for _ in parts[1:])]

    # Without Gradio's queue: fifty visitors who wait would fill it.
    strip.deepen(deepen, context.visitor, [*parts], **QUICK)


async def _computed(
    background: Background, visitor: Visitor, level: str
) -> dict[str, Explanation] | None:
    """Wait for a level of what a visitor sees; returns the levels if it is among them.

    Raises NBDTError: there is no photograph, or no such level.
    """
    check_level(level)
    levels, photo = visitor.levels(), visitor.shown()[0]
    if level not in levels:
        work = partial(_compute, visitor.current_model(), photo, levels, level)
        job = background.job(visitor.job, (id(levels), level), work)
        visitor.job = job
        await asyncio.wait({job.task}, timeout=PATIENCE_S)
        if job.task.done() and not job.task.cancelled():
            job.task.result()
    return levels if level in levels else None


def _compute(
    model: NBDT, photo: Photograph, levels: dict[str, Explanation], level: str, pause: Pause
) -> None:
    """Add a level to the explanations of a photograph."""
    own, layer = members(model)[photo.by], photo.layer
    batch = own.preprocess(photo.image)[None].to(own.device)
    found = at_level(_pausing(own, pause), batch, [levels[FAST]], level)
    if photo.by == SMALL and levels[FAST].evidence:  # the memory is of the large network
        own = members(model)[LARGE]
        layer = any_layer(own, own.preprocess(photo.image)[None].to(own.device))
    (levels[level],) = with_alike(own, layer, found) if layer else found


def _pausing(model: NBDT, pause: Pause) -> NBDT:
    """Return the same model, which calls `pause` before every forward pass."""
    own = copy.copy(model)

    def logits(images: Tensor) -> Tensor:
        pause()
        return model.logits(images)

    own.logits = logits  # type: ignore[method-assign]
    return own
