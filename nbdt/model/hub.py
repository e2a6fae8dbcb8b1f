"""A model on the Hugging Face hub: its download, and the figures and limits of its card."""

import os
from collections.abc import Mapping
from typing import Any

from ..errors import NBDTError
from .cascade import SMALL
from .saved import ALL_FILES, bundled

OPTIONS = {"force_download", "token", "cache_dir", "local_files_only", "revision"}


def limits(num_classes: int, size: int) -> str:
    """Return the model's limits in a sentence; `size` is that of its input, in pixels."""
    return (
        f"Limits: it knows these {num_classes} classes and nothing else, and "
        "answers with one of\nthem whatever the photograph shows; it sees the centre square of a "
        f"photograph at\n{size} × {size} pixels."
    )


def figures(provenance: Mapping[str, Any]) -> str:
    """Return the measured accuracies of a model's provenance as a Markdown table."""
    accuracy = provenance["accuracy"]
    kinds = [*next(iter(accuracy.values()))]
    lines = [f"| images | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for split, shares in accuracy.items():
        lines.append(f"| {split} | {' | '.join(f'{shares[kind]:.2%}' for kind in kinds)} |")
    return "\n".join(lines)


def pull(name: str, **options: Any) -> str:
    """Return the folder of a model: `name` if it is a folder or a bundled model, else a download.

    A folder wins over a repository ("owner/name") of the same name. `OPTIONS` are those of
    `huggingface_hub.snapshot_download`.

    Raises NBDTError: another option, or the repository cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise NBDTError(f"from_pretrained takes no {', '.join(unknown)}.")
    if os.path.isdir(name) or name in bundled():
        return name
    try:
        files = [f"{folder}{file}" for folder in ("", f"{SMALL}/") for file in ALL_FILES]
        return str(snapshot_download(name, allow_patterns=files, **options))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise NBDTError(
            f"{name!r} is no folder, and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). Without a network, copy the model's folder and "
            "name that."
        ) from error
