"""The record of one saved version of a hierarchy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbdt.errors import NBDTError
from nbdt.tree.nodes import HierarchyError, check_word, short

from .record import Edit, EditError, check_text

MAX_WHY = 2_000  # characters


class HistoryError(NBDTError):
    """A version that cannot be saved or read. The message names the file and the remedy."""


@dataclass(frozen=True)
class Version:
    """The record of one saved hierarchy.

    Attributes:
        number: unique in its history; later versions have higher numbers.
        parent: number of the version that it was made from; None for the first, and where the
            backend does not record it.
        who: the person, as given.
        when: the time of saving, UTC, as "2026-11-21T02:13:25Z".
        why: the reason, as given; a store numbers it: "birds, version 2".
        hash: `Hierarchy.hash` of the hierarchy.
        classes: a digest of the class names in order; None where the backend does not record it.
        edits: the edits between the parent and this version, where they are known.
    """

    number: int
    parent: int | None
    who: str
    when: str
    why: str
    hash: str
    classes: str | None
    edits: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        return f"{self.number}  {self.when}  {self.who}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON."""
        return {**vars(self), "edits": [record.to_dict() for record in self.edits]}

    @classmethod
    def from_dict(cls, data: object) -> Version:
        """Read what `to_dict` gave. Raises HistoryError for anything else."""
        try:
            return cls(**_checked(data))
        except (KeyError, TypeError, HierarchyError, EditError) as error:
            raise HistoryError(f"The version is damaged: {type(error).__name__} {error}") from None


def _checked(data: Any) -> dict[str, Any]:
    """The fields of a version, each of its type."""
    check_words(data["who"], data["why"])
    for field in ("when", "hash", "classes"):
        if field != "classes" or data[field] is not None:
            check_word(data[field], f"The field {field!r}")
    for field in ("number", "parent"):
        if type(data[field]) is not int and (field == "number" or data[field] is not None):
            raise TypeError(f"{field!r} is not a number")
    edits = tuple(Edit.from_dict(record) for record in data["edits"])
    fields = Version.__dataclass_fields__
    return {**{key: data[key] for key in fields}, "edits": edits}


def check_words(who: object, why: object) -> None:
    """Refuse a person or a reason that cannot be shown. Raises HistoryError."""
    if not isinstance(why, str) or not why.strip() or len(why) > MAX_WHY:
        raise HistoryError(f"Give a reason of 1 to {MAX_WHY:,} characters, not {short(why)}.")
    try:
        check_word(who, "The name of the person who saves this version")
        check_text(why, "The reason")
    except HierarchyError as error:
        raise HistoryError(str(error)) from None
