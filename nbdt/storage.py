"""Folders of this machine and of remote stores (s3://… and the like) behind one interface."""

import errno
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, TypeAlias, cast

from .errors import NBDTError, listed
from .files import new_folder, write_atomic

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
OBJECTS = ("s3", "gcs", "abfs")  # filesystems where a file appears once it is complete
ATTEMPTS = 3
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # another process made it since it was removed
UNREADABLE = (OSError, ValueError, NotImplementedError)  # all that pyarrow's filesystems raise
_URI = re.compile(r"([a-z][a-z0-9+.-]+)://([^/?]*)([^?]*)(\?\w+=.*)?")

FileSystem: TypeAlias = Any  # pyarrow ships no types


class LocalStorage:
    """A folder of a disk of this machine, or shared, with files by name.

    Slashes in names separate folders. Every write is atomic: beside the old file, then renamed.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of that name."""
        return (self.root / name).exists()

    def open(self, name: str) -> BinaryIO:
        """Open a file to read; raises FileNotFoundError, or another OSError."""
        return (self.root / name).open("rb")

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, hidden ones too; empty without such a folder."""
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def write(self, name: str, data: bytes) -> None:
        """Write a file, over an older one, and make the folders above it."""
        write_atomic(self._with_parent(name), data)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all its files, if there is one."""
        target = self.root / name
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Give a folder of this machine to fill, which then replaces `name`."""
        with TemporaryDirectory(prefix=".part-", dir=self._with_parent(name).parent) as around:
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

    def _with_parent(self, name: str) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


class RemoteStorage:
    """The same for a folder, `root`, of a pyarrow filesystem; messages call it `name`.

    An object store shows a file once it is complete; elsewhere files are written beside and moved.
    """

    def __init__(self, filesystem: FileSystem, root: str, name: str) -> None:
        self.filesystem, self.root, self.name = filesystem, root.rstrip("/"), name

    def __str__(self) -> str:
        return self.name

    def exists(self, name: str) -> bool:
        """See `LocalStorage`."""
        return bool(self.filesystem.get_file_info(self._path(name)).type)  # NotFound is 0

    def open(self, name: str) -> BinaryIO:
        """See `LocalStorage`."""
        return cast(BinaryIO, self.filesystem.open_input_file(self._path(name)))

    def names(self, folder: str = "") -> list[str]:
        """See `LocalStorage`."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector)]

    def write(self, name: str, data: bytes) -> None:
        """See `LocalStorage`."""
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
        """See `LocalStorage`."""
        self._delete(self._path(name))

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """See `LocalStorage`."""
        with TemporaryDirectory() as aside:
            yield Path(aside)
            self.remove(name)
            for file in sorted(Path(aside).rglob("*")):
                if file.is_file():
                    self.write(f"{name}/{file.relative_to(aside).as_posix()}", file.read_bytes())

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

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


Storage: TypeAlias = LocalStorage | RemoteStorage


def open_storage(where: str | os.PathLike[str] | Storage) -> Storage:
    """Return the folder of a path or URI.

    Raises NBDTError: a URI of an unknown kind, or with a password in it.
    """
    if not isinstance(where, str | os.PathLike):
        return where
    text = os.fspath(where)
    return RemoteStorage(*_reach(text), text) if is_uri(text) else LocalStorage(text)


# --- single files and folders by URI ---


def is_uri(text: str) -> bool:
    """Return whether this is s3://… or the like, and not a path of this machine."""
    return bool(_URI.fullmatch(text))


def file_state(path: str) -> tuple[int, int]:
    """Return the bytes, and the nanoseconds since 1970 of the last change, of a path or URI.

    Raises:
        OSError: there is no such file.
        NBDTError: a URI that cannot be reached.
    """
    if not is_uri(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    filesystem, inner = _reach(path)
    info = filesystem.get_file_info(inner)
    if not info.is_file:
        raise FileNotFoundError(path)
    return info.size, info.mtime_ns


def open_remote(uri: str) -> BinaryIO:
    """Open a file to read, buffered; raises NBDTError, or one of `UNREADABLE`."""
    filesystem, inner = _reach(uri)
    return io.BufferedReader(filesystem.open_input_file(inner), 1 << 20)


def is_folder(uri: str) -> bool:
    """Return whether there are files below a URI. Raises NBDTError if it cannot be reached."""
    from pyarrow.fs import FileType

    filesystem, inner = _reach(uri)
    try:
        return bool(filesystem.get_file_info(inner).type == FileType.Directory)
    except UNREADABLE as error:
        raise NBDTError(f"{uri!r} cannot be listed: {error}") from None


def list_folder(uri: str) -> list[tuple[str, bool]]:
    """Return (name, whether it is a folder) of what is in a folder.

    Raises NBDTError, or one of `UNREADABLE`.
    """
    from pyarrow.fs import FileSelector

    filesystem, inner = _reach(uri)
    infos = filesystem.get_file_info(FileSelector(inner))
    return [(info.base_name, not info.is_file) for info in infos]


def _reach(uri: str) -> tuple[FileSystem, str]:
    """Return the filesystem of a URI, the same for all of one bucket, and the path in it.

    The path is taken as written, without percent codes; an option of pyarrow may follow, as in
    ``s3://bucket/folder?endpoint_override=localhost:9000&scheme=http``. Credentials come from where
    the store's own tools look for them (environment, profile, the machine's role).

    Raises NBDTError: as `open_storage` does; or the store cannot be reached.
    """
    match = _URI.fullmatch(uri)
    scheme, authority, path, query = match.groups(default="") if match else ("", "", "", "")
    if scheme not in SCHEMES:
        raise NBDTError(f"{uri!r}: expected a path, or a URI of {listed(SCHEMES)}.")
    if ":" in authority.rpartition("@")[0]:
        raise NBDTError(
            f"{scheme}://…: a password in a URI would be written into the batch's record. Set it "
            "in the environment instead, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    try:
        filesystem, root = _filesystem(f"{scheme}://{authority or '/'}{query}")
    except UNREADABLE as error:
        raise NBDTError(f"{uri!r} cannot be reached: {error}") from None
    return filesystem, f"{root.rstrip('/')}/{path.lstrip('/')}".rstrip("/")


@lru_cache(maxsize=64)
def _filesystem(base: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    filesystem: tuple[FileSystem, str] = FileSystem.from_uri(base)
    return filesystem
