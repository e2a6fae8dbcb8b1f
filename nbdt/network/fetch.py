"""Weights from the Hugging Face hub: fetched once, checked, and continued after a break.

The hub's client begins again after a break, and its Xet protocol keeps no part of a file. So the
file is written here, by plain HTTP, to where the client looks for it; until its SHA-256 is the one
that the hub announced, its name ends with ``.incomplete``.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from safetensors import SafetensorError, safe_open

from ..errors import NBDTError
from ..files import sha256

FILE = "model.safetensors"
PATIENCE = 3.0  # seconds to find out whether the hub can be reached
CHUNK = 2**18  # bytes that a break loses at most
MAX_HEADER = 100_000_000  # bytes, the limit of the format
AGAIN = "The same command fetches it again."


def repository_of(config: Any) -> str | None:
    """Return the repository of timm's configuration of pretrained weights, if they are on the hub."""
    known = getattr(config, "hf_hub_id", None)
    return f"{known}{config.architecture}.{config.tag}" if known == "timm/" else known


@contextmanager
def hub_weights(config: Any) -> Iterator[None]:
    """Have timm find the weights of a configuration in the hub's cache, where they are fetched to.

    If the hub cannot be reached, the cache alone is used: the client would retry for a minute.

    Raises NBDTError: a fetch that broke off, a file that is not the one the hub announced or that
    does not fit the network, or a server that is not the hub.
    """
    from huggingface_hub import constants

    repository, file = repository_of(config), None
    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    # Other files, and those that the architecture reads by itself, are left to timm.
    if repository and not (config.hf_hub_filename or config.custom_load):
        file = _locate(*repository.partition("@")[::2], offline=offline)
    try:
        with _set(HF_HUB_OFFLINE=bool(offline or file)):
            yield
    except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
        if file is None:
            raise
        raise NBDTError(
            f"The weights in {str(file)!r} do not fit the network: {str(error)[:300]} Delete the file "
            "to fetch it again, or pass another one: weights=…, or --weights to a command."
        ) from error


@contextmanager
def _set(**settings: Any) -> Iterator[None]:
    """Change constants of the hub's client for a while."""
    from huggingface_hub import constants

    before = {name: getattr(constants, name, None) for name in settings}
    vars(constants).update(settings)
    try:
        yield
    finally:
        vars(constants).update(before)


def _reachable(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    if getproxies() or address.hostname is None:
        return True  # behind a proxy only the client knows what can be reached
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _locate(repository: str, revision: str, *, offline: bool) -> Path | None:
    """Return the checked file in the cache; None if only timm can find the weights."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import try_to_load_from_cache as cached
    from huggingface_hub.errors import EntryNotFoundError

    place: dict[str, Any] = {"repo_id": repository, "filename": FILE, "revision": revision or None}
    known = cached(**place)
    file = Path(known) if isinstance(known, str) else None
    url, facts = hf_hub_url(**place), None
    try:
        if not offline:
            facts = get_hf_file_metadata(url)
    except EntryNotFoundError:
        return None  # weights in a file of another name
    except Exception:
        if file is None:
            raise
    etag = str(facts.etag) if facts and facts.commit_hash and facts.size else ""
    if facts is None or not re.fullmatch("[0-9a-f]{40,64}", etag):
        if offline or file:
            return _checked(file)
        raise NBDTError(
            f"What answers at {url} is not the Hugging Face hub; perhaps it is the login page of this "
            "network. Open it in a browser, then type the same command."
        )
    kept = cached(**place | {"revision": facts.commit_hash})
    if len(etag) == 64 and not isinstance(kept, str):
        _fetch(url, repository, etag, cast(int, facts.size))
    return _checked(Path(hf_hub_download(**place)))


def _fetch(url: str, repository: str, digest: str, size: int) -> None:
    """Write the file of this SHA-256 into the cache, from where an earlier fetch broke off."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    cache = Path(constants.HF_HUB_CACHE)
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    target, lock = cache / folder / "blobs" / digest, cache / ".locks" / folder / f"{digest}.lock"
    part = target.with_name(f"{digest}.incomplete")
    for file in (part, lock):
        file.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if target.exists():  # another process fetched it meanwhile
            return
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        try:
            with part.open("ab") as stream, _set(DOWNLOAD_CHUNK_SIZE=CHUNK):
                headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
                http_get(
                    url, stream, resume_size=stream.tell(), headers=headers, expected_size=size,
                    displayed_filename=repository,
                )  # fmt: skip
        except Exception as error:
            _explain_break(part, repository, size, error)
            raise
        if sha256(part) != digest:
            part.unlink()
            raise NBDTError(
                f"What came for {repository} is not the file that the hub announced (SHA-256 "
                f"{digest[:12]}…); it was deleted. {AGAIN}"
            )
        part.replace(target)


def _explain_break(part: Path, repository: str, size: int, error: Exception) -> None:
    """Raise an error that says how much is there; delete what cannot be the file's beginning."""
    with part.open("rb") as stream:
        start = stream.read(9)
    have = part.stat().st_size
    if not have:
        part.unlink()
        return
    length = int.from_bytes(start[:8], "little")
    if have > size or (len(start) == 9 and not (start[8:] == b"{" and length <= MAX_HEADER)):
        part.unlink()
        raise NBDTError(
            f"What came for {repository} is not the file that the hub announced, {size / 1e6:.1f} MB "
            f"of safetensors; perhaps it is the login page of this network. It was deleted. {AGAIN}"
        ) from error
    raise NBDTError(
        f"The fetch of {repository} broke off after {have / 1e6:.1f} of {size / 1e6:.1f} MB "
        f"({type(error).__name__}). The same command goes on from there."
    ) from error


def _checked(file: Path | None) -> Path | None:
    """Return the file if it is as it was fetched: the cache names it by its SHA-256."""
    if file is None:
        return None
    digest = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", digest):
        intact = sha256(file) == digest
    else:  # a cache without links, as on Windows
        try:
            with safe_open(file, framework="pt"):
                intact = True
        except SafetensorError:
            intact = False
    if intact:
        return file
    for path in (file.resolve(), file):
        path.unlink(missing_ok=True)
    raise NBDTError(f"{str(file)!r} is not the file that was fetched; it was deleted. {AGAIN}")
