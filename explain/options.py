"""The options of ``nbdt explain``, for single files and for batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nbdt.decide.answer import promise
from nbdt.images.dataset import is_collection
from nbdt.model.model import NBDT
from nbdt.storage import is_uri

from .batch.options import LOCAL

if TYPE_CHECKING:
    from nbdt.memory.memory import Memory


@dataclass(frozen=True)
class ExplainOptions:
    """One call of the command."""

    model: NBDT
    images: Sequence[str]
    out: str | None
    method: str
    accuracy: float | None
    evidence: Memory | Literal[False] | None  # as in `explain`
    counterfactuals: bool
    pages: bool
    as_json: bool
    batch: Mapping[str, Any]  # the options that only a batch has, by the names of `explain_all`

    @property
    def suits_batch(self) -> bool:
        """Whether the images, the folder or the engine call for a batch."""
        return (
            self.batch["engine"] != LOCAL
            or is_uri(self.out or "")
            or any(map(is_collection, self.images))
        )

    @property
    def promise(self) -> str:
        """What the accuracy promises; empty where nothing is."""
        return promise(self.model.calibration, self.accuracy)

    @property
    def needs_batch(self) -> bool:
        """Whether single files cannot be explained with these options."""
        return self.batch["shard"] != (1, 1) or is_uri(self.out or "")
