"""An explanation in words: one short paragraph that renders measured facts, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from nbdt.decide.paths import Decision, percent

from .explanation import Explanation
from .facts import EVERYWHERE, SMALL, UNCERTAIN, facts

ALIKE = 0.05  # difference of similarities up to which they are almost the same

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLAIN = re.compile(r"[^\W\d_]+(?:(?:,? |['’-]+)[^\W\d_]+)*(?: \([^\W\d_]+(?:[ '’-][^\W\d_]+)*\))?")
_LONG = 40  # characters above which a name is quoted
_MASS = re.compile(  # nouns without an article, at the end of a name
    r"\b(clothing|\w+wear|furniture|jewellery|food|bread|produce|equipment|people|cattle|water|"
    r"machinery|nature|landscape|music|mashed potato|armour|bedding|percussion|hay|corn|wool|velvet|thatch|broccoli|"
    r"guacamole|carbonara|dough|sauce|tissue|mail|sunscreen|lotion|perfume|powder|eggnog|wine)$"
)
_SINGULAR = {"ss", "us", "is", "as", "os"}
_SPOKEN = {**dict.fromkeys(("hour", "honest", "heir", "honour", "honor"), True),
           **dict.fromkeys(("uni", "use", "eu", "one", "ewe", "ura", "uto", "ute", "uke"), False)}  # fmt: skip


def words(explanation: Explanation) -> str:
    """Return at most five sentences for a person who knows nothing of networks; see `facts`."""
    return " ".join(_SENTENCES[fact.kind](**fact.values) for fact in facts(explanation))


def count(number: int) -> str:
    """Return ``"three"``; numbers above ten are digits."""
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def say(name: str) -> str:
    """Return a name that reads like words ("pickup_truck" does) as words, any other in quotes."""
    text = name.replace("_", " ")
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
    if decision.is_likeliest:
        return ""
    second = math.exp(decision.log_probs[decision.runner_up])
    rival = decision.children[decision.runner_up]
    return _was_likelier(rival, (decision.probability, second), " here")


def _sounds_like_vowel(name: str) -> bool:
    first = name.split(maxsplit=1)[0]
    if first.isupper() and len(first) > 1:  # read letter by letter
        return first[0] in "AEFHILMNORSX"
    for start, vowel in _SPOKEN.items():
        if first.lower().startswith(start):
            return vowel
    return first[0].lower() in "aeioué"


# ---- sentences ---------------------------------------------------------------------------------


def _sure(
    *,
    name: str,
    probability: float,
    where: str | None,
    is_answer: bool,
    answer: str,
    answer_probability: float,
) -> str:
    only = "only " if probability < UNCERTAIN else ""
    text = f"It is {only}{percent(probability)} sure this is {with_article(name)}"
    if where == EVERYWHERE:
        text += f", because of parts {where}"
    elif where:
        text += f", mostly because of the region {where}"
    doubtful = answer_probability < UNCERTAIN
    if not is_answer:
        link = f"{'and' if only else 'but'} only" if doubtful else "and"
        text += f", {link} {percent(answer_probability)} sure that it is {with_article(answer)}"
    return text + (", so its answer is uncertain." if doubtful else ".")


def _unknown(*, alarms: float) -> str:
    return (
        "This picture is unlike those that the model knows, so it may be nothing that it knows: only "
        f"{percent(alarms)} of known things look this strange to it."
    )


def _stops(*, name: str | None, accuracy: float) -> str:
    where = f"no further than {with_article(name)}" if name else "to nothing"
    return f"To be right in {percent(accuracy)} of all cases, its answer commits {where}."


def _asked(*, answer: str, probability: float, other: str, other_probability: float) -> str:
    return (
        f"This is the path to {with_article(answer)}, to which it gives {percent(probability)}; the "
        f"most probable class is {say(other)}, with {percent(other_probability)}."
    )


def _likelier(
    *, names: tuple[str, str], shares: tuple[float, float], hard: tuple[str, float] | None
) -> str:
    text = f"At the step to {say(names[0])}, {_was_likelier(names[1], shares)}."
    if hard:
        text += f" That way it would have ended at {say(hard[0])}, with {percent(hard[1])}."
    return text


def _was_likelier(name: str, shares: tuple[float, float], here: str = "") -> str:
    first, second = map(percent, shares)
    return f"{say(name)} was likelier{here}, {second} against {first}"


def _close(*, pairs: Sequence[tuple[str, str, float, float]], clear: int) -> str:
    rest = f"; the other {'decision was' if clear == 1 else f'{count(clear)} were'} clear"
    end = f"{rest if clear else ''}."
    if len(pairs) == 1:
        one, other, *odds = pairs[0]
        return f"Between {say(one)} and {say(other)} it was close: {_odds(*odds)}{end}"
    closest = " and ".join(
        f"{say(one)} against {say(other)} ({_odds(*odds)})" for one, other, *odds in pairs[:2]
    )
    most = ": " if len(pairs) == 2 else ", most of all "
    return f"{count(len(pairs)).capitalize()} decisions were close{most}{closest}{end}"


def _none_close(*, decisions: int) -> str:
    return f"None of its {count(decisions)} decisions was close."


def _against(*, name: str, share: float, others: int) -> str:
    more = f" (so does most of the maps of {count(others)} more)" if others else ""
    return f"At the step to {say(name)}, {percent(share)} of its map argues against it{more}."


def _flip(*, regions: int, share: float, before: str, after: str) -> str:
    size, plural = "small " if share <= SMALL else "", "s" if regions > 1 else ""
    return (
        f"Blurring {count(regions)} {size}region{plural} ({percent(share)} of the picture) turns "
        f"{say(before)} into {say(after)}."
    )


def _no_flip(*, share: float, tried: int) -> str:
    which = "it" if tried == 1 else "each"
    none = "no decision" if tried == 1 else f"none of {count(tried)} decisions"
    return (
        f"Blurring up to {percent(share)} of the picture, starting with what supports {which} most, "
        f"changed {none}."
    )


def _training(*, names: tuple[str, str], similarities: tuple[float, float]) -> str:
    (one, rival), (chosen, rejected) = map(with_article, names), similarities
    if f"{chosen:.2f}" == f"{rejected:.2f}":
        return (
            f"The nearest training photograph of {one} is just as similar as that of {rival}: "
            f"{chosen:.2f}."
        )
    if chosen - rejected > ALIKE:
        relation, first, second, numbers = "more similar than", one, rival, (chosen, rejected)
    else:
        relation = "even more similar than" if rejected > chosen else "almost as similar as"
        first, second, numbers = rival, one, (rejected, chosen)
    return (
        f"The nearest training photograph of {first} is {relation} that of {second}: "
        f"{numbers[0]:.2f} against {numbers[1]:.2f}."
    )


def _odds(one: float, other: float) -> str:
    return " to ".join(percent(p).removesuffix(" %") for p in (one, other))


_SENTENCES: Mapping[str, Callable[..., str]] = {
    "unknown": _unknown,
    "sure": _sure,
    "asked": _asked,
    "stops": _stops,
    "likelier": _likelier,
    "close": _close,
    "none close": _none_close,
    "against": _against,
    "flip": _flip,
    "no flip": _no_flip,
    "training": _training,
}
