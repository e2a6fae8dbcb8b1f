"""Every version of a hierarchy, with who saved it, when and why."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import HierarchyError, check_word, short

from .record import Edit, EditError, check_text

MAX_NUMBER = 999_999
MAX_WHY = 2_000  # characters
MAX_HEADER = 32 * 2**20  # bytes of the "history" line; it holds the edits


class HistoryError(NBDTError):
    """A version that cannot be saved or read. The message names the file and the remedy."""


@dataclass(frozen=True)
class Version:
    """The record of one saved hierarchy."""

    number: int  # unique in its history; later versions have higher numbers
    # number of the version that it was made from; None for the first, and where it is not recorded
    parent: int | None
    who: str  # the person, as given
    when: str  # the time of saving, UTC, as "2026-11-21T02:13:25Z"
    why: str  # the reason, as given; a store numbers it: "birds, version 2"
    hash: str  # `Hierarchy.hash` of the hierarchy
    classes: str | None  # a digest of the class names in order; None where it is not recorded
    # the edits between the parent and this version, where they are known
    edits: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        return f"{self.number}  {self.when}  {self.who}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON."""
        return {**vars(self), "edits": [record.to_dict() for record in self.edits]}

    @classmethod
    def from_dict(cls, data: Any) -> "Version":
        """Read what `to_dict` gave. Raises HistoryError for anything else."""
        try:
            _check_words(data["who"], data["why"])
            for field in ("when", "hash", "classes"):
                if field != "classes" or data[field] is not None:
                    check_word(data[field], f"The field {field!r}")
            for field in ("number", "parent"):
                if type(data[field]) is not int and (field == "number" or data[field] is not None):
                    raise TypeError(f"{field!r} is not a number")
            edits = tuple(Edit.from_dict(record) for record in data["edits"])
            return cls(**{key: data[key] for key in cls.__dataclass_fields__} | {"edits": edits})
        except (KeyError, TypeError, HierarchyError, EditError) as error:
            raise HistoryError(f"The version is damaged: {type(error).__name__} {error}") from None


class History:
    """The versions of a hierarchy over the same classes; every save is a new version.

    Any number of processes may save and read at the same time. Each version is a hierarchy file with
    a "history" line, ``000001.json``, ``000002.json``, …, so `Hierarchy.load` reads it too. No file is
    ever overwritten or deleted. A number is claimed by creating its file, which the system lets one
    process do, and the file is filled by a rename. A process that is killed in between leaves an empty
    file: its number is skipped, its version was never saved.

    A subclass keeps versions elsewhere if it replaces all methods below "where versions are".

    Args:
        folder: the first save creates it.

    Raises HistoryError: the folder is a file.
    """

    where: str  # what messages call the history

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.where = repr(os.fspath(folder))
        if self.folder.exists() and not self.folder.is_dir():
            raise HistoryError(f"{self.where} is a file; a history is a folder.")

    def save(
        self,
        hierarchy: Hierarchy,
        *,
        who: str,
        why: str,
        parent: int | None = None,
        edits: Sequence[Edit] = (),
    ) -> Version:
        """Keep `hierarchy` as a new version. When this returns, it is on the disk.

        Args:
            hierarchy: over the same classes as the versions before.
            who: the person.
            why: the reason; it may have several lines.
            parent: the version that it was made from, by default the latest. If another person
                saved in the meantime, both versions are kept and name the same parent.
            edits: the edits that led here from the parent.

        Raises:
            HistoryError: an unusable `who` or `why`, an unknown parent, other classes, or edits
                that did not lead to this hierarchy.
            OSError: the folder cannot be written.
        """
        _check_words(who, why)
        basis = self._basis(parent)
        classes = hashlib.sha256(json.dumps(hierarchy.classes).encode()).hexdigest()
        if basis is not None and basis.classes not in (None, classes):
            raise HistoryError(
                f"Version {basis.number} in {self.where} has other classes, or another "
                "order of them; a history is that of one model: start another folder."
            )
        if edits and edits[-1].after != hierarchy.hash:
            raise HistoryError("The last of the edits given did not lead to this hierarchy.")
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        above = basis.number if basis else None
        version = Version(0, above, who, when, why, hierarchy.hash, classes, tuple(edits))
        return self._add(version, hierarchy)

    def versions(self, newest: int | None = None) -> list[Version]:
        """All versions, or the newest ones, oldest first.

        A damaged version is left out with a warning that names it.
        """
        numbers = self._numbers()[-newest if newest else 0 :]
        versions = []
        for number, header in zip(numbers, self._headers(numbers), strict=True):
            try:
                versions.append(self._version(number, header))
            except HistoryError as error:
                warnings.warn(str(error), stacklevel=2)
        return versions

    def latest(self) -> Version | None:
        """The version with the highest number, None in an empty history.

        Raises HistoryError: it is damaged.
        """
        numbers = self._numbers()
        return self.version(numbers[-1]) if numbers else None

    def version(self, number: int) -> Version:
        """Who, when and why of one version. Raises HistoryError: unknown or damaged."""
        if type(number) is not int or not 1 <= number <= MAX_NUMBER:
            raise HistoryError(
                f"Expected a version number from 1 to {MAX_NUMBER:,}, got {short(number)}."
            )
        numbers = self._numbers()
        if number not in numbers:
            known = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "it has none yet"
            raise HistoryError(f"There is no version {number} in {self.where}; {known}.")
        return self._version(number, next(iter(self._headers([number]))))

    def load(self, number: int | None = None) -> Hierarchy:
        """The hierarchy of one version, by default the latest.

        Raises HistoryError: unknown, damaged or altered, or there is none yet.
        """
        version = self.latest() if number is None else self.version(number)
        if version is None:
            raise HistoryError(f"{self.where} has no versions yet.")
        try:
            hierarchy = self._hierarchy(version.number)
        except HierarchyError as error:
            raise HistoryError(str(error)) from None
        if hierarchy.hash != version.hash:
            raise HistoryError(
                f"{self._name(version.number)} was altered: its hierarchy has the hash "
                f"{hierarchy.hash[:12]}, not {version.hash[:12]}."
            )
        return hierarchy

    def _version(self, number: int, header: object) -> Version:
        name = self._name(number)
        try:
            if isinstance(header, HistoryError):
                raise header
            version = Version.from_dict(header)
        except HistoryError as error:
            raise HistoryError(f"{name}: {short(str(error), 300)}") from None
        if version.number != number:
            raise HistoryError(f"{name} holds version {version.number}; rename it.")
        return version

    def _basis(self, parent: int | None) -> Version | None:
        if parent is not None:
            return self.version(parent)
        for number in reversed(self._numbers()):
            with suppress(HistoryError):  # a damaged version must not end the history
                return self.version(number)
        return None

    def _numbers(self) -> list[int]:
        """Return the numbers of all versions, in order; an empty file was claimed and not filled."""
        return sorted(int(path.stem) for path in self._files() if _is_filled(path))

    def _headers(self, numbers: Sequence[int]) -> Iterator[object]:
        """Yield `Version.to_dict` of each, or the HistoryError that says why it cannot be read."""
        return map(_read_header, map(self._path, numbers))

    def _hierarchy(self, number: int) -> Hierarchy:
        """Return the hierarchy of a version. Raises HierarchyError: it is damaged."""
        return Hierarchy.load(self._path(number))

    def _name(self, number: int) -> str:
        """Return what messages call a version."""
        return repr(os.fspath(self._path(number)))

    def _add(self, version: Version, hierarchy: Hierarchy) -> Version:
        """Keep a version durably under the next number; returns it with that number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        version = replace(version, number=self._claim())
        path = self._path(version.number)
        header = json.dumps(version.to_dict(), ensure_ascii=False)
        first, rest = hierarchy.to_json().split("\n", 1)
        try:
            write_atomic(path, f'{first}\n "history": {header},\n{rest}')
            _sync_folder(self.folder)
        except BaseException:
            if path.exists() and not path.stat().st_size:
                path.unlink()
            raise
        return version

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _files(self) -> Iterator[Path]:
        return self.folder.glob(f"{6 * '[0-9]'}.json")

    def _claim(self) -> int:
        """The next number, claimed: creating a file succeeds in one process only."""
        number = max((int(path.stem) for path in self._files()), default=0)
        while True:
            number += 1
            with suppress(FileExistsError):
                self._path(number).touch(exist_ok=False)
                return number


def _check_words(who: object, why: object) -> None:
    """Refuse a person or a reason that cannot be shown. Raises HistoryError."""
    if not isinstance(why, str) or not why.strip() or len(why) > MAX_WHY:
        raise HistoryError(f"Give a reason of 1 to {MAX_WHY:,} characters, not {short(why)}.")
    try:
        check_word(who, "The name of the person who saves this version")
        check_text(why, "The reason")
    except HierarchyError as error:
        raise HistoryError(str(error)) from None


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # a save that failed took its claim back
        return False


def _read_header(path: Path) -> object:
    """The "history" line alone: listing a thousand versions should not parse a thousand trees."""
    try:
        with path.open(encoding="utf-8") as file:
            file.readline(1000)
            line = file.readline(MAX_HEADER).strip()
        if line.startswith('"history": ') and line.endswith(","):
            return json.loads(line.removeprefix('"history": ')[:-1])
    except (ValueError, RecursionError) as error:
        return HistoryError(str(error))
    return HistoryError("This is no saved version: its second line is not its history.")


def _sync_folder(folder: Path) -> None:
    """Let the rename survive a power cut, where the system offers that (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
