"""The base error, and wording that messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NBDTError(ValueError):
    """An error the caller can fix: the message says what came, what was expected, what to do."""


def nearest(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``" Did you mean 'cat' or 'car'?"`` for a misspelt `word`, or "" if none is near."""
    matches = difflib.get_close_matches(word, list(known), n=limit, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Return ``"'a', 'b' and 3 more"``: the first items quoted, the rest counted."""
    quoted = [repr(item) for item in items]
    rest = f" and {len(quoted) - limit} more" if len(quoted) > limit else ""
    return ", ".join(quoted[:limit]) + rest
