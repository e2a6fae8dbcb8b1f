"""The interactive tree: a static template, data as JSON text, and what comes back as events.

Events: ``node_select {id, seq}``, ``tree_edit {kind, nodes, to, name, seq}`` and ``name_wanted
{nodes, seq}``. Anyone can send anything under these names, so the listener checks it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr
from torch import Tensor

from nbdt.hierarchies.edit.record import KINDS
from nbdt.hierarchies.edit.undo import EditStack
from nbdt.hierarchies.measure.comparison import rules_of
from nbdt.hierarchies.wordnet.database import UnknownSynsetError, wordnet
from nbdt.tree.hierarchy import Hierarchy

from ..editing.edits import in_words
from ..ui.component import dump, scripts, static_text

if TYPE_CHECKING:
    from ..visitor import Visitor

SCRIPTS = (
    "page.js",
    "tree_model.js",
    "tree_rows.js",
    "tree_branches.js",
    "tree_search.js",
    "tree_edits.js",
    "tree_dialog.js",
    "tree_menu.js",
    "tree_drag.js",
    "tree_keys.js",
    "tree.js",
)


def tree_view() -> gr.HTML:
    """The component. Its props, all JSON text: `tree`, `path`, `reply`, `names`, `kinds`, `synonyms`."""
    return gr.HTML(
        value="",
        tree="",
        path="",
        reply="",
        names="",
        synonyms="",
        kinds=dump({kind: takes.to_dict() for kind, takes in KINDS.items()}),
        html_template=static_text("tree.html"),
        js_on_load=scripts(*SCRIPTS),
        apply_default_css=False,
    )


def draw(visitor: Visitor) -> gr.HTML:
    """The visitor's tree and what lights up in it."""
    logits = visitor.photo.logits if visitor.photo else None
    lit = path_record(visitor.stack, visitor.model.rule, logits, visitor.selected)
    return gr.HTML(tree=tree_record(visitor.hierarchy), path=lit)


@lru_cache(maxsize=32)
def tree_record(hierarchy: Hierarchy) -> str:
    """The tree alone: parents, names, and ids where they are not the name (else 0)."""
    named = zip(hierarchy.ids, hierarchy.names, strict=True)
    return dump(
        {
            "hash": hierarchy.hash[:16],
            "parents": hierarchy.parents,
            "names": hierarchy.names,
            "ids": [0 if node_id == name else node_id for node_id, name in named],
        }
    )


def synonyms(hierarchy: Hierarchy) -> str:
    """WordNet's other words for nodes that have its ids, by name: the search finds them too."""
    net, found = wordnet(), {}
    for node in hierarchy.nodes:
        with suppress(UnknownSynsetError):
            words = net.lemmas(net.index(node.wnid or ""))
            found[node.name] = [word for word in words if word not in node.name]
    return dump({name: words for name, words in found.items() if words})


def path_record(
    stack: EditStack, rule: str, logits: Tensor | None, selected: str | None = None
) -> str:
    """What a photograph lights up in the tree.

    Args:
        stack: the hierarchy with its edits.
        rule: the model's.
        logits: (classes,) flat logits of the photograph, None without one.
        selected: id of the node that the visitor clicked.

    Returns:
        JSON text with ``p``, the probability of every node among its siblings; ``path``, node
        indices from the root to the class; ``ghost``, ids of the path before the last edit if that
        led to another class; ``undo`` and ``redo``, in words what they would do.
    """
    hierarchy = stack.hierarchy
    record: dict[str, Any] = {
        "hash": hierarchy.hash[:16],
        "selected": selected,
        "undo": in_words(stack.last_edits),
        "redo": in_words(stack.next_edits),
    }
    if logits is not None:
        rules = rules_of(hierarchy, rule)
        shares = rules.log_probs(logits[None])[0].exp().tolist()
        answer = int(rules(logits[None]).argmax())
        record["p"] = [float(f"{share:.4g}") for share in shares]
        record["path"] = hierarchy.path_of_class(answer)
        record["ghost"] = _ghost(stack, rule, logits, answer)
    return dump(record)


def _ghost(stack: EditStack, rule: str, logits: Tensor, answer: int) -> list[str]:
    """Ids of the path before the last edit, if it led to another class."""
    if not stack.past:
        return []
    before = stack.before_last
    was = int(rules_of(before, rule)(logits[None]).argmax())
    path = before.path_of_class(was) if was != answer else []
    return [before.ids[node] for node in path]
