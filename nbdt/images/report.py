"""What a reader of data found, used and left out, in one line for people."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from ..errors import listed
from ..progress import counted, escape_terminal

NAMED = 3
log = logging.getLogger("nbdt.images")  # the commands show it on stderr


@dataclass
class Report:
    """Counts of one reading of data; no entry is left out without being counted here."""

    name: str  # of the data, for messages
    used: int = 0  # images that were given to the reader's caller
    images: Counter[str] = field(default_factory=Counter)  # left out, by reason
    others: Counter[str] = field(default_factory=Counter)  # files that are no images, by ending
    folders: Counter[str] = field(default_factory=Counter)  # left out whole, by reason
    named: dict[str, list[str]] = field(default_factory=dict)  # the first of these folders
    notes: list[str] = field(default_factory=list)  # how the data is read, and how else it could be

    def leave_out(self, reason: str, name: str, *, is_folder: bool = False) -> None:
        """Count an image, or a folder with all that is in it, that is left out for a reason."""
        (self.folders if is_folder else self.images)[reason] += 1
        names = self.named.setdefault(reason, [])
        if is_folder and len(names) < NAMED:
            names.append(name)

    def __str__(self) -> str:
        found = self.used + self.images.total()
        out = [f"{count:,} {reason}" for reason, count in (+self.images).items()]
        for reason, count in self.folders.items():
            named = self.named[reason]
            more = f" and {count - len(named):,} more" if count > len(named) else ""
            out.append(f"{counted(count, 'folder')} {reason} ({listed(named)}{more})")
        if self.others:
            kinds = ", ".join(kind for kind, _ in self.others.most_common(5))
            out.append(f"{counted(self.others.total(), 'file')} of other kinds ({kinds})")
        rest = f"; left out: {', '.join(out)}" if out else ""
        return f"{self.name}: {counted(found, 'image')} found, {self.used:,} used{rest}."

    def lines(self) -> list[str]:
        """Return the notes and the line, safe for a terminal."""
        return [*map(escape_terminal, (*self.notes, str(self)))]

    def say(self) -> None:
        """Log `lines`."""
        for line in self.lines():
            log.info("%s", line)
