"""Publish an `NBDT` on the Hugging Face hub, with a card and a picture."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..decide.head import NBDTHead
from ..decide.paths import Path as DecisionPath
from ..network.preprocessing import Preprocessing
from ..tree.hierarchy import Hierarchy
from .hub import HEADER, card_text, draw_path, push
from .saved import CARD, PICTURE, REFERENCE

if TYPE_CHECKING:
    from huggingface_hub import ModelCard
    from PIL import Image


class Published(nn.Module):
    """The methods of `NBDT` that have a counterpart in ``huggingface_hub.ModelHubMixin``."""

    if TYPE_CHECKING:
        head: NBDTHead
        preprocess: Preprocessing
        reference: dict[str, Tensor]

        @property
        def hierarchy(self) -> Hierarchy: ...  # noqa: D102
        @property
        def device(self) -> torch.device: ...  # noqa: D102
        def paths(self, images: Tensor) -> list[DecisionPath]: ...  # noqa: D102
        def _write(self, folder: Path, dtype: torch.dtype | None, card: str | None) -> None: ...
        def _facts(self) -> dict[str, Any]: ...

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> str:
        """Upload what `save_pretrained` writes to a repository, and return the commit's address.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            model_card_kwargs: as for `generate_model_card`.
            options: private, token, branch, commit_message, create_pr, allow_patterns,
                ignore_patterns and delete_patterns, as `huggingface_hub` has them.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, model_card_kwargs=model_card_kwargs)
            return push(folder, repo_id, **options)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        model_card_kwargs: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Write what `save` writes, and a card with a picture of one path.

        Args:
            save_directory: a folder; a model and a card that are in it are replaced.
            model_card_kwargs: as for `generate_model_card`.
            push_to_hub: also upload to `repo_id` (by default the folder's name), with `options`,
                and return the commit's address.
        """
        folder, entries = Path(save_directory), model_card_kwargs or {}
        folder.mkdir(parents=True, exist_ok=True)
        for name in (REFERENCE, CARD, PICTURE):  # of an earlier model; this one may lack them
            (folder / name).unlink(missing_ok=True)
        path = self._example_path(entries.get("image"))
        if path is not None:
            draw_path(path).save(folder / PICTURE)
        self._write(folder, None, str(self.generate_model_card(**entries)))
        if push_to_hub:
            name = repo_id or folder.name
            return self.push_to_hub(name, model_card_kwargs=model_card_kwargs, **options)
        return None

    def generate_model_card(self, image: Image.Image | None = None, **entries: Any) -> ModelCard:
        """Return the card: how to use the model, its accuracies, the tree and a path.

        Args:
            image: a photograph whose path is drawn instead of that of a held-out image.
            entries: of the card's header, as ``license="mit"``.
        """
        from huggingface_hub import ModelCard

        has_picture = self._example_path(image) is not None
        return ModelCard(card_text(self._facts(), self.hierarchy, HEADER | entries, has_picture))

    @torch.inference_mode()
    def _example_path(self, image: Image.Image | None) -> DecisionPath | None:
        """Return the path of a photograph, else of the first held-out image, if there is one."""
        if image is not None:
            return self.paths(self.preprocess(image)[None].to(self.device))[0]
        logits = self.reference.get("logits")
        if logits is None or logits.ndim != 2 or not len(logits):
            return None
        return self.head.rules.paths(logits[:1].float().to(self.device))[0]
