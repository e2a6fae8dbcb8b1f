"""Read groups within groups: JSON of several tools."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nbdt.errors import listed
from nbdt.tree.building import nodes_from_nested
from nbdt.tree.nodes import check_size, short

from .class_order import FormatError, check_order, shape
from .ranks import rank_columns
from .tables import Nodes, from_parents, from_rows, read_table, separator, without_chains

NESTED = "nbdt-nested"  # format name in files that earlier releases wrote
NAMES = ("name", "label", "LabelName", "title", "text", "id")  # keys of a node's name
BELOW = ("children", "Subcategory", "subcategories", "nodes", "items")  # keys of its children
ABOVE = ("supercategory", "parent", "parent_id", "parentId")  # keys of its parent


def parse(text: str) -> Any:
    """Parse JSON and refuse repeated keys, NaN and endless nesting.

    Raises FormatError: the text is not such JSON; the message says where.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise FormatError(
            "The JSON is nested too deep to be read; write a deep tree as node-link or nbdt JSON, "
            "which are flat."
        ) from None
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"This is not JSON: {short(str(error), 200)}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise FormatError(f"The key {short(twice)} occurs twice in one JSON object; remove one.")
    return result


def _refuse_constant(name: str) -> None:
    raise FormatError(f"{name} is not a JSON value; remove it.")


def read_groups(data: Any, classes: Sequence[str] | None, notes: list[str]) -> Nodes:
    """Read parsed JSON of any shape that holds a hierarchy.

    These are groups as in `Hierarchy.from_nested`, nodes with "name" and "children" (also as OpenImages
    calls them), a list of categories with a parent each (as COCO's), and a mapping from classes to groups.
    The class order is the one that the file states, else `classes`, else the order in the file.
    """
    if isinstance(data, dict) and data.get("format") == NESTED:
        return _read_stated(data, classes)
    if names := class_names_in(data):
        raise FormatError(
            f"This is a list of {len(names)} class names without groups ({listed(names, 2)}). "
            "`nbdt hierarchy readable` builds groups for them."
        )
    if isinstance(data, dict) and isinstance(data.get("categories"), list):
        data = data["categories"]
    if isinstance(data, list):
        return _read_list(data, classes, notes)
    if not isinstance(data, dict):
        raise FormatError(f"Expected groups, got {shape(data)}.")
    if any(key in data for key in BELOW) and any(key in data for key in NAMES):
        return without_chains(from_parents(_named_rows(data)), notes)
    # Groups with their children under a key, or classes with their group under one.
    for key in (*BELOW, *ABOVE):
        if all(isinstance(value, dict) and key in value for value in data.values()):
            data = {name: value[key] for name, value in data.items()}
    if len(data) > 1 and all(isinstance(value, str) for value in data.values()):
        rows = [(name, above, name) for name, above in data.items()]
        return without_chains(from_parents(rows), notes)
    return nodes_from_nested(data)


def _read_stated(data: dict[str, Any], classes: Sequence[str] | None) -> Nodes:
    """Read the nested format of earlier releases, which states the class order."""
    order = data.get("classes")
    if not isinstance(order, list) or not isinstance(data.get("tree"), dict):
        raise FormatError(f'Expected "classes", a list, and "tree", got {short(list(data))}.')
    check_order([short(name) if not isinstance(name, str) else name for name in order], classes)
    return nodes_from_nested(data["tree"])[0], order


def _read_list(data: list[Any], classes: Sequence[str] | None, notes: list[str]) -> Nodes:
    """Read a list of paths, of categories with a parent, or of records with ranks."""
    if data and all(isinstance(item, str) for item in data):
        text = "\n".join(item.replace("\n", " ") for item in data)
        return read_table(text, notes, (separator(text) or "/",))
    if data and all(isinstance(item, list) for item in data):
        return from_rows([(n, [str(part) for part in row]) for n, row in enumerate(data, 1)], notes)
    if not data or not all(isinstance(item, dict) for item in data):
        raise FormatError(f"Expected a list of paths or of categories, got {shape(data)}.")
    keys = [str(key) for key in data[0]]
    parent = next((key for key in ABOVE if key in keys), None)
    if parent is None and (columns := rank_columns(keys)):
        ranks = [keys[place] for place in columns]
        rows = [[str(item.get(rank) or "") for rank in ranks] for item in data]
        found = from_rows([(n, [*filter(None, row)]) for n, row in enumerate(rows, 1)], notes)
        return without_chains(found, notes)
    if parent is None and any(key in keys for key in BELOW):
        return without_chains(from_parents(_named_rows({"name": "/", "children": data})), notes)
    if parent is None or not any(key in keys for key in NAMES):
        raise FormatError(
            f"Expected categories with a name and a parent ({', '.join(ABOVE)}), got {shape(data[0])}."
        )
    name = next(key for key in NAMES if key in keys)
    ids = [item.get("id") for item in data]
    if classes is None and all(type(i) is int for i in ids) and ids != sorted(ids):
        raise FormatError(
            "The ids of the categories are in another order than the categories, so the class order is "
            "unclear; give the model's class names: nbdt hierarchy convert IN OUT --classes NAMES."
        )
    by_id = parent != "supercategory" and "id" in keys
    named: list[tuple[Any, Any, Any]] = [
        (item.get("id") if by_id else item.get(name), item.get(parent), item.get(name))
        for item in data
    ]
    return without_chains(from_parents(named), notes)


def _named_rows(root: dict[str, Any]) -> list[tuple[int, int | None, str]]:
    """Return (number, parent's number, name) of each node of ``{"name": …, "children": […]}``."""
    rows: list[tuple[int, int | None, str]] = []
    stack: list[tuple[int | None, Any]] = [(None, root)]
    while stack:
        parent, item = stack.pop()
        check_size(len(rows) + len(stack))
        rows.append((len(rows), parent, _name_of(item)))
        below = next((key for key in BELOW if isinstance(item, dict) and key in item), None)
        children = item[below] if below else []
        if not isinstance(children, list):
            raise FormatError(f'"{below}" of {short(rows[-1][2])} is not a list.')
        stack.extend((rows[-1][0], child) for child in reversed(children))
    return rows


def _name_of(item: Any) -> str:
    if isinstance(item, str):
        return item
    keys = NAMES if isinstance(item, dict) else ()
    name = next((item[key] for key in keys if key in item), None)
    if not isinstance(name, str):
        raise FormatError(f'Each node needs a "name" that is text; got {shape(item)}.')
    return name


def class_names_in(data: Any) -> list[str]:
    """Return the class names, in order, of a file that holds nothing else; empty for any other file."""
    if isinstance(data, dict):
        named = "id2label" if "id2label" in data else "names" if "nc" in data else "categories"
        data = data[named] if isinstance(data.get(named), dict | list) else data
    if isinstance(data, dict) and data:
        data = _in_order(data)
    if not isinstance(data, list) or not data:
        return []
    if all(isinstance(item, dict) for item in data):
        grouped = any(key in item for item in data for key in (*ABOVE, *BELOW))
        if grouped or rank_columns([str(key) for key in data[0]]):
            return []
        data = [item.get("name") for item in data]
    pairs = all(isinstance(item, list) and len(item) == 2 for item in data)
    if pairs and all(re.fullmatch("n[0-9]{8}", str(item[0])) for item in data):
        data = [item[1] for item in data]  # as in Keras's imagenet_class_index.json
    plain = all(isinstance(item, str) and "/" not in item for item in data)
    return data if plain and separator("\n".join(data)) in (None, ",") else []


def _in_order(data: dict[Any, Any]) -> Any:
    """Return the names of a mapping from indices to names, or back; another mapping as it is."""
    if all(re.fullmatch("[0-9]{1,9}", str(key)) for key in data):
        return [data[key] for key in sorted(data, key=int)]
    if sorted(value for value in data.values() if type(value) is int) == [*range(len(data))]:
        return sorted(data, key=data.__getitem__)
    return data
