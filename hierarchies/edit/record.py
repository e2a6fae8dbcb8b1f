"""The record of one edit: what was done, to which tree, and what it can change."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from nbdt.errors import NBDTError, listed
from nbdt.tree.nodes import HierarchyError, check_word, short

MAX_NODES = 100_000  # ids in one record
MAX_SUMMARY = 4_000  # characters
_OLD_PART_OF_GROUP = ", to group them there"  # ended such a summary before there was `part_of`


class EditError(NBDTError):
    """An edit that cannot be made. The message says why and what to do; nothing was changed."""


class EditKind(NamedTuple):
    """What one kind of edit takes."""

    usage: str  # its arguments on a command line
    nodes: int  # how many nodes are arguments of their own
    members: int = 0  # fewest nodes of the list that follows them; 0 if there is none
    to: bool = False  # whether it takes the group that the node goes to
    name: str = "none"  # whether a name is "required", "optional" or "none"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: fewest nodes, and most, None where there is a list."""
        most = None if self.members else self.nodes
        return {"least": self.nodes + self.members, "most": most, "to": self.to, "name": self.name}


KINDS = {
    "move": EditKind("NODE GROUP", 1, to=True),
    "group": EditKind("NODE NODE… --name NAME", 0, members=2, name="required"),
    "ungroup": EditKind("GROUP", 1),
    "rename": EditKind("GROUP NAME", 1, name="required"),
    "swap": EditKind("NODE NODE", 2),
    "merge": EditKind("GROUP GROUP [--name NAME]", 2, name="optional"),
    "split": EditKind("GROUP NODE NODE… --name NAME", 1, members=2, name="required"),
}
"""Every kind of edit: the function of this name in `operations`, and what it takes."""


@dataclass(frozen=True)
class Consequences:
    """What an edit can change in a model that answers by `rule`; prints as a sentence."""

    rule: str
    explanation: bool  # the decisions that a path shows, or their names
    hard_answer: bool  # the class that the greedy descent reaches
    soft_answer: bool  # the leaf probabilities, and so the class with the highest one

    def __str__(self) -> str:
        if not self.hard_answer:
            return f"Under {self.rule!r} this edit changes names, and no decision or answer."
        can = f"Under {self.rule!r} this edit can change the explanation"
        if not self.soft_answer:
            return f"{can} and the hard answer, never the soft answer."
        return f"{can}, the hard answer and the soft answer."

    def to_dict(self) -> dict[str, str | bool]:
        """The attributes as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Edit:
    """One edit as data; `edit.apply` makes it again."""

    kind: str  # one of `KINDS`
    # ids of the nodes that it was made on, in the order of the function's arguments
    nodes: tuple[str, ...]
    summary: str  # the edit in words, with the names at that time
    before: str  # hash of the hierarchy that it was made on
    after: str  # hash of the result
    to: str | None = None  # id of the group that a `move` ends in
    name: str | None = None  # the new name, of a `group`, `rename`, `merge` or `split`
    wnid: str | None = None  # WordNet id that went with `name`; earlier releases only
    created: str | None = None  # id of the group that a `group` or `split` made
    removed: tuple[str, ...] = ()  # ids of the groups that are gone, collapsed ones included
    # "group" if this edit only prepares a grouping, which is the next edit: both are undone
    # together. None for an edit of its own.
    part_of: str | None = None

    def __str__(self) -> str:
        return self.summary

    def consequences(self, rule: str) -> Consequences:
        """What the edit can change under `rule`; a `rename` changes names under either.

        Raises NBDTError: an unknown rule.
        """
        return consequences([self], rule)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON; what does not apply is left out."""
        given = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        return {key: [*item] if isinstance(item, tuple) else item for key, item in given.items()}

    @classmethod
    def from_dict(cls, data: object) -> "Edit":
        """Read what `to_dict` gave, of this release or an earlier one.

        Raises EditError: anything else; a newer release's fields are named.
        """
        if not isinstance(data, Mapping):
            raise EditError(f"Expected the record of an edit, a JSON object, got {short(data)}.")
        unknown = sorted(map(short, data.keys() - cls.__dataclass_fields__.keys()))
        if unknown:
            raise EditError(f"The record of an edit has unknown fields: {', '.join(unknown)}.")
        check_kind(data.get("kind"))
        try:
            fields = {key: _checked(key, value) for key, value in data.items()}
            summary = fields.get("summary", "")
            if fields["kind"] == "move" and summary.endswith(_OLD_PART_OF_GROUP):
                fields |= {"part_of": "group", "summary": summary.removesuffix(_OLD_PART_OF_GROUP)}
            return cls(**fields)
        except (HierarchyError, TypeError) as error:
            raise EditError(f"The record of an edit is damaged: {error}") from None


def consequences(records: Sequence[Edit], rule: str) -> Consequences:
    """What several edits together can change: whatever one of them can."""
    if rule not in _SOFT_ANSWER:
        raise NBDTError(f"Unknown rule {short(rule)}; choose 'representative' or 'marginal'.")
    decides = any(record.kind != "rename" for record in records)
    return Consequences(rule, bool(records), decides, decides and _SOFT_ANSWER[rule])


class EditRequest(NamedTuple):
    """An edit to be made; the fields are those of `Edit`, with nodes by id or unambiguous name."""

    kind: str
    nodes: tuple[str, ...]
    to: str | None = None
    name: str | None = None


def check_kind(kind: object, kinds: Mapping[str, object] = KINDS) -> None:
    """Refuse what is none of the kinds of edit. Raises EditError."""
    if not isinstance(kind, str) or kind not in kinds:
        raise EditError(f"Unknown edit {short(kind)}; choose one of {listed(kinds, 99)}.")


def check_complete(request: EditRequest | Edit) -> None:
    """Refuse an edit that lacks what its kind takes. Raises EditError."""
    check_kind(request.kind)
    kind, given = KINDS[request.kind], len(request.nodes)
    least = kind.nodes + kind.members
    if given < least or (given > least and not kind.members):
        expected = f"{least}{' or more' if kind.members else ''}"
        raise EditError(f"{request.kind!r} takes {expected} nodes, got {given}.")
    for field, needed in (("to", kind.to), ("name", kind.name == "required")):
        if needed and not getattr(request, field):
            raise EditError(f"{request.kind!r} needs {field!r}, which is missing or empty.")


def check_text(text: str, what: str) -> None:
    """Check every word of a longer text as a name is checked. Raises HierarchyError."""
    for word in re.split("[ \t\n]+", text):
        if word:
            check_word(word, what)


_SOFT_ANSWER = {"marginal": False, "representative": True}  # `marginal`: always log_softmax


def _checked(field: str, value: Any) -> Any:
    """Return the value of a record's field. Raises EditError, HierarchyError: of the wrong form."""
    if field in ("nodes", "removed"):
        if not isinstance(value, list | tuple) or len(value) > MAX_NODES:
            raise EditError(f"Expected {field!r} to be a list of node ids, got {short(value)}.")
        for word in value:
            check_word(word, f"A node id in {field!r}")
        return tuple(value)
    if field == "summary":
        if not isinstance(value, str) or len(value) > MAX_SUMMARY:
            raise EditError(f"Expected 'summary' to be text for people, got {short(value)}.")
        check_text(value, "The summary")
    elif value is not None or field in ("before", "after"):
        check_word(value, f"The value of {field!r}")
    return value
