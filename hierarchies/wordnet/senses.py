"""Class names to WordNet senses, jointly: `senses` reports, `from_wordnet` builds the tree.

The senses that fit together win: a crane beside a heron is a bird, beside a bulldozer a machine.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from nbdt.errors import NBDTError, listed
from nbdt.tree.hierarchy import Hierarchy

from .candidates import Candidate, candidates, head_noun
from .database import FloatArray, UnknownSynsetError, WordNet, wordnet
from .disambiguation import choose
from .lexicon import lemma_key
from .sense_report import SenseCandidate, SenseChoice, SenseReport
from .tree import from_wnids

SUGGESTED_NAMES = 20
DISTINCTIVE = 0.35  # information content of "bird"; less is too vague to tell senses apart


class UnknownNamesError(NBDTError):
    """Names that WordNet's nouns do not have.

    Attributes:
        names: all of them, in the order given.
        suggestions: for the first of them, similar nouns and the noun they end in.
    """

    def __init__(self, names: Sequence[str], suggestions: Mapping[str, tuple[str, ...]]) -> None:
        self.names = tuple(names)
        self.suggestions = dict(suggestions)
        super().__init__(
            f"WordNet has no noun for {len(self.names)} of the names: "
            + ", ".join(_with_suggestions(name, suggestions.get(name, ())) for name in names)
            + ". Rename them, or say what they mean: overrides={name: wnid or another name}."
        )


class RepeatedNameError(NBDTError):
    """A name is given more often than it has senses, so its classes cannot be told apart."""


class OverrideError(NBDTError):
    """An override that names no class, or means nothing."""


@dataclass(frozen=True)
class _Entry:
    """Classes that share a spelling and are not told apart by overrides."""

    key: str
    given: str
    places: tuple[int, ...]
    candidates: tuple[Candidate, ...]


def from_wordnet(
    names: Sequence[str], overrides: Mapping[str | int, str] | None = None
) -> Hierarchy:
    """The WordNet tree over classes, from their names alone.

    Class names stay as they are; those given several times are qualified ("crane (bird)").
    `senses` takes the same arguments, raises the same errors and says what was chosen.
    """
    report = senses(names, overrides)
    return from_wnids(report.wnids, report.labels)


def senses(names: Sequence[str], overrides: Mapping[str | int, str] | None = None) -> SenseReport:
    """What each class name means, given all the others.

    The order of the names does not matter, except that a name given several times gets its
    senses in ascending order of their ids.

    Args:
        names: class names, such as "crane", "maple_tree", "sweet peppers", "crane (bird)".
        overrides: for a class, by its name or its index, a wnid or another name to read instead.

    Raises:
        UnknownNamesError: names that WordNet lacks; all of them are listed, none is guessed.
        RepeatedNameError: a name given more often than it has senses.
        OverrideError: an override for no class, or to something unknown.
    """
    _check_names(names)
    net = wordnet()
    entries = _entries(names, overrides or {}, net)
    shares = choose([entry.given for entry in entries], [e.candidates for e in entries], net)
    choices: dict[int, SenseChoice] = {}
    for entry, share in zip(entries, shares, strict=True):
        choices |= zip(entry.places, _choices(entry, share, net), strict=True)
    return SenseReport(_labelled([choices[place] for place in range(len(names))], net))


def _check_names(names: Sequence[str]) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise NBDTError(f"Expected a list of class names, got {type(names).__name__}: {names!r}.")
    wrong = [name for name in names if not isinstance(name, str) or not name.strip(" _")]
    if wrong:
        raise NBDTError(f"Expected class names to be words, got {listed(wrong)}.")
    if not names:
        raise NBDTError("Expected one or more class names, got none.")


def _entries(
    names: Sequence[str], overrides: Mapping[str | int, str], net: WordNet
) -> list[_Entry]:
    """The distinct names in an order of their own, so that the order given cannot matter."""
    replaced = _overridden(names, overrides, net)
    free = [place for place in range(len(names)) if place not in replaced]
    found = {name: candidates(name, net) for name in dict.fromkeys(names[place] for place in free)}
    unknown = [name for name, row in found.items() if not row]
    if unknown:
        raise UnknownNamesError(unknown, _suggestions(unknown, net))
    entries = [
        _Entry(lemma_key(names[place]), names[place], (place,), row)
        for place, row in replaced.items()
    ]
    for key, places in _groups(names, free).items():
        given = min(names[place] for place in places)
        row = _not_taken(found[given], [entry for entry in entries if entry.key == key])
        _check_repeats(given, len(places), len(row))
        entries.append(_Entry(key, given, places, row))
    return sorted(entries, key=lambda entry: (entry.key, entry.given, entry.places))


def _groups(names: Sequence[str], places: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Places by the lemma their names spell."""
    groups: dict[str, tuple[int, ...]] = {}
    for place in places:
        key = lemma_key(names[place])
        groups[key] = (*groups.get(key, ()), place)
    return groups


def _not_taken(row: Sequence[Candidate], others: Sequence[_Entry]) -> tuple[Candidate, ...]:
    """Without the senses that overrides gave to other classes of the same name."""
    taken = {entry.candidates[0].synset for entry in others if len(entry.candidates) == 1}
    return tuple(candidate for candidate in row if candidate.synset not in taken)


def _check_repeats(name: str, times: int, senses_left: int) -> None:
    if times > senses_left:
        raise RepeatedNameError(
            f"The name {name!r} is left for {times} classes, but WordNet has {senses_left} senses "
            "for it that no override has taken. Rename one, or override it by its index."
        )


def _overridden(
    names: Sequence[str], overrides: Mapping[str | int, str], net: WordNet
) -> dict[int, tuple[Candidate, ...]]:
    """Candidates of the places that overrides name."""
    places = {index: (index,) for index in range(len(names))}
    replaced: dict[int, tuple[Candidate, ...]] = {}
    for which, meaning in overrides.items():
        by_name = tuple(index for index, name in enumerate(names) if name == which)
        found = places.get(which, ()) if isinstance(which, int) else by_name
        if len(found) != 1:
            raise OverrideError(
                f"The override {which!r} names {len(found)} of the {len(names)} classes; give "
                "the name of one class, or its index, from 0."
            )
        replaced[found[0]] = _meaning(meaning, net)
    return replaced


def _meaning(meaning: str, net: WordNet) -> tuple[Candidate, ...]:
    """A wnid's only candidate, or those of another name."""
    try:
        synset = net.index(meaning)
    except UnknownSynsetError:
        row = candidates(meaning, net)
    else:
        row = (Candidate(synset, net.lexicon.words(synset)[0].lower(), 0, 1.0, "override"),)
    if not row:
        raise OverrideError(
            f"Expected an override to be the id of a WordNet 3.0 noun such as 'n02084071', or a "
            f"noun that WordNet has, got {meaning!r}."
        )
    return tuple(replace(candidate, match="override") for candidate in row)


def _choices(entry: _Entry, share: FloatArray, net: WordNet) -> list[SenseChoice]:
    """As many senses as there are classes, in ascending order of id."""
    synset = np.array([candidate.synset for candidate in entry.candidates])
    order = np.lexsort((synset, -share)).tolist()
    times = len(entry.places)
    considered = [_considered(entry.candidates[place], share[place], net) for place in order]
    rejected = tuple(considered[times:])
    choices = [
        SenseChoice(
            entry.given,
            entry.given,
            considered[rank],
            rejected,
            entry.candidates[order[rank]].match,
            _margin(considered[rank], rejected),
        )
        for rank in range(times)
    ]
    return sorted(choices, key=lambda choice: choice.wnid)


def _margin(chosen: SenseCandidate, rejected: Sequence[SenseCandidate]) -> float:
    """Lead over the best rejected sense, among the senses that no class of the same name has."""
    left = chosen.share + sum(candidate.share for candidate in rejected)
    return (chosen.share - rejected[0].share) / left if rejected else 1.0


def _considered(candidate: Candidate, share: float, net: WordNet) -> SenseCandidate:
    synset = candidate.synset
    parents = net.parents[synset].tolist()
    kind = net.name(parents[0]) if parents else ""
    return SenseCandidate(net.wnid(synset), net.name(synset), kind, float(share))


def _labelled(choices: Sequence[SenseChoice], net: WordNet) -> tuple[SenseChoice, ...]:
    """Names as given; those given several times are qualified so that all differ."""
    times = Counter(choice.given for choice in choices)
    labels = [choice.given for choice in choices]
    for name in sorted(name for name, count in times.items() if count > 1):
        places = [place for place, choice in enumerate(choices) if choice.given == name]
        others = {label for label in labels if label != name}
        qualified = _qualified(name, [choices[place].wnid for place in places], others, net)
        for place, label in zip(places, qualified, strict=True):
            labels[place] = label
    return tuple(
        replace(choice, label=label) for choice, label in zip(choices, labels, strict=True)
    )


def _qualified(name: str, wnids: Sequence[str], others: set[str], net: WordNet) -> list[str]:
    """The name with what each sense is and the other senses are not; with its id if need be."""
    synsets = [net.index(wnid) for wnid in wnids]
    kinds = [_distinction(synset, synsets, net) for synset in synsets]
    labels = [f"{name} ({kind})" for kind in kinds]
    if len(set(labels)) == len(labels) and others.isdisjoint(labels) and all(kinds):
        return labels
    return [f"{name} ({wnid})" for wnid in wnids]


def _distinction(synset: int, group: Sequence[int], net: WordNet) -> str:
    """Name of the broadest specific ancestor that the other senses lack: "bird" for a crane."""
    shared = {a for other in group if other != synset for a in (other, *net.ancestors(other))}
    own = [ancestor for ancestor in net.ancestors(synset) if ancestor not in shared]
    content = net.information_content
    own.sort(key=lambda ancestor: (content[ancestor] < DISTINCTIVE, content[ancestor], ancestor))
    return net.name(own[0]) if own else ""


def _suggestions(names: Sequence[str], net: WordNet) -> dict[str, tuple[str, ...]]:
    """Similar lemmas and known heads, for the first names: the search is slow for many."""
    found = {}
    for name in names[:SUGGESTED_NAMES]:
        head = head_noun(name, net)
        found[name] = (*_similar(lemma_key(name), net), *([head] if head else []))
    return found


def _similar(key: str, net: WordNet) -> tuple[str, ...]:
    near = (
        lemma
        for lemma in net.lexicon.lemma_number
        if lemma[:1] == key[:1] and abs(len(lemma) - len(key)) <= 2
    )
    return tuple(
        lemma.replace("_", " ") for lemma in get_close_matches(key, near, n=3, cutoff=0.75)
    )


def _with_suggestions(name: str, similar: Sequence[str]) -> str:
    return f"{name!r} (similar: {', '.join(similar)})" if similar else repr(name)
