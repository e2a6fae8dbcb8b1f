"""Where a batch is written and read: a folder of a disk, or whatever pyarrow's filesystems reach."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, TypeAlias, cast

from .errors import NBDTError, listed
from .files import new_folder, write_atomic

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
OBJECTS = ("s3", "gcs", "abfs")  # types of filesystem where a file appears when it is whole
ATTEMPTS = 3
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # by another process, since it was removed
UNREADABLE = (OSError, ValueError, NotImplementedError)  # all that pyarrow's filesystems raise
_URI = re.compile(r"([a-z][a-z0-9+.-]+)://([^/?]*)([^?]*)(\?\w+=.*)?")

FileSystem: TypeAlias = Any  # pyarrow ships no types


class Place(ABC):
    """A folder of files by name, slashes between folders; what is written is whole or not there."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """To read; raises FileNotFoundError, or another OSError."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, hidden files too; nothing if there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """A file, in the place of an older one, with the folders it lies in."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """A file, or a folder with all in it; nothing if there is none."""

    @abstractmethod
    def folder(self, name: str) -> AbstractContextManager[Path]:
        """A folder of this machine to fill, which then takes the place of `name`."""


class Disk(Place):
    """A folder of a disk, of this machine or shared: files are written beside and renamed."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def exists(self, name: str) -> bool:
        """As of `Place`."""
        return (self.root / name).exists()

    def open(self, name: str) -> BinaryIO:
        """As of `Place`."""
        return (self.root / name).open("rb")

    def names(self, folder: str = "") -> list[str]:
        """As of `Place`."""
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def write(self, name: str, data: bytes) -> None:
        """As of `Place`."""
        write_atomic(self._made(name), data)

    def remove(self, name: str) -> None:
        """As of `Place`."""
        target = self.root / name
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """As of `Place`."""
        with TemporaryDirectory(prefix=".part-", dir=self._made(name).parent) as around:
            with new_folder(Path(around, "new")) as aside:
                yield aside
            for _ in range(ATTEMPTS):  # another process may be making the same one
                self.remove(name)
                try:
                    Path(around, "new").rename(self.root / name)
                except OSError as error:
                    if error.errno not in OCCUPIED:
                        raise
                else:
                    return
            raise OSError(errno.ENOTEMPTY, "another process keeps writing here", str(name))

    def _made(self, name: str) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


class Remote(Place):
    """A folder of a pyarrow filesystem.

    An object store shows a file when it is whole; elsewhere files are written beside and moved.

    Args:
        filesystem: of pyarrow.
        root: the folder's path in it.
        name: what to call it in messages.
    """

    def __init__(self, filesystem: FileSystem, root: str, name: str) -> None:
        self.filesystem, self.root, self.name = filesystem, root.rstrip("/"), name

    def __str__(self) -> str:
        return self.name

    def exists(self, name: str) -> bool:
        """As of `Place`."""
        return bool(self._info(name).type)  # NotFound is 0

    def open(self, name: str) -> BinaryIO:
        """As of `Place`."""
        return cast(BinaryIO, self.filesystem.open_input_file(self._path(name)))

    def names(self, folder: str = "") -> list[str]:
        """As of `Place`."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector)]

    def write(self, name: str, data: bytes) -> None:
        """As of `Place`."""
        target = self._path(name)
        if self.filesystem.type_name in OBJECTS:
            self._put(target, data)
            return
        parent, _, base = target.rpartition("/")
        self.filesystem.create_dir(parent, recursive=True)
        aside = f"{parent}/.{base}.{secrets.token_hex(4)}"
        try:
            self._put(aside, data)
            self.filesystem.move(aside, target)
        except BaseException:
            self._delete(aside)
            raise

    def remove(self, name: str) -> None:
        """As of `Place`."""
        self._delete(self._path(name))

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """As of `Place`."""
        with TemporaryDirectory() as aside:
            yield Path(aside)
            self.remove(name)
            for file in sorted(Path(aside).rglob("*")):
                if file.is_file():
                    self.write(f"{name}/{file.relative_to(aside).as_posix()}", file.read_bytes())

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

    def _info(self, name: str) -> Any:
        return self.filesystem.get_file_info(self._path(name))

    def _put(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def _delete(self, path: str) -> None:
        from pyarrow.fs import FileType

        kind = self.filesystem.get_file_info(path).type
        if kind == FileType.Directory:
            self.filesystem.delete_dir(path)
        elif kind != FileType.NotFound:
            self.filesystem.delete_file(path)


def place(where: str | os.PathLike[str] | Place) -> Place:
    """The folder of that path or URI.

    Raises:
        NBDTError: a URI of a kind that is unknown, or with a password in it.
    """
    if not isinstance(where, str | os.PathLike):
        return where
    text = os.fspath(where)
    return Remote(*reach(text), text) if is_uri(text) else Disk(text)


def is_uri(text: str) -> bool:
    """Whether this is s3://… or the like, and no path of this machine."""
    return bool(_URI.fullmatch(text))


def reach(uri: str) -> tuple[FileSystem, str]:
    """The filesystem of a URI, the same for all of one bucket, and the path in it.

    The path is taken as it stands, without percent codes; an option of pyarrow may follow, as in
    ``s3://bucket/folder?endpoint_override=localhost:9000&scheme=http``. Credentials come from where the
    store's own tools look for them (environment, profile, the machine's role).

    Raises:
        NBDTError: as `place` does; or the store cannot be reached.
    """
    match = _URI.fullmatch(uri)
    scheme, authority, path, query = match.groups(default="") if match else ("", "", "", "")
    if scheme not in SCHEMES:
        raise NBDTError(f"{uri!r}: expected a path, or a URI of {listed(SCHEMES)}.")
    if ":" in authority.rpartition("@")[0]:
        raise NBDTError(
            f"{scheme}://…: a password in a URI would be written into the batch's record. Leave it "
            "to the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    try:
        filesystem, root = _filesystem(f"{scheme}://{authority or '/'}{query}")
    except UNREADABLE as error:
        raise NBDTError(f"{uri!r} cannot be reached: {error}") from None
    return filesystem, f"{root.rstrip('/')}/{path.lstrip('/')}".rstrip("/")


@lru_cache(maxsize=64)
def _filesystem(base: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    found: tuple[FileSystem, str] = FileSystem.from_uri(base)
    return found
