"""``nbdt memory effect``: what a strike or a label would do, found by fitting again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import torch
import typer

from nbdt.decide.paths import Path, as_percent
from nbdt.errors import NBDTError
from nbdt.images.image import AMPLE_SIDE, open_image
from nbdt.memory.preview import Effect, effect_of
from nbdt.progress import counted, escape_terminal

from .opening import Json, Model, Place, Rows, opened

LISTED = 8  # changed answers
On = Annotated[
    list[str] | None,
    typer.Option("--on", metavar="PHOTO", help="A photograph whose answer to compare; repeatable."),
]


def effect(
    model: Model,
    rows: Rows,
    *,
    on: On = None,
    label: Annotated[
        str | None,
        typer.Option(help="A class or group to give them; by default they are struck out."),
    ] = None,
    memory: Place = None,
    as_json: Json = False,
) -> None:
    """Show what striking photographs out would do, by fitting again; nothing is written."""
    loaded, found = opened(model, memory)
    if loaded.fitted is None:
        raise NBDTError(f"The last layer of {model!r} was not fitted; see: nbdt memory refit")
    rules = loaded.head.rules
    done = effect_of(found, rules, loaded.fitted, rows, label)
    pairs: list[tuple[str, tuple[Path, Path]]] = []
    for name in on or ():
        batch = loaded.preprocess(open_image(name, max_side=AMPLE_SIDE))[None]
        with torch.inference_mode():
            pairs.append((name, done.paths(rules, loaded.features(batch)[0])))
    if as_json:
        answers = [
            {"file": name, "before": one.to_dict(), "after": other.to_dict()}
            for name, (one, other) in pairs
        ]
        record = {
            "photographs": done.photographs,
            "accuracy": {"before": done.accuracy[0], "after": done.accuracy[1]},
            "changed": [asdict(one) for one in done.changed],
            "answers": answers,
        }
        typer.echo(json.dumps(record))
        return
    for name, paths in pairs:
        typer.echo(escape_terminal(f"{name}: {answer_words(*paths)}"))
    for line in effect_words(done):
        typer.echo(escape_terminal(line))


def answer_words(before: Path, after: Path) -> str:
    """Return the answer before and after in one sentence."""
    one, other = (f"{path.class_name} {as_percent(path.probability)}" for path in (before, after))
    return f"{one} before, {other} after."


def effect_words(done: Effect) -> list[str]:
    """Return what happens to the other photographs, a line each."""
    before, after = map(as_percent, done.accuracy)
    others = counted(done.photographs, "other photograph")
    right = f"{before} right before, {after} after; {counted(len(done.changed), 'answer')} changed."
    lines = [f"{others}, each answered by a fit without it: {right}"]
    lines += [
        f"{one.reference} ({one.label}): {one.before} → {one.after}"
        for one in done.changed[:LISTED]
    ]
    more = len(done.changed) - LISTED
    return lines + ([f"and {more:,} more"] if more > 0 else [])
