"""An edit on the page, 1,000 classes: server time from the event to everything that is sent back.

    OMP_NUM_THREADS=1 python benchmarks/demo_edits.py \\
        --weights imagenet_mobilenetv2_100_tf2ptq_fp16.pth

The edit is checked and made, the tree compiled, the accuracy on a reference set of 5,000 images
measured before and after, twenty earlier photographs asked again, and every part of the page drawn:
the answer, the tree, the strip with its maps, the node view and the edit's own panel. The reference
logits are random, which costs as much as real ones. Bar: 200 ms at the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from nbdt.decide.head import NBDTHead
from nbdt.demo.editing import panel as edit_panel
from nbdt.demo.ui.component import component
from nbdt.demo.ui.events import PageContext
from nbdt.demo.views import tree as tree_view
from nbdt.demo.views.answer import answer_view, draw_answer
from nbdt.demo.views.decisions import draw_node, draw_strip, node_view, strip_view
from nbdt.demo.visitor import RECENT, Visitor
from nbdt.hierarchies import from_classifier
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

MODEL = "timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5"
BAR = 200  # milliseconds


def context_of(model: NBDT, *, whole: bool) -> tuple[PageContext, gr.HTML]:
    """The page's parts; not `whole`: the tree and the edit's panel alone."""
    with gr.Blocks(analytics_enabled=False) as page:
        tree, edits, strip = tree_view.tree_view(), edit_panel.edit_view(), strip_view()
        others = ((answer_view(model), draw_answer), (strip, draw_strip), (node_view(), draw_node))
        parts = ((tree, tree_view.draw), (edits, edit_panel.draw_edits), *(others if whole else ()))
        context = PageContext(
            page=page, store=None, visitor=gr.State(None), tree=tree,
            note=component("note", "note.js", text=""), components=parts, apply_data=None,
        )  # fmt: skip
    return context, edits


def photographs(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((384, 384), Image.Resampling.BICUBIC) for one in rough]


def payload(tree: Hierarchy, rng: random.Random) -> dict[str, Any]:
    """A random edit, mostly possible."""
    ids = [*tree.ids[1:]]
    groups = [tree.ids[node] for node in tree.inner_nodes]
    one, two = rng.sample(ids, 2)
    inner = rng.choice(groups[1:])
    return rng.choice(
        [
            {"kind": "move", "nodes": [one], "to": rng.choice(groups)},
            {"kind": "group", "nodes": [one, two], "name": f"group of {rng.random()}"},
            {"kind": "ungroup", "nodes": [inner]},
            {"kind": "rename", "nodes": [inner], "name": f"name {rng.random()}"},
            {"kind": "undo"},
        ]
    )


def measure(model: NBDT, edits: int, *, whole: bool) -> list[tuple[float, float]]:
    """Milliseconds of each edit that could be made: by the clock, and of the core."""
    context, view = context_of(model, whole=whole)
    visitor, rng, found = Visitor(model), random.Random(0), []
    for image in photographs(RECENT):
        visitor.show(image)
    panel = edit_panel.EditPanel(context, view)
    while len(found) < edits:
        event = SimpleNamespace(_data=payload(visitor.hierarchy, rng))
        before, start, busy = visitor.stack, time.perf_counter(), time.process_time()
        panel.change(visitor, event)  # type: ignore[arg-type]
        spent = 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - busy)
        if visitor.stack is not before:
            found.append(spent)
    return found[3:]  # warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights")
    parser.add_argument("--rule", default="marginal")
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--reference", type=int, default=5000, help="images of the reference set")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = from_classifier(options.model, weights=options.weights)
    model.head = NBDTHead.from_linear(model.head.linear, model.hierarchy, rule=options.rule)
    classes, rows = model.hierarchy.num_classes, {}
    source = torch.Generator().manual_seed(0)
    model.reference = {
        "logits": torch.randn(options.reference, classes, generator=source).half() * 3,
        "labels": torch.randint(0, classes, (options.reference,), generator=source),
    }
    for whole in (False, True):
        both = zip(*measure(model, options.edits, whole=whole), strict=True)
        for what, times in zip(("clock", "core"), map(sorted, both), strict=True):
            rows[f"{'the whole page' if whole else 'tree and effect'}, {what}"] = {
                "median": statistics.median(times),
                "p95": times[int(0.95 * len(times))],
                "most": times[-1],
            }
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{classes} classes, rule {model.rule}, {options.edits} edits, milliseconds")
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"  {key} {value:6.1f}" for key, value in row.items()))
    print(f"bar: {BAR} ms at p95")


if __name__ == "__main__":
    main()
