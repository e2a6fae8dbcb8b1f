"""Node maps in closed form, for a linear head on global average pooling.

There ``z = W · mean over positions of A + b``, so the gradient of anything in the class logits
with respect to the feature map ``A`` is the same at every position, and Grad-CAM is one matrix
product: ``map = Σ_d v_d A_d / (height · width)`` with ``v = c W``, where ``c`` holds the derivatives
with respect to the class logits (its *coefficients*). No backward pass, no hooks.

Grad-CAM (Selvaraju et al., 2017) also clips at zero and rescales; these maps are raw and signed.
They are complete: for a node's score, ``Σ map + Σ c·b = s`` under `representative`, and
``Σ map + Σ c·b + H(c) = s`` under `marginal`, where ``H`` is the entropy of ``c``.
"""

import torch
from torch import Tensor

from ..tree.index import TreeIndex
from .rules import edge_scores


def score_coefficients(logits: Tensor, nodes: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return derivatives of node scores with respect to (batch, classes) logits, float32 or wider.

    Under `representative` it is the mean over the node's classes, under `marginal` the softmax within the
    node: (batch, queries, classes) for (batch, queries) node indices, none of them the root.
    """
    edges = tree.edge_of_node[nodes]
    weights = torch.nn.functional.one_hot(edges, len(tree.node_of_edge)).to(logits.dtype)
    return _coefficients(weights, logits, tree, rule)


def log_odds_coefficients(logits: Tensor, nodes: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return derivatives of ``log p/(1 − p)`` of nodes among their siblings, shaped as above.

    ``c_j − Σ π_c c_c`` over the other siblings ``c``, with ``π`` the softmax of their scores.
    """
    edges = tree.edge_of_node[nodes]
    scores = edge_scores(logits, tree, rule).t()[:, None, :]  # (batch, 1, edges)
    rows = torch.arange(len(tree.node_of_edge), device=edges.device)
    itself = rows == edges[..., None]
    others = (tree.group_of_edge == tree.group_of_edge[edges][..., None]) & ~itself
    weights = itself.to(logits.dtype) - scores.masked_fill(~others, -torch.inf).softmax(dim=-1)
    return _coefficients(weights, logits, tree, rule)


def _coefficients(weights: Tensor, logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return class coefficients of ``Σ_e weights_e s_e`` for (batch, queries, edges) weights.

    Any class has at most one such edge above.
    """
    batch, queries, edges = weights.shape
    columns = weights.reshape(-1, edges).t().contiguous()  # (edges, batch · queries)
    if rule == "representative":
        found = tree.path_sums(columns / tree.sizes)
    else:
        scores = edge_scores(logits, tree, rule).repeat_interleave(queries, dim=1)
        own = logits.t().repeat_interleave(queries, dim=1)
        weighted = (columns != 0).to(columns.dtype)
        above = tree.path_sums(scores * weighted)  # the score of the weighted edge above a class
        share = (own - above).masked_fill(tree.path_sums(weighted) == 0, -torch.inf).exp()
        found = tree.path_sums(columns) * share
    return found.t().reshape(batch, queries, -1)


def node_maps(features: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """Return raw signed maps at the feature map's own resolution, (batch, queries, height, width).

    Args:
        features: (batch, features, height, width), the last feature map before the average pool.
        weight: (classes, features), of the linear layer.
        coefficients: (batch, queries, classes), from the functions above.
    """
    height, width = features.shape[-2:]
    vectors = coefficients.to(weight.dtype) @ weight
    return torch.einsum("bqd,bdhw->bqhw", vectors, features.to(weight.dtype)) / (height * width)
