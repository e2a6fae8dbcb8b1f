"""The README of a trained model, from the model's own provenance."""

from __future__ import annotations

from nbdt.model.card import figures, limits
from nbdt.model.model import NBDT


def model_card(model: NBDT) -> str:
    """What a user should know."""
    return f"""# {model.architecture}, {model.hierarchy.num_classes} classes, rule {model.rule}

{_how(model)}

{figures(model.provenance)}

```
{model.hierarchy}
```

{limits(model.hierarchy.num_classes, model.preprocess.size)}
"""


def _how(model: NBDT) -> str:
    facts, size = model.provenance, model.preprocess.size
    held_out = f"{len(model.reference['labels']):,} training images"
    if "corrected" in facts:
        learnt = facts["corrected"]
        return f"""Learnt from {learnt["applied"]:,} corrections of the model {learnt["model"][:12]}… with
`{facts["command"]}`;
measured on {held_out} of {size} pixels, which were held out as
when the model was trained if the data are the same."""
    return f"""Trained with `{facts["command"]}` in {facts["minutes"]:g} minutes on {facts["training_images"]:,}
images of {size} pixels; {held_out} were held
out for choices, and the test images were looked at once."""
