"""A model that answers only with classes that can occur: where a photograph was taken decides which."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from ..decide.head import NBDTHead
from ..errors import NBDTError, listed, nearest
from ..tree.building import collapse_chains
from ..tree.class_names import class_of_name, normalised_name
from ..tree.hierarchy import Hierarchy

REMOVED = "removed."  # before "weight" and "bias" in a reference set
MAX_LIST = 2**24  # bytes of a file of names


def restricted(
    head: NBDTHead, reference: dict[str, Tensor], names: Sequence[str]
) -> tuple[NBDTHead, dict[str, Tensor], list[str]]:
    """Return a head over the allowed classes, its reference set, and the classes that are gone.

    The reference set also has the rows of the linear layer that are gone, for
    `removed_probability`.

    Raises NBDTError: as for `allowed_classes`.
    """
    hierarchy = head.hierarchy
    allowed = allowed_classes(hierarchy, names)
    linear, tree = rows_of(head.linear, allowed), pruned(hierarchy, allowed)
    removed = sorted(set(range(hierarchy.num_classes)).difference(allowed))
    rows: dict[str, Tensor] = {}
    if removed:
        gone = rows_of(head.linear, removed)
        rows = {f"{REMOVED}{name}": values for name, values in gone.state_dict().items()}
    for name, values in rows.items():  # a model that was restricted before
        rows[name] = torch.cat([reference[name], values]) if name in reference else values
    return (
        NBDTHead.from_linear(linear, tree, rule=head.rule),
        {**_restricted_reference(reference, allowed), **rows},
        [hierarchy.classes[index] for index in removed],
    )


def removed_probability(
    reference: Mapping[str, Tensor], features: Tensor, logits: Tensor
) -> Tensor | None:
    """Return the flat classifier's probability of the classes that a restricted model lacks, (batch,).

    None for a model that is not restricted. The features are (batch, features), the logits (batch,
    classes) of the classes that it has.
    """
    weight, bias = (reference.get(f"{REMOVED}{name}") for name in ("weight", "bias"))
    if weight is None:
        return None
    removed = features.float() @ weight.to(features.device).t()
    if bias is not None:
        removed += bias.to(features.device)
    return (removed.logsumexp(dim=1) - logits.float().logsumexp(dim=1)).sigmoid()


def allowed_classes(hierarchy: Hierarchy, names: Sequence[str]) -> list[int]:
    """Return the class indices, in order, of classes and groups that are named.

    Names are of classes or groups, WordNet ids, or ids of nodes; case and underscores do not count.

    Raises NBDTError: an unknown or repeated name, none, or names that leave one class or all classes.
    """
    nodes = _nodes_by_name(hierarchy)
    meant = [nodes.get(name, nodes.get(normalised_name(name), [])) for name in names]
    unknown = [name for name, found in zip(names, meant, strict=True) if not found]
    if unknown:
        every = [*hierarchy.classes, *(hierarchy.names[node] for node in hierarchy.inner_nodes)]
        near = "".join(nearest(name, every) for name in unknown[:3])
        raise NBDTError(f"No class and no group is named {listed(unknown)}.{near}")
    times = Counter(map(tuple, meant))
    repeated = {normalised_name(n) for n, m in zip(names, meant, strict=True) if times[(*m,)] > 1}
    if repeated:
        raise NBDTError(f"Named twice among the allowed classes: {listed(sorted(repeated))}.")
    allowed = sorted(
        {hierarchy.leaf_order[place] for node in chain(*meant) for place in hierarchy.spans[node]}
    )
    if len(allowed) < 2:
        raise NBDTError(
            f"Expected at least two allowed classes, got {len(allowed)}: one class leaves nothing to "
            "decide."
        )
    return allowed


def read_names(given: str) -> list[str]:
    """Return names separated by commas, or the lines of a text file; "#" starts a comment.

    Raises NBDTError: no names, or a file that is not UTF-8 text or has more than 16 MB.
    """
    path = Path(given)
    parts = given.split(",")
    if path.is_file():
        if path.stat().st_size > MAX_LIST:
            raise NBDTError(f"{given!r} has more than {MAX_LIST:,} bytes; expected a name a line.")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise NBDTError(f"{given!r} is not UTF-8 text; expected a name a line.") from None
        parts = [line.partition("#")[0] for line in text.splitlines()]
    elif os.sep in given and "," not in given:
        raise NBDTError(f"There is no file {given!r} of allowed classes.")
    names = [part.strip() for part in parts if part.strip()]
    if not names:
        raise NBDTError(f"{given!r} names no class; expected names of classes or groups.")
    return names


def pruned(hierarchy: Hierarchy, allowed: Sequence[int]) -> Hierarchy:
    """Return the tree without the other leaves; groups with a single child disappear."""
    kept = {node for index in allowed for node in hierarchy.path_of_class(index)}
    nodes = collapse_chains([hierarchy.nodes[node] for node in sorted(kept)])
    return Hierarchy(tuple(nodes), tuple(hierarchy.classes[index] for index in allowed))


def rows_of(linear: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """Return a linear layer with some of the outputs of another; the values are copied."""
    part = nn.Linear(linear.in_features, len(rows), bias=linear.bias is not None, device="meta")
    values = {name: value[list(rows)] for name, value in linear.state_dict().items()}
    part.load_state_dict(values, assign=True)
    return part


def _restricted_reference(
    reference: dict[str, Tensor], allowed: Sequence[int]
) -> dict[str, Tensor]:
    """Return the reference set over the allowed classes; images of other classes are left out."""
    if "logits" not in reference:
        return {}
    logits, labels = reference["logits"], reference["labels"].long()
    place = torch.full((logits.shape[1],), -1)
    place[list(allowed)] = torch.arange(len(allowed))
    kept = place[labels] >= 0
    columns = logits[kept][:, list(allowed)]
    group = reference.get("group")
    return {
        **({} if group is None else {"group": group[list(allowed)]}),
        "logits": columns.contiguous(),
        "labels": place[labels[kept]].to(reference["labels"].dtype),
    }


def _nodes_by_name(hierarchy: Hierarchy) -> dict[str, list[int]]:
    """Return nodes by every text that may name them; a class's name counts before a group's."""
    nodes: dict[str, list[int]] = {}
    for node in hierarchy.inner_nodes:
        for key in {normalised_name(hierarchy.names[node]), normalised_name(hierarchy.ids[node])}:
            nodes.setdefault(key, []).append(node)
    exact = {name: index for index, name in enumerate(hierarchy.classes)}
    for key, index in (exact | class_of_name(hierarchy)).items():
        nodes[key] = [hierarchy.leaf_nodes[index]]
    return nodes
