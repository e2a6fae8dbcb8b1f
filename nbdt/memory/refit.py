"""A last layer fitted on the rows of a memory, and kept with it by what it was fitted on."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..decide.head import DecisionRules
from ..errors import NBDTError, listed
from ..progress import Progress, no_progress
from ..tree.hierarchy import Hierarchy
from ..tree.labels import classes_below
from .fit import Basis, Design, LinearFit
from .rows import Rows, sampled
from .table import connect, now, reporting, waiting
from .targets import Targets, TreeTerm
from .tuning import folds, left_out, scaling, tune

MOST = 200_000  # photographs of a fit: with 1,280 features they take 3 GB
HEADS, KEPT = "heads", 30  # the table of fits, and how many it keeps
LEAST = 2  # photographs of a class: one to fit on while the other is left out


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A last layer that was fitted on rows of a memory."""

    key: str  # SHA-256 of what it was fitted on
    fit: LinearFit  # before the factor
    factor: float  # what the logits are multiplied by, so that probabilities are right
    # (rows, classes) float16 of the rows, each from a fit without it, with the factor
    logits: Tensor
    labels: Tensor  # (rows,) class indices; −1 − node for groups
    # where the next cross-validation starts; empty after loading
    fold_fits: tuple[LinearFit, ...] = field(default=(), repr=False)
    # of the rows' features; None after loading
    basis: Basis | None = field(default=None, repr=False)

    @property
    def weight(self) -> Tensor:
        """(classes, features) of the last layer."""
        return self.fit.weight * self.factor

    @property
    def bias(self) -> Tensor:
        """(classes,) of the last layer."""
        return (self.fit.bias - self.fit.weight @ self.fit.center) * self.factor

    @property
    def reference(self) -> dict[str, Tensor]:
        """What calibrates answers: logits and labels of the rows whose label is a class."""
        exact = self.labels >= 0
        kind = torch.int16 if self.logits.shape[1] < 2**15 else torch.int32
        return {"logits": self.logits[exact], "labels": self.labels[exact].to(kind)}

    @property
    def facts(self) -> dict[str, Any]:
        """What a model says about its fit."""
        strength = self.fit.strength
        return {"key": self.key, "penalty_inverse": strength, "logits_scaled_by": self.factor}

    def to_bytes(self) -> bytes:
        """Return the head as a safetensors file."""
        tensors = {"weight": self.fit.weight, "bias": self.fit.bias, "center": self.fit.center,
                   "logits": self.logits, "labels": self.labels}  # fmt: skip
        scalars = {"key": self.key, "factor": repr(self.factor), "error": repr(self.fit.error),
                   "strength": repr(self.fit.strength)}  # fmt: skip
        return save({name: value.contiguous() for name, value in tensors.items()}, scalars)

    @classmethod
    def from_bytes(cls, data: bytes) -> "FittedHead":
        """Read what `to_bytes` returned."""
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(data[8 : 8 + size])["__metadata__"]
        fit = LinearFit(
            tensors["weight"], tensors["bias"], tensors["center"], float(facts["strength"]),
            float(facts["error"]),
        )  # fmt: skip
        return cls(facts["key"], fit, float(facts["factor"]), tensors["logits"], tensors["labels"])


class Heads:
    """Fitted heads by the key of what they were fitted on, in the memory's database.

    `writes`: whether new ones are written there, or kept in this process only.
    """

    def __init__(self, place: str, writes: bool = True) -> None:
        self.place, self.writes = place, writes
        self._recent: dict[str, FittedHead] = {}

    def get(self, key: str) -> FittedHead | None:
        """Return the head of a key, None if it is not kept."""
        if key not in self._recent:
            with reporting(self.place, "read"):
                connection = connect(self.place)
                if HEADS not in connection.list_tables().tables:
                    return None
                query = connection.open_table(HEADS).search().where(f"key = '{key}'")
                found = query.limit(1).to_arrow()
                if not len(found):
                    return None
                self._recent[key] = FittedHead.from_bytes(found["data"][0].as_py())
        return self._recent[key]

    def put(self, head: FittedHead) -> None:
        """Keep a head; the oldest of more than `KEPT` go."""
        self._recent[head.key] = head
        while len(self._recent) > 3:
            self._recent.pop(next(iter(self._recent)))
        if not self.writes:
            return
        import pyarrow as pa

        with reporting(self.place, "changed"), waiting(self.place):
            fields = {"key": pa.string(), "when": pa.string(), "data": pa.large_binary()}
            schema = pa.schema([*fields.items()])
            table = connect(self.place).create_table(HEADS, schema=schema, exist_ok=True)
            table.add([{"key": head.key, "when": now(), "data": head.to_bytes()}])
            if table.count_rows() > KEPT:
                times = table.search().select(["when"]).limit(KEPT * 2).to_arrow()["when"]
                oldest = sorted(times.to_pylist())[-KEPT]
                table.delete(f"\"when\" < '{oldest}'")


@dataclass(frozen=True, eq=False)
class Examples:
    """The active rows of a memory as a fit takes them."""

    places: Tensor  # of the rows, among those that were given
    features: Tensor  # (active rows, features) float32
    targets: Targets  # their labels; each class weighs alike
    labels: Tensor  # (active rows,) class indices; −1 − node for groups
    fold: Tensor  # (active rows,) of each in cross-validation
    names: list[tuple[str, str]]  # id and label's id of each
    key: str  # SHA-256 of what a fit depends on


def examples_of(rows: Rows, rules: DecisionRules) -> Examples:
    """Return the active rows of a memory as a fit takes them, at most about `MOST`; see `sampled`.

    Raises NBDTError: a label that is no node of the hierarchy, a class with fewer than two rows, or
    features that are not finite.
    """
    hierarchy = rules.hierarchy
    every = torch.tensor(labels_of(rows.labels, hierarchy), dtype=torch.int64)
    active = torch.from_numpy(sampled(rows.active, every.numpy(), rows.weights, MOST))
    labels = every[active]
    counts = torch.bincount(labels[labels >= 0], minlength=hierarchy.num_classes).tolist()
    if few := [name for name, n in zip(hierarchy.classes, counts, strict=True) if n < LEAST]:
        raise NBDTError(
            f"{len(few)} classes have fewer than {LEAST} photographs in the memory: {listed(few)}. "
            "Add photographs of them, or restore an earlier version, which `nbdt memory versions` lists."
        )
    places = active.nonzero()[:, 0]
    features = torch.from_numpy(rows.features if active.all() else rows.features[active.numpy()])
    features, weights = features.float(), torch.from_numpy(rows.weights[active.numpy()])
    if not torch.stack(features.aminmax()).isfinite().all():
        wrong = (~features.isfinite().all(dim=1)).nonzero()[:, 0]
        raise NBDTError(
            f"{len(wrong)} photographs of the memory have embeddings that are not finite numbers: "
            f"{listed(rows.references[n] for n in places[wrong].tolist())}. Strike them out, or restore "
            "an earlier version."
        )
    heavy = [(rows.ids[n], float(rows.weights[n])) for n in places[weights != 1].tolist()]
    names = [(rows.ids[n], rows.labels[n]) for n in places.tolist()]
    key = _key(names, rules, heavy)
    targets = balanced(labels, hierarchy.num_classes, classes_below(hierarchy))
    targets = replace(targets, weights=targets.weights * weights)
    if rules.rule != "marginal":
        targets = replace(targets, nodes=labels, tree=TreeTerm(rules))
    return Examples(places, features, targets, labels, folds(every, active), names, key)


def shared(one: Examples, other: Examples, without: Collection[str] = ()) -> tuple[Tensor, Tensor]:
    """Return the places in both of rows that have the same label, a class, in both; (rows,) each.

    `without` are ids of rows that are left out.
    """
    places = {name: n for n, name in enumerate(other.names)}
    found = [
        (n, places[name]) for n, name in enumerate(one.names)
        if name in places and one.labels[n] >= 0 and name[0] not in without
    ]  # fmt: skip
    first, second = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T
    return first, second


def _key(rows: list[tuple[str, str]], rules: DecisionRules, heavy: list[tuple[str, float]]) -> str:
    """Return a digest of rows and of what else a fit depends on.

    Under `marginal` that is the classes, and the classes of the groups that are labels: the fit
    stays when the tree is edited.
    """
    hierarchy = rules.hierarchy
    under = {
        label: sorted(hierarchy.classes_under(hierarchy.index(label)))
        for label in {label for _, label in rows} - {*hierarchy.classes}
    }
    tree = [] if rules.rule == "marginal" else [hierarchy.hash]
    facts = [rules.rule, tree, hierarchy.classes, sorted(under.items()), rows, *heavy]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def labels_of(ids: Sequence[str], hierarchy: Hierarchy) -> list[int]:
    """Return the label of each node id, see `nbdt.tree.labels`. Raises NBDTError: no such node."""
    known = {key: node for node, key in enumerate(hierarchy.ids)}
    if unknown := Counter(key for key in ids if key not in known):
        raise NBDTError(
            f"{unknown.total()} photographs of the memory have labels that are no node of the "
            f"hierarchy: {listed(unknown)}. Relabel them, or use the hierarchy they were made for."
        )
    classes = hierarchy.class_indices
    nodes = [known[key] for key in ids]
    return [classes[node] if classes[node] >= 0 else -1 - node for node in nodes]


def balanced(labels: Tensor, count: int, below: Tensor | None = None) -> Targets:
    """Return targets in which each class weighs alike, and an image with a group as much as the mean.

    Args:
        labels: (images,) class indices; −1 − node for groups.
        count: of classes.
        below: (nodes, classes) bool, the classes under each node; for groups.
    """
    exact = labels >= 0
    counts = torch.bincount(labels[exact], minlength=count).float()
    weights = torch.ones(len(labels))
    weights[exact] = (counts.mean() / counts)[labels[exact]]
    nodes, place = (-1 - labels[~exact]).unique(return_inverse=True)
    groups = torch.zeros(0, count, dtype=torch.bool) if below is None else below[nodes]
    numbered = labels.clone()
    numbered[~exact] = -1 - place
    return Targets(numbered, groups, weights)


def fit_head(
    examples: Examples, rules: DecisionRules, start: FittedHead | None = None, *,
    choose: bool = True, progress: Progress = no_progress,
) -> FittedHead:  # fmt: skip
    """Fit a last layer on the rows of a memory, and cross-validate it.

    Args:
        rules: how logits become the tree's probabilities, which the factor makes right.
        start: a head to begin at.
        choose: whether to choose the penalty again; otherwise it is that of `start`.
    """
    design = Design(examples.features, None if start is None else start.basis)
    targets, fold = examples.targets, examples.fold
    if start is None or choose:
        tuned = tune(design, targets, fold, progress=progress)
    else:
        count = int(fold.max()) + 1  # more than `start` had, if a class of few has grown
        starts = start.fold_fits if len(start.fold_fits) == count else (start.fit,) * count
        tuned = left_out(design, targets, fold, start.fit.strength, starts)
    first = start.fit if start is not None else tuned.fold_fits[0]
    fit = design.fit(targets, tuned.strength, start=first)
    factor = tuned.factor
    if rules.rule != "marginal":  # otherwise the tree's answer is the softmax
        factor = scaling(tuned.logits, examples.targets, rules)
    logits = (tuned.logits * factor).half()
    return FittedHead(
        examples.key, fit, factor, logits, examples.labels, tuned.fold_fits, design.basis
    )
