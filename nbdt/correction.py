"""Corrections of answers by a person: frozen records, stored as JSON lines."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from .errors import NBDTError, listed
from .files import read_record, write_atomic
from .tree.nodes import nfc, short

FORMAT = "nbdt-correction"
VERSION = 1
MAX_LINE, MAX_FILE = 2**16, 2**28  # characters of a line, bytes of a file
APPLIED = "applied.jsonl"  # beside a corrected model: the corrections that it learned from
MAX_TEXT = 4000  # characters of a reference or note
KINDS = {
    "step": ("node", "child"),
    "label": ("label",),
    "region": ("node", "region"),
    "class": ("label", "node"),
}
_HASH = re.compile(r"[0-9a-f]{64}")

Box = tuple[float, float, float, float]


class CorrectionError(NBDTError):
    """A record that is no valid correction; the message names the field and the remedy."""


@dataclass(frozen=True)
class Correction:
    """One statement of a person about one photograph.

    - ``step``: "at *node* this should have gone to *child*";
    - ``label``: "this is a *label*", a class, or a group where the class is not known;
    - ``region``: "at *node*, what is in *region* is irrelevant"; with `child`, for the decision
      for that child, else for whichever child the model chooses there;
    - ``class``: "this is none of these; it is a *label*", a new class that joins the group *node*.

    Nodes are named by their id, which renaming and other edits keep; names are in Unicode's form NFC.

    Raises CorrectionError: an unknown kind, a field that is missing, of the wrong form, or that this
    kind does not have.
    """

    kind: str  # one of these
    image: str  # `picture_hash` of the photograph
    reference: str = ""  # where the photograph was: a path, or ``archive.tar!member``
    node: str | None = None  # id of an inner node
    child: str | None = None  # id of one of its children
    label: str | None = None  # id of a node: a class's is its name; or the name of a new class
    # left, top, right and bottom as fractions (0 to 1) of the square that the network saw,
    # `Preprocessing.frame`
    region: Box | None = None
    model: str | None = None  # `model_hash` of the model that answered
    hierarchy: str | None = None  # `Hierarchy.hash` of its tree
    time: str = ""  # of the statement, ISO 8601 with a time zone; by default now
    note: str = ""  # anything else

    def __post_init__(self) -> None:
        if not self.time:
            object.__setattr__(self, "time", datetime.now(UTC).isoformat(timespec="seconds"))
        for problem in _problems(self):
            raise CorrectionError(problem)
        for name in ("node", "child", "label"):
            object.__setattr__(self, name, nfc(getattr(self, name)))
        if self.region is not None:
            object.__setattr__(self, "region", tuple(map(float, self.region)))

    def in_words(self, names: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return it as a sentence; `names` are those of node ids, without one the id is shown."""
        node, child, label = (
            names.get(str(key), key) for key in (self.node, self.child, self.label)
        )
        if self.kind == "label":
            return f"This is: {label}"
        if self.kind == "class":
            return f"This is a new class in {node}: {label}"
        if self.kind == "step":
            return f"At {node}, it should have gone to {child}"
        left, top, right, bottom = (round(100 * value) for value in self.region or (0, 0, 0, 0))
        area = f"{left}–{right} % across, {top}–{bottom} % down"
        return f"At {node}, the region {area} is irrelevant"

    def to_json(self) -> str:
        """Return one line of JSON, without empty fields."""
        content = {key: value for key, value in asdict(self).items() if value not in (None, "")}
        record = {"format": FORMAT, "version": VERSION, **content}
        return json.dumps(record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Correction":
        """Read a line that `to_json` returned.

        Raises CorrectionError: not such a line, or one that a newer version wrote.
        """
        if len(text) > MAX_LINE:
            raise CorrectionError(f"A correction has at most {MAX_LINE:,} characters.")
        line = text if isinstance(text, str) else text.decode(errors="replace")
        data = read_record(text, line[:60], FORMAT, VERSION, CorrectionError)
        found = {key: value for key, value in data.items() if key not in ("format", "version")}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(found.keys() - known):
            raise CorrectionError(
                f"Unknown field {listed(unknown)}; known: {', '.join(sorted(known))}."
            )
        if missing := sorted({"kind", "image", "time"} - found.keys()):
            raise CorrectionError(f"The field {listed(missing)} is missing.")
        return cls(**found)


def _problems(record: Correction) -> Iterator[str]:
    """Yield what is wrong with the fields of a record."""
    if not isinstance(record.kind, str) or record.kind not in KINDS:
        yield f"Unknown kind of correction {short(record.kind)}; there are {', '.join(KINDS)}."
        return
    needed = KINDS[record.kind]
    for name in ("node", "child", "label", "region"):
        given = getattr(record, name) is not None
        if name in needed and not given:
            yield f"A {record.kind!r} correction needs {name!r}."
        if given and name not in (*needed, *(("child",) if record.kind == "region" else ())):
            yield f"A {record.kind!r} correction has no {name!r}; it has {', '.join(needed)}."
    yield from _value_problems(record)


def _value_problems(record: Correction) -> Iterator[str]:
    for name in ("image", "model", "hierarchy"):
        value = getattr(record, name)
        none = value is None and name != "image"
        if not none and not (isinstance(value, str) and _HASH.fullmatch(value)):
            yield f"{name!r} must be a SHA-256 of 64 hexadecimal digits, got {short(value)}."
    for name in ("reference", "note", "node", "child", "label"):
        value, is_id = getattr(record, name), name in ("node", "child", "label")
        if not isinstance(value, str) and not (value is None and is_id):
            yield f"{name!r} must be text, got {short(value)}."
        elif len(value or "") > MAX_TEXT or (value == "" and is_id):
            limits = f"expected {int(is_id)} to {MAX_TEXT:,}"
            yield f"{name!r} has {len(value or ''):,} characters; {limits}."
    if record.region is not None and not _is_box(record.region):
        yield (
            "'region' must be left, top, right and bottom as fractions of the picture, with "
            f"0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1, got {short(str(record.region))}."
        )
    if not _is_time(record.time):
        yield (
            "'time' must be ISO 8601 with a time zone, as in '2026-01-31T12:00:00+00:00', got "
            f"{short(record.time)}."
        )


def _is_box(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and all(type(one) in (int, float) for one in value)
    if not numbers or len(value) != 4:
        return False
    left, top, right, bottom = value
    return bool(0 <= left < right <= 1 and 0 <= top < bottom <= 1)


def _is_time(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def picture_hash(image: Image.Image) -> str:
    """Return the SHA-256 over size and RGB pixels of a photograph that `open_image` opened.

    The file itself does not count: a copy without its metadata is the same photograph.
    """
    rgb = image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def read_corrections(path: str | os.PathLike[str]) -> list[Correction]:
    """Read all corrections of a file of JSON lines, in order; skip empty lines.

    An incomplete last line, whose writer was killed, is left out.

    Raises:
        CorrectionError: a line is no correction: the message says which.
        OSError: the file cannot be read.
    """
    found: list[Correction] = []
    if (size := Path(path).stat().st_size) > MAX_FILE:
        raise CorrectionError(
            f"{os.fspath(path)!r} has {size:,} bytes; at most {MAX_FILE:,} are read."
        )
    *lines, last = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(Correction.from_json(line))
            except CorrectionError as error:
                raise CorrectionError(f"{os.fspath(path)!r}, line {number}: {error}") from None
    with suppress(CorrectionError):
        found.append(Correction.from_json(last))
    return found


def write_corrections(corrections: Iterable[Correction], path: str | os.PathLike[str]) -> None:
    """Write corrections as JSON lines, atomically. Raises OSError if the file cannot be written."""
    write_atomic(path, "".join(record.to_json() + "\n" for record in corrections))
