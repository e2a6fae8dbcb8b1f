"""A submitted correction: who sent it, what it says, and that it is saved only once.

Everything that a browser or a program sends is hostile until it is checked here.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from PIL import Image

from nbdt.correction import Correction, CorrectionError, picture_hash
from nbdt.errors import NBDTError
from nbdt.memory.grow import add_class
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import HierarchyError, short

from ..photographs import opened, photograph
from ..store import Store
from ..store.place import StoreError
from ..ui.events import refusing

FIELDS = ("kind", "node", "child", "label", "region", "note")
MAX_NOTE = 2_000  # characters, as `nbdt.demo.store.database.Limits.text`
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def new_token() -> str:
    """Return 256 random bits, which the visitor's browser keeps."""
    return secrets.token_urlsafe(32)


def is_token(text: object) -> bool:
    """Return whether that has the form of a `new_token`."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def visitor_id(token: object, request: gr.Request | None) -> str:
    """Return the id under which a store keeps this visitor's corrections.

    With a login the id is made from the account, and is the same in every browser. Without one it
    is made from the browser's token. It is a hash: a reader of the database cannot act as a
    visitor. No network address is kept.
    """
    name = getattr(request, "username", None)
    if name:
        source = f"user:{name}"
    elif is_token(token):
        source = f"token:{token}"
    else:  # a program, or a browser without storage: valid while this page is open
        source = f"session:{getattr(request, 'session_hash', None) or new_token()}"
    return hashlib.sha256(source.encode()).hexdigest()


def parse_correction(sent: object, image: str, model: NBDT, hierarchy: Hierarchy) -> Correction:
    """Return the correction of one photograph.

    Args:
        sent: `kind` and the fields of that kind; nodes by id, or by an unambiguous name.
        image: `picture_hash` of the photograph.
        hierarchy: the hierarchy that the person saw.

    Raises CorrectionError: another form, or something that is not in the hierarchy.
    """
    if not isinstance(sent, Mapping):
        raise CorrectionError(f"Expected a correction as a JSON object, got {short(sent)}.")
    given: dict[str, Any] = {
        name: sent.get(name) for name in FIELDS if sent.get(name) not in (None, "")
    }
    note = given.get("note", "")
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise CorrectionError(f"A note is text of at most {MAX_NOTE:,} characters.")
    return Correction(
        image=image,
        model=model_hash(model),
        hierarchy=hierarchy.hash,
        **{"kind": None, **_with_node_ids(given, hierarchy)},
    )


def _with_node_ids(given: dict[str, Any], hierarchy: Hierarchy) -> dict[str, Any]:
    """Replace nodes by their ids; check that they exist and that the child is below the node."""
    checked = dict(given)
    if given.get("kind") == "class":
        name, node = given.get("label"), given.get("node")
        if not isinstance(name, str) or not isinstance(node, str):
            raise CorrectionError("A new class needs a name and a group that it joins.")
        checked["label"] = name.strip()
        add_class(hierarchy, checked["label"], node)  # raises where it cannot be there
    elif "label" in given:
        label = _node(given["label"], hierarchy)
        if label == 0:
            raise CorrectionError(f"{hierarchy.names[0]!r} is the root: everything is under it.")
        checked["label"] = hierarchy.ids[label]
    if "node" in given:
        node = _node(given["node"], hierarchy)
        if not hierarchy.children[node]:
            raise CorrectionError(f"{hierarchy.names[node]!r} is a class: no step starts there.")
        checked["node"] = hierarchy.ids[node]
        if "child" in given:
            child = _node(given["child"], hierarchy)
            if hierarchy.parents[child] != node:
                names = hierarchy.names[child], hierarchy.names[node]
                raise CorrectionError(f"No step leads from {names[1]!r} to {names[0]!r}.")
            checked["child"] = hierarchy.ids[child]
    return checked


def _node(value: object, hierarchy: Hierarchy) -> int:
    if not isinstance(value, str):
        raise CorrectionError(f"Expected the id of a node, got {short(value)}.")
    try:
        return hierarchy.index(value)
    except HierarchyError as error:
        raise CorrectionError(str(error)) from None


def save_once(
    store: Store,
    correction: Correction,
    *,
    visitor: str,
    photo: Image.Image | None,
    seen: tuple[str, bytes] | None = None,
) -> int:
    """Save a correction durably and return its number.

    A second click saves no second copy, which would count twice in training. The photograph is kept
    if the visitor, a `visitor_id`, agreed; `seen` is what the network made of it.

    Raises StoreError: this visitor saved the same correction before, or the store refuses it.
    """
    for saved in reversed(store.corrections(visitor=visitor)):
        time, note, reference = correction.time, correction.note, correction.reference
        if correction == replace(saved.correction, time=time, note=note, reference=reference):
            raise StoreError(
                f"This is saved already, as correction {saved.id}. To change it, delete that one "
                "first."
            )
    return store.add_correction(correction, visitor=visitor, photo=photo, seen=seen)


def correction_api(model: NBDT, store: Store) -> None:
    """Offer ``/correct``; it answers when the correction is on the disk."""
    with gr.Row(visible=False):
        image = photograph("image")
        sent, saved, go = gr.JSON(label="correction"), gr.JSON(label="saved"), gr.Button()

    @refusing
    def correct(image: str | None, correction: Any, request: gr.Request) -> dict[str, Any]:
        """Save one correction of a photograph.

        It has a `kind` and its fields: `node` and `child`, `node` and `region`, or `label`; perhaps a
        `note`; with `"keep": true` a copy of the photograph is kept.
        """
        if not image:
            raise NBDTError("Send one image, and the correction as JSON.")
        photo = opened(image)
        checked = parse_correction(correction, picture_hash(photo), model, model.hierarchy)
        keep = isinstance(correction, Mapping) and correction.get("keep") is True
        visitor = visitor_id(None, request)
        number = save_once(store, checked, visitor=visitor, photo=photo if keep else None)
        return {"id": number, "image": checked.image, "photograph_kept": keep}

    go.click(correct, [image, sent], saved, api_name="correct")
