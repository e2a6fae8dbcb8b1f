"""The command ``nbdt``: names of commands; each is loaded from its package when it is called."""

import atexit
import gc
import logging
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import __version__
from .allocator import keep_memory
from .errors import NBDTError

# Name: the module of its Typer app, what it does, and the extra that installs its libraries.
COMMANDS = {
    "explain": ("explain.command", "Explain photographs: path, probabilities, heat maps.", ""),
    "memory": (
        "explain.memory.command",
        "Show and change the photographs that a model decides by.",
        "",
    ),
    "audit": ("explain.audit.command", "Measure how far explanations can be trusted.", ""),
    "corrections": (
        "demo.corrections.command",
        "List, export, apply and delete what people said on the page.",
        "demo",
    ),
    "demo": ("demo.command", "Open the page where a photograph is explained.", "demo"),
    "hierarchy": ("hierarchies.command", "Show, make, edit, compare and convert trees.", ""),
    "evaluate": ("hierarchies.measure.command", "Measure a tree on photographs, or an edit.", ""),
    "calibrate": (
        "hierarchies.measure.calibrate",
        "Fit the thresholds of answers to your own photographs.",
        "",
    ),
    "compress": (
        "hierarchies.measure.compress",
        "Make a model smaller and faster in ONNX Runtime, and compare it.",
        "export",
    ),
    "cascade": (
        "hierarchies.measure.cascade_command",
        "Make one model of two: a small one first, a large one where needed.",
        "",
    ),
    "export": ("model.export", "Write a model as ONNX or .pt2, for any runtime.", "export"),
    "train": ("train.command", "Train a model from a recipe and a folder of images.", "train"),
}


class _Commands(TyperGroup):
    """List commands without importing them; import the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest


def _load(name: str) -> Any:
    module, _, extra = COMMANDS[name]
    gc.disable()  # importing torch makes objects that stay: to look for garbage takes 0.2 s
    try:
        return typer.main.get_command(import_module(f"nbdt.{module}").app)
    except ModuleNotFoundError as error:
        if not extra or str(error.name).startswith("nbdt"):
            raise
        raise NBDTError(
            f"`nbdt {name}` needs {error.name}; install it with: pip install 'nbdt-vision[{extra}]'"
        ) from None
    finally:
        gc.freeze()
        gc.enable()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nbdt {__version__}")
        raise typer.Exit


# Plain help: formatting it with rich would take half of the time to the first line.
app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def nbdt(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Any image classifier as a decision tree that a person can read, question and correct."""


class _OnStderr(logging.Handler):
    """Shows what readers of data found and left out."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


def main() -> None:
    """Run the command line: exit status 0 all good, 1 fatal, 2 usage, 3 some inputs failed."""
    keep_memory()
    # Threads of torch that wait for the next operation leave the cores to others: to ONNX Runtime's, to
    # those that decode photographs, to other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    atexit.register(gc.freeze)  # to look through all objects at the end takes a third of a second
    reports = logging.getLogger("nbdt.images")
    reports.handlers = [_OnStderr()]
    reports.setLevel(logging.INFO)
    try:
        app()
    except (NBDTError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
