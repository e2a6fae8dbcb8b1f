"""What the browser or a program sent, as a correction: everything in it is hostile until checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbdt.correction import KINDS, Correction, CorrectionError
from nbdt.errors import nearest
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import HierarchyError, short

FIELDS = ("kind", "node", "child", "label", "region", "note")
MAX_NOTE = 2_000  # characters, as `nbdt.demo.store.limits.Limits.text`


def stated(said: object, image: str, model: NBDT, hierarchy: Hierarchy) -> Correction:
    """The correction that somebody made of one photograph.

    Args:
        said: `kind` and what that kind has; nodes by id, or by an unambiguous name.
        image: `picture_hash` of the photograph.
        model: that answered.
        hierarchy: that the person looked at.

    Raises:
        CorrectionError: another form, or something that is not in the hierarchy.
    """
    if not isinstance(said, Mapping):
        raise CorrectionError(f"Expected a correction as a JSON object, got {short(said)}.")
    given = {name: said.get(name) for name in FIELDS if said.get(name) not in (None, "")}
    if not isinstance(given.get("kind"), str) or given["kind"] not in KINDS:
        raise CorrectionError(
            f"Unknown kind of correction {short(given.get('kind'))}; there are {', '.join(KINDS)}."
        )
    note = given.get("note", "")
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise CorrectionError(f"A note is text of at most {MAX_NOTE:,} characters.")
    return Correction(
        image=image,
        model=model_hash(model),
        hierarchy=hierarchy.hash,
        **_placed(given, hierarchy),
    )


def _placed(given: dict[str, Any], hierarchy: Hierarchy) -> dict[str, Any]:
    """With the ids of nodes that exist, of which one is above the other."""
    if "label" in given and given["label"] not in hierarchy.classes:
        label = str(given["label"])[:80]
        hint = nearest(label, hierarchy.classes)
        raise CorrectionError(f"There is no class {label!r}.{hint} Choose one of the model's.")
    found = dict(given)
    if "node" in given:
        node = _node(given["node"], hierarchy)
        if not hierarchy.children[node]:
            raise CorrectionError(f"{hierarchy.names[node]!r} is a class: no step starts there.")
        found["node"] = hierarchy.ids[node]
        if "child" in given:
            child = _node(given["child"], hierarchy)
            if hierarchy.parents[child] != node:
                names = hierarchy.names[child], hierarchy.names[node]
                raise CorrectionError(f"No step leads from {names[1]!r} to {names[0]!r}.")
            found["child"] = hierarchy.ids[child]
    return found


def _node(value: object, hierarchy: Hierarchy) -> int:
    if not isinstance(value, str):
        raise CorrectionError(f"Expected the id of a node, got {short(value)}.")
    try:
        return hierarchy.index(value)
    except HierarchyError as error:
        raise CorrectionError(str(error)) from None


def in_words(said: Correction, hierarchy: Hierarchy) -> str:
    """One correction as its author would say it, with the hierarchy's present names."""
    if said.kind == "label":
        return f"This is: {said.label}"
    names = dict(zip(hierarchy.ids, hierarchy.names, strict=True))
    node = names.get(str(said.node), said.node)
    if said.kind == "step":
        return f"At {node}, it should have gone to {names.get(str(said.child), said.child)}"
    left, top, right, bottom = (round(100 * value) for value in said.region or (0, 0, 0, 0))
    return f"At {node}, what lies in {left}–{right} % across, {top}–{bottom} % down is irrelevant"
