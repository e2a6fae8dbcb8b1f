"""``nbdt demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nbdt.hierarchies.model_source import MODEL_HELP, WEIGHTS_HELP, open_model
from nbdt.torchvision_cpu import import_torchvision

app = typer.Typer(add_completion=False)


@app.command(name="demo")
def demo_command(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "cifar10",
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 7860,
) -> None:
    """Open the page where a photograph is explained."""
    import_torchvision()
    from .app import build, launch

    loaded = open_model(model, weights)
    typer.echo(f"NBDT demo: http://{host}:{port} (stop with Ctrl+C)")
    launch(build(loaded), host, port)
