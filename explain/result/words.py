"""Names and numbers in sentences."""

import math
import re

from nbdt.decide.paths import Decision, Path, percent

from .regions import TestedRegion

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLAIN = re.compile(r"[^\W\d_]+(?:(?:,? |['’-]+)[^\W\d_]+)*(?: \([^\W\d_]+(?:[ '’-][^\W\d_]+)*\))?")
_NEAR = 0.05  # difference of probabilities up to which they have a decimal
_LONG = 40  # characters above which a name is quoted
_MASS = re.compile(  # nouns without an article, at the end of a name
    r"\b(clothing|\w+wear|furniture|jewellery|food|bread|produce|equipment|people|cattle|water|"
    r"machinery|nature|landscape|music|mashed potato|armour|bedding|percussion|hay|corn|wool|velvet|thatch|broccoli|"
    r"guacamole|carbonara|dough|sauce|tissue|mail|sunscreen|lotion|perfume|powder|eggnog|wine)$"
)
_SINGULAR = {"ss", "us", "is", "as", "os"}
_SPOKEN = {**dict.fromkeys(("hour", "honest", "heir", "honour", "honor"), True),
           **dict.fromkeys(("uni", "use", "eu", "one", "ewe", "ura", "uto", "ute", "uke"), False)}  # fmt: skip


def count(number: int) -> str:
    """Return ``"three"``; numbers above ten are digits."""
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def readable(name: str) -> str:
    """Return a name with spaces for underscores."""
    return name.replace("_", " ")


def say(name: str) -> str:
    """Return a name that reads like words ("pickup_truck" does) as words, any other in quotes."""
    text = readable(name)
    return text if len(name) <= _LONG and _PLAIN.fullmatch(text) else f"“{name}”"


def with_article(name: str) -> str:
    """Return ``"a cat"``, ``"an hourglass"``, ``"clothing"`` or ``"one of the cat family"``."""
    return f"{article(name)} {say(name)}".strip()


def article(name: str) -> str:
    """Return what goes before a name in a sentence; quoted names, plurals and masses get nothing."""
    nouns = re.split(", | or | and ", re.sub(r" (\(|of |with ).*", "", name).lower())
    plural = any(noun.endswith("s") and noun[-2:] not in _SINGULAR for noun in nouns)
    if say(name).startswith("“") or plural or any(map(_MASS.search, nouns)):
        return ""
    if nouns[-1].endswith(" family"):
        return "one of the"
    return "an" if _sounds_like_vowel(say(name)) else "a"


def remark(decision: Decision) -> str:
    """Return ``"tool was likelier here, 52 % against 41 %"``, or nothing if no sibling was likelier."""
    return "" if decision.is_likeliest else likelier(decision, " here")


def likelier(decision: Decision, here: str = "") -> str:
    """Return how much likelier the best child was that was not chosen, in words."""
    second = percent(math.exp(decision.log_probs[decision.runner_up]))
    name = say(decision.children[decision.runner_up])
    return f"{name} was likelier{here}, {second} against {percent(decision.probability)}"


def effect(path: Path, index: int, found: TestedRegion, hidden: str) -> str:
    """Return what blurring a region did to a decision of a path.

    ``"With this hidden, viper falls from 94 to 18 %; no other step moves as much."`` Probabilities
    are those among the siblings; where both round to the same, log-odds are given.

    `hidden`: what the sentence calls the region, such as "this".
    """
    decision = path.decisions[index]
    alone = "; no other step moves as much" if len(path) > 1 else ""
    return f"With {hidden} hidden, {_fall(say(decision.children[decision.chosen]), found)}{alone}."


def _fall(name: str, found: TestedRegion) -> str:
    before, after, _ = found.probabilities
    for digits in (0, 1) if before - after > _NEAR else (1,):
        first, second = (percent(share, digits) for share in (before, after))
        if first != second:
            return f"{name} falls from {first.removesuffix(' %')} to {second}"
    whole, blurred, _ = found.log_odds
    return f"the log-odds of {name} fall from {whole:.2f} to {blurred:.2f}"


def _sounds_like_vowel(name: str) -> bool:
    first = name.split(maxsplit=1)[0]
    if first.isupper() and len(first) > 1:  # read letter by letter
        return first[0] in "AEFHILMNORSX"
    for start, vowel in _SPOKEN.items():
        if first.lower().startswith(start):
            return vowel
    return first[0].lower() in "aeioué"
