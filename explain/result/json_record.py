"""An explanation as plain data, and back."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.decide.paths import Decision, Path
from nbdt.errors import NBDTError
from nbdt.images.image import refusal, refuse

from .contributions import Contribution, DecisionContributions, TwoSides
from .explanation import Counterfactual, DecisionEvidence, Explanation, Neighbour
from .facts import words
from .regions import AlikeRegions, Region, TestedRegion

Arrays = Mapping[str, NDArray[np.float32]]
Pictures = Collection[str]  # their names
Open = Callable[[str], Image.Image]  # decodes a picture by its name
REGIONS = ("regions", "theirs")  # fields that hold them
MOST_CELLS = 1024  # along a side of a grid; ours have at most 16


def arrays(explanation: Explanation) -> dict[str, NDArray[np.float32]]:
    """Return all maps by names that do not depend on node names."""
    groups = {"map": explanation.maps, "children": explanation.child_maps}
    groups["node"] = tuple(explanation.node_maps.values())
    groups["below"] = tuple(explanation.node_child_maps.values())
    return {
        f"{kind}_{index}": np.asarray(values, dtype=np.float32)
        for kind, found in groups.items()
        for index, values in enumerate(found)
    }


def changed_name(index: int) -> str:
    """Return the name of the picture that flips a decision."""
    return f"counterfactual-{index + 1}.png"


# ---- to plain data -----------------------------------------------------------------------------


def to_record(explanation: Explanation, pictures: Pictures) -> dict[str, Any]:
    """Return everything but maps and pictures, which it names.

    `pictures`: those in the same folder, by name.
    """

    def row(item: Neighbour | Contribution, name: str) -> dict[str, Any]:
        return {**item.to_dict(), "picture": name if name in pictures else None}

    return {
        "words": words(explanation),
        "path": _path_record(explanation.path),
        "constants": [_finite(value) for value in explanation.constants],
        "nodes": list(explanation.node_maps),
        "inner_nodes": list(explanation.node_child_maps),
        "photo": "photo.png" if explanation.photo is not None else None,
        "evidence": [found.map(i, row) for i, found in enumerate(explanation.evidence)],
        "contributions": [
            {**found.to_dict(), **found.map(i, row)}
            for i, found in enumerate(explanation.contributions)
        ],
        "counterfactuals": [_counterfactual_record(c) for c in explanation.counterfactuals],
        "tested": [found and _regions_record(found) for found in explanation.tested],
        "alike": [_regions_record(found) for found in explanation.alike],
        "made": dict(explanation.made),
    }


def _regions_record(found: TestedRegion | AlikeRegions) -> dict[str, Any]:
    """Return the fields, with regions where there are some."""
    lists = {
        name: list(map(_region_record, value))
        for name, value in vars(found).items()
        if name in REGIONS
    }
    return {**vars(found), **lists}


def _region_record(region: Region) -> dict[str, Any]:
    return {**vars(region), "bounds": region.bounds, "box": region.box}


def _path_record(path: Path) -> dict[str, Any]:
    return {
        "class": path.class_name,
        "class_index": path.class_index,
        "log_prob": _finite(path.log_prob),
        "decisions": [
            {
                **vars(d),
                "log_probs": list(map(_finite, d.log_probs)),
                "is_likeliest": d.is_likeliest,
            }
            for d in path
        ],
    }


def _counterfactual_record(found: Counterfactual) -> dict[str, Any]:
    return {
        **{name: value for name, value in vars(found).items() if name != "picture"},
        "margin": _finite(found.margin),
        "runner_up_path": _path_record(found.runner_up_path),
        "regions": [_region_record(region) for region in found.regions],
        "log_odds": [_finite(value) for value in found.log_odds],
        "picture": changed_name(found.decision) if found.picture is not None else None,
    }


def _finite(value: float) -> float | str:
    """JSON knows no infinity; a log-probability may be one."""
    return value if math.isfinite(value) else repr(value)


# ---- from plain data ---------------------------------------------------------------------------


def from_record(record: Mapping[str, Any], maps: Arrays, pictures: Open) -> Explanation:
    """Build the explanation from its record.

    Raises:
        NBDTError: what does not fit together.
        KeyError, TypeError, ValueError: what is missing or of another kind.
    """
    path = _path(record["path"])
    found, tested = _numbered(maps, "map"), record.get("tested", ())
    for count, kind in ((len(found), "maps"), (len(tested) or len(path), "tested regions")):
        if count != len(path):
            raise NBDTError(f"expected {len(path)} {kind}, one a decision, got {count}")
    nodes, inner = ([_text(node) for node in record[key]] for key in ("nodes", "inner_nodes"))
    photo = _picture(record["photo"], pictures)
    evidence = tuple(
        DecisionEvidence(*_sides(row, DecisionEvidence, pictures)) for row in record["evidence"]
    )
    return Explanation(
        path=path,
        maps=found,
        child_maps=_numbered(maps, "children"),
        node_maps=dict(zip(nodes, _numbered(maps, "node"), strict=True)),
        node_child_maps=dict(zip(inner, _numbered(maps, "below"), strict=True)),
        photo=photo,
        evidence=evidence,
        contributions=tuple(_sum(row, pictures) for row in record.get("contributions", ())),
        counterfactuals=tuple(_counterfactual(row, pictures) for row in record["counterfactuals"]),
        tested=tuple(row and _tested(row) for row in tested),
        alike=tuple(_alike(row, evidence) for row in record.get("alike", ())),
        made=dict(record["made"]),
    )


def _numbered(maps: Arrays, kind: str) -> tuple[NDArray[np.float32], ...]:
    count = sum(name.startswith(f"{kind}_") for name in maps)
    return tuple(maps[f"{kind}_{index}"] for index in range(count))


def _path(record: Mapping[str, Any]) -> Path:
    decisions = tuple(_decision(row) for row in record["decisions"])
    if not decisions:
        raise NBDTError("the path has no decision")
    index, total = int(record["class_index"]), float(record["log_prob"])
    return Path(decisions, _text(record["class"]), index, total)


def _decision(record: Mapping[str, Any]) -> Decision:
    children, ids = (tuple(map(_text, record[key])) for key in ("children", "child_ids"))
    log_probs, chosen = tuple(map(float, record["log_probs"])), int(record["chosen"])
    sizes = {len(children), len(ids), len(log_probs)}
    if len(sizes) > 1 or len(children) < 2 or not 0 <= chosen < len(children):
        raise NBDTError(f"the decision at {record['node']!r} does not fit its children")
    node, node_id = _text(record["node"]), _text(record["node_id"])
    return Decision(node, node_id, children, ids, log_probs, chosen)


def _counterfactual(record: Mapping[str, Any], pictures: Open) -> Counterfactual:
    before, after = map(float, record["log_odds"])
    becomes = record["becomes"]
    return Counterfactual(
        decision=int(record["decision"]),
        margin=float(record["margin"]),
        runner_up_path=_path(record["runner_up_path"]),
        regions=tuple(map(_region, record["regions"])),
        flipped=record["flipped"] is True,
        becomes=None if becomes is None else _text(becomes),
        log_odds=(before, after),
        share=float(record["share"]),
        searched=float(record["searched"]),
        passes=int(record["passes"]),
        baseline=_text(record["baseline"]),
        picture=_picture(record["picture"], pictures),
        overtaken=record.get("overtaken") is True,
    )


def _tested(record: Mapping[str, Any]) -> TestedRegion:
    whole, blurred, mean = map(float, record["log_odds"])
    first, second = ((float(own), float(other)) for own, other in record["changes"])
    regions = _pieces(record["regions"])
    return TestedRegion(regions, (whole, blurred, mean), (first, second), float(record["share"]))


def _alike(record: Mapping[str, Any], evidence: Sequence[DecisionEvidence]) -> AlikeRegions:
    decision, side = int(record["decision"]), _text(record["side"])
    if not (0 <= decision < len(evidence) and evidence[decision].sides.get(side)):
        raise NBDTError(f"decision {decision} has no photograph on the side {side!r} to be alike")
    here, there = (_pieces(record[name]) for name in REGIONS)
    similarities = (float(record[name]) for name in ("similarity", "elsewhere"))
    return AlikeRegions(decision, side, here, there, *similarities)


def _pieces(records: Iterable[Mapping[str, Any]]) -> tuple[Region, ...]:
    regions = tuple(map(_region, records))
    if len({region.grid for region in regions}) != 1:
        raise NBDTError("a region of the picture has no pieces, or some of another grid")
    return regions


def _sum(record: Mapping[str, Any], pictures: Open) -> DecisionContributions:
    rest, bias, entropy = (float(record[name]) for name in ("rest", "bias", "entropy"))
    supporting, opposing = _sides(record, DecisionContributions, pictures)
    return DecisionContributions(supporting, opposing, int(record["others"]), rest, bias, entropy)


def _sides(
    record: Mapping[str, Any], kind: type[TwoSides], pictures: Open
) -> Iterator[tuple[Any, ...]]:
    """Yield the photographs of both sides, which open the pictures that were saved."""
    for side in kind.SIDES:
        yield tuple(_photograph(row, kind is DecisionEvidence, pictures) for row in record[side])


def _photograph(
    record: Mapping[str, Any], is_near: bool, pictures: Open
) -> Neighbour | Contribution:
    reference, label = _text(record["reference"]), _text(record["label"])
    image = _picture(record["picture"], pictures)
    expected, advice = "a picture saved with the explanation", "look at the original training data"
    gone = refusal(reference, expected, "none", advice)
    opener: Callable[[], Image.Image] = image.copy if image else partial(refuse, gone)
    if is_near:
        return Neighbour(reference, label, float(record["similarity"]), int(record["row"]), opener)
    return Contribution(reference, label, float(record["value"]), _text(record["row"]), opener)


def _picture(name: object, pictures: Open) -> Image.Image | None:
    return None if name is None else pictures(_text(name))


def _region(record: Mapping[str, Any]) -> Region:
    rows, columns = map(int, record["grid"])
    cells = tuple((int(r), int(c)) for r, c in record["cells"])
    fits = all(0 <= r < rows and 0 <= c < columns for r, c in cells)
    if not cells or not fits or max(rows, columns) > MOST_CELLS:
        raise NBDTError(f"a region has no cells, too many, or some outside {rows} × {columns}")
    return Region(cells, (rows, columns))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value
