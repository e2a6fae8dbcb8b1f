"""Phrases that native readers stumble over; single words are in .codespell-words.txt."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "nbdt", "hierarchies", "train", "explain", "demo",
    "tests", "benchmarks", "tools", "docs", "deploy", ".ci",
)  # fmt: skip
KINDS = {".py", ".md", ".js", ".css", ".html", ".toml", ".txt", ".svg"}
LEFT_OUT = re.compile(
    r"/data/|/bundled/|tests/test_language\.py|sense_lists\.py|readable_groups\.txt|tests/fixtures/"
)
PHRASES = {
    r"(?:stands?|stood|standing) in": "is in",
    r"(?:lies?|lay|lying) in": "is in",
    r"(?:comes?|came|coming) to": "reaches, gives",
    r"(?:speaks?|spoke|speaking) (?:for|against)": "supports, argues for or against",
    r"said of": "reported, recorded",
    r"whole or not at all": "atomically",
    r"for ever": "indefinitely",
    r"rooms?": "package, folder",
    r"houses?(?!=| (?:cat|finch))": "package, folder",
    r"(?:public face|the face of|a package's face)": "public API",
}
MEANT = (  # lines in which a phrase means what it says
    re.compile(r"\broom for\b"),
)


def findings(text):
    """(line number, phrase, remedy) of every phrase in a text, across line ends too."""
    for phrase, remedy in PHRASES.items():
        pattern = phrase.replace(" ", r"(?:\s+(?:#|//|\*)?\s*)")
        for match in re.finditer(rf"(?<![\w-]){pattern}(?![\w-])", text, re.IGNORECASE):
            number = text.count("\n", 0, match.start()) + 1
            line = text.splitlines()[number - 1]
            if not any(meant.search(line) for meant in MEANT):
                yield number, " ".join(match[0].split()), remedy


def files(*places):
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in KINDS and not LEFT_OUT.search(f"/{name}"):
                yield path


def report(*places):
    """Findings as lines ``file:line: phrase ==> remedy``."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {phrase} ==> {remedy}"
        for path in files(*places)
        for number, phrase, remedy in sorted(findings(path.read_text(encoding="utf-8")))
    ]


def test_the_project_is_written_in_plain_english():
    places = [ROOT / name for name in (*FOLDERS, "README.md", "CHANGELOG.md", "hubconf.py")]
    assert not report(*(place for place in places if place.exists()))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("It stands in the\nfolder. They lie\nin it.", [1, 2]),
        ("# It comes\n# to this", [1]),
        ("A standing order leaves room for more; a warehouse, two-room", []),
    ],
)
def test_a_phrase_is_found(text, lines):
    assert sorted(line for line, _, _ in findings(text)) == lines
