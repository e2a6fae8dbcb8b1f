"""A model with one visitor's corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbdt.model.model import NBDT
from nbdt.progress import counted

if TYPE_CHECKING:
    from nbdt.memory.corrected import Corrected


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A model with one visitor's corrections; the network below is the shared one."""

    model: NBDT
    corrected: Corrected

    def reason(self, image: str) -> str:
        """Return why what was said about a photograph does not act, "" if it does."""
        return self.corrected.aside.get(image, "")

    def acts_on(self, image: str) -> bool:
        """Return whether the answers follow what was said about a photograph."""
        return image in {change.id for change in self.corrected.changes}

    @property
    def words(self) -> str:
        """What changed beside the photograph, as a sentence."""
        found = self.corrected
        heavy = max((change.weight for change in found.changes), default=1)
        more = f" The photograph counts {heavy:.0f} times." if heavy > 1 else ""
        return (
            f"{found.changed:,} of {counted(found.others, 'other photograph')} changed.{more} This is "
            "yours alone until the operator accepts it."
        )
