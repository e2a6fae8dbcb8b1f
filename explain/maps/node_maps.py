"""Node maps of a batch from its layer: of paths, of any node, and flat ones of classes."""

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
    """Return for every image the log-odds maps of `nodes`, by id.

    Raises NBDTError: an unknown or ambiguous node, or the root.
    """
    indices = [find_node(model.hierarchy, text) for text in nodes]
    ids = [model.hierarchy.ids[node] for node in indices]
    maps = _maps(model, layer, [indices] * len(layer.features), log_odds_coefficients)
    return [dict(zip(ids, values, strict=True)) for values in maps]


def node_child_maps(model: NBDT, layer: Layer, nodes: Sequence[str]) -> list[Mapping[str, Map]]:
    """Return for every image the maps of each child's score, (children, height, width), by parent id.

    Nodes without children have none.

    Raises NBDTError: as `node_maps`.
    """
    hierarchy = model.hierarchy
    inner = [node for text in nodes if hierarchy.children[node := find_node(hierarchy, text)]]
    families = [[hierarchy.children[node] for node in inner]] * len(layer.features)
    ids = [hierarchy.ids[node] for node in inner]
    return [dict(zip(ids, maps, strict=True)) for maps in _family_maps(model, layer, families)]


def path_maps(model: NBDT, layer: Layer, paths: Sequence[Path]) -> list[tuple[Map, ...]]:
    """Return the maps of `Explanation.maps` alone: one a decision of each image's path.

    Half the work or less of `explain_layer`, which also maps all children.
    """
    nodes = [chosen_nodes(model, path) for path in paths]
    return [tuple(maps) for maps in _maps(model, layer, nodes, log_odds_coefficients)]


def class_maps(model: NBDT, layer: Layer, classes: Sequence[int]) -> Map:
    """Return Grad-CAM of flat class logits, one class an image: (batch, height, width), signed and raw."""
    vectors = model.head.linear.weight.detach()[list(classes)]
    maps: Map = layer.maps(vectors[:, None]).cpu().numpy()[:, 0]
    return maps


def path_child_maps(model: NBDT, layer: Layer, paths: Sequence[Path]) -> list[tuple[Map, ...]]:
    """Return for every image and decision the maps of all children, (children, height, width)."""
    children, parents = model.hierarchy.children, model.hierarchy.parents
    families = [[children[parents[node]] for node in chosen_nodes(model, path)] for path in paths]
    return _family_maps(model, layer, families)


def log_odds_maps(path: Path, child_maps: Sequence[Map]) -> tuple[Map, ...]:
    """Return the maps of ``log p/(1 − p)``: a gradient is linear, so they weight the children's."""
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


def _family_maps(
    model: NBDT, layer: Layer, families: Sequence[Sequence[Sequence[int]]]
) -> list[tuple[Map, ...]]:
    """For every image the maps of its groups of siblings, (siblings, height, width) each."""
    nodes = [[node for siblings in image for node in siblings] for image in families]
    result = []
    for maps, image in zip(_maps(model, layer, nodes, score_coefficients), families, strict=True):
        ends = np.cumsum([len(siblings) for siblings in image])
        result.append(tuple(np.split(maps, ends[:-1])) if image else ())
    return result


def _maps(
    model: NBDT, layer: Layer, nodes: Sequence[Sequence[int]], coefficients: Any
) -> list[Map]:
    """For every image the maps of its nodes, (nodes, height, width)."""
    longest = max(map(len, nodes))
    if not longest:
        return [np.zeros((0, 0, 0), np.float32)] * len(nodes)
    padded = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in nodes])
    logits = head_logits(model, layer.features)
    tree, weight = model.head.rules.tree, model.head.linear.weight.detach()
    vectors = coefficients(logits, padded.to(logits.device), tree, model.rule)
    maps: Map = layer.maps(vectors.to(weight.dtype) @ weight).cpu().numpy()
    return [values[: len(row)] for values, row in zip(maps, nodes, strict=True)]


def head_logits(model: NBDT, features: Tensor) -> Tensor:
    """Return float32 logits (batch, classes) of features (batch, features), without gradients."""
    with torch.no_grad():
        logits: Tensor = model.head.logits(features).float()
    return logits


def chosen_nodes(model: NBDT, path: Path) -> list[int]:
    """Return the node indices of the children that the path takes, from the top."""
    tree = model.hierarchy
    return tree.path_of_class(path.class_index)[1:]


def find_node(hierarchy: Hierarchy, text: str) -> int:
    """Return the index of the node with that id or name.

    Raises NBDTError: no such node (the nearest is suggested), several of that name, or the root, to
    which no decision leads.
    """
    index = hierarchy.index(text)
    if index == 0:
        raise NBDTError(f"{text!r} is the root: no decision leads there. Name a node below it.")
    return index
