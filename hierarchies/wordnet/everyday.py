"""Everyday groups, the synsets that each covers, and everyday names of WordNet's own synsets.

`data/everyday-groups.xz` has them; `tools/build_readable.py` writes it.
"""

import json
import lzma
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from .database import DATA_FOLDER, WordNet

FILE = "everyday-groups.xz"


class EverydayGroup(NamedTuple):
    """A group such as "car or truck"; `parent` is the index of the group above it, -1 for none."""

    name: str
    parent: int


def everyday_groups() -> list[EverydayGroup]:
    """Return all groups, parents first."""
    return [EverydayGroup(name, parent) for name, parent, _ in _table()["groups"]]


def group_of(synset: int, net: WordNet) -> int | None:
    """Return the index of the group that covers a synset's most specific ancestor; None without one."""
    covered = _covered()
    options = [
        (float(net.information_content[ancestor]), group)
        for ancestor in (synset, *net.ancestors(synset))
        if (group := covered.get(int(net.offsets[ancestor]))) is not None
    ]
    return max(options)[1] if options else None


def everyday_name(synset: int, net: WordNet) -> str | None:
    """Return the everyday name of a synset, None if it has none ("musteline mammal")."""
    lemma = _everyday_lemmas().get(int(net.offsets[synset]))
    return None if lemma is None else net.lemmas(synset)[lemma]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(lzma.decompress((DATA_FOLDER / FILE).read_bytes()))
    return table


@cache
def _covered() -> dict[int, int]:
    """WordNet offset to the deepest group that covers it: deeper groups come later."""
    groups = enumerate(_table()["groups"])
    return {offset: index for index, (*_, offsets) in groups for offset in offsets}


@cache
def _everyday_lemmas() -> dict[int, int]:
    """WordNet offset to the position of the everyday name among the synset's words."""
    return dict(zip(accumulate(_table()["offsets"]), _table()["lemmas"], strict=True))
