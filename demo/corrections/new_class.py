"""A class that the model does not know: photographs of this session, a name, and a place in the tree."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import gradio as gr
import torch

from nbdt.errors import NBDTError
from nbdt.explain.memory.grow import propose_place
from nbdt.images.image import ImageError
from nbdt.memory.grow import add_class
from nbdt.memory.memory import Memory
from nbdt.memory.refit import LEAST
from nbdt.progress import counted

from ..photographs import opened
from ..store import Store
from ..store.place import StoreError
from ..ui.component import dump, jpeg_url
from ..ui.events import NETWORK, QUICK, reply_to, sequence_number
from ..visitor import RECENT, Photograph, Visitor
from .own import seen_features
from .submission import parse_correction, save_once

THUMBNAIL = 112  # pixels
BESIDE = 5  # children of a group that are named


def wire_new_class(
    form: gr.HTML, visitor: gr.State, inputs: list[Any], identified: Callable[..., Any]
) -> None:
    """Wire what a new class needs: photographs of this session, more of them, and a place.

    `identified` is a decorator of handlers that take a visitor and what the browser sent, from
    `inputs`.
    """
    more = gr.UploadButton(
        "More photographs", file_count="multiple", file_types=["image"], visible="hidden",
        elem_id="nbdt-more",
    )  # fmt: skip
    options: dict[str, Any] = {"show_progress": "hidden", **NETWORK}
    more.upload(_added, [visitor, more], [visitor, form], **options)
    form.propose(identified(_proposed), inputs, form, **options)
    form.list_photographs(identified(_listed), inputs, form, **QUICK)


def _listed(visitor: Visitor, _: dict[str, Any]) -> gr.HTML:
    """Return the visitor's photographs of this session, each with a small picture."""
    small = [
        {"key": photo.hash, "photo": jpeg_url(photo.image.copy(), THUMBNAIL)}
        for photo in visitor.recent
    ]
    return gr.HTML(photos=dump(small))


def _added(visitor: Visitor, files: list[str] | None) -> tuple[Visitor, gr.HTML]:
    """Add uploads to the photographs of this session."""
    try:
        reply = reply_to({}, add_photographs(visitor, files or []), done=True)
    except NBDTError as error:
        return visitor, gr.HTML(reply=reply_to({}, str(error)))
    return visitor, gr.HTML(photos=_listed(visitor, {}).constructor_args["photos"], reply=reply)


def _proposed(visitor: Visitor, sent: dict[str, Any]) -> gr.HTML:
    try:
        return gr.HTML(place=dump(place_record(visitor, sent) | {"seq": sequence_number(sent)}))
    except NBDTError as error:
        return gr.HTML(reply=reply_to(sent, str(error)))


def add_photographs(visitor: Visitor, files: Sequence[str]) -> str:
    """Add uploaded photographs to those of the session; return what was added, and what was not."""
    problems = list[str]()
    for file in files[: RECENT - 1]:
        try:
            visitor.remember(opened(file))
        except ImageError as error:
            problems.append(str(error))
    if more := len(files) - RECENT + 1:
        problems += [f"At most {RECENT} are kept, the newest."] * (more > 0)
    return " ".join([f"{counted(len(files) - len(problems), 'photograph')} added.", *problems])


def place_record(visitor: Visitor, sent: dict[str, Any]) -> dict[str, Any]:
    """Return where a new class would be: the group that is proposed, why, and all groups.

    Raises NBDTError: no name or one that is taken, or too few photographs.
    """
    tree, photos = visitor.answering.hierarchy, _chosen(visitor, sent)
    name = str(sent.get("label") or "").strip()
    add_class(tree, name, tree.ids[0])  # raises where the name cannot be
    memory = cast(Memory, visitor.answering.memory)
    place = propose_place(memory, name, torch.stack([photo.features for photo in photos]))
    groups = [
        {
            "id": tree.ids[node],
            "name": tree.names[node],
            "beside": [tree.names[child] for child in tree.children[node]][:BESIDE],
        }
        for node in tree.inner_nodes
    ]
    return {"parent": place.parent, "reason": place.reason, "groups": groups}


def save_class(store: Store, visitor: Visitor, sent: dict[str, Any]) -> list[int]:
    """Save photographs of a new class as corrections, all or none; return their numbers.

    Raises NBDTError: a name or a place that cannot be, too few photographs, or a limit of the
    store.
    """
    numbers, tree = list[int](), visitor.answering.hierarchy
    try:
        for photo in _chosen(visitor, sent):
            correction = parse_correction(sent, photo.hash, visitor.model, tree)
            seen = seen_features(visitor.model, photo)
            numbers.append(save_once(store, correction, visitor=visitor.id, photo=None, seen=seen))
    except NBDTError:
        store.delete_corrections(numbers, visitor=visitor.id)
        raise
    return numbers


def same_class(store: Store, visitor: str, number: int) -> list[int]:
    """Return the numbers of all corrections that make the same new class; else the number alone."""
    said = {saved.id: saved.correction for saved in store.corrections(visitor=visitor)}
    this = said.get(number)
    if this is None or this.kind != "class":
        return [number]
    return [key for key, one in said.items() if (one.kind, one.label) == ("class", this.label)]


def _chosen(visitor: Visitor, sent: dict[str, Any]) -> list[Photograph]:
    keys = sent.get("photos")
    known = {photo.hash: photo for photo in visitor.recent}
    wanted = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    found = [known[key] for key in dict.fromkeys(wanted) if key in known]
    if len(found) < LEAST:
        raise StoreError(
            f"A new class needs {LEAST} photographs or more; choose them, or add some."
        )
    return found
