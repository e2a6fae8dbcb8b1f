"""Joint choice of senses: every name prefers the sense that fits the other names' senses.

The model of a list of classes: its author thinks of a field, a synset `a`, and names things below
it. Given the other names, the density of a sense `s` is

    density(s) = background + sum over ancestors a of s of heat(a) / (size(a) + spread / names)

where heat(a) is the expected number of *other* names whose sense is below `a`, and size(a) the
number of synsets there: three birds count more than three artifacts. Longer lists resolve finer
fields, so the spread shrinks with the number of names, like the width of a kernel. The probability
of a sense is proportional to exp(prior − nested) · density, where nested counts the other classes
that it would be a kind of, since classes exclude one another. Mean-field iteration brings all names
into agreement. Sums follow the order of the names, so sorted names give an answer that does not
depend on the order.
"""

from collections.abc import Sequence

import numpy as np

from .candidates import Candidate
from .database import FloatArray, IndexArray, WordNet

# Costs in nats. They were chosen by hand, to round numbers within a wide plateau, on the
# development half of tests/sense_lists.py and the labels of ImageNet and CIFAR-100.
RANK_COST = 0.2  # times log(1 + rank)
TAG_WEIGHT = 0.15  # times the log of the sense's share of tagged uses
LATER_WORD_COST = 1.0  # the name is not the synset's first word: it has a better name
INDIVIDUAL_COST = 2.0  # a river or a poet rather than a kind of thing
HYPONYM_WEIGHT = 0.25  # times log(1 + hyponyms): broad senses are the everyday ones
NESTED_COST = 1.0  # times the expected number of other classes that the sense is a kind of

# Classes are mostly things one can photograph. WordNet's lexicographer files: animal, artifact,
# food, object and the unique beginners cost nothing; "apple" means the fruit before the tree.
FREE_FILES = (3, 5, 6, 13, 17)
FILE_COST = {8: 0.5, 18: 1.0, 20: 1.0, 27: 0.5}  # body, person, plant, substance
OTHER_FILE_COST = 2.0  # acts, states, quantities, groups, ...

SPREAD = 3000.0  # synsets, divided by the number of names
BACKGROUND = 0.3  # per name, spread evenly over all synsets
STEPS = 40
TOLERANCE = 1e-4


def choose(
    names: Sequence[str], candidates: Sequence[Sequence[Candidate]], wordnet: WordNet
) -> list[FloatArray]:
    """Return the probability of each candidate of each name; each name's sum to 1.

    The probabilities are not calibrated: they show which sense fits better, not how often such a
    choice is right.
    """
    agreement = _Agreement(names, candidates, wordnet)
    share = _softmax(agreement.prior, agreement.name)
    for _ in range(STEPS):
        # Half a step at a time: two names that depend on each other could oscillate indefinitely.
        step = 0.5 * (agreement.update(share) - share)
        share = share + step
        if np.abs(step).max() < TOLERANCE:
            break
    ends = np.cumsum([len(row) for row in candidates])
    return np.split(share, ends[:-1])


class _Agreement:
    """All candidates of all names in one column, with their ancestors as sparse pairs."""

    def __init__(
        self, names: Sequence[str], candidates: Sequence[Sequence[Candidate]], wordnet: WordNet
    ) -> None:
        synset = np.array([candidate.synset for row in candidates for candidate in row])
        self.name = np.repeat(np.arange(len(names)), [len(row) for row in candidates])
        # The log-weight of each candidate without the other names.
        self.prior = np.array([_log_prior(option, wordnet) for row in candidates for option in row])
        # Of each (candidate, ancestor) pair: the two, and the number of the (name, ancestor) pair.
        self.candidate, above = wordnet.closure(synset)
        ancestors, self.ancestor = np.unique(above, return_inverse=True)
        pair = self.name[self.candidate] * len(ancestors) + self.ancestor
        self.own = np.unique(pair, return_inverse=True)[1]
        self.itself = np.flatnonzero(above == synset[self.candidate])  # a candidate's own synset
        size = wordnet.hyponym_counts[above] + 1
        self.weight = np.reciprocal(size + SPREAD / len(names), dtype=np.float64)
        self.background = BACKGROUND * len(names) / wordnet.num_synsets

    def update(self, share: FloatArray) -> FloatArray:
        """Return new probabilities, given the present ones of all names."""
        mass = share[self.candidate]
        heat = np.bincount(self.ancestor, mass)[self.ancestor]
        others = heat - np.bincount(self.own, mass)[self.own]
        # Rounding can give a slightly negative number if no other name is near.
        fit = np.bincount(self.candidate, np.maximum(others, 0.0) * self.weight, len(self.name))
        score = self.prior + np.log(fit + self.background) - NESTED_COST * self._nested(share)
        return _softmax(score, self.name)

    def _nested(self, share: FloatArray) -> FloatArray:
        """Return the expected number of other names whose sense is a proper ancestor (candidates,).

        Classes exclude one another: beside a class "car", "bus" is hardly the bus that is a kind of
        car.
        """
        named = np.bincount(self.ancestor[self.itself], share, self.ancestor.max() + 1)
        named_by_own = np.bincount(self.own[self.itself], share, self.own.max() + 1)
        others = named[self.ancestor] - named_by_own[self.own]
        others[self.itself] = 0.0
        total: FloatArray = np.bincount(self.candidate, others).astype(np.float64)
        return total


def _softmax(score: FloatArray, name: IndexArray) -> FloatArray:
    """Return the softmax within each name; `name` is ascending and has no gaps."""
    first = np.flatnonzero(np.diff(name, prepend=-1))
    weight = np.exp(score - np.maximum.reduceat(score, first)[name])
    share: FloatArray = weight / np.bincount(name, weight)[name]
    return share


def _log_prior(candidate: Candidate, wordnet: WordNet) -> float:
    synset = candidate.synset
    file = int(wordnet.lexicographer[synset])
    cost = RANK_COST * np.log1p(candidate.rank) - TAG_WEIGHT * np.log(candidate.tag_share)
    cost -= HYPONYM_WEIGHT * np.log1p(wordnet.hyponym_counts[synset])
    cost += 0.0 if file in FREE_FILES else FILE_COST.get(file, OTHER_FILE_COST)
    first = wordnet.lexicon.words(synset)[0].lower()
    cost += LATER_WORD_COST * (first != candidate.lemma)
    cost += INDIVIDUAL_COST * int(wordnet.individual[synset])
    return -float(cost)
