"""Write a new last layer into the folder of a saved model, atomically.

The new files are written to a folder beside the old ones, whose name then becomes `UPDATE`: from
that moment they count. Each then replaces its predecessor; a process that loads the model after a
kill finishes this, see `saved.finish`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from ..errors import NBDTError
from . import saved
from .remember import FOLDER
from .writing import probe_of

if TYPE_CHECKING:
    from .model import NBDT


def is_own_memory(model: NBDT, folder: str | os.PathLike[str]) -> bool:
    """Return whether the folder is that of a saved model whose memory is the one inside."""
    place, inside = model.memory_place, Path(folder, FOLDER)
    return inside.is_dir() and place is not None and Path(place).resolve() == inside.resolve()


def save_head(model: NBDT, folder: str | os.PathLike[str]) -> None:
    """Write the last layer, the reference set and what is known of the fit into a saved model.

    The other weights keep their precision. A process that is killed leaves the old model or the
    new one.

    Raises NBDTError: the folder cannot be written; the model in it is then as it was.
    """
    root = Path(folder)
    weights = load_file(root / saved.WEIGHTS)
    for name, value in model.head.linear.state_dict().items():
        weights.pop(f"head.linear.{name}{saved.SCALE}", None)
        weights |= saved.stored(f"head.linear.{name}", value, None)
    config = json.loads((root / "config.json").read_bytes())
    config["provenance"] = {**saved.libraries(), **model.provenance}
    aside = None
    try:
        aside = Path(tempfile.mkdtemp(dir=root, prefix=f"{saved.UPDATE}."))
        save_file(weights, aside / saved.WEIGHTS)
        save_file(model.reference, aside / saved.REFERENCE)
        save_file(probe_of(model), aside / saved.PROBE)
        config["sha256"] = saved.file_hashes(aside)
        (aside / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        for file in aside.iterdir():
            file.chmod((root / "config.json").stat().st_mode)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        aside.rename(root / saved.UPDATE)
    except Exception as error:  # safetensors raises its own, the disk OSError
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        raise NBDTError(
            f"The model in {os.fspath(folder)!r} cannot be written ({error}). It is as it was; the "
            "memory has the change, and `nbdt memory refit` makes it act."
        ) from error
    saved.finish(root)
