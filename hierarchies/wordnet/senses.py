"""WordNet senses for class names, chosen jointly, with a report.

The senses that fit together win: a crane beside a heron is a bird, beside a bulldozer a machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nbdt.errors import NBDTError, listed, nearest

from .candidates import Candidate, Match, candidates
from .database import FloatArray, WordNet, lemma_key, wordnet
from .disambiguation import choose

AMBIGUOUS_MARGIN = 0.5
DISTINCTIVE = 0.35  # information content of "bird"; less is too vague to tell senses apart


class UnknownNamesError(NBDTError):
    """Names that WordNet's nouns do not have."""


class RepeatedNameError(NBDTError):
    """A name that is given more often than it has senses."""


class OverrideError(NBDTError):
    """An override that names no class, or means nothing."""


@dataclass(frozen=True)
class SenseCandidate:
    """A sense that was considered."""

    wnid: str  # its id
    name: str  # its first word ("crane")
    kind: str  # its direct hypernym ("wading bird"); "" for the root
    share: float  # the model's probability, in [0, 1]; a name's shares sum to 1. Not calibrated.

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}) {self.wnid} {self.share:.2f}"


@dataclass(frozen=True)
class SenseChoice:
    """The sense chosen for one class name."""

    given: str  # the name as it was given
    label: str  # the class name: as given, or qualified ("crane (bird)") where repeated
    chosen: SenseCandidate  # the sense
    rejected: tuple[SenseCandidate, ...]  # the other candidates, best first
    # how the name was found: as a "word", another "form" of one (plural, spelling), a "compound"
    # under its head ("maple tree"), by its "head" alone ("aquarium fish" as a fish), or by an
    # "override"
    match: Match
    # share of the chosen sense minus that of the best rejected one; 1 without any. For classes that
    # share a name, senses chosen for the others do not count.
    margin: float

    @property
    def wnid(self) -> str:
        """The chosen sense's id."""
        return self.chosen.wnid

    @property
    def ambiguous(self) -> bool:
        """Whether a person should check the choice: its margin is below 0.5.

        This marks 133 of the 1,000 ImageNet labels, and 34 of the 41 mistakes among them.
        """
        return self.margin < AMBIGUOUS_MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return asdict(self) | {"ambiguous": self.ambiguous}

    def __str__(self) -> str:
        text = f"{'? ' if self.ambiguous else '  '}{self.label}: {self.chosen}"
        if self.match not in ("word", "form"):
            text += f" [by {self.match}]"
        others = "; ".join(map(str, self.rejected[:3]))
        return f"{text}   not {others}" if others else text


@dataclass(frozen=True)
class SenseReport:
    """The choices for a list of class names, in class order. Printable."""

    choices: tuple[SenseChoice, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, all different."""
        return tuple(choice.label for choice in self.choices)

    @property
    def wnids(self) -> tuple[str, ...]:
        """Ids of the chosen senses, in class order."""
        return tuple(choice.wnid for choice in self.choices)

    @property
    def ambiguous(self) -> tuple[SenseChoice, ...]:
        """The choices that a person should check, least sure first."""
        doubtful = (choice for choice in self.choices if choice.ambiguous)
        return tuple(sorted(doubtful, key=lambda choice: choice.margin))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"choices": [choice.to_dict() for choice in self.choices]}

    def __str__(self) -> str:
        head = f"{len(self.choices)} classes, {len(self.ambiguous)} to check (marked ?)"
        return "\n".join([head, *map(str, self.choices)])


@dataclass(frozen=True)
class Entry:
    """Classes that share a spelling, and the senses that they may have."""

    key: str
    given: str
    places: tuple[int, ...]
    candidates: tuple[Candidate, ...]


def senses(names: Sequence[str], overrides: Mapping[str | int, str] | None = None) -> SenseReport:
    """Choose the sense of each class name, given all the others.

    The order of the names does not matter, except that a name given several times gets its
    senses in ascending order of their ids.

    Args:
        names: class names, such as "crane", "maple_tree", "sweet peppers", "crane (bird)".
        overrides: for a class, by its name or its index, a wnid or another name to read instead.

    Raises:
        UnknownNamesError: names that WordNet lacks; the message lists them all.
        RepeatedNameError: a name given more often than it has senses.
        OverrideError: an override for no class, or to something unknown.
    """
    check_names(names)
    net = wordnet()
    return SenseReport(tuple(chosen(_entries(names, overrides or {}, net), net).values()))


def chosen(entries: Sequence[Entry], net: WordNet) -> dict[int, SenseChoice]:
    """Choose the senses of all classes jointly; return them in class order, by place."""
    if not entries:
        return {}
    # Sorted, so that the order given does not matter.
    entries = sorted(entries, key=lambda entry: (entry.key, entry.given, entry.places))
    shares = choose([entry.given for entry in entries], [e.candidates for e in entries], net)
    choices: dict[int, SenseChoice] = {}
    for entry, share in zip(entries, shares, strict=True):
        choices |= zip(entry.places, _choices(entry, share, net), strict=True)
    rows = dict(sorted(choices.items()))
    labels = distinct_names(
        [row.given for row in rows.values()], [row.wnid for row in rows.values()], net
    )
    return {
        place: replace(row, label=label)
        for (place, row), label in zip(rows.items(), labels, strict=True)
    }


def check_names(names: Sequence[str]) -> None:
    """Check that these are words. Raises NBDTError."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise NBDTError(f"Expected a list of class names, got {type(names).__name__}: {names!r}.")
    wrong = [name for name in names if not isinstance(name, str) or not name.strip(" _")]
    if wrong:
        raise NBDTError(f"Expected class names to be words, got {listed(wrong)}.")
    if not names:
        raise NBDTError("Expected one or more class names, got none.")


def _entries(names: Sequence[str], overrides: Mapping[str | int, str], net: WordNet) -> list[Entry]:
    """Return the distinct names."""
    replaced = overridden(names, overrides, net)
    free = [place for place in range(len(names)) if place not in replaced]
    by_name = {
        name: candidates(name, net) for name in dict.fromkeys(names[place] for place in free)
    }
    unknown = [name for name, row in by_name.items() if not row]
    if unknown:
        raise UnknownNamesError(
            f"WordNet has no noun for {len(unknown)} of the names: {listed(unknown, len(unknown))}."
            f"{nearest(unknown[0], net.lexicon.lemma_number)} Rename them, or give their meaning: "
            "overrides={name: wnid or another name}."
        )
    entries = [
        Entry(lemma_key(names[place]), names[place], (place,), row)
        for place, row in replaced.items()
    ]
    groups: dict[str, list[int]] = {}  # classes that spell the same lemma
    for place in free:
        groups.setdefault(lemma_key(names[place]), []).append(place)
    for key, places in groups.items():
        given = min(names[place] for place in places)
        senses_of_others = [entry.candidates for entry in entries if entry.key == key]
        taken = {row[0].synset for row in senses_of_others if len(row) == 1}  # by overrides
        left = tuple(option for option in by_name[given] if option.synset not in taken)
        if len(places) > len(left):
            raise RepeatedNameError(
                f"The name {given!r} stands for {len(places)} classes, but WordNet has only "
                f"{len(left)} senses for it that no override uses. Rename one, or override it by "
                "its index."
            )
        entries.append(Entry(key, given, tuple(places), left))
    return entries


def overridden(
    names: Sequence[str], overrides: Mapping[str | int, str], net: WordNet
) -> dict[int, tuple[Candidate, ...]]:
    """Return the candidates of each position that has an override."""
    places = {index: (index,) for index in range(len(names))}
    replaced: dict[int, tuple[Candidate, ...]] = {}
    for which, meaning in overrides.items():
        by_name = tuple(index for index, name in enumerate(names) if name == which)
        named = places.get(which, ()) if isinstance(which, int) else by_name
        if len(named) != 1:
            raise OverrideError(
                f"The override {which!r} names {len(named)} of the {len(names)} classes; give "
                "the name of one class, or its index, from 0."
            )
        replaced[named[0]] = _meaning(meaning, net)
    return replaced


def _meaning(meaning: str, net: WordNet) -> tuple[Candidate, ...]:
    """Return the only candidate of a wnid, or the candidates of another name."""
    synset = net.find(meaning)
    if synset is not None:
        return (Candidate(synset, net.lexicon.words(synset)[0].lower(), 0, 1.0, "override"),)
    row = candidates(meaning, net)
    if not row:
        raise OverrideError(
            f"Expected an override to be the id of a WordNet 3.0 noun such as 'n02084071', or a "
            f"noun that WordNet has, got {meaning!r}."
        )
    return tuple(replace(candidate, match="override") for candidate in row)


def _choices(entry: Entry, share: FloatArray, net: WordNet) -> list[SenseChoice]:
    """Return one sense for each class, in ascending order of id."""
    synset = np.array([candidate.synset for candidate in entry.candidates])
    order = np.lexsort((synset, -share)).tolist()
    times = len(entry.places)
    considered = []
    for place in order:
        parents = net.parents[synset[place]].tolist()
        kind, index = net.name(parents[0]) if parents else "", int(synset[place])
        found = SenseCandidate(net.wnid(index), net.name(index), kind, float(share[place]))
        considered.append(found)
    rejected = tuple(considered[times:])
    # The lead over the best rejected sense does not count those of classes of the same name.
    rest = sum(candidate.share for candidate in rejected)
    choices = [
        SenseChoice(
            entry.given,
            entry.given,
            found,
            rejected,
            entry.candidates[order[rank]].match,
            (found.share - rejected[0].share) / (found.share + rest) if rejected else 1.0,
        )
        for rank, found in enumerate(considered[:times])
    ]
    return sorted(choices, key=lambda choice: choice.wnid)


def distinct_names(names: Sequence[str], wnids: Sequence[str | None], net: WordNet) -> list[str]:
    """Make names differ by more than case: "crane (bird)", or numbered if ids are missing."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.casefold(), []).append(place)
    unique, known = list(names), set(names)
    for same in (row for row in places.values() if len(row) > 1):
        ids = [wnid for place in same if (wnid := wnids[place])]
        labels = [f"{names[place]} ({number})" for number, place in enumerate(same, start=1)]
        if len(set(ids)) == len(same):
            others = known.difference(names[place] for place in same)
            labels = _qualified(names[same[0]], ids, others, net)
        for place, label in zip(same, labels, strict=True):
            unique[place] = names[place] + label[len(names[place]) :]  # keeps the name's case
    return unique


def _qualified(name: str, wnids: Sequence[str], others: set[str], net: WordNet) -> list[str]:
    """Return the name with what sets each sense apart: "crane (bird)"; with ids if nothing does."""
    synsets = [net.index(wnid) for wnid in wnids]
    kinds = [_distinction(synset, synsets, net) for synset in synsets]
    labels = [f"{name} ({kind})" for kind in kinds]
    if len(set(labels)) == len(labels) and others.isdisjoint(labels) and all(kinds):
        return labels
    return [f"{name} ({wnid})" for wnid in wnids]


def _distinction(synset: int, group: Sequence[int], net: WordNet) -> str:
    """Return the broadest specific ancestor that the other senses lack: "bird" for a crane."""
    shared = {a for other in group if other != synset for a in (other, *net.ancestors(other))}
    distinct = [ancestor for ancestor in net.ancestors(synset) if ancestor not in shared]
    content = net.information_content
    distinct.sort(
        key=lambda ancestor: (content[ancestor] < DISTINCTIVE, content[ancestor], ancestor)
    )
    return net.name(distinct[0]) if distinct else ""
