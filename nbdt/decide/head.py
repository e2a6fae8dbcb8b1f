"""The decision tree as a module: `DecisionRules` on class logits, `NBDTHead` on features."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError
from ..network.running import width
from ..tree.hierarchy import Hierarchy
from ..tree.index import TreeIndex
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


class DecisionRules(nn.Module):
    """A module from class logits to leaf log-probabilities; `nbdt.decide.rules` has the formulas.

    The state dict has the hierarchy's hash, and loading refuses that of another tree.

    Args:
        hierarchy: its class order is the order of the logits.
        rule: ``"representative"`` (after tree-supervised training) or ``"marginal"`` (for any
            trained classifier). There is no default: the wrong one costs accuracy silently.

    Raises NBDTError: an unknown rule.
    """

    hierarchy_hash: Tensor

    def __init__(self, hierarchy: Hierarchy, *, rule: str) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        self.hierarchy = hierarchy
        self.tree = TreeIndex(hierarchy)
        digest = torch.tensor(list(bytes.fromhex(hierarchy.hash)), dtype=torch.uint8)
        self.register_buffer("hierarchy_hash", digest)

    def forward(self, logits: Tensor) -> Tensor:
        """Return leaf log-probabilities, (batch, classes) to (batch, classes), float32 or wider.

        NaN and infinities pass through. Raises NBDTError on another shape.
        """
        logits = check_logits(logits, self.tree)
        with full_precision(logits):
            return leaf_log_probs(logits, self.tree, self.rule)

    def hard(self, logits: Tensor) -> Tensor:
        """Return the class that greedy descent reaches, (batch, classes) to (batch,) int64.

        Raises NBDTError: another shape, or logits that are not finite.
        """
        with full_precision(logits):
            logits = check_logits(logits.detach(), self.tree)
            check_finite(logits)
            nodes = hard_nodes(logits, self.tree, self.rule)
            return self.tree.class_of_node.index_select(0, nodes)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Return the log-probability of every node among its siblings, in float64 (MPS: float32).

        Args:
            logits: (batch, classes).

        Returns:
            (batch, nodes), columns as in `Hierarchy.nodes`; the root's is 0.

        Raises NBDTError: another shape, or logits that are not finite.
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
        """Return for each image the path to its most probable class, or to a given class.

        Of equally probable classes the one with the lowest index counts, as in ``argmax``. A
        decision on the path may go against the likeliest child: see `Decision.is_likeliest`.

        Args:
            logits: (batch, classes).
            classes: (batch,) class indices whose paths to return.

        Raises NBDTError: another shape, logits that are not finite, or an unknown class index.
        """
        with torch.inference_mode():
            log_probs = self.log_probs(logits)
            ends = self(logits).argmax(dim=1) if classes is None else torch.as_tensor(classes)
        rows = log_probs.cpu().numpy()
        if len(ends) != len(rows):
            raise NBDTError(f"Expected {len(rows)} class indices, one an image, got {len(ends)}.")
        return [self._path(row, int(index)) for row, index in zip(rows, ends, strict=True)]

    def _path(self, log_probs: Any, class_index: int) -> Path:
        if not 0 <= class_index < self.hierarchy.num_classes:
            raise NBDTError(
                f"Class index {class_index} is outside 0 to {self.hierarchy.num_classes - 1}."
            )
        nodes = self.hierarchy.path_of_class(class_index)
        decisions = tuple(
            self.decision(log_probs, parent, child) for parent, child in pairwise(nodes)
        )
        total = float(sum(log_probs[node] for node in nodes))
        return Path(decisions, self.hierarchy.classes[class_index], class_index, total)

    def decision(self, log_probs: Any, parent: int, child: int) -> Decision:
        """Return one decision of (nodes,) log-probabilities among siblings, with that child chosen."""
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
        """Return what ``print(module)`` shows."""
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
    def from_linear(cls, linear: nn.Module, hierarchy: Hierarchy, *, rule: str) -> "NBDTHead":
        """Make a head around an existing layer, which is not copied.

        Args:
            linear: a linear layer or a 1 × 1 convolution, or another module that gives the logits; a
                wrong number of them then shows only when it runs.
            hierarchy: its classes are the layer's outputs.
            rule: as in `DecisionRules`.

        Raises NBDTError: the layer's outputs are not as many as the hierarchy's classes.
        """
        outputs = width(linear, "out")
        if outputs not in {None, hierarchy.num_classes}:
            raise NBDTError(
                f"The linear layer has {outputs} outputs, the hierarchy "
                f"{hierarchy.num_classes} classes; they must be the same classes in one order."
            )
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head.linear = cast(nn.Linear, linear)  # what it mostly is, and what readers of weights need
        head.rules = DecisionRules(hierarchy, rule=rule)
        parameter = next(linear.parameters(), None)
        if parameter is not None:
            head.rules.to(parameter.device)
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
        return width(self.linear, "in") or self.hierarchy.num_classes

    @property
    def out_features(self) -> int:
        """Number of classes, as on the linear layer that this head replaces."""
        return self.hierarchy.num_classes

    @property
    def weight(self) -> Tensor:
        """The linear layer's weight: some models look at their last layer's."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        """The linear layer's bias."""
        return self.linear.bias

    def logits(self, features: Tensor) -> Tensor:
        """Return class logits of the flat classifier, (batch, features) to (batch, classes)."""
        return self._rows(self.linear(features))

    def forward(self, features: Tensor) -> Tensor:
        """Return leaf log-probabilities (batch, classes), or logits inside `flat`, of (batch, features).

        On a convolution, (batch, features, 1, 1) to (batch, classes, 1, 1).

        Raises NBDTError: another shape. Then the model pools after its last layer.
        """
        logits: Tensor = self.linear(features)
        if self.gives_flat:
            return logits
        rows = self._rows(logits)
        log_probs: Tensor = self.rules(rows)
        return log_probs if rows is logits else log_probs.reshape(logits.shape)

    def scale_logits(self, factor: float) -> None:
        """Multiply the linear layer by a factor, the inverse of a temperature, in place."""
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.mul_(factor)

    def hard(self, features: Tensor) -> Tensor:
        """Return the class that greedy descent reaches, (batch, features) to (batch,) int64."""
        return self.rules.hard(self.logits(features))

    def paths(self, features: Tensor, classes: Sequence[int] | Tensor | None = None) -> list[Path]:
        """Return the path of each image; see `DecisionRules.paths`."""
        return self.rules.paths(self.logits(features), classes)

    def _rows(self, logits: Tensor) -> Tensor:
        """Return (batch, classes), also from the one position of a convolution on pooled features."""
        if logits.ndim == 2:
            return logits
        if logits.ndim > 2 and logits.shape[1] * len(logits) == logits.numel():
            return logits.flatten(1)
        raise NBDTError(
            f"The layer below the head gives {tuple(logits.shape)} instead of (batch, "
            f"{self.out_features}): the model goes on after it. detach(model), then attach with "
            "layer='', which puts the rules on the model's output."
        )
