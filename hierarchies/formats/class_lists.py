"""Parsed files that list class names without groups: Hugging Face's, Keras's, YOLO's, COCO's."""

from __future__ import annotations

import re
from typing import Any

from .ranks import rank_columns
from .tables import separator

NAMES = ("name", "label", "LabelName", "title", "text", "id")  # keys of a node's name
BELOW = ("children", "Subcategory", "subcategories", "nodes", "items")  # keys of its children
ABOVE = ("supercategory", "parent", "parent_id", "parentId")  # keys of its parent


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
