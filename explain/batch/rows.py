"""The rows and maps in a batch's files: Parquet and JSON lines, one row an image, and .npz."""

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nbdt.decide.paths import Decision
from nbdt.files import LONGEST_STEM

from ..result.explanation import Explanation
from ..result.regions import regrid
from .compute import Decoded

OK, FAILED = "ok", "failed"
META = b"nbdt"  # the key of a part's facts in its Parquet metadata
HALF_MAX = float(np.finfo(np.float16).max)

_TEXT, _NUMBER, _COUNT, _FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()
DECISION = pa.struct({
    "node": _TEXT, "node_id": _TEXT,
    "chosen": _TEXT, "chosen_id": _TEXT, "probability": _NUMBER,
    "runner_up": _TEXT, "runner_up_id": _TEXT, "runner_up_probability": _NUMBER,
    "margin": _NUMBER, "is_likeliest": _FLAG,
})  # fmt: skip
SCHEMA = pa.schema({
    "row": _COUNT, "path": _TEXT,
    "sha256": _TEXT, "bytes": _COUNT, "modified_ns": _COUNT,
    "status": _TEXT, "error": _TEXT, "remark": _TEXT,
    "class": _TEXT, "class_index": pa.int32(), "probability": _NUMBER,
    "answer": _TEXT, "answer_id": _TEXT, "answer_probability": _NUMBER, "answer_depth": pa.int32(),
    "is_class": _FLAG, "unknown": _FLAG, "removed_probability": _NUMBER,
    "hard_class": _TEXT, "hard_probability": _NUMBER,
    "answered_by": _TEXT, "answered_by_network": _TEXT,
    "decisions": pa.list_(DECISION),
})  # fmt: skip
FILE_COLUMNS = ("path", "sha256", "bytes", "modified_ns")


def row_of(index: int, decoded: Decoded, result: Explanation | str) -> dict[str, Any]:
    """Return the row of input number `index`: its explanation, or the error text `result`."""
    row = {
        "row": index,
        "path": plain_path(decoded.reference),
        "sha256": decoded.sha256,
        "bytes": decoded.bytes,
        "modified_ns": decoded.modified_ns,
        "remark": decoded.remark,
        "status": FAILED if isinstance(result, str) else OK,
    }
    if isinstance(result, str):
        return {**row, "error": result}
    hard, answer = result.made["hard_answer"], result.made["answer"]
    by = result.made.get("answered_by", {})
    return {
        **row,
        "class": result.path.class_name,
        "class_index": result.path.class_index,
        "probability": result.path.probability,
        "answer": answer["name"],
        "answer_id": answer["node"],
        "answer_probability": answer["probability"],
        "answer_depth": answer["depth"],
        "is_class": answer["is_leaf"],
        "unknown": answer["unknown"],
        "removed_probability": result.made.get("removed_probability"),
        "hard_class": hard["class"],
        "hard_probability": hard["probability"],
        "answered_by": by.get("model"),
        "answered_by_network": by.get("network"),
        "decisions": [_decision(decision) for decision in result.path],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    chosen, other = decision.chosen, decision.runner_up
    return {
        "node": decision.node,
        "node_id": decision.node_id,
        "chosen": decision.children[chosen],
        "chosen_id": decision.child_ids[chosen],
        "probability": decision.probability,
        "runner_up": decision.children[other],
        "runner_up_id": decision.child_ids[other],
        "runner_up_probability": math.exp(decision.log_probs[other]),
        "margin": decision.margin,
        "is_likeliest": decision.is_likeliest,
    }


def plain_path(reference: str) -> str:
    """Return the reference as UTF-8 text; bytes that are not text become escapes."""
    return os.fsencode(reference).decode("utf-8", "backslashreplace")


def drawn_name(index: int, path: str) -> str:
    """Return the file name of a row's page or picture; it is safe in any file system and URL."""
    stem = path.rpartition("/")[2].rpartition(".")[0] or "image"
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)[:60]
    plain = plain.encode()[:LONGEST_STEM].decode(errors="ignore")
    return f"{index:09d}-{plain}"


def parquet(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> bytes:
    """Return rows as a Parquet file; the same rows and facts give the same bytes."""
    counts = {"rows": len(rows), "failed": sum(row["status"] == FAILED for row in rows)}
    schema = SCHEMA.with_metadata({META: json.dumps({**counts, **facts})})
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), stream, compression="zstd")
    return stream.getvalue()


def json_line(row: Mapping[str, Any]) -> str:
    """Return one row as JSON, with the same keys in every row."""
    return json.dumps({name: row.get(name) for name in SCHEMA.names})


def packed_maps(rows: Iterable[tuple[int, Sequence[NDArray[np.float32]]]]) -> bytes:
    """Return an .npz of ``maps`` (decisions of all rows, height, width), ``rows`` and ``ends``.

    The maps of ``rows[i]`` are ``maps[ends[i - 1]:ends[i]]`` (from 0 for the first). They are raw
    and signed, in float16 (three digits; half the bytes), or in float32 if one is too large for it.
    """
    indices: list[int] = []
    ends = [0]
    values: list[NDArray[np.float32]] = []
    for index, maps_of_row in rows:
        indices.append(index)
        values += maps_of_row
        ends.append(len(values))
    maps = _of_one_shape(values) if values else np.zeros((0, 0, 0), np.float32)
    if not np.abs(maps, out=np.empty_like(maps)).max(initial=0) > HALF_MAX:
        maps = maps.astype(np.float16)
    stream = io.BytesIO()
    np.savez(stream, maps=maps, rows=np.array(indices, np.int64), ends=np.array(ends[1:], np.int64))
    return stream.getvalue()


def _of_one_shape(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return maps (count, height, width); the models of a cascade differ in their resolution."""
    rows, columns = (max(values.shape[axis] for values in maps) for axis in (0, 1))
    return np.stack([
        values if values.shape == (rows, columns) else regrid(values, rows, columns)
        for values in maps
    ]).astype(np.float32)  # fmt: skip


def maps_of(file: str | os.PathLike[str] | BinaryIO, row: int) -> NDArray[np.float32]:
    """Read (decisions, height, width) of one row of an .npz of maps; KeyError if it has none."""
    with np.load(file, allow_pickle=False) as stored:
        index = int(np.searchsorted(stored["rows"], row))
        if index == len(stored["rows"]) or stored["rows"][index] != row:
            raise KeyError(row)
        ends = np.concatenate([[0], stored["ends"]])
        maps: NDArray[np.float32] = stored["maps"][ends[index] : ends[index + 1]].astype(np.float32)
        return maps
