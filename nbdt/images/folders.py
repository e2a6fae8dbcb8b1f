"""The entries of folders: which of them count as images, in folders and in archives alike.

Left out are hidden entries, the folders that systems add, files that are not named like images, and
what this package wrote itself: a folder with one of `MARKERS`, or a picture with `SOFTWARE` in it.
A name alone never marks an output.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ..errors import NBDTError
from ..storage import UNREADABLE, is_uri, list_folder
from .image import ImageError, open_image, refusal
from .report import Report
from .sources import ImageSource, Reader, file_source, open_stream, refused_source

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NAMED = f"image files are those named {', '.join(EXTENSIONS)}"
HIDDEN, SYSTEM, OUTPUT, LINK = "hidden", "of a system", "written by nbdt", "reached by links"
BATCH_FILE = "batch.json"  # identifies a folder that a batch wrote
MARKERS = (
    BATCH_FILE, "evaluation.json", "explanation.json", "audit.json", "manifest.json", "run.json",
    "config.json",
)  # fmt: skip
LANCE = {"_versions", "_transactions", "data"}  # what a table of LanceDB consists of: a memory
SOFTWARE = "nbdt-vision"  # the text "Software" of a picture that a command wrote
FOLDER, FILE = "folder", "file"
# Real paths on the way to a folder: the data's own, then of each link where it is and where it leads.
Trail: TypeAlias = tuple[Path, ...]

_SYSTEM = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "#recycle",
    "#snapshot", "@recycle", "@recently-snapshot",
}  # fmt: skip
_OURS = re.compile(rb'"format": ?"nbdt-|"data_sha256"')  # the second: runs of earlier releases
_PICTURE = re.compile(r"\.(nbdt|evidence|regions)\.png", re.IGNORECASE)
HEAD = 64 << 10  # bytes of a marker that are looked at


def skipped(name: str) -> str:
    """Return why an entry is left out by its name alone; empty if it is not."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in _SYSTEM else ""


def is_image_name(name: str) -> bool:
    """Return whether a file is named like an image."""
    return name.lower().endswith(EXTENSIONS)


def is_output(names: Collection[str], read: Callable[[str], bytes]) -> bool:
    """Return whether the entries of a folder, of which `read` gives the start, are an output."""
    if {*names} >= LANCE:
        return True
    return any(name in names and _OURS.search(read(name)) for name in MARKERS)


def is_output_folder(folder: str) -> bool:
    """Return whether a folder here is an output; one whose names cannot be read is none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return is_output(names, lambda name: read_head(folder, name))


def is_own_picture(name: str, read: Callable[[], bytes]) -> bool:
    """Return whether a command wrote this picture; `read` gives the start of the file."""
    if not _PICTURE.search(name):
        return False
    try:
        return SOFTWARE.encode() in read()[:1024]
    except ImageError:
        return False


@dataclass
class Folders:
    """Folders that were seen, as parts of their path: for labels that may have no image."""

    seen: list[tuple[str, ...]] = field(default_factory=list)
    outputs: list[tuple[str, ...]] = field(default_factory=list)
    # endings of the files in a folder that are no images
    others: dict[tuple[str, ...], Counter[str]] = field(default_factory=dict)


def iter_folder(
    root: str, reader: Reader = open_image, report: Report | None = None,
    folders: Folders | None = None, *, strict: bool = False,
) -> Iterator[ImageSource]:  # fmt: skip
    """Yield the images below a folder at a path or URI, in sorted order.

    One folder's names are in memory at a time. Links to folders are followed, unless in a circle or
    to what is read anyway; of the links below another link, one to each folder is. A folder that
    cannot be read is a source that raises `ImageError`, and so is `root` if it has no image;
    `strict` raises it at once. What is left out is counted in `report`.
    """
    report, folders = report or Report(root), folders or Folders()
    empty, followed = True, set[Path]()
    trail: Trail = () if is_uri(root) else (Path(root).resolve(),)
    pending: list[tuple[str, tuple[str, ...], str, Trail]] = [(root, (), FOLDER, trail)]
    while pending:
        path, parts, kind, trail = pending.pop()
        if kind == FOLDER:
            try:
                entries = _entries(path, trail, followed)
            except ImageError as error:
                if strict:
                    raise
                empty = False
                yield refused_source(path, error)
                continue
            if parts and is_output({name for name, *_ in entries}, lambda n: read_head(path, n)):  # noqa: B023
                report.leave_out(OUTPUT, "/".join(parts), is_folder=True)
                folders.outputs.append(parts)
                continue
            folders.seen.append(parts)
            pending += [
                (_join(path, name), (*parts, name), kind, way)
                for name, kind, way in reversed(entries)
                if _counts(name, kind, parts, report, folders)
            ]
        elif is_own_picture(path, lambda: read_head(*os.path.split(path))):  # noqa: B023
            report.leave_out(OUTPUT, path)
            folders.outputs.append(parts)
        else:
            empty = False
            yield file_source(path, reader=reader, folders=parts[:-1])
    if empty and not strict:
        yield refused_source(root, refusal(root, "image files", "a folder without any", NAMED))


def _counts(name: str, kind: str, parts: tuple[str, ...], report: Report, folders: Folders) -> bool:
    """Return whether an entry counts; one that does not is reported."""
    reason = LINK if kind == LINK else skipped(name)
    if reason:
        if kind != FILE or is_image_name(name):
            report.leave_out(reason, "/".join((*parts, name)), is_folder=kind != FILE)
        else:
            report.others[ending(name)] += 1
        return False
    if kind == FILE and not is_image_name(name):
        report.others[ending(name)] += 1
        folders.others.setdefault(parts, Counter())[ending(name)] += 1
        return False
    return True


def ending(name: str) -> str:
    """Return the ending of a file's name in lower case, or a name without one."""
    return os.path.splitext(name)[1].lower() or name


def _entries(folder: str, trail: Trail, followed: set[Path]) -> list[tuple[str, str, Trail]]:
    """Return the sorted (name, kind, trail) of what is in a folder: a folder, a file or a link to one.

    `followed` holds where the links below other links lead; those that count are added.
    """
    try:
        if is_uri(folder):
            found = sorted((name, FOLDER if kind else FILE) for name, kind in list_folder(folder))
            return [(name, kind, trail) for name, kind in found]
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        return [(entry.name, *_kind(entry, trail, followed)) for entry in ordered]
    except (NBDTError, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "check path and permissions"
        raise refusal(folder, "a readable folder", reason, remedy) from error


def _kind(entry: os.DirEntry[str], trail: Trail, followed: set[Path]) -> tuple[str, Trail]:
    if not entry.is_symlink():
        return FOLDER if entry.is_dir() else FILE, trail
    if not os.path.isdir(entry.path):
        return FILE, trail
    here, there = Path(entry.path).parent.resolve(), Path(entry.path).resolve()
    read = (*trail, here)
    if any(one.is_relative_to(there) or there.is_relative_to(one) for one in read):
        return LINK, trail
    if len(trail) > 1 and not skipped(entry.name):  # links below links could multiply
        if there in followed:
            return LINK, trail
        followed.add(there)
    return FOLDER, (*read, there)


def read_head(folder: str, name: str) -> bytes:
    """Return the first kilobytes of a file; nothing if it cannot be read."""
    try:
        with open_stream(_join(folder, name)) as file:
            return file.read(HEAD)
    except (OSError, ImageError):
        return b""


def _join(folder: str, name: str) -> str:
    if not is_uri(folder):
        return os.path.join(folder, name)
    base, mark, options = folder.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{options}"
