"""Checkpoints of a training run.

A checkpoint is one safetensors file without pickle: tensors by number, and in the metadata the JSON
of everything else, where the number of a tensor takes its place. It replaces the last one only when
it is complete, so a killed run continues from the last one.
"""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import write_atomic

FORMAT = "nbdt-checkpoint"
VERSION = "1"


class SafeCheckpointIO(CheckpointIO):
    """Reads and writes Lightning's checkpoints as safetensors files."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the old file stays until the new one is complete.

        Raises:
            NBDTError: the disk is full or cannot be written.
            TypeError: the checkpoint holds something that is neither a tensor nor plain data.
        """
        tensors: dict[str, Tensor] = {}
        content = json.dumps(_pack(checkpoint, tensors))
        metadata = {"format": FORMAT, "version": VERSION, "content": content}
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, save(tensors, metadata))
        except OSError as error:
            last = "the last one is complete" if target.exists() else "there is none yet"
            full = error.errno == errno.ENOSPC
            reason = "the disk is full" if full else error.strerror or str(error)
            raise NBDTError(
                f"The checkpoint {str(target)!r} could not be written: {reason}; {last}. Free some "
                "space, then run the same command with --resume."
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; raises as `read_checkpoint`."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU.

    Raises NBDTError: the file is damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
                raise ValueError(f"not a checkpoint of version {VERSION}")
            checkpoint: dict[str, Any] = _unpack(json.loads(metadata["content"]), file)
            return checkpoint
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise NBDTError(
            f"The checkpoint {os.fspath(path)!r} cannot be read ({error}). Delete it to train from "
            "the start."
        ) from None


def _pack(value: object, tensors: dict[str, Tensor], place: str = "checkpoint") -> Any:
    if isinstance(value, Tensor):
        return _pack_tensor(value, tensors)
    if isinstance(value, Mapping):
        items = [[key, _pack(item, tensors, f"{place}[{key!r}]")] for key, item in value.items()]
        if not all(isinstance(key, str | int) for key in value):
            raise TypeError(f"{place} has keys that are neither text nor whole numbers")
        return {"items": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors, place) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{place} is {type(value).__name__}, which a checkpoint cannot hold")


def _pack_tensor(value: Tensor, tensors: dict[str, Tensor]) -> Any:
    name = str(len(tensors))
    # The layout in memory is kept: sums over it round alike when training goes on.
    last = value.ndim == 4 and not value.is_contiguous()
    last = last and value.is_contiguous(memory_format=torch.channels_last)
    tensors[name] = value.detach().cpu().contiguous().clone()
    return {"tensor": name, "channels_last": last}


def _unpack(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: _unpack(item, file) for key, item in value["items"]}
    if "tensor" in value:
        tensor: Tensor = file.get_tensor(value["tensor"])
        if value["channels_last"]:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor
    ((kind, items),) = value.items()
    return {"list": list, "tuple": tuple}[kind](_unpack(item, file) for item in items)
