"""The words of header lines: ranks of taxonomies, levels of catalogues, names of columns."""

import itertools
import re
from collections.abc import Sequence

_WORDS = (  # from the broadest to the narrowest; words of a line are as broad
    "root life",
    "domain superkingdom supercategory superclass supergroup coarse parent",
    "kingdom regnum reich règne reino category group",
    "subkingdom",
    "phylum division stamm embranchement filo",
    "subphylum subcategory subgroup",
    "class classis klasse classe clase type",
    "subclass infraclass subtype",
    "superorder",
    "order ordo ordnung ordre orden",
    "suborder infraorder parvorder",
    "superfamily",
    "family familia familie famille",
    "subfamily",
    "tribe subtribe",
    "genus gattung genre género",
    "subgenus section",
    "fine child species art espèce especie",
    "subspecies variety cultivar breed",
)
DEPTH = {word: depth for depth, words in enumerate(_WORDS) for word in words.split()}
LEVELS = {"level", "l", "rank", "tier", "ebene", "niveau", "hierarchy"}  # before a number
_FILLING = {"taxon", "label", "latin"}  # "taxon_kingdom_name" is a kingdom
_LEAF = {"name", "label", "common", "scientific", "scientificname", "commonname", "english",
         "vernacularname", "vernacular", "taxon", "item"}  # fmt: skip
_PARENT = {"parent", "parentid", "parentname", "supercategory", "parenttaxonid",
           "parentnameusageid"}  # fmt: skip
_ID = ("child", "id", "taxonid", "node", "category", "class")
MISSING = {"", "-", "–", "—", "?", "na", "n/a", "nan", "nil", "none", "null", "unranked"}


def depth_of(cell: str) -> float | None:
    """Return how deep the column with this header is in a tree; None if it is no level of one."""
    words = re.findall(r"[^\W\d_]+", cell.casefold())
    number = re.search(r"\d+", cell)
    if number and len(words) == 1 and words[0] in LEVELS:
        return float(number[0])
    word = " ".join(word for word in words if word not in _FILLING | {"name"})
    return DEPTH.get(word)


def is_leaf_name(cell: str) -> bool:
    """Return whether a column with this header names classes, as "common_name" does."""
    words = re.findall(r"[^\W\d_]+", cell.casefold())
    return bool(words) and all(word in _LEAF for word in words)


def edge_columns(header: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the columns of a node's id, its parent's id and its name; None in another table.

    The header has a parent, and a child, an id or a name: ``id,parent_id,name`` or ``parent,child``.
    """
    plain = ["".join(re.findall(r"[^\W\d_]+", cell.casefold())) for cell in header]
    parent = next((place for place, cell in enumerate(plain) if cell in _PARENT), None)
    ids = [plain.index(word) for word in _ID if word in plain]
    names = [place for place, cell in enumerate(header) if is_leaf_name(cell)]
    if parent is None or not (ids or names):
        return None
    by_name = plain[parent] in ("parentname", "supercategory")
    key = names[0] if by_name and names else [*ids, *names][0]
    return key, parent, [*names, key][0]


def rank_columns(header: Sequence[str]) -> list[int]:
    """Return the columns of a table that lead from the root to the class; empty if it has no header.

    Two columns or more must be named like ranks or levels. Columns from the narrowest rank to the
    broadest are turned round. A column of names is the class where no rank below the genus is.
    """
    depths = {
        place: depth for place, cell in enumerate(header) if (depth := depth_of(cell)) is not None
    }
    names = [
        place for place, cell in enumerate(header) if is_leaf_name(cell) and place not in depths
    ]
    if len(depths) + bool(names) < 2 or not depths:
        return []
    order, found = [*depths], [*depths.values()]
    if len(found) > 1 and all(a > b for a, b in itertools.pairwise(found)):
        order.reverse()
    return order if max(found) >= DEPTH["species"] else order + names[:1]
