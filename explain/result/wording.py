"""Numbers and names as people write them."""

from __future__ import annotations

import re

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLAIN = re.compile(r"[^\W\d_]+(?:[ '’-][^\W\d_]+)*(?: \([^\W\d_]+(?:[ '’-][^\W\d_]+)*\))?")
_LONG = 40  # characters above which a name is quoted


def count(number: int) -> str:
    """``"three"``; in digits above ten."""
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def say(name: str) -> str:
    """A name that reads like words ("pickup_truck" does) as such, any other in quotes."""
    words = name.replace("_", " ")
    return words if len(name) <= _LONG and _PLAIN.fullmatch(words) else f"“{name}”"


def with_article(name: str) -> str:
    """``"a cat"``, ``"an hourglass"``; no article before what is quoted or looks like a plural."""
    shown = say(name)
    noun = re.sub(r" \(.*", "", name).lower()
    if (
        shown.startswith("“")
        or noun in _MASS
        or (noun.endswith("s") and noun[-2:] not in _SINGULAR)
    ):
        return shown
    return f"{'an' if _sounds_like_vowel(shown) else 'a'} {shown}"


_MASS = {"clothing", "furniture", "food", "equipment", "people", "cattle", "water", "machinery"}
_SINGULAR = {"ss", "us", "is", "as", "os"}
_SPOKEN = {**dict.fromkeys(("hour", "honest", "heir", "honour", "honor"), True),
           **dict.fromkeys(("uni", "use", "eu", "one", "ewe", "ura", "uto", "ute", "uke"), False)}  # fmt: skip


def _sounds_like_vowel(name: str) -> bool:
    first = name.split(maxsplit=1)[0]
    if first.isupper() and len(first) > 1:  # read letter by letter
        return first[0] in "AEFHILMNORSX"
    for start, vowel in _SPOKEN.items():
        if first.lower().startswith(start):
            return vowel
    return first[0].lower() in "aeioué"
