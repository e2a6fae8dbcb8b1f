"""``/correct``: a photograph and what is wrong with its answer, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from nbdt.correction import picture_hash
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT

from ..errors import refused
from ..store import Store
from ..uploads import opened, photograph
from .identity import visitor_id
from .saving import save_once
from .statement import stated


def correction_api(model: NBDT, store: Store) -> None:
    """Offer the endpoint; it answers when the correction is on the disk."""
    with gr.Row(visible=False):
        image = photograph("image")
        said, kept, go = gr.JSON(label="correction"), gr.JSON(label="saved"), gr.Button()

    def correct(image: str | None, correction: Any, request: gr.Request) -> dict[str, Any]:
        """Keep one correction.

        Args:
            image: the photograph.
            correction: `kind`, and what it has: `node` and `child`, `node` and `region`, or
                `label`; perhaps a `note`; with `"keep": true` a copy of the photograph is kept.
            request: who asks.
        """
        try:
            return _kept(model, store, image, correction, request)
        except NBDTError as error:
            raise refused(error) from None

    go.click(correct, [image, said], kept, api_name="correct")


def _kept(
    model: NBDT, store: Store, image: str | None, correction: Any, request: gr.Request
) -> dict[str, Any]:
    if not image:
        raise NBDTError("Send one image, and the correction as JSON.")
    photo = opened(image)
    said = stated(correction, picture_hash(photo), model, model.hierarchy)
    keep = isinstance(correction, Mapping) and correction.get("keep") is True
    visitor = visitor_id(None, request)
    number = save_once(store, said, visitor=visitor, photo=photo if keep else None)
    return {"id": number, "image": said.image, "photograph_kept": keep}
