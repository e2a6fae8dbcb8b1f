"""Versions and files of a visitor's hierarchy: save, load, compare, download, upload.

A download is never a file on the server: the text goes to the visitor, whose browser saves it, so
there is no address that another visitor could guess.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from nbdt.errors import listed
from nbdt.hierarchies.edit import EditError, EditStack
from nbdt.hierarchies.edit.difference import diff
from nbdt.hierarchies.formats import FormatError, from_text
from nbdt.model.fingerprint import model_hash
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from ..store import Store
from ..ui.component import dump
from ..visitor import Visitor

MAX_UPLOAD = 2**22  # characters; 1,000 classes take some 100,000
MOST_SAVED = 200  # versions in the list, the newest
MOST_LINES = 200  # of a comparison
NO_STORE = "This page has no store (nbdt demo --store names one); download the hierarchy instead."

Props = dict[str, Any]  # of the panel; JSON text
Sent = Mapping[str, Any]


def list_saved(store: Store | None, visitor: Visitor, _: Sent) -> Props:
    """List the saved versions for this model."""
    versions = store.history(model_hash(visitor.model)).versions(MOST_SAVED) if store else []
    listed = [{"id": one.number, "label": one.why, "time": one.when} for one in reversed(versions)]
    return {"saved": dump({"keeps": store is not None, "versions": listed})}


def save(store: Store | None, visitor: Visitor, sent: Sent) -> Props:
    """Save the hierarchy as a new version of a name. Raises NBDTError: an unusable name."""
    if store is None:
        raise EditError(NO_STORE)
    name = sent.get("name")
    if not isinstance(name, str) or not name.strip():
        raise EditError("Give the version a name.")
    if visitor.hierarchy.num_classes != visitor.model.hierarchy.num_classes:
        raise EditError("It has a class that is yours alone; download the hierarchy instead.")
    saved = store.history(model_hash(visitor.model)).save(
        visitor.hierarchy, who=visitor.id or "unknown", why=name.strip(), edits=visitor.stack.edits
    )
    text = f"Saved as {saved.why!r}. Everyone who uses this page can load it."
    kept = short_hash(visitor.hierarchy)
    return _reply(text, kept=kept) | list_saved(store, visitor, sent)


def load(store: Store | None, visitor: Visitor, sent: Sent) -> Props:
    """Continue with a saved version."""
    hierarchy, name = _version(store, visitor, sent.get("version"))
    return _replace(visitor, hierarchy, f"Loaded {name}.")


def compare(store: Store | None, visitor: Visitor, sent: Sent) -> Props:
    """Compare two of: the model's own hierarchy, the visitor's, and saved versions."""
    one, first = _version(store, visitor, sent.get("version"))
    two, second = _version(store, visitor, sent.get("other"))
    lines = [str(change) for change in diff(one, two).changes]
    title = f"From {first} to {second}"
    more = len(lines) - MOST_LINES
    rest = [f"… and {more:,} more changes"] if more > 0 else []
    shown = [*lines[:MOST_LINES], *rest] or ["They are the same."]
    now = short_hash(visitor.hierarchy)
    return {"difference": dump({"title": title, "lines": shown, "now": now})}


def download(_: Store | None, visitor: Visitor, sent: Sent) -> Props:
    """Return the hierarchy as the text of a file."""
    kept = short_hash(visitor.hierarchy)
    name, text = f"hierarchy-{visitor.hierarchy.hash[:8]}.json", visitor.hierarchy.to_json()
    return {"file": dump({"name": name, "text": text, "seq": sent.get("seq"), "kept": kept})}


def upload(_: Store | None, visitor: Visitor, sent: Sent) -> Props:
    """Continue with a hierarchy from a file. Raises NBDTError: no hierarchy of these classes."""
    text, name = sent.get("text"), sent.get("name")
    if not isinstance(text, str) or len(text) > MAX_UPLOAD:
        raise FormatError(f"Expected a text file of at most {MAX_UPLOAD:,} characters.")
    named = short(name if isinstance(name, str) else "the file")
    classes = visitor.answering.hierarchy.classes
    hierarchy = read_upload(text, name if isinstance(name, str) else "", classes)
    return _replace(visitor, hierarchy, f"Opened {named}.")


def reset_edits(_: Store | None, visitor: Visitor, __: Sent) -> Props:
    """Go back to the model's own hierarchy; edits of it can be redone."""
    own = visitor.answering.hierarchy
    if visitor.hierarchy.hash == own.hash:
        raise EditError("This is the model's own hierarchy already.")
    stack = visitor.stack
    begun = stack.past[0][0] if stack.past else stack.hierarchy
    if begun.hash != own.hash:
        return _replace(visitor, own, "Back at the model's own hierarchy.")
    visitor.stack = stack.reset()
    return _reply("Back at the model's own hierarchy; redo brings your edits back.")


def back(_: Store | None, visitor: Visitor, __: Sent) -> Props:
    """Go back to the hierarchy and the edits that loading or opening a file replaced."""
    before = _REPLACED.pop(visitor, None)
    if before is None:
        raise EditError("There is no earlier hierarchy to go back to.")
    visitor.stack = before
    return _reply("Back at your earlier hierarchy, with its edits.")


ACTIONS: dict[str, Callable[[Store | None, Visitor, Sent], Props]] = {
    "versions": list_saved,
    "save": save,
    "load": load,
    "compare": compare,
    "download": download,
    "upload": upload,
    "reset": reset_edits,
    "back": back,
}

_REPLACED: WeakKeyDictionary[Visitor, EditStack] = WeakKeyDictionary()


def _replace(visitor: Visitor, hierarchy: Hierarchy, text: str) -> Props:
    """Show another hierarchy, without edits; `back` brings back the earlier one."""
    _REPLACED[visitor] = visitor.stack
    visitor.stack, visitor.selected = EditStack(hierarchy), None
    return _reply(text, kept=short_hash(hierarchy), back=True)


def _reply(text: str, *, kept: str = "", back: bool = False) -> Props:
    """Report what happened; `kept` is `short_hash` of a hierarchy that outlasts the page."""
    return {"status": dump({"ok": True, "text": text, "back": back, "kept": kept})}


def short_hash(hierarchy: Hierarchy) -> str:
    """Return the part of its hash by which the browser distinguishes hierarchies."""
    return hierarchy.hash[:16]


def _version(store: Store | None, visitor: Visitor, key: object) -> tuple[Hierarchy, str]:
    """Return the hierarchy that the browser names, and its name for people. Raises NBDTError."""
    if key == "own":
        return visitor.answering.hierarchy, "the model's own"
    if key == "now":
        return visitor.hierarchy, "yours now"
    if store is None:
        raise EditError(NO_STORE)
    history = store.history(model_hash(visitor.model))  # another model's versions are not in it
    number: Any = key  # which `History` checks
    return fitted(history.load(number), visitor.hierarchy.classes), history.version(number).why


def read_upload(text: str, name: str, classes: Sequence[str]) -> Hierarchy:
    """Read the hierarchy in an uploaded text, in the model's class order; leaves match by name.

    Raises NBDTError: no hierarchy, or other classes than the model's; the message names those.
    """
    suffix = Path(name).suffix
    try:
        hierarchy = from_text(text, suffix)
    except FormatError:  # perhaps it lacks an order of classes, which the model has
        return from_text(text, suffix, classes=classes)
    if {*hierarchy.classes} != {*classes}:
        with suppress(FormatError):
            return from_text(text, suffix, classes=classes)
    return fitted(hierarchy, classes)


def fitted(hierarchy: Hierarchy, classes: Sequence[str]) -> Hierarchy:
    """Return the same tree in the model's class order; leaves are matched by name.

    Raises FormatError: other classes than the model's; the message names them.
    """
    missing = sorted({*classes} - {*hierarchy.classes})
    extra = sorted({*hierarchy.classes} - {*classes})
    if missing or extra:
        raise FormatError(
            "The hierarchy's classes are not those of the model. Missing: "
            f"{listed(missing) or 'none'}. Not the model's: {listed(extra) or 'none'}."
        )
    return Hierarchy(hierarchy.nodes, tuple(classes))
