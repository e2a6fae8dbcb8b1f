"""Publishing: models on the Hugging Face hub, as safetensors and JSON with a card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..errors import NBDTError
from .card import card_text, draw_path, example_path
from .saved import ALL_FILES, REFERENCE, bundled

if TYPE_CHECKING:
    from .model import NBDT

PICTURE = "path.png"
LEFT_OVER = (REFERENCE, "README.md", PICTURE)


class Published(
    ModelHubMixin,
    library_name="nbdt-vision",
    pipeline_tag="image-classification",
    tags=["neural-backed-decision-tree", "explainability"],
):
    """`push_to_hub`, `save_pretrained` and `from_pretrained`, as every model of the hub has them.

    The mixin uploads what `NBDT.save` writes, and a card. Its way back is not used: what comes from
    the hub is a stranger's, and goes through the checks of `NBDT.load`.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """The model of a hub repository ("owner/name"), of a folder, or a bundled one.

        Args:
            pretrained_model_name_or_path: a folder wins over a repository of the same name.
            force_download: fetch again what the cache has.
            token: for private repositories; by default that of ``hf auth login``.
            cache_dir: where downloads are kept.
            local_files_only: only what the cache has.
            revision: branch, tag or commit.
            model_kwargs: none; a saved model says all about itself.

        Raises:
            NBDTError: it cannot be fetched, or fails the checks of `NBDT.load`.
        """
        if model_kwargs:
            raise NBDTError(f"from_pretrained takes no {', '.join(model_kwargs)}.")
        name = str(pretrained_model_name_or_path)
        if not os.path.isdir(name) and name not in bundled():
            name = _download(
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        return cast(Self, cast("type[NBDT]", cls).load(name))

    def generate_model_card(self, *args: Any, image: Any = None, **kwargs: Any) -> ModelCard:
        """The card: how to use it, the figures it was measured with, the tree and a path.

        Args:
            image: a PIL photograph whose path is drawn instead of that of a held-out image.
            kwargs: entries of the card's header, as ``license="mit"``.
        """
        model = cast("NBDT", self)
        known: Any = self._hub_mixin_info.model_card_data
        data = known.to_dict() | kwargs
        return ModelCard(card_text(model, data, example_path(model, image) is not None))

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        model_card_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> str | None:
        """What `NBDT.save` writes, and the card with its picture.

        Args:
            save_directory: a folder; the model and the card that lie in it are replaced.
            model_card_kwargs: as of `generate_model_card`.
            kwargs: as of huggingface_hub's mixin.

        Returns:
            The commit's address with ``push_to_hub=True``.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name in LEFT_OVER:  # another model's, which this one may not have
            (folder / name).unlink(missing_ok=True)
        path = example_path(cast("NBDT", self), (model_card_kwargs or {}).get("image"))
        if path is not None:
            draw_path(path).save(folder / PICTURE)
        kwargs["config"] = None  # ours is written with the model
        return super().save_pretrained(folder, model_card_kwargs=model_card_kwargs, **kwargs)


def _download(name: str, **options: Any) -> str:
    try:
        return str(snapshot_download(name, allow_patterns=list(ALL_FILES), **options))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise NBDTError(
            f"{name!r} is no folder, and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). Without a network, copy the model's folder and "
            "name that."
        ) from error
