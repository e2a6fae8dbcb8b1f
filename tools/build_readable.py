"""Builds the data of `nbdt.hierarchies.readable`: ``pip install wordfreq``, ``python tools/build_readable.py``.

Reads readable_groups.txt and writes hierarchies/data/everyday-groups.xz. A synset's everyday name is the
word with the best score: the Zipf frequency of its rarest part, less for rare senses, for further words
and for proper names. Synsets below `READABLE`, and abstractions, have none.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from build_library import imagenet_classes
from wordfreq import zipf_frequency

from nbdt.hierarchies.wordnet.database import DATA_FOLDER, WordNet, wordnet
from nbdt.hierarchies.wordnet.everyday import FILE

GROUPS = Path(__file__).with_name("readable_groups.txt")
READABLE = 2.45
LEAST_CONTENT = 0.25
ABSTRACT = frozenset(
    """entity object whole artifact instrumentality covering conveyance commodity mechanism
    restraint vertebrate placental chordate thing unit abstraction attribute agent matter
    substance part relation group collection organism cause process event act state
    condition body structure material goods ware article creation product content support
    connection attachment obstruction barrier surface area location region point line form
    shape system medium means device instrument equipment implement container measure
    quantity amount being person individual food solid nutrition plant vascular_plant""".split()  # noqa: SIM905 - a list of words
)


def groups(net: WordNet) -> Iterator[tuple[str, int, list[int]]]:
    """Yield name, parent (-1 for the root) and WordNet offsets of every group, parents first."""
    wnids, names = imagenet_classes()
    classes = {name.replace(" ", "_"): wnid for wnid, name in zip(wnids, names, strict=True)}
    above: list[int] = []
    lines = [line for line in GROUPS.read_text().splitlines() if line and line[0] != "#"]
    for index, line in enumerate(lines):
        name, _, words = line.strip().partition(":")
        del above[(len(line) - len(line.lstrip())) // 2 :]
        synsets = [
            net.index(classes[word[1:]])
            if word[0] == "="
            else net.senses(word.partition("#")[0])[int(word.partition("#")[2]) - 1]
            for word in words.split()
        ]
        yield name, above[-1] if above else -1, [int(net.offsets[synset]) for synset in synsets]
        above.append(index)


def score(net: WordNet, synset: int, position: int, lemma: str) -> float:
    """Return how familiar a word is as the name of a synset."""
    words = lemma.split()
    value = min(zipf_frequency(word, "en") for word in words) - 0.4 * (len(words) - 1)
    tags = dict(zip(net.senses(lemma), net.tag_counts(lemma), strict=True))
    if tags and sum(tags.values()) and tags.get(synset, 0) < 0.3 * sum(tags.values()):
        value -= 0.9
    if len(words) == 1 and lemma[0].isupper():
        value -= 3
    return value + 0.35 * (position == 0)


def everyday(net: WordNet) -> Iterator[tuple[int, int]]:
    """Yield synset and position of its everyday name, in the order of synsets."""
    for synset in range(net.num_synsets):
        if net.hyponym_counts[synset] < 2 or net.information_content[synset] <= LEAST_CONTENT:
            continue
        lemmas = net.lemmas(synset)
        best, position = max((score(net, synset, i, word), -i) for i, word in enumerate(lemmas))
        if best >= READABLE and lemmas[-position].replace(" ", "_") not in ABSTRACT:
            yield synset, -position


def main() -> None:
    """Write the file."""
    net = wordnet()
    named = list(everyday(net))
    offsets = [int(net.offsets[synset]) for synset, _ in named]
    table: dict[str, Any] = {
        "groups": list(groups(net)),
        "offsets": [
            offset - before for offset, before in zip(offsets, [0, *offsets], strict=False)
        ],
        "lemmas": [position for _, position in named],
    }
    text = json.dumps(table, separators=(",", ":")).encode()
    (DATA_FOLDER / FILE).write_bytes(lzma.compress(text, preset=9))
    print(
        f"{len(table['groups'])} groups, {len(named):,} names, {(DATA_FOLDER / FILE).stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
