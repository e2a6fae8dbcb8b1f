"""``nbdt memory review``: suspicious photographs as a table, and the verdicts that a person filled in."""

import csv
import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nbdt.decide.paths import percent
from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.hierarchies.shell import Json, Model
from nbdt.memory.memory import Memory
from nbdt.memory.preview import write_changes
from nbdt.memory.review import Suspect, parse_verdicts, suspects
from nbdt.model.model import NBDT
from nbdt.progress import counted, escape_terminal, tracked

from .changes import changing
from .opening import By, Place, Refit, opened

COLUMNS = ("rank", "id", "reference", "label", "probability", "says", "why", "verdict")


def review(
    model: Model,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Write a table (.csv) with a column for verdicts.")
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Do what the verdicts of a table say: keep, strike, relabel NODE or unsure; all of "
            "them, or nothing where one is wrong.",
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Photographs at most.")] = 100,
    by: By = "",
    memory: Place = None,
    refit: Refit = False,
    as_json: Json = False,
) -> None:
    """Find photographs with wrong labels, worst first, and take a person's verdicts on them."""
    if apply is not None:
        _, found, done = changing(model, memory, refit=refit)
        verdicts = parse_verdicts(found, read_table(apply), by)
        write_changes(found, verdicts)
        done(f"reviewed: {counted(len(verdicts), 'photograph')}")
        return
    loaded, found = opened(model, memory)
    ranked = [one for one in ranked_rows(loaded, found) if one.reasons][:most]
    records = [_record(found, number, one) for number, one in enumerate(ranked, start=1)]
    if out is not None:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows({**one, "reference": _plain(one["reference"])} for one in records)
        write_atomic(out, stream.getvalue().encode())
        typer.echo(f"written: {out} ({counted(len(records), 'photograph')} to look at)")
        return
    for record in records:
        typer.echo(json.dumps(record) if as_json else _line(record))


def ranked_rows(model: NBDT, memory: Memory) -> list[Suspect]:
    """Rank the photographs of a memory as `suspects` does, by a fit on what it has now."""
    rules = model.head.rules
    fitted = memory.fit(rules, model.fitted, progress=tracked)
    return suspects(memory.fit_rows, memory.attribution(fitted, rules))


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read the table that a person filled in.

    Raises NBDTError: no such file, or no table with the columns "id" and "verdict".
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        records = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise NBDTError(
            f"{str(path)!r} cannot be read as a table ({error}); expected the file that --out wrote."
        ) from None
    if missing := {"id", "verdict"} - {*(reader.fieldnames or ())}:
        raise NBDTError(
            f"{str(path)!r} has no column {' and no column '.join(sorted(missing))}; expected the "
            "file that --out wrote, with commas between columns."
        )
    return records


def _record(memory: Memory, number: int, one: Suspect) -> dict[str, Any]:
    return {
        "rank": number, "id": one.id, "reference": one.reference,
        "label": node_name(memory, one.label), "probability": round(one.probability, 4),
        "says": node_name(memory, one.says), "why": "; ".join(one.reasons), "verdict": "",
    }  # fmt: skip


def node_name(memory: Memory, node: str) -> str:
    """Return the name of a node, or its id where another node has that name."""
    name = memory.name_of(node)
    return name if memory.node_of(name) == node else node


def _plain(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula: a file may have any name."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _line(record: dict[str, Any]) -> str:
    label = f"{record['label']} ({percent(record['probability'])})"
    line = (
        f"{record['rank']:4}  {record['id'][:12]}  {record['reference']}  {label}: {record['why']}"
    )
    return escape_terminal(line)
