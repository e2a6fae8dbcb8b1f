"""``nbdt demo``."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from nbdt.errors import NBDTError
from nbdt.hierarchies.library import DEFAULT_MODEL, MODEL_HELP, WEIGHTS_HELP, open_model
from nbdt.hierarchies.shell import Runtime
from nbdt.torchvision_cpu import import_torchvision

PASSWORD = "NBDT_DEMO_PASSWORD"  # noqa: S105 - the variable's name
NO_STORE = "none"
LARGER = (
    "A larger network, ResNet-101 (178 MB, fetched once): nbdt demo --model timm:resnet101, or "
    "make demo MODEL=timm:resnet101"
)

app = typer.Typer(add_completion=False)


@app.command(name="demo")
def demo_command(
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    runtime: Runtime = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 7860,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_USER",
            help="Ask for a login: a file with lines of user:password, or one user, whose password "
            f"is in the environment variable {PASSWORD}.",
        ),
    ] = None,
    public_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            envvar=["NBDT_PUBLIC_HOST", "SPACE_HOST"],  # the second is set in Hugging Face Spaces
            help="Name under which a proxy makes the page public; repeatable.",
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH_OR_URL",
            envvar=["NBDT_ROOT_PATH", "GRADIO_ROOT_PATH"],
            help="Where a proxy makes the page public: /nbdt or https://example.org/nbdt.",
        ),
    ] = "",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="NBDT_STORE",
            help="Where corrections and saved hierarchies are kept: a SQLite file or a database "
            f"URL; by default a file in your data folder. '{NO_STORE}' keeps nothing.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            "--evidence",
            metavar="M",
            help="Labelled photographs to compare with, by default the model's own memory.",
        ),
    ] = None,
    apply_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Let visitors apply corrections by training on this data."
        ),
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Open the review of the model's memory instead.")
    ] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Open the page where a photograph is explained."""
    if model == DEFAULT_MODEL:
        typer.echo(LARGER)
    import_torchvision()
    import torch

    from nbdt.explain import Evidence

    from .app import build
    from .log import shorten_log
    from .review.page import build_review
    from .server import check_port, launch, public_address
    from .store import Store

    port = check_port(host, port)
    public_address(root_path)
    users = None if auth is None else logins(auth)
    # A photograph uses half of the cores, since two are computed at once. Threads that wait for a
    # core that another process has are slow: with two threads on two busy cores a photograph took 2
    # to 4 times as long as with one.
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    loaded = open_model(model, weights, runtime)
    if memory is not None:
        loaded.use_memory(memory)
    index = Evidence(loaded.memory) if loaded.memory else None
    opened = None if store == NO_STORE else Store.open(store)
    # Stop as for Ctrl+C, which removes the uploads.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page = (
        build_review(loaded, model, opened) if review
        else build(loaded, store=opened, index=index, apply_data=apply_data, source=model)
    )  # fmt: skip
    typer.echo(f"NBDT demo: http://{host}:{port} (stop with Ctrl+C)")
    shorten_log()
    launch(
        page, host, port, model=model, auth=users, public=public_host or (), root_path=root_path,
        browser=browser,
    )  # fmt: skip


def logins(text: str) -> list[tuple[str, str]]:
    """Return names and passwords from a file or, for one user, from the environment.

    Raises NBDTError: a file without a login, a line of another form, or a user without a password.
    """
    path = Path(text)
    if path.is_file():
        return _logins_of(path)
    if ":" in text:
        raise NBDTError(
            "A password on the command line is visible to everyone on this machine; give the user "
            f"alone and the password in {PASSWORD}, or a file with lines of user:password."
        )
    password = os.environ.get(PASSWORD, "")
    if not password:
        raise NBDTError(
            f"There is no file {text!r} with lines of user:password; if it is a user, set the "
            f"environment variable {PASSWORD} to the password."
        )
    return [(text, password)]


def _logins_of(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        user, colon, password = line.strip().partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not (colon and user and password):
            raise NBDTError(f"{str(path)!r}, line {number}: expected user:password.")
        pairs.append((user, password))
    if not pairs:
        raise NBDTError(f"{str(path)!r} has no line of user:password.")
    return pairs
