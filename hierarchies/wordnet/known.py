"""Senses for the class names that WordNet knows; the others are reported instead of refused.

Names of folders are read more freely than by `senses`. The number of "001.Laysan_Albatross" and the
year of "Acura TL Sedan 2012" do not count, nor does the view of "crocodile head". Of a name that
WordNet lacks, the longest ending that it has counts ("albatross", "sedan"). In a list of one field,
such as pets, it only counts if other classes are in the same everyday group ("Maine Coon" is no
raccoon), and a sense outside the field is none ("Persian" as a person, "Ragdoll" as a toy).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbdt.errors import listed

from .candidates import Candidate, Match, candidates, known_ending, words_of
from .database import WordNet, lemma_key, wordnet
from .everyday import everyday_groups, group_of
from .senses import Entry, SenseChoice, check_names, chosen, overridden

_NUMBER = re.compile(r"^[0-9]+[ ._-]+|[ ._-]+(?:19|20)[0-9]{2}$")
VIEWS = frozenset(("back", "body", "easy", "face", "front", "head", "rear", "side", "view"))
SHORTEST_ENDING = 3
ONE_FIELD = 0.9  # share of the classes under one group of the first level
SHOWN = 20  # names in a message


@dataclass(frozen=True)
class KnownSenses:
    """The senses of the class names that WordNet knows. Printable."""

    names: tuple[str, ...]  # (classes,) as given
    # (classes,) id of the chosen sense; None where the name is unknown
    wnids: tuple[str | None, ...]
    # (classes,) name of the everyday group, None if none covers the sense
    groups: tuple[str | None, ...]
    choices: tuple[SenseChoice, ...]  # the chosen senses of the known names, in class order

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names without a sense."""
        return tuple(name for name, wnid in zip(self.names, self.wnids, strict=True) if not wnid)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "choices": [choice.to_dict() for choice in self.choices],
            "unknown": list(self.unknown),
        }

    def __str__(self) -> str:
        groupless = [
            name
            for name, wnid, group in zip(self.names, self.wnids, self.groups, strict=True)
            if wnid and not group
        ]
        lines = [f"WordNet knows {len(self.choices):,} of {len(self.names):,} names."]
        lines += to_check([choice for choice in self.choices if choice.ambiguous])
        endings = [f"{c.given} as {c.chosen.name}" for c in self.choices if c.match == "head"]
        if endings:
            lines.append(f"Read by their last words: {listed(endings, SHOWN)}.")
        if self.unknown:
            lines.append(f"Without a sense: {listed(self.unknown, SHOWN)}.")
        if groupless:
            lines.append(f"Without an everyday group: {listed(groupless, SHOWN)}.")
        return "\n".join(lines)


def to_check(doubtful: Sequence[SenseChoice]) -> list[str]:
    """Return lines that list choices for a person to check; none without any."""
    lines = [f"  {str(choice).removeprefix('? ').strip()}" for choice in doubtful]
    head = f"{len(lines)} to check (correct one with --sense NAME=MEANING):"
    return [head, *lines] if lines else []


def known_senses(
    names: Sequence[str], overrides: Mapping[str | int, str] | None = None
) -> KnownSenses:
    """Choose senses as `senses` does, but leave out the names that WordNet does not know.

    Args:
        names: class names in any spelling: "car_side", "SKU-1234", "sweet peppers". Of two that
            spell the same word, the second is unknown.
        overrides: as for `senses`.

    Raises:
        NBDTError: no names, or names that are not text.
        OverrideError: an override for no class, or to something unknown.
    """
    words = [n for n in names if not isinstance(n, str) or n.strip(" _")]
    if words or not names:  # "_" is unknown, not an error
        check_names(names if isinstance(names, str) else words)
    net = wordnet()
    rows = overridden(names, overrides or {}, net)
    seen = {lemma_key(names[place]) for place in rows}
    for place, name in enumerate(names):
        key = lemma_key(name)
        if key not in seen and place not in rows and (row := _reading(name, net)):
            rows[place] = row
            seen.add(key)
    entries = [Entry(lemma_key(names[at]), names[at], (at,), row) for at, row in rows.items()]
    choices = chosen(entries, net)
    groups = {place: group_of(net.index(choice.wnid), net) for place, choice in choices.items()}
    kept = _plausible(choices, groups)
    table, places = everyday_groups(), range(len(names))
    named = {place: table[group].name for place in kept if (group := groups[place]) is not None}
    return KnownSenses(
        tuple(names),
        tuple(kept[place].wnid if place in kept else None for place in places),
        tuple(named.get(place) for place in places),
        tuple(kept[place] for place in places if place in kept),
    )


def _reading(name: str, net: WordNet) -> tuple[Candidate, ...]:
    """Return the senses of the name, or of the part of it that WordNet knows; none without one."""
    text = _NUMBER.sub("", _NUMBER.sub("", name.strip(" _")))
    if sum(map(str.isalpha, text)) < 2:  # "7", "_"
        return ()
    words = words_of(text)
    if len(words) > 1 and words[-1] in VIEWS and not net.senses(text):
        words = words[:-1]
        text = "_".join(words)
    if row := candidates(text, net):
        return row if text == name else _found_as("form", row)
    if net.senses(f"{text}s"):
        return _found_as("form", candidates(f"{text}s", net))
    modifiers, row = known_ending(words, net)
    long_enough = len("_".join(words[len(modifiers) :])) >= SHORTEST_ENDING
    return _found_as("head", row) if long_enough else ()


def _found_as(match: Match, row: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple(replace(candidate, match=match) for candidate in row)


def _plausible(
    choices: Mapping[int, SenseChoice], groups: Mapping[int, int | None]
) -> dict[int, SenseChoice]:
    """Return the choices that fit the field of the list, if it has one; see the module."""
    table = everyday_groups()

    def first_level(group: int | None) -> int | None:
        while group is not None and table[group].parent >= 0:
            group = table[group].parent
        return group

    company = Counter(groups.values())
    fields = Counter(first_level(group) for group in groups.values() if group is not None)
    field, count = fields.most_common(1)[0] if fields else (None, 0)
    if count < ONE_FIELD * sum(fields.values()):
        field = None

    def fits(place: int, choice: SenseChoice) -> bool:
        group = groups[place]
        if field is None or choice.match == "override":
            return True
        return first_level(group) == field and (choice.match != "head" or company[group] > 1)

    return {place: choice for place, choice in choices.items() if fits(place, choice)}
