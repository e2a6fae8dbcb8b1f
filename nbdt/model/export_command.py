"""``nbdt export MODEL``: one file that runs without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .export import SUFFIXES, Export, Format, export
from .model import NBDT

app = typer.Typer(add_completion=False)


@app.command(name="export")
def export_command(
    model: Annotated[str, typer.Argument(help="A saved model's folder, or a bundled one.")],
    *,
    format: Annotated[  # noqa: A002  the option's name
        Format, typer.Option("--format", help="onnx, or torch (torch.export's .pt2).")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file; by default named after the model, here.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text.")
    ] = False,
) -> None:
    """Write a model as ONNX or .pt2: log-probabilities, decisions, maps, and all about its tree."""
    loaded = NBDT.load(model)
    target = out or Path(f"{Path(model).resolve().name}{SUFFIXES[format]}")
    with Console(stderr=True).status(f"Tracing {loaded.architecture}"):
        written = export(loaded, target, format=format)
    _report(written, as_json=as_json)


def _report(written: Export, *, as_json: bool) -> None:
    if written.why_no_maps:
        typer.echo(f"note: no maps: {written.why_no_maps}.", err=True)
    if as_json:
        facts = {"file": str(written.path), "outputs": written.outputs}
        typer.echo(json.dumps({**facts, "why_no_maps": written.why_no_maps}))
        return
    typer.echo(f"{written.path} ({', '.join(written.outputs)})")
