"""The Markdown card of a model for the Hugging Face hub, and a picture of one path."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..decide.paths import Path, as_percent
from ..tree.hierarchy import Hierarchy

SHOWN_NODES = 300  # lines of the tree; hierarchy.json has all
SHOWN_CHILDREN = 6  # bars of one decision
LINE, BAR, WIDTH = 22, 220, 640  # pixels


def card_text(
    config: Mapping[str, Any], hierarchy: Hierarchy, header: Mapping[str, Any], has_picture: bool
) -> str:
    """Return Markdown with a header of metadata (JSON values, which are YAML too).

    Args:
        config: the model's architecture, rule, preprocessing and provenance, as in config.json.
        hierarchy: the model's tree.
        header: the metadata; entries without a value are left out.
        has_picture: whether the folder has the picture of a path.
    """
    entries = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items() if value)
    shown = str(hierarchy).splitlines()
    rest = len(shown) - SHOWN_NODES
    more = [f"… {rest:,} more nodes in hierarchy.json"] if rest > 0 else []
    tree = "\n".join([*shown[:SHOWN_NODES], *more]).replace("```", "'''")
    picture = "\n![The path of one image](path.png)\n" if has_picture else ""
    return f"""---
{entries}
---

# {config["architecture"]}, {hierarchy.num_classes} classes, rule {config["rule"]}

An image classifier that answers with a path through a decision tree.

```python
from nbdt import NBDT
from PIL import Image

model = NBDT.from_pretrained("this/repository")
print(model.paths(model.preprocess(Image.open("photo.jpg"))[None])[0])
```
{picture}
{figures(config["provenance"])}

## The tree

```
{tree}
```

{limits(hierarchy.num_classes, config["preprocessing"]["size"])} Weights are safetensors, the rest is JSON: nothing is executed when it is loaded.
"""


def limits(num_classes: int, size: int) -> str:
    """Return the model's limits in a sentence; `size` is that of its input, in pixels."""
    return (
        f"Limits: it knows these {num_classes} classes and nothing else, and "
        "answers with one of\nthem whatever the photograph shows; it sees the centre square of a "
        f"photograph at\n{size} × {size} pixels."
    )


def figures(provenance: Mapping[str, Any]) -> str:
    """Return the measured accuracies of a model's provenance as a Markdown table."""
    accuracy = _measured(provenance.get("accuracy"))
    if not accuracy:
        return "No accuracy was measured with this model before it was published."
    kinds = list(dict.fromkeys(kind for values in accuracy.values() for kind in values))
    lines = [f"| images | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for split, values in accuracy.items():
        cells = [f"{values[kind]:.2%}" if kind in values else "" for kind in kinds]
        lines.append(f"| {split} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(accuracy: Any) -> dict[str, dict[str, float]]:
    """Keep what reads as accuracies by split and kind: a file may hold anything."""
    rows = accuracy if isinstance(accuracy, dict) else {}
    found = {
        split: {kind: share for kind, share in values.items() if _is_share(share)}
        for split, values in rows.items()
        if isinstance(values, dict)
    }
    return {split: values for split, values in found.items() if values}


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def draw_path(path: Path) -> Image.Image:
    """Draw each decision with its children's probabilities as bars, the chosen one dark."""
    rows: list[tuple[str, float, bool]] = []  # name, probability or -1 for a heading, chosen
    for decision in path:
        rows.append((decision.node, -1.0, False))
        order = sorted(range(len(decision.children)), key=lambda i: -decision.log_probs[i])
        rows += [
            (decision.children[i], math.exp(decision.log_probs[i]), i == decision.chosen)
            for i in order
            if i in order[:SHOWN_CHILDREN] or i == decision.chosen
        ]
    canvas = Image.new("RGB", (WIDTH, LINE * (len(rows) + 2)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    draw.text((10, 10), f"{path.class_name}  {as_percent(path.probability)}"[:80], "black", font)
    for line, (name, chance, chosen) in enumerate(rows, start=2):
        top = line * LINE - 8
        if chance < 0:
            draw.text((10, top), name[:60], "#666666", font)
            continue
        draw.text((30, top), name[:38], "black", font)
        box = (330, top + 2, 330 + max(1.0, BAR * chance), top + LINE - 6)
        draw.rectangle(box, fill="#1f5fa8" if chosen else "#b8c4d2")
        draw.text((330 + BAR + 10, top), as_percent(chance), "black", font)
    return canvas
