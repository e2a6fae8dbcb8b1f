"""The pages tell the truth: their Python runs, their commands exist.

The ``python`` blocks of a page run in order, as one program, in an empty folder that holds a
photograph ``photo.jpg``. A block that cannot run in a test (it needs the network, hours, or the
reader's own model) stands below a comment ``<!-- not run: the reason -->``.
"""

import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\s*\n)?^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    skipped: bool


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        yield Block(match["language"], match["text"], line, match["skip"] is not None)


def programs():
    for page in PAGES:
        found = [
            block for block in blocks(page) if block.language == "python" and not block.skipped
        ]
        if found:
            yield pytest.param(page, found, id=page.relative_to(ROOT).as_posix())


def commands():
    """Every command line shown: after ``$`` in a console block, any line of a shell script."""
    for page in PAGES:
        for block in blocks(page):
            prompt = {"console": "$ ", "bash": "", "sh": "", "shell": ""}.get(block.language)
            if prompt is None:
                continue
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.startswith(prompt) and line.removeprefix(prompt).startswith("nbdt"):
                    yield pytest.param(line.removeprefix(prompt), id=f"{page.name}: {line}")


def test_the_readme_has_code_that_runs():
    assert any(param.values[0].name == "README.md" for param in programs())


@pytest.mark.parametrize(("page", "program"), list(programs()))
def test_its_python_runs(page, program, tmp_path, monkeypatch):
    Image.radial_gradient("L").convert("RGB").resize((320, 240)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in program:
        code = "\n" * block.line + block.text  # a traceback then names the page's own line
        exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("line", list(commands()))
def test_its_commands_exist(line, monkeypatch, capsys):
    from nbdt.__main__ import main

    def help_of(*names):
        monkeypatch.setattr(sys, "argv", ["nbdt", *names, "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code in {0, None}, shown.err
        return shown.out

    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(line, comments=True)[1:]
    names = []
    shown = help_of()
    while "COMMAND" in shown and words and not words[0].startswith("-"):
        names.append(words.pop(0))
        shown = help_of(*names)
    options = {word.split("=")[0] for word in words if word.startswith("-")}
    assert options <= set(re.findall(r"(?<!\S)-[\w-]+", shown.replace(",", " "))), shown


def test_the_edits_of_the_hierarchy_page_run(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from nbdt.hierarchies.command import app

    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "hierarchies.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ nbdt hierarchy (.+)$", page, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        done = CliRunner().invoke(app, shlex.split(line, comments=True))
        assert done.exit_code == 0, (line, done.output)


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        target
        for page in PAGES
        for target in re.findall(
            r"(?:`|^\$ |^)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE
        )
    }
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
