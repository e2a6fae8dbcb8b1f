"""From a class name to the WordNet senses it could have: spelling, plurals, compounds, hints.

Three readings are tried in this order, until one gives a sense:

1. the name as a lemma: any case, spaces, underscores, hyphens or none, with or without "'s",
   CamelCase, and the singulars of regular and irregular plurals;
2. a compound by its last words: "maple tree" is every maple that is a kind of tree; "aquarium
   fish" is a fish, since no aquarium is one. Every other word must be a noun that WordNet knows;
3. two nouns written as one: "teddybear".

"crane (bird)" keeps the senses of crane nearest to a sense of bird; "crane, hoist" those that
most of the synonyms share.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .database import WordNet, lemma_key

Match = Literal["word", "form", "compound", "head", "override"]

# WordNet's own rules of detachment for nouns (morphy), ending to replacement.
_ENDINGS = (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
            ("men", "man"), ("ies", "y"))  # fmt: skip
_SEPARATORS = re.compile("[-_']")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SHORTEST_PART = 3
# WordNet's longest noun has 71 characters and 9 words; a longer name can only end in one.
_LONGEST_NAME, _MOST_WORDS = 80, 10


@dataclass(frozen=True)
class Candidate:
    """A sense that a name could have."""

    synset: int
    lemma: str  # the WordNet lemma that was found
    rank: int  # 0 for the lemma's most frequent sense
    tag_share: float  # of the lemma's tagged uses in SemCor, smoothed; in (0, 1]
    match: Match  # how the name led here, see `SenseChoice`


def candidates(name: str, wordnet: WordNet) -> tuple[Candidate, ...]:
    """Return every sense `name` could have, likeliest form first; empty if WordNet has none."""
    text, bracket, rest = name.strip(" _").partition("(")
    if not bracket or not rest.endswith(")"):
        return _shared_senses(name.split(","), wordnet)
    options = _shared_senses(text.split(","), wordnet)
    hint = _senses(rest[:-1], wordnet)
    return _nearest_to(options, hint, wordnet) if options and hint else ()


def _shared_senses(synonyms: Sequence[str], wordnet: WordNet) -> tuple[Candidate, ...]:
    """Return the senses that most of the known synonyms have."""
    rows = [_senses(text, wordnet) for text in synonyms if text.strip(" _")]
    by_synset = {candidate.synset: candidate for row in reversed(rows) for candidate in row}
    votes = Counter(candidate.synset for row in rows for candidate in row)
    most = max(votes.values(), default=0)
    return tuple(row for synset, row in by_synset.items() if votes[synset] == most)


def _senses(text: str, wordnet: WordNet) -> tuple[Candidate, ...]:
    if as_lemma := _as_lemma(text, wordnet):
        return as_lemma
    modifiers, head = known_ending(words_of(text), wordnet)
    return (head and _under_head(modifiers, head, wordnet)) or _as_two_words(text, wordnet)


def _as_lemma(text: str, wordnet: WordNet) -> tuple[Candidate, ...]:
    """Return the senses of the name and its other forms; a synset counts once, by its best form."""
    by_synset: dict[int, Candidate] = {}
    for number, form in enumerate(_forms(text, wordnet)):
        counts = wordnet.tag_counts(form)
        whole = sum(counts) + 0.5 * len(counts)
        for rank, synset in enumerate(wordnet.senses(form)):
            share = (counts[rank] + 0.5) / whole
            match: Match = "form" if number else "word"
            by_synset.setdefault(synset, Candidate(synset, form, rank, share, match))
    return tuple(by_synset.values())


def _forms(text: str, wordnet: WordNet) -> Iterable[str]:
    """Return spellings and singulars, each once, the name itself first."""
    text = text.strip(" _").replace("\u2019", "'")
    key = lemma_key(text)
    spellings = (
        key,
        key.replace("-", "_"),
        key.replace("_", "-"),
        _SEPARATORS.sub("", key),
        key.replace("'s", ""),
        lemma_key(_CAMEL.sub("_", text)),
    )
    forms: dict[str, None] = {}
    for spelling in spellings:
        endings = (e for e in _ENDINGS if spelling.endswith(e[0]))
        regular = (spelling[: -len(ending)] + singular for ending, singular in endings)
        plurals = wordnet.lexicon.plurals.get(spelling, ())
        forms |= dict.fromkeys((spelling, *plurals, *regular))
    return forms


def words_of(text: str) -> list[str]:
    """Return the words of a name, in lower case: of "CamelCase", "snake_case" and "with-hyphens"."""
    return lemma_key(_CAMEL.sub("_", text).replace("-", "_")).strip("_").split("_")


def known_ending(
    words: Sequence[str], wordnet: WordNet
) -> tuple[Sequence[str], tuple[Candidate, ...]]:
    """Return the words before the longest known ending, and that ending's senses."""
    for start in range(max(1, len(words) - _MOST_WORDS), len(words)):
        head = _as_lemma("_".join(words[start:]), wordnet)
        if head:
            return words[:start], head
    return words, ()


def _under_head(
    modifiers: Sequence[str], head: Sequence[Candidate], wordnet: WordNet
) -> tuple[Candidate, ...]:
    """Return the modifier's senses below the head or, if there are none, the head's own."""
    modifier = _as_lemma("_".join(modifiers), wordnet)
    named = [candidate for candidate in modifier if _is_named(candidate, wordnet)]
    row, ancestor = wordnet.closure([candidate.synset for candidate in named])
    under = np.isin(ancestor, [candidate.synset for candidate in head])
    rows = np.unique(row[under]).tolist()
    if rows:
        return tuple(replace(named[row], match="compound") for row in rows)
    known = modifier or all(_as_lemma(word, wordnet) for word in modifiers)
    return tuple(replace(candidate, match="head") for candidate in head) if known else ()


def _is_named(candidate: Candidate, wordnet: WordNet) -> bool:
    """Return whether the word alone could mean this sense: "stop" is a period, not a stop sign."""
    first = wordnet.lexicon.words(candidate.synset)[0].lower()
    return first == candidate.lemma or len(wordnet.senses(candidate.lemma)) == 1


def _as_two_words(text: str, wordnet: WordNet) -> tuple[Candidate, ...]:
    key = lemma_key(text)
    if len(key) > _LONGEST_NAME:
        return ()
    for place in range(_SHORTEST_PART, len(key) - _SHORTEST_PART + 1):
        senses = _as_lemma(f"{key[:place]}_{key[place:]}", wordnet)
        # Only a lemma of two words counts: the spelling without the space was tried before.
        if senses:
            return tuple(replace(candidate, match="form") for candidate in senses)
    return ()


def _nearest_to(
    options: Sequence[Candidate], hint: Sequence[Candidate], wordnet: WordNet
) -> tuple[Candidate, ...]:
    """Return the candidates that share the most specific ancestor with a sense of the hint."""
    content = wordnet.information_content
    _, shared = wordnet.closure([candidate.synset for candidate in hint])
    row, ancestor = wordnet.closure([candidate.synset for candidate in options])
    common = np.isin(ancestor, shared)
    nearness = np.zeros(len(options))
    np.maximum.at(nearness, row[common], content[ancestor[common]])
    best = nearness.max()
    return tuple(
        candidate
        for candidate, near in zip(options, nearness, strict=True)
        if near == best and best > 0
    )
