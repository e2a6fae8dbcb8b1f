"""The interactive tree: a static template, data as JSON text, and what comes back as events.

Events: ``node_select {id, seq}``, ``tree_edit {kind, nodes, to, name, seq}``, ``tree_only
{names, seq}`` and ``name_wanted {nodes, seq}``. Anyone can send anything under these names, so the listener checks it.
"""

from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import gradio as gr
from torch import Tensor

from nbdt.hierarchies.edit.record import KINDS
from nbdt.hierarchies.measure.comparison import rules_of
from nbdt.hierarchies.wordnet.database import UnknownSynsetError, wordnet
from nbdt.tree.hierarchy import Hierarchy

from ..editing.edits import in_words
from ..ui.component import dump, scripts, static_text
from ..visitor import Visitor

PARTS = "model", "rows", "branches", "search", "edits", "dialog", "menu", "drag", "only", "keys"
SCRIPTS = "page.js", *(f"tree_{part}.js" for part in PARTS), "tree.js"


def tree_view() -> gr.HTML:
    """The component. Its props, all JSON text: `tree`, `path`, `reply`, `names`, `kinds`, `synonyms`."""
    props: dict[str, Any] = dict.fromkeys(("tree", "path", "reply", "names", "synonyms"), "")
    return gr.HTML(
        value="",
        **props,
        kinds=dump({kind: takes.to_dict() for kind, takes in KINDS.items()}),
        html_template=static_text("tree.html"),
        js_on_load=scripts(*SCRIPTS),
        apply_default_css=False,
    )


def draw(visitor: Visitor) -> gr.HTML:
    """The visitor's tree and what lights up in it."""
    return gr.HTML(tree=tree_record(visitor.hierarchy), path=path_record(visitor))


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


def path_record(visitor: Visitor) -> str:
    """What a visitor's photograph lights up in the tree.

    Returns:
        JSON text with ``only``, the indices of the classes that can occur, None for all; ``p``, the probability of every node among its siblings; ``path``, node
        indices from the root to the class; ``ghost``, ids of the path before the last edit if that
        led to another class; ``undo`` and ``redo``, in words what they would do.
    """
    stack, hierarchy, only = visitor.stack, visitor.hierarchy, visitor.only
    record: dict[str, Any] = {
        "hash": hierarchy.hash[:16],
        "selected": visitor.selected,
        "only": None if only is None else [hierarchy.leaf_nodes[index] for index in only],
        "undo": in_words(stack.last_edits),
        "redo": in_words(stack.next_edits),
    }
    if visitor.photo is not None:
        logits = visitor.logits(visitor.photo)[None]
        answer = _class(visitor, hierarchy, logits)
        record["p"] = [float(f"{share:.4g}") for share in _shares(visitor, logits)]
        record["path"] = hierarchy.path_of_class(answer)
        before = stack.before_last if stack.past else hierarchy
        was = _class(visitor, before, logits)  # before the last edit
        ghost = before.path_of_class(was) if was != answer else []
        record["ghost"] = [before.ids[node] for node in ghost]
    return dump(record)


def _class(visitor: Visitor, hierarchy: Hierarchy, logits: Tensor) -> int:
    """Index of the most probable of the classes that can occur, under one of their trees."""
    rules = rules_of(visitor.possible(hierarchy), visitor.model.rule)
    answer = int(rules(logits).argmax())
    return answer if visitor.only is None else visitor.only[answer]


def _shares(visitor: Visitor, logits: Tensor) -> list[float]:
    """The probability of every node among its siblings; 0 for what cannot occur."""
    hierarchy, possible = visitor.hierarchy, visitor.possible(visitor.hierarchy)
    rows = rules_of(possible, visitor.model.rule).log_probs(logits)[0].exp().tolist()
    if visitor.only is None:
        return cast(list[float], rows)
    known, shares = dict(zip(possible.ids, rows, strict=True)), [0.0] * hierarchy.num_nodes
    kept = {node for index in visitor.only for node in hierarchy.path_of_class(index)}
    for node in sorted(kept, reverse=True):  # children before parents
        below = kept.intersection(hierarchy.children[node])
        if len(below) == 1:  # the smaller tree has the child in the place of its group
            child = below.pop()
            shares[node], shares[child] = shares[child], 1.0
        else:
            shares[node] = known[hierarchy.ids[node]]
    return shares
