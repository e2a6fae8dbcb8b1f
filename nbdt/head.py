"""The decision tree as a module: `DecisionRules` on class logits, `NBDTHead` on features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import NBDTError, listed
from .hierarchy import Hierarchy
from .paths import Decision, Path
from .rules import (
    check_finite,
    check_logits,
    check_rule,
    decide,
    edge_scores,
    full_precision,
    hard_nodes,
    leaf_log_probs,
)
from .tree import Tree

M = TypeVar("M", bound=nn.Module)


class DecisionRules(nn.Module):
    """Class logits in, leaf log-probabilities out; see `nbdt.rules` for the formulas.

    The state dict carries the hierarchy's hash and refuses that of another tree.

    Args:
        hierarchy: its class order is the order of the logits.
        rule: ``"representative"`` (after tree-supervised training) or ``"marginal"`` (for any
            trained classifier). There is no default: the wrong one costs accuracy silently.

    Raises:
        NBDTError: an unknown rule.
    """

    hierarchy_hash: Tensor

    def __init__(self, hierarchy: Hierarchy, *, rule: str) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        self.hierarchy = hierarchy
        self.tree = Tree(hierarchy)
        digest = torch.tensor(list(bytes.fromhex(hierarchy.hash)), dtype=torch.uint8)
        self.register_buffer("hierarchy_hash", digest)

    def forward(self, logits: Tensor) -> Tensor:
        """Leaf log-probabilities, (batch, classes) to (batch, classes), float32 or wider.

        NaN and infinities pass through. Raises NBDTError on another shape.
        """
        tree = self.tree
        logits = check_logits(logits, tree)
        if torch.is_autocast_enabled(logits.device.type):
            with full_precision(logits):
                return leaf_log_probs(logits, tree, self.rule)
        return leaf_log_probs(logits, tree, self.rule)

    def hard(self, logits: Tensor) -> Tensor:
        """Greedy descent: (batch, classes) to (batch,) int64 class indices.

        Raises:
            NBDTError: another shape, or logits that are not finite.
        """
        with full_precision(logits):
            logits = check_logits(logits.detach(), self.tree)
            check_finite(logits)
            nodes = hard_nodes(logits, self.tree, self.rule)
            return self.tree.class_of_node.index_select(0, nodes)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probability of every node among its siblings, in float64 (MPS: float32).

        The root's is 0.

        Args:
            logits: (batch, classes).

        Returns:
            (batch, nodes), columns as in `Hierarchy.nodes`.

        Raises:
            NBDTError: another shape, or logits that are not finite.
        """
        logits = check_logits(logits, self.tree)
        if logits.device.type != "mps":  # which has no float64
            logits = logits.double()
        check_finite(logits)
        with full_precision(logits):
            edges = decide(edge_scores(logits, self.tree, self.rule), self.tree).t()
            root = edges.new_zeros(len(edges), 1)
            return torch.cat([root, edges[:, self.tree.edge_of_node[1:]]], dim=1)

    def paths(self, logits: Tensor, classes: Sequence[int] | Tensor | None = None) -> list[Path]:
        """For each image the decisions of the greedy descent, or of the path to a given class.

        Args:
            logits: (batch, classes).
            classes: (batch,) class indices whose paths are wanted.

        Raises:
            NBDTError: another shape, logits that are not finite, or an unknown class index.
        """
        with torch.inference_mode():
            log_probs = self.log_probs(logits)
            wanted = self.hard(logits) if classes is None else torch.as_tensor(classes)
        rows = log_probs.cpu().numpy()
        if len(wanted) != len(rows):
            raise NBDTError(f"Expected {len(rows)} class indices, one an image, got {len(wanted)}.")
        return [self._path(row, int(index)) for row, index in zip(rows, wanted, strict=True)]

    def _path(self, log_probs: Any, class_index: int) -> Path:
        if not 0 <= class_index < self.hierarchy.num_classes:
            raise NBDTError(
                f"Class index {class_index} is outside 0 to {self.hierarchy.num_classes - 1}."
            )
        nodes = self.hierarchy.path_to(self.hierarchy.leaf_nodes[class_index])
        decisions = tuple(
            self._decision(log_probs, parent, child) for parent, child in pairwise(nodes)
        )
        total = float(sum(log_probs[node] for node in nodes))
        return Path(decisions, self.hierarchy.classes[class_index], class_index, total)

    def _decision(self, log_probs: Any, parent: int, child: int) -> Decision:
        tree = self.hierarchy
        children = tree.children[parent]
        span = slice(children.start, children.stop)
        return Decision(
            node=tree.names[parent],
            node_id=tree.ids[parent],
            children=tree.names[span],
            child_ids=tree.ids[span],
            log_probs=tuple(log_probs[span].tolist()),
            chosen=child - children.start,
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}hierarchy_hash")
        if stored is not None and stored.tolist() != list(bytes.fromhex(self.hierarchy.hash)):
            is_hash = stored.dtype == torch.uint8 and stored.ndim == 1
            shown = bytes(stored.tolist()).hex()[:12] if is_hash else "damaged"
            raise NBDTError(
                f"These weights belong to another hierarchy (hash {shown}…) than this module's "
                f"({self.hierarchy.hash[:12]}…). Build the module with the hierarchy that was "
                "saved beside the weights."
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{self.hierarchy!r}, rule={self.rule!r}"


class NBDTHead(nn.Module):
    """A linear layer, then `DecisionRules`: the last layer of an image classifier.

    Args:
        in_features: width of the features.
        hierarchy: its classes are the linear layer's outputs.
        rule: as in `DecisionRules`.
    """

    def __init__(self, in_features: int, hierarchy: Hierarchy, *, rule: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, hierarchy.num_classes)
        self.rules = DecisionRules(hierarchy, rule=rule)
        self.gives_flat = False

    @classmethod
    def from_linear(cls, linear: nn.Linear, hierarchy: Hierarchy, *, rule: str) -> NBDTHead:
        """A head around an existing layer, which is used as it is and not copied.

        Raises:
            NBDTError: the layer's outputs are not as many as the hierarchy's classes.
        """
        if linear.out_features != hierarchy.num_classes:
            raise NBDTError(
                f"The linear layer has {linear.out_features} outputs, the hierarchy "
                f"{hierarchy.num_classes} classes; they must be the same classes in one order."
            )
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head.linear = linear
        head.rules = DecisionRules(hierarchy, rule=rule).to(linear.weight.device)
        head.gives_flat = False
        head.train(linear.training)
        return head

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy whose decisions this head takes."""
        return self.rules.hierarchy

    @property
    def rule(self) -> str:
        """How node scores are computed: 'representative' or 'marginal'."""
        return self.rules.rule

    @property
    def in_features(self) -> int:
        """Width of the features, as on the linear layer that this head replaces."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Number of classes, as on the linear layer that this head replaces."""
        return self.linear.out_features

    def forward(self, features: Tensor) -> Tensor:
        """(batch, features) to (batch, classes): leaf log-probabilities, or logits in `flat`."""
        logits: Tensor = self.linear(features)
        return logits if self.gives_flat else self.rules(logits)

    def hard(self, features: Tensor) -> Tensor:
        """Greedy descent: (batch, features) to (batch,) int64 class indices."""
        return self.rules.hard(self.linear(features))

    def paths(self, features: Tensor, classes: Sequence[int] | Tensor | None = None) -> list[Path]:
        """The decisions for each image; see `DecisionRules.paths`."""
        return self.rules.paths(self.linear(features), classes)


def attach(model: M, hierarchy: Hierarchy, *, rule: str) -> M:
    """Put an `NBDTHead` in the place of the model's last linear layer; return the model.

    The layer is found by structure: the last `nn.Linear`, in the order of registration, that has
    one output per class. It is kept inside the head, so that `detach` gives the model back.

    Raises:
        NBDTError: no such layer, or a model that has a head already.
    """
    if _heads(model):
        raise NBDTError("The model has an NBDTHead already; detach(model) first.")
    name, linear = _last_linear(model, hierarchy.num_classes)
    _replace(model, name, NBDTHead.from_linear(linear, hierarchy, rule=rule))
    return model


def detach(model: M) -> M:
    """Undo `attach`: the very same linear layer takes its old place. Returns the model.

    Raises:
        NBDTError: the model has no head, or is one.
    """
    for name, head in _require_heads(model).items():
        if not name:
            raise NBDTError("This is a bare NBDTHead; its linear layer is `head.linear`.")
        _replace(model, name, head.linear)
    return model


@contextmanager
def flat(model: nn.Module) -> Iterator[None]:
    """Inside, the model gives its flat logits: what `TreeSupervisionLoss` takes.

    Works through wrappers such as DistributedDataParallel. One thread at a time: the switch sits
    on the head.

    Raises:
        NBDTError: the model has no head.
    """
    heads = _require_heads(model).values()
    before = [head.gives_flat for head in heads]
    for head in heads:
        head.gives_flat = True
    try:
        yield
    finally:
        for head, value in zip(heads, before, strict=True):
            head.gives_flat = value


def _heads(model: nn.Module) -> dict[str, NBDTHead]:
    return {name: part for name, part in model.named_modules() if isinstance(part, NBDTHead)}


def _require_heads(model: nn.Module) -> dict[str, NBDTHead]:
    heads = _heads(model)
    if not heads:
        raise NBDTError(
            f"{type(model).__name__} has no NBDTHead; attach(model, hierarchy, rule=…) first."
        )
    return heads


def _last_linear(model: nn.Module, num_classes: int) -> tuple[str, nn.Linear]:
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    fitting = [name for name, layer in layers.items() if layer.out_features == num_classes]
    if not fitting or fitting == [""]:
        found = [f"{name} ({layer.out_features})" for name, layer in layers.items()]
        raise NBDTError(
            f"Expected a linear layer inside {type(model).__name__} with {num_classes} outputs, "
            f"one for each class of the hierarchy; found {listed(found[-5:]) or 'none'}. Use "
            "NBDTHead where the model has another kind of last layer."
        )
    return fitting[-1], layers[fitting[-1]]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
