"""A memory on a disk that is full, or that takes nothing: a real one, in the main memory."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from nbdt import NBDT
from nbdt.errors import NBDTError
from nbdt.explain import explain
from nbdt.model import writing

from .test_memory_command import bare, built, data, nbdt, photograph, rows  # noqa: F401

SIZE = 32 << 20  # bytes


def mount(*arguments):
    command = ["mount", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a small disk, as root: {done.stderr.strip()[:100]}")


@pytest.fixture
def disk(built, tmp_path):  # noqa: F811
    """A model with its memory on a disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("needs the command mount")
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place)
    try:
        yield shutil.copytree(built, place / "model")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(folder: Path) -> Path:
    """Take all that is free on a disk."""
    rest = folder.parent / "rest"
    with suppress(OSError), rest.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free == 0
    return rest


def refused(result, reason):
    assert isinstance(result.exception, NBDTError), result.exception
    text = str(result.exception)
    assert "\n" not in text
    assert reason in text
    assert "Nothing was changed" in text


def test_a_full_disk_changes_nothing_and_takes_more_when_there_is_room(disk, tmp_path):
    before, versions = rows(disk), nbdt("versions", disk).stdout
    for number in range(3):
        photograph("red", 90 + number).save(tmp_path / f"{number}.png")
    new = [tmp_path / f"{number}.png" for number in range(3)]
    rest = fill(disk)
    key = before[0]["id"]
    refused(nbdt("add", disk, *new, "--label", "red"), "No space")
    refused(nbdt("strike", disk, key, "--why", "bad"), "No space")
    refused(nbdt("relabel", disk, "blue", key), "No space")
    assert rows(disk) == before
    assert nbdt("versions", disk).stdout == versions
    rest.unlink()
    assert nbdt("add", disk, *new, "--label", "red").exit_code == 0
    assert len(rows(disk)) == len(before) + 3


def test_a_full_disk_leaves_the_model_that_was_there(disk):
    model, old = NBDT.load(disk), NBDT.load(disk).head.linear.weight.detach().clone()
    model.memory.strike(rows(disk)[0]["id"], "to see")
    model.refit()
    rest = fill(disk)
    with pytest.raises(NBDTError, match="It is as it was"):
        writing.save_head(model, disk)
    assert torch.equal(NBDT.load(disk).head.linear.weight, old)
    rest.unlink()
    writing.save_head(model, disk)
    assert torch.equal(NBDT.load(disk).head.linear.weight, model.head.linear.weight)


def test_a_memory_that_cannot_be_written_is_read_and_explains(disk):
    before = rows(disk)
    mount("-o", "remount,ro", disk.parent)
    assert rows(disk) == before
    refused(nbdt("strike", disk, before[0]["id"], "--why", "bad"), "Read-only")
    model = NBDT.load(disk)
    (found,) = explain(model, photograph("red", 50))
    assert found.contributions
    mount("-o", "remount,rw", disk.parent)
    shutil.rmtree(disk / "memory" / "heads.lance")
    mount("-o", "remount,ro", disk.parent)
    (found,) = explain(NBDT.load(disk), photograph("red", 50))
    assert "nbdt memory refit" in found.no_contributions
