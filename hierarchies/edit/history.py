"""Every version of a hierarchy, with who saved it, when and why, in a folder.

One file a version, ``000001.json``, ``000002.json``, …: a hierarchy file with a "history" line, so
`Hierarchy.load` reads it too. Nothing is ever overwritten or deleted. A number is claimed by
creating its file, which the system lets one process do, and filled by a rename. A saver that is
killed in between leaves an empty file: its number is skipped, its version was never saved.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
_FILE = re.compile(r"[0-9]{6}\.json")


class HistoryError(NBDTError):
    """A version that cannot be saved or read. The message names the file and the remedy."""


@dataclass(frozen=True)
class Version:
    """What is known about one saved hierarchy.

    Attributes:
        number: 1 for the first; unique in its folder.
        parent: number of the version that it was made from, None for the first.
        who: the person, as given.
        when: the time of saving, UTC, as "2026-11-21T02:13:25Z".
        why: the reason, as given.
        hash: `Hierarchy.hash` of the tree.
        classes: a digest of the class names in order.
        edits: the edits between the parent and this version, where they are known.
    """

    number: int
    parent: int | None
    who: str
    when: str
    why: str
    hash: str
    classes: str
    edits: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        return f"{self.number}  {self.when}  {self.who}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON."""
        return {**vars(self), "edits": [record.to_dict() for record in self.edits]}

    @classmethod
    def from_dict(cls, data: object) -> Version:
        """The inverse of `to_dict`. Raises HistoryError for anything else."""
        try:
            return cls(**_checked(data))
        except (KeyError, TypeError, HierarchyError, EditError) as error:
            raise HistoryError(f"The version is damaged: {type(error).__name__} {error}") from None


class History:
    """The versions in `folder`, which the first save creates.

    Any number of processes may save and read at the same time.

    Raises:
        HistoryError: `folder` is a file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise HistoryError(f"{os.fspath(folder)!r} is a file; a history is a folder.")

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
            parent: the version that it was made from, by default the latest. If somebody else
                saved in the meantime, both versions are kept and name the same parent.
            edits: the edits that led here from the parent.

        Raises:
            HistoryError: an unusable `who` or `why`, an unknown parent, other classes, or edits
                that did not lead to this hierarchy.
            OSError: the folder cannot be written.
        """
        _check_words(who, why)
        self.folder.mkdir(parents=True, exist_ok=True)
        basis = self._basis(parent)
        self._check_fit(hierarchy, basis, edits)
        number = self._claim()
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        above, classes = basis.number if basis else None, _class_digest(hierarchy)
        version = Version(number, above, who, when, why, hierarchy.hash, classes, tuple(edits))
        self._fill(version, hierarchy)
        return version

    def versions(self) -> list[Version]:
        """All versions, oldest first. A damaged one is left out with a warning that names it."""
        found = []
        for number in self._numbers():
            try:
                found.append(self.version(number))
            except HistoryError as error:
                warnings.warn(str(error), stacklevel=2)
        return found

    def latest(self) -> Version | None:
        """The version with the highest number, None in an empty history.

        Raises:
            HistoryError: it is damaged.
        """
        numbers = self._numbers()
        return self.version(numbers[-1]) if numbers else None

    def version(self, number: int) -> Version:
        """Who, when and why of one version. Raises HistoryError: unknown or damaged."""
        path = self._path(number)
        try:
            version = Version.from_dict(_read_header(path))
        except FileNotFoundError:
            raise HistoryError(self._unknown(number)) from None
        except (HistoryError, ValueError, RecursionError) as error:
            raise HistoryError(f"{os.fspath(path)!r}: {short(str(error), 300)}") from None
        if version.number != number:
            raise HistoryError(f"{os.fspath(path)!r} holds version {version.number}; rename it.")
        return version

    def load(self, number: int | None = None) -> Hierarchy:
        """The hierarchy of one version, by default the latest.

        Raises:
            HistoryError: unknown, damaged or altered, or there is none yet.
        """
        version = self.latest() if number is None else self.version(number)
        if version is None:
            raise HistoryError(f"{os.fspath(self.folder)!r} has no versions yet.")
        path = self._path(version.number)
        try:
            hierarchy = Hierarchy.load(path)
        except HierarchyError as error:
            raise HistoryError(str(error)) from None
        if hierarchy.hash != version.hash:
            raise HistoryError(
                f"{os.fspath(path)!r} was altered: its hierarchy has the hash "
                f"{hierarchy.hash[:12]}, not {version.hash[:12]}."
            )
        return hierarchy

    # ---- files --------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        """The number comes from outside; only a number can be a file name here."""
        if type(number) is not int or not 1 <= number <= MAX_NUMBER:
            raise HistoryError(
                f"Expected a version number from 1 to {MAX_NUMBER:,}, got {short(number)}."
            )
        return self.folder / f"{number:06d}.json"

    def _files(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                return [entry for entry in entries if _FILE.fullmatch(entry.name)]
        except FileNotFoundError:
            return []

    def _numbers(self) -> list[int]:
        """Versions in order; an empty file is a number that was claimed and not filled (yet)."""
        return sorted(int(entry.name[:6]) for entry in self._files() if _is_filled(entry))

    def _unknown(self, number: int) -> str:
        numbers = self._numbers()
        known = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "it has none yet"
        return f"There is no version {number} in {os.fspath(self.folder)!r}; {known}."

    def _basis(self, parent: int | None) -> Version | None:
        if parent is not None:
            return self.version(parent)
        for number in reversed(self._numbers()):
            with suppress(HistoryError):  # a damaged version must not end the history
                return self.version(number)
        return None

    def _check_fit(
        self, hierarchy: Hierarchy, basis: Version | None, edits: Sequence[Edit]
    ) -> None:
        if basis is not None and basis.classes != _class_digest(hierarchy):
            raise HistoryError(
                f"Version {basis.number} in {os.fspath(self.folder)!r} has other classes, or "
                "another order of them; a history is that of one model: start another folder."
            )
        if edits and edits[-1].after != hierarchy.hash:
            raise HistoryError("The last of the edits given did not lead to this hierarchy.")

    def _claim(self) -> int:
        """The next number, ours alone: creating a file succeeds in one process only."""
        number = max((int(entry.name[:6]) for entry in self._files()), default=0)
        while True:
            number += 1
            with suppress(FileExistsError):
                self._path(number).touch(exist_ok=False)
                return number

    def _fill(self, version: Version, hierarchy: Hierarchy) -> None:
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


def keep_edit(
    history: History, before: Hierarchy, after: Hierarchy, record: Edit, why: str = ""
) -> Version:
    """Save what one edit made as a version, by the user of this process.

    An empty history begins with the tree before the edit.

    Args:
        history: where.
        before: a version of it.
        after: what the edit made of it.
        record: the edit.
        why: the reason; by default what the edit did, in words.

    Raises:
        HistoryError: `before` is none of the versions.
        OSError: the folder cannot be written.
    """
    versions, who = history.versions(), _user()
    same = [version.number for version in versions if version.hash == before.hash]
    if versions and not same:
        folder = os.fspath(history.folder)
        raise HistoryError(
            f"The tree to be changed is no version in {folder!r}; name the folder itself to change "
            "its latest version, or another folder."
        )
    parent = same[-1] if same else history.save(before, who=who, why="before the edits").number
    return history.save(after, who=who, why=why or record.summary, parent=parent, edits=[record])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in many containers
        return f"user {os.getuid()}"


def _is_filled(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_size > 0
    except FileNotFoundError:  # a save that failed took its claim back
        return False


def _read_header(path: Path) -> object:
    """The "history" line alone: listing a thousand versions should not parse a thousand trees."""
    with path.open(encoding="utf-8") as file:
        file.readline(1000)
        line = file.readline(MAX_HEADER).strip()
    if not line.startswith('"history": ') or not line.endswith(","):
        raise HistoryError("This is no saved version: its second line is not its history.")
    return json.loads(line.removeprefix('"history": ')[:-1])


def _checked(data: Any) -> dict[str, Any]:
    """The fields of a version as they come from a file, each of its type."""
    _check_words(data["who"], data["why"])
    for field in ("when", "hash", "classes"):
        check_word(data[field], f"The field {field!r}")
    for field in ("number", "parent"):
        if type(data[field]) is not int and (field == "number" or data[field] is not None):
            raise TypeError(f"{field!r} is no number")
    edits = tuple(Edit.from_dict(record) for record in data["edits"])
    fields = Version.__dataclass_fields__
    return {**{key: data[key] for key in fields}, "edits": edits}


def _check_words(who: object, why: object) -> None:
    if not isinstance(why, str) or not why.strip() or len(why) > MAX_WHY:
        raise HistoryError(f"Say why, in 1 to {MAX_WHY:,} characters: got {short(why)}.")
    try:
        check_word(who, "Who saves this version")
        check_text(why, "The reason")
    except HierarchyError as error:
        raise HistoryError(str(error)) from None


def _class_digest(hierarchy: Hierarchy) -> str:
    return hashlib.sha256(json.dumps(hierarchy.classes).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Let the rename survive a power cut, where the system offers that (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
