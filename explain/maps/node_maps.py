"""Node maps of a batch whose layer is known: those of paths, of any node, and plain ones of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.decide.maps import log_odds_coefficients, score_coefficients
from nbdt.decide.paths import Decision, Path
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from ..result.explanation import Map
from .layers import Layer


def node_maps(model: NBDT, layer: Layer, nodes: Sequence[str]) -> list[Mapping[str, Map]]:
    """For every image of `layer` the log-odds maps of nodes, named as in `explain`, by id.

    Raises:
        NBDTError: an unknown or ambiguous node, or the root.
    """
    wanted = [find_node(model.hierarchy, text) for text in nodes]
    logits = head_logits(model, layer.features)
    if not wanted:
        return [{}] * len(logits)
    queries = torch.tensor(wanted).expand(len(logits), -1)
    maps = _maps(model, layer, logits, queries, log_odds_coefficients)
    ids = [model.hierarchy.ids[node] for node in wanted]
    return [dict(zip(ids, values, strict=True)) for values in maps]


def node_child_maps(model: NBDT, layer: Layer, nodes: Sequence[str]) -> list[Mapping[str, Map]]:
    """For every image of `layer` the maps of the scores of each child, by the id of the parent.

    Of those of `nodes` that have children: (children, height, width).

    Raises:
        NBDTError: as `node_maps`.
    """
    tree = model.hierarchy
    found = [find_node(tree, text) for text in nodes]
    inner = [node for node in found if tree.children[node]]
    logits = head_logits(model, layer.features)
    if not inner:
        return [{}] * len(logits)
    queries = torch.tensor([child for node in inner for child in tree.children[node]])
    maps = _maps(model, layer, logits, queries.expand(len(logits), -1), score_coefficients)
    ends = np.cumsum([len(tree.children[node]) for node in inner])[:-1]
    ids = [tree.ids[node] for node in inner]
    return [dict(zip(ids, np.split(values, ends), strict=True)) for values in maps]


def path_maps(model: NBDT, layer: Layer, paths: Sequence[Path]) -> list[tuple[Map, ...]]:
    """The maps of `Explanation.maps` and no others: one a decision of each image's path.

    Half the work or less of `explain_layer`, which has those of all children besides.
    """
    wanted = [chosen_nodes(model, path) for path in paths]
    longest = max(map(len, wanted))
    queries = torch.tensor([nodes + nodes[-1:] * (longest - len(nodes)) for nodes in wanted])
    maps = _maps(model, layer, head_logits(model, layer.features), queries, log_odds_coefficients)
    return [tuple(own[: len(nodes)]) for own, nodes in zip(maps, wanted, strict=True)]


def class_maps(model: NBDT, layer: Layer, classes: Sequence[int]) -> Map:
    """Plain Grad-CAM of flat class logits, one class an image: (batch, height, width).

    Signed and raw, as all maps here; it knows of no hierarchy.
    """
    vectors = model.head.linear.weight.detach()[list(classes)]
    maps: Map = layer.maps(vectors[:, None]).cpu().numpy()[:, 0]
    return maps


def path_child_maps(
    model: NBDT, layer: Layer, logits: Tensor, found: Sequence[Path]
) -> list[tuple[Map, ...]]:
    """For every image and decision the maps of all children's scores, (children, height, width)."""
    tree = model.hierarchy
    families = [[tree.children[tree.parents[n]] for n in chosen_nodes(model, p)] for p in found]
    rows = [[node for family in families_ for node in family] for families_ in families]
    longest = max(map(len, rows))
    padded = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])
    maps = _maps(model, layer, logits, padded, score_coefficients)
    result = []
    for values, families_ in zip(maps, families, strict=True):
        ends = np.cumsum([len(family) for family in families_])
        parts = zip(ends, families_, strict=True)
        result.append(tuple(values[end - len(family) : end] for end, family in parts))
    return result


def log_odds_maps(path: Path, child_maps: Sequence[Map]) -> tuple[Map, ...]:
    """A gradient is linear: the map of ``log p/(1 − p)`` is the children's, weighted."""
    return tuple(
        np.tensordot(_log_odds_weights(decision), maps, axes=1).astype(np.float32)
        for decision, maps in zip(path, child_maps, strict=True)
    )


def _log_odds_weights(decision: Decision) -> NDArray[np.float64]:
    """Derivatives of the chosen child's log-odds with respect to all children's scores.

    1 for the child itself, and minus the softmax among the others.
    """
    others = np.array(decision.log_probs, dtype=np.float64)
    others[decision.chosen] = -math.inf
    shares: NDArray[np.float64] = np.exp(others - others.max())
    weights: NDArray[np.float64] = -shares / shares.sum()
    weights[decision.chosen] = 1
    return weights


def _maps(model: NBDT, layer: Layer, logits: Tensor, nodes: Tensor, coefficients: Any) -> Map:
    """(batch, queries, height, width) for node indices (batch, queries)."""
    tree, weight = model.head.rules.tree, model.head.linear.weight.detach()
    found = coefficients(logits, nodes.to(logits.device), tree, model.rule)
    maps: Map = layer.maps(found.to(weight.dtype) @ weight).cpu().numpy()
    return maps


def head_logits(model: NBDT, features: Tensor) -> Tensor:
    """(batch, classes), float32, of what the head takes, (batch, features)."""
    with torch.no_grad():
        logits: Tensor = model.head.logits(features).float()
    return logits


def chosen_nodes(model: NBDT, path: Path) -> list[int]:
    """Node indices of the children that the path takes, from the top."""
    tree = model.hierarchy
    return tree.path_of_class(path.class_index)[1:]


def find_node(hierarchy: Hierarchy, text: str) -> int:
    """The index of the node with that id or name.

    Raises:
        NBDTError: no such node (the nearest is suggested), several of that name, or the root, which
            no decision is about.
    """
    index = hierarchy.index(text)
    if index == 0:
        raise NBDTError(f"{text!r} is the root: no decision leads there. Name a node below it.")
    return index
