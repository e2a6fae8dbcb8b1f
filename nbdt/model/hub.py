"""The Hugging Face hub: fetch the folder of a model, and upload one."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..errors import NBDTError
from .saved import ALL_FILES, bundled

HEADER = {
    "library_name": "nbdt-vision",
    "pipeline_tag": "image-classification",
    "tags": ["explainability", "model_hub_mixin", "neural-backed-decision-tree"],
}  # of every model's card
OPTIONS = {"force_download", "token", "cache_dir", "local_files_only", "revision"}


def pull(name: str, **options: Any) -> str:
    """Return the folder of a model: `name` if it is a folder or a bundled model, else a download.

    Args:
        name: a folder wins over a repository ("owner/name") of the same name.
        options: those of `OPTIONS`, as for `huggingface_hub.snapshot_download`.

    Raises:
        NBDTError: another option, or the repository cannot be fetched.
    """
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


def push(
    folder: str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    **options: Any,
) -> str:
    """Upload a model's folder to a repository, made if it does not exist; return the address.

    `options` are those of `huggingface_hub.HfApi.upload_folder`.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
    options.setdefault("commit_message", "Push model using nbdt-vision.")
    address = api.upload_folder(
        repo_id=repo_id, repo_type="model", folder_path=folder, revision=branch, **options
    )
    return str(address)
