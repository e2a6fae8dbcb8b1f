"""Read groups within groups: JSON of several tools."""

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
from .tables import Nodes, from_parents, read_table, separator, without_chains

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
    """Read parsed JSON that holds a hierarchy.

    These are groups as in `Hierarchy.from_nested`, nodes with "name" and "children" (also as OpenImages
    calls them), and a list of paths. The class order is the one that the file states, else `classes`,
    else the order in the file.
    """
    if isinstance(data, dict) and data.get("format") == NESTED:
        return _read_stated(data, classes)
    if names := class_names_in(data):
        raise FormatError(
            f"This is a list of {len(names)} class names without groups ({listed(names, 2)}). "
            "`nbdt hierarchy readable` builds groups for them."
        )
    if isinstance(data, list) and data and all(isinstance(item, str) for item in data):
        text = "\n".join(item.replace("\n", " ") for item in data)
        return read_table(text, notes, (separator(text) or "/",))
    if isinstance(data, dict) and isinstance(data.get("categories"), list):
        data = data["categories"]
    if not isinstance(data, dict):
        raise FormatError(
            "Expected groups within groups, nodes with a name and children, or a list of paths, got "
            f"{shape(data[0] if isinstance(data, list) and data else data)}; write one path a line, as "
            "in 'animal/cat'."
        )
    if any(key in data for key in BELOW) and any(key in data for key in NAMES):
        return without_chains(from_parents(_named_rows(data)), notes)
    return nodes_from_nested(data)


def _read_stated(data: dict[str, Any], classes: Sequence[str] | None) -> Nodes:
    """Read the nested format of earlier releases, which states the class order."""
    order = data.get("classes")
    if not isinstance(order, list) or not isinstance(data.get("tree"), dict):
        raise FormatError(f'Expected "classes", a list, and "tree", got {short(list(data))}.')
    check_order([short(name) if not isinstance(name, str) else name for name in order], classes)
    return nodes_from_nested(data["tree"])[0], order


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
