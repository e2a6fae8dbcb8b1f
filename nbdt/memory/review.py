"""Rows of a memory that a person should look at, worst first, and what the person says of them.

The order is that of confident learning (Northcutt et al., "Confident Learning", JAIR 2021): by the
probability that a fit without a photograph gives its label. cleanlab adjusts this by the mean of each
class, which finds fewer wrong labels here (`benchmarks/memory_review.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ..decide.paths import percent
from ..errors import NBDTError, listed
from ..tree.labels import classes_below, label_nodes
from .preview import Change

if TYPE_CHECKING:
    from .attribution import Attribution
    from .memory import Memory
    from .rows import Rows

# Cosine of centred features: 0.86 to 1 between a photograph and its copy in JPEG of quality 50, its
# mirror image or its inner 90 %; 99.9 % of photographs are further from every other class.
DUPLICATE = 0.85
NEIGHBOURS = 5  # the most of these must support a label before its row counts as a mistake
FENCE = 3.0  # interquartile ranges below the first quartile: Tukey's "far out"
LEAST = 5  # photographs of a label that say what is usual for it
MISTAKES = 500  # whose sums are looked into
CELLS = 2**25  # cosines in memory at once
KEPT = "kept in review"  # why a row that was looked at is not listed again


@dataclass(frozen=True)
class Suspect:
    """A row of a memory, and what is suspicious about it."""

    id: str  # of the row
    reference: str  # where the photograph came from
    label: str  # id of its node
    probability: float  # of its label, by a fit without it
    says: str  # id of the likeliest class outside its label, by that fit
    says_probability: float  # of that class
    reasons: tuple[str, ...]  # sentences, most serious first; none for a row that looks right


def suspects(rows: Rows, attribution: Attribution) -> list[Suspect]:
    """Rank the active rows of a memory: rows with a reason first, the least likely label first.

    Rows that were kept in an earlier review are left out.

    `attribution`: of a fit on them, see `Memory.attribution`.
    """
    found = _Compared(rows, attribution)
    rules, examples = found.rules, found.examples
    reasons = found.reasons()
    order = sorted(range(len(found.own)), key=lambda n: (not reasons[n], float(found.own[n]), n))
    ids, leaves = rules.hierarchy.ids, rules.hierarchy.leaf_nodes
    return [
        Suspect(
            rows.ids[place], rows.references[place], rows.labels[place], float(found.own[n]),
            ids[leaves[int(found.rival[n])]], float(found.rival_share[n]), tuple(reasons[n]),
        )
        for n in order if rows.why[place := int(examples.places[n])] != KEPT
    ]  # fmt: skip


class _Compared:
    """The active rows compared with what the fit says of them, and with each other.

    Attributes:
        own: (rows,) cross-validated probability of the label.
        rival: (rows,) class index of the likeliest class outside the label.
        rival_share: (rows,) its probability.
    """

    def __init__(self, rows: Rows, attribution: Attribution) -> None:
        self.rows, self.attribution = rows, attribution
        self.examples, self.rules = attribution.examples, attribution.rules
        examples, rules, fitted = self.examples, self.rules, attribution.fitted
        chances = rules(fitted.logits.float()).exp()
        self.nodes = label_nodes(rules.hierarchy)[examples.labels]
        self.inside = classes_below(rules.hierarchy)[self.nodes]  # (rows, classes)
        self.own = (chances * self.inside).sum(dim=1)
        self.rival_share, self.rival = chances.masked_fill(self.inside, -1).max(dim=1)
        self.rival_share = self.rival_share.clamp(min=0)  # a label of all classes has no rival
        centred = examples.features - fitted.fit.center
        self.unit = torch.nn.functional.normalize(centred, dim=1)
        self.disputed = (self.rival_share > self.own).nonzero()[:, 0]
        self.copies: dict[int, int] = {}
        self.supported: list[int] = []  # disputed rows whose label their neighbours support
        for block in self.disputed.split(max(1, CELLS // len(self.unit))):
            self._compare(block)

    def _compare(self, block: Tensor) -> None:
        """Find copies with other labels, and neighbours, of disputed rows."""
        cosines = self.unit[block] @ self.unit.T
        cosines[torch.arange(len(block)), block] = -1.0
        agree = self.inside[block].float() @ self.inside.float().T > 0
        count = min(NEIGHBOURS, len(self.unit) - 1)
        near = cosines.topk(count, dim=1).indices
        support = agree.gather(1, near).sum(dim=1) * 2 > count
        self.supported += block[support].tolist()
        nearest, other = cosines.masked_fill(agree, -1.0).max(dim=1)
        for row, copy, cosine in zip(block.tolist(), other.tolist(), nearest, strict=True):
            if cosine >= DUPLICATE:
                self.copies[row] = copy
                self.copies.setdefault(copy, row)

    def reasons(self) -> list[list[str]]:
        """Return the reasons of each row as sentences."""
        names = self.rules.hierarchy.names
        found: list[list[str]] = [[] for _ in range(len(self.own))]
        for row in self.disputed.tolist():
            name = names[self.rules.hierarchy.leaf_nodes[int(self.rival[row])]]
            share = percent(float(self.rival_share[row]))
            found[row].append(f"the other photographs say {name} ({share})")
        for row, copy in self.copies.items():
            reference = self.rows.references[int(self.examples.places[copy])]
            label = names[int(self.nodes[copy])]
            found[row].append(f"nearly the same as {reference}, which is labelled {label}")
        for row in self._far():
            found[row].append(f"unlike the other photographs of {names[int(self.nodes[row])]}")
        for row, times in self._misleading().items():
            what = "a mistake" if times == 1 else f"{times} mistakes"
            found[row].append(f"argues most for the wrong side of {what}")
        return found

    def _far(self) -> list[int]:
        """Return rows whose cosine with the mean of their label is far below what is usual for it."""
        _, label, counts = self.nodes.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), self.unit.shape[1]).index_add_(0, label, self.unit)
        near = torch.nn.functional.cosine_similarity(sums[label] - self.unit, self.unit)
        for one in range(len(counts)):
            near[label == one] -= near[label == one].median()
        low, high = near.quantile(torch.tensor([0.25, 0.75])).tolist()
        far = (near < low - FENCE * (high - low)) & (counts[label] >= LEAST)
        return cast(list[int], far.nonzero()[:, 0].tolist())

    def _misleading(self) -> dict[int, int]:
        """Count, for rows, the mistakes whose wrong side they support most.

        A mistake is a disputed row whose label its neighbours support.
        """
        tree, times = self.rules.hierarchy, dict[int, int]()
        for row in sorted(self.supported, key=lambda n: float(self.own[n]))[:MISTAKES]:
            wrong = tree.path_of_class(int(self.rival[row]))
            right = tree.path_to(int(self.nodes[row]))
            fork = next(pair for pair in zip(wrong, right, strict=False) if pair[0] != pair[1])
            parts = self.attribution.contributions(self.examples.features[row], [fork]).rows[0]
            parts[row] = 0.0
            most = int(parts.argmax())
            if parts[most] > 0:
                times[most] = times.get(most, 0) + 1
        return times


def parse_verdicts(
    memory: Memory, records: Iterable[Mapping[str, Any]], by: str = ""
) -> list[Change]:
    """Return the changes that the verdicts in a table ask for.

    Args:
        records: with "id", "verdict" ("keep", "strike", "relabel NODE", "unsure", or nothing) and
            perhaps "label", the row's when the table was made.
        by: who filled it in.

    Raises NBDTError: unknown rows, words or nodes, two verdicts on a row, or a row whose label has
    changed; every line that is wrong is listed.
    """
    found, problems = dict[str, Change](), list[str]()
    for number, record in enumerate(records, start=1):
        try:
            change = _change(memory, record, by)
            if change is not None and change.id in found:
                raise NBDTError("there is another verdict on this row above")
        except NBDTError as error:
            problems.append(f"row {number}: {error}")
        else:
            found |= {} if change is None else {change.id: change}
    if problems:
        shown = "\n".join(problems[:20])
        more = f"\nand {len(problems) - 20:,} more" if len(problems) > 20 else ""
        raise NBDTError(f"Nothing was changed. Correct these verdicts:\n{shown}{more}")
    return [*found.values()]


def _change(memory: Memory, record: Mapping[str, Any], by: str) -> Change | None:
    """Return the change of one verdict; None if it asks for none."""
    text = str(record.get("verdict") or "").strip()
    if not text:
        return None
    rows = memory.rows
    place = rows.place(str(record.get("id") or ""))
    key, label, weight = rows.ids[place], rows.labels[place], float(rows.weights[place])
    then = str(record.get("label") or "")
    if then and memory.node_of(then) != label:
        raise NBDTError(f"its label is {label!r} now, and was {then!r}; review it again")
    word, _, target = text.partition(" ")
    match word.lower(), target.strip():
        case "keep", "":
            return Change(key, label, weight=weight, by=by, why=KEPT)
        case "strike", "":
            return Change(key, weight=weight, by=by, why="struck out in review")
        case "relabel", node if node:
            node = memory.node_of(node)
            return Change(key, node, weight=weight, by=by, why="relabelled in review")
        case "unsure", "":
            return None
    expected = listed(["keep", "strike", "relabel NODE", "unsure"])
    raise NBDTError(f"expected one of {expected} as the verdict, got {text[:60]!r}")
