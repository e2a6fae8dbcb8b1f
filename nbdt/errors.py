"""The base error, and wording that messages share."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable

LONGEST, MOST = 64, 2000  # characters and words that `nearest` compares


class NBDTError(ValueError):
    """An error the caller can fix: the message says what came, what was expected, what to do."""


def nearest(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``" Did you mean 'cat' or 'car'?"`` for a misspelt `word`, or "" if none is near.

    Only words of at most 64 characters are compared, and at most 2,000 of them: of more, those with the
    same first letter.
    """
    word = unicodedata.normalize("NFC", word)
    near = [name for name in known if len(name) <= LONGEST]
    if len(near) > MOST:
        near = [name for name in near if name[:1].casefold() == word[:1].casefold()][:MOST]
    matches = difflib.get_close_matches(word, near, limit, 0.6) if len(word) <= LONGEST else []
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def check_known(what: str, word: str, known: Collection[str]) -> None:
    """Raise NBDTError, with the choices, unless `word` is among them."""
    if word not in known:
        raise NBDTError(
            f"Unknown {what} {word!r}; there are {', '.join(known)}.{nearest(word, known)}"
        )


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Return ``"'a', 'b' and 3 more"``: the first items quoted, the rest counted."""
    quoted = [repr(item) for item in items]
    rest = f" and {len(quoted) - limit} more" if len(quoted) > limit else ""
    return ", ".join(quoted[:limit]) + rest
