"""The record of one edit: what was done, to which tree, and what it can change."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nbdt.errors import NBDTError
from nbdt.tree.nodes import HierarchyError, check_word, short

KINDS = ("move", "group", "ungroup", "rename", "swap", "merge", "split")
MAX_NODES = 100_000  # ids in one record
MAX_SUMMARY = 4_000  # characters
_HASH = re.compile("[0-9a-f]{64}")


class EditError(NBDTError):
    """An edit that cannot be made. The message says why and what to do; nothing was changed."""


@dataclass(frozen=True)
class Consequences:
    """What an edit can change in a model that answers by `rule`; prints as a sentence.

    Attributes:
        explanation: the decisions that a path shows, or their names.
        hard_answer: the class that the greedy descent reaches.
        soft_answer: the leaf probabilities, hence the class with the highest one.
    """

    rule: str
    explanation: bool
    hard_answer: bool
    soft_answer: bool

    def __str__(self) -> str:
        if not self.hard_answer:
            return f"Under {self.rule!r} this edit changes names, and no decision or answer."
        if not self.soft_answer:
            return (
                f"Under {self.rule!r} this edit can change the explanation and the hard answer, "
                "never the soft answer."
            )
        return (
            f"Under {self.rule!r} this edit can change the explanation, the hard answer and the "
            "soft answer."
        )

    def to_dict(self) -> dict[str, str | bool]:
        """The attributes as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Edit:
    """One edit as data; `edit.apply` makes it again.

    Attributes:
        kind: one of `KINDS`.
        nodes: ids of the nodes it was made on, in the order of the function's arguments.
        to: id of the group that a `move` ends in.
        name: the new name, of a `group`, `rename`, `merge` or `split`.
        wnid: WordNet id that goes with `name`.
        created: id of the group that a `group` or `split` made.
        removed: ids of the groups that are gone, collapsed ones included.
        summary: the edit in words, with the names at that time.
        before: hash of the hierarchy that it was made on.
        after: hash of the result.
    """

    kind: str
    nodes: tuple[str, ...]
    summary: str
    before: str
    after: str
    to: str | None = None
    name: str | None = None
    wnid: str | None = None
    created: str | None = None
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.summary

    def consequences(self, rule: str) -> Consequences:
        """What the edit can change under `rule`; a `rename` changes names under either.

        Raises:
            NBDTError: an unknown rule.
        """
        if rule not in _SOFT_ANSWER:
            raise NBDTError(f"Unknown rule {short(rule)}; choose 'representative' or 'marginal'.")
        decides = self.kind != "rename"
        return Consequences(rule, True, decides, decides and _SOFT_ANSWER[rule])

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON; what does not apply is left out."""
        kept = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        return {key: [*item] if isinstance(item, tuple) else item for key, item in kept.items()}

    def to_json(self) -> str:
        """`to_dict` on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: object) -> Edit:
        """The inverse of `to_dict`. Raises EditError for anything else."""
        if not isinstance(data, Mapping):
            raise EditError(f"Expected the record of an edit, a JSON object, got {short(data)}.")
        unknown = sorted(map(short, data.keys() - cls.__dataclass_fields__.keys()))
        if unknown:
            raise EditError(f"The record of an edit has unknown fields: {', '.join(unknown)}.")
        if data.get("kind") not in KINDS:
            raise EditError(f"Unknown edit {short(data.get('kind'))}; choose one of {KINDS}.")
        try:
            return cls(
                kind=data["kind"],
                nodes=_words(data.get("nodes"), "nodes"),
                summary=_summary(data.get("summary")),
                before=_hash(data.get("before"), "before"),
                after=_hash(data.get("after"), "after"),
                removed=_words(data.get("removed", []), "removed"),
                **{key: _optional_word(data, key) for key in ("to", "name", "wnid", "created")},
            )
        except HierarchyError as error:
            raise EditError(f"The record of an edit is damaged: {error}") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Edit:
        """The inverse of `to_json`. Raises EditError for anything else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EditError(
                f"Expected the record of an edit, but it is no JSON ({short(str(error))})."
            ) from None
        return cls.from_dict(data)


def check_text(text: str, what: str) -> None:
    """Check every word of a longer text as a name is checked. Raises HierarchyError."""
    for word in re.split("[ \t\n]+", text):
        if word:
            check_word(word, what)


_SOFT_ANSWER = {"marginal": False, "representative": True}  # `marginal`: always log_softmax


def _words(value: object, field: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_NODES:
        raise EditError(f"Expected {field!r} to be a list of node ids, got {short(value)}.")
    for word in value:
        check_word(word, f"A node id in {field!r}")
    return tuple(value)


def _optional_word(data: Mapping[Any, Any], field: str) -> str | None:
    value = data.get(field)
    if value is not None:
        check_word(value, f"The value of {field!r}")
    return value


def _hash(value: object, field: str) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise EditError(f"Expected {field!r} to be the hash of a hierarchy, got {short(value)}.")
    return value


def _summary(value: object) -> str:
    """Text that people will read: `check_text` refuses what hides or reorders it."""
    if not isinstance(value, str) or len(value) > MAX_SUMMARY:
        raise EditError(f"Expected 'summary' to be text for people, got {short(value)}.")
    check_text(value, "The summary")
    return value
