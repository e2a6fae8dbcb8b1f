"""A model on the Hugging Face hub: its Markdown card with a picture of one path, and its download."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..decide.paths import Path, as_percent
from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy
from .saved import ALL_FILES, bundled

SHOWN_NODES = 300  # lines of the tree; hierarchy.json has all
SHOWN_CHILDREN = 6  # bars of one decision
LINE, BAR, WIDTH = 22, 220, 640  # pixels
HEADER = {
    "library_name": "nbdt-vision",
    "pipeline_tag": "image-classification",
    "tags": ["explainability", "model_hub_mixin", "neural-backed-decision-tree"],
}  # of every model's card
OPTIONS = {"force_download", "token", "cache_dir", "local_files_only", "revision"}


def card_text(
    config: Mapping[str, Any], hierarchy: Hierarchy, header: Mapping[str, Any], has_picture: bool
) -> str:
    """Return Markdown with a header of metadata (JSON values, which are YAML too).

    Args:
        config: the model's architecture, rule, preprocessing and provenance, as in config.json.
        hierarchy: the model's tree.
        header: the publisher's metadata; entries without a value are left out.
        has_picture: whether the folder has the picture of a path.
    """
    entries = "\n".join(
        f"{key}: {json.dumps(value)}" for key, value in (HEADER | dict(header)).items() if value
    )
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
    rows = provenance.get("accuracy")  # a file may hold anything
    shares = {
        split: {
            kind: share
            for kind, share in values.items()
            if isinstance(share, int | float) and 0 <= share <= 1
        }
        for split, values in (rows.items() if isinstance(rows, dict) else ())
        if isinstance(values, dict)
    }
    accuracy = {split: values for split, values in shares.items() if values}
    if not accuracy:
        return "No accuracy was measured with this model before it was published."
    kinds = list(dict.fromkeys(kind for values in accuracy.values() for kind in values))
    lines = [f"| images | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for split, values in accuracy.items():
        cells = [f"{values[kind]:.2%}" if kind in values else "" for kind in kinds]
        lines.append(f"| {split} | {' | '.join(cells)} |")
    return "\n".join(lines)


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


def pull(name: str, **options: Any) -> str:
    """Return the folder of a model: `name` if it is a folder or a bundled model, else a download.

    Args:
        name: a folder wins over a repository ("owner/name") of the same name.
        options: those of `OPTIONS`, as for `huggingface_hub.snapshot_download`.

    Raises:
        NBDTError: another option, or the repository cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise NBDTError(f"from_pretrained takes no {', '.join(unknown)}.")
    if os.path.isdir(name) or name in bundled():
        return name
    try:
        return str(snapshot_download(name, allow_patterns=list(ALL_FILES), **options))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise NBDTError(
            f"{name!r} is no folder, and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). Without a network, copy the model's folder and "
            "name that."
        ) from error
