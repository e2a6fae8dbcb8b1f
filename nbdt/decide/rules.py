"""The decision rules as pure functions of class logits.

With ``z`` the class logits and ``L(j)`` the classes under node ``j``, a node's score is

- ``representative``: ``s_j = mean of z over L(j)`` (Wan et al., NBDT, ICLR 2021);
- ``marginal``: ``s_j = logsumexp of z over L(j)``, so that a decision is the conditional
  probability under the flat softmax.

A decision is the softmax of its children's scores, and a leaf's probability the product along its
path. All of it is computed in log space, in float32 or wider. With equal logits `representative`
favours shallow leaves: a leaf of a binary tree then has probability 2 to the power of minus depth.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.index import GATHER_ARITY, TreeIndex

CHUNK = 2**18  # values of one (edges, batch) buffer: about 1 MB stays in the cache


def check_rule(rule: str) -> str:
    """Return `rule`. Raises NBDTError unless it is 'representative' or 'marginal'."""
    if rule not in _SCORES:
        raise NBDTError(
            f"Unknown rule {rule!r}; choose 'representative' (mean of class logits, needs "
            "tree-supervised training) or 'marginal' (logsumexp, fits any trained classifier)."
        )
    return rule


def check_logits(logits: Tensor, tree: TreeIndex) -> Tensor:
    """Return `logits` in float32 or float64. Raises NBDTError on another shape or type."""
    if logits.ndim != 2 or logits.shape[1] != tree.num_classes:
        raise NBDTError(
            f"Expected class logits of shape (batch, {tree.num_classes}), got "
            f"{tuple(logits.shape)}: the hierarchy has {tree.num_classes} classes."
        )
    if not logits.is_floating_point():
        raise NBDTError(f"Expected floating-point logits, got {logits.dtype}.")
    return logits if logits.dtype == torch.float64 else logits.float()


def full_precision(logits: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast: the rules choose their own precision."""
    kind = logits.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def check_finite(logits: Tensor) -> None:
    """Raise NBDTError if logits are NaN or infinite (skipped while compiling)."""
    if torch.compiler.is_compiling() or math.isfinite(float(logits.detach().sum())):
        return
    bad = (~torch.isfinite(logits)).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise NBDTError(
            f"The logits of image {bad[0]} in the batch are not finite ({len(bad)} of "
            f"{len(logits)} images): they give no decision. Check the input and the "
            "model's weights."
        )


def _mean_scores(columns: Tensor, tree: TreeIndex) -> Tensor:
    return tree.node_sums(columns) / tree.sizes


def _logsumexp_scores(columns: Tensor, tree: TreeIndex) -> Tensor:
    """Sum level by level from the leaves, each node with its own maximum: exact for any logits."""
    scores = columns[tree.class_of_node.clamp(min=0)]  # inner nodes are overwritten below
    levels = []
    below: Tensor | None = None
    for low, high in reversed(tree.levels):
        level = scores[low:high]
        if below is not None:
            inner = (tree.class_of_node[low:high] < 0).nonzero().flatten()
            level = level.index_copy(0, inner, below)
        levels.append(level)
        below = _family_logsumexp(level, tree.family[low:high])
    return torch.cat(levels[::-1]).index_select(0, tree.node_of_edge - 1)


def _family_logsumexp(level: Tensor, family: Tensor) -> Tensor:
    """Return logsumexp over siblings: rows of `level` that share a number in `family` (from 0 up)."""
    shape = (int(family[-1]) + 1, level.shape[1])
    index = family[:, None].expand_as(level)
    top = level.new_full(shape, -torch.inf).scatter_reduce(0, index, level.detach(), "amax")
    mass = (level - top[family]).exp()
    return level.new_zeros(shape).index_add(0, family, mass).log() + top


_SCORES: dict[str, Callable[[Tensor, TreeIndex], Tensor]] = {
    "representative": _mean_scores,
    "marginal": _logsumexp_scores,
}


def edge_scores(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return the score of every node but the root, (edges, batch), rows as in `TreeIndex.node_of_edge`.

    The logits are (batch, classes), float32 or float64.
    """
    return _SCORES[rule](logits.t().contiguous(), tree)


def decide(scores: Tensor, tree: TreeIndex) -> Tensor:
    """Return the log-probability of every edge among its siblings, (edges, batch)."""
    runs = []
    for start, groups, size in tree.runs:
        run = scores[start : start + groups * size]
        runs.append(run.view(groups, size, -1).log_softmax(dim=1).view_as(run))
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def leaf_log_probs(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return the log-probability of each class, (batch, classes): the sum over its path.

    Under `marginal` the product of conditionals telescopes to the flat softmax, so the answer is
    ``log_softmax(logits)`` itself. The result is a valid set of logits: its softmax is itself. Half
    precision is computed, and returned, in float32.
    """
    if rule == "marginal":
        return logits.log_softmax(dim=1)
    runs = [
        tree.path_sums(decide(edge_scores(part, tree, rule), tree)).t().contiguous()
        for part in _chunks(logits, tree, CHUNK)
    ]
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _chunks(logits: Tensor, tree: TreeIndex, values: int) -> tuple[Tensor, ...]:
    """Split the batch so that buffers stay in the cache (not while compiling)."""
    size = max(16, values // tree.num_nodes)
    if torch.compiler.is_compiling() or logits.shape[0] <= size or logits.is_cuda:
        return (logits,)
    return tuple(logits.split(size))


def hard_nodes(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return the leaf that greedy descent reaches: (batch, classes) to (batch,) node indices."""
    runs = [_descend(_ranking(part, tree, rule), tree) for part in _chunks(logits, tree, 4 * CHUNK)]
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _ranking(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return values (edges, batch) that rank siblings as their scores do."""
    # Masses rank as their logarithms, and the greedy child keeps at least 1/arity of its parent's,
    # so that nothing on the way underflows unless the tree is both deep and wide.
    if rule == "marginal" and tree.depth * math.log10(tree.max_arity) < 30:
        return tree.node_sums(logits.softmax(dim=1).t().contiguous())
    return edge_scores(logits, tree, rule)


def _descend(ranking: Tensor, tree: TreeIndex) -> Tensor:
    """Follow the best-ranked child from the root to a leaf: (edges, batch) -> (batch,) nodes."""
    columns = torch.arange(ranking.shape[1], device=ranking.device)
    current = torch.full_like(columns, len(tree.node_of_edge))  # the root's row
    step = _gather_step if tree.max_arity <= GATHER_ARITY else _table_step(ranking, tree)
    flat = ranking.reshape(-1)
    columns = columns[:, None]
    for _ in range(tree.depth):
        current = step(current, columns, flat, tree)
    return tree.node_of_edge.index_select(0, current)


def _gather_step(current: Tensor, columns: Tensor, flat: Tensor, tree: TreeIndex) -> Tensor:
    """Compare only the children of the nodes that the batch is at."""
    children = tree.child_edges.index_select(0, current)
    values = flat.take(torch.add(columns, children, alpha=len(columns)))
    return children.gather(1, values.argmax(dim=1, keepdim=True)).squeeze(1)


def _table_step(ranking: Tensor, tree: TreeIndex) -> Callable[..., Tensor]:
    """Rank all groups first, then look up the batch's nodes: for wide groups."""
    best = [
        ranking[run.start : run.start + run.groups * run.size]
        .view(run.groups, run.size, -1)
        .max(dim=1)
        .indices
        for run in tree.runs
    ]
    chosen = torch.cat(best).add_(tree.group_start[:, None]).reshape(-1)

    def step(current: Tensor, columns: Tensor, _: Tensor, tree: TreeIndex) -> Tensor:
        group = tree.group_below.index_select(0, current)
        child = chosen.take(torch.add(columns[:, 0], group.clamp(min=0), alpha=len(columns)))
        return torch.where(group < 0, current, child)

    return step


def path_nll(
    logits: Tensor, nodes: Tensor, tree: TreeIndex, rule: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``−log p(child | parent)`` of each decision on the path to the target, per image.

    Only the sibling groups on the targets' paths are decided, not the whole tree.

    Args:
        logits: (batch, classes), float32 or float64.
        nodes: (batch,) node indices, the targets.

    Returns:
        values, and the image and the edge of each, (decisions,): image by image, the deepest first.
    """
    image, chosen = tree.target_paths(nodes)
    scores = edge_scores(logits, tree, rule)
    values = _PathNLL.apply(scores, image, chosen, tree)  # type: ignore[no-untyped-call]
    return values, image, chosen


def mass_nll(logits: Tensor, nodes: Tensor, tree: TreeIndex) -> Tensor:
    """Return ``−log`` of the flat softmax's probability of all classes under a node, (batch,).

    Its gradient is the softmax, less the softmax among the classes under the node; 0 for the root. The
    logits are (batch, classes), float32 or float64, the node indices (batch,).
    """
    total = logits.logsumexp(dim=1)
    scores = torch.cat([edge_scores(logits, tree, "marginal"), total[None]])
    return total - scores.gather(0, tree.edge_of_node[nodes][None])[0]


class _PathNLL(torch.autograd.Function):
    """Cross-entropy of ragged sibling groups, each picked from one image's column of scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, image: Tensor, chosen: Tensor, tree: TreeIndex) -> Tensor:
        group = tree.group_of_edge.index_select(0, chosen)
        size = tree.group_size.index_select(0, group)
        decision = torch.repeat_interleave(size)
        before = tree.group_start.index_select(0, group) - (size.cumsum(0) - size)
        edges = torch.arange(len(decision), device=image.device) + before[decision]
        batch = scores.shape[1]
        flat = scores.reshape(-1)
        where = torch.add(image[decision], edges, alpha=batch)
        values = flat.take(where)
        top = values.new_full(group.shape, -torch.inf).scatter_reduce_(0, decision, values, "amax")
        mass = values.sub_(top[decision]).exp_()
        total = mass.new_zeros(group.shape).index_add_(0, decision, mass)
        target = torch.add(image, chosen, alpha=batch)
        ctx.save_for_backward(where, mass.div_(total[decision]), decision, target)
        ctx.shape = scores.shape
        return total.log_().add_(top).sub_(flat.take(target))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        where, share, decision, target = ctx.saved_tensors
        result = gradient.new_zeros(ctx.shape)
        flat = result.view(-1)
        flat.index_copy_(0, where, share * gradient.index_select(0, decision))
        flat.index_add_(0, target, -gradient)
        return result, None, None, None
