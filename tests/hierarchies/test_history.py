"""The history of a hierarchy: complete whatever saves at the same time, and whatever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from nbdt import Hierarchy, NBDTError
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit.history import History, HistoryError, Version

PATHS = ["animal/cat", "animal/dog", "animal/owl", "vehicle/car", "vehicle/bus"]


@pytest.fixture
def tree():
    return Hierarchy.from_paths(PATHS)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "versions")


def save(history, tree, why="because", **options):
    return history.save(tree, who="Ada", why=why, **options)


def test_what_is_saved_can_be_loaded(history, tree):
    new, record = edit.move(tree, "owl", "vehicle")
    first = save(history, tree, "as induced")
    second = history.save(new, who="Grace Hopper", why="owls fly\nlike planes", edits=[record])
    assert (first.number, first.parent, second.number, second.parent) == (1, None, 2, 1)
    assert history.versions() == [first, second]
    assert history.latest() == second
    assert second.edits == (record,)
    assert history.load(1) == tree
    assert history.load() == history.load(2) == new
    assert str(second).endswith("Grace Hopper: owls fly\nlike planes")


def test_when_is_now_in_utc(history, tree):
    when = time.strptime(save(history, tree).when, "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(when) - time.mktime(time.gmtime())) < 60


def test_a_version_is_a_hierarchy_file(history, tree):
    save(history, tree)
    assert Hierarchy.load(history.folder / "000001.json") == tree


OLD_VERSION = """{"format": "nbdt-hierarchy", "version": 1,
 "history": {"number": 1, "parent": null, "who": "Ada", "when": "2026-11-21T02:13:25Z", \
"why": "grouped", "hash": "HASH", "classes": "CLASSES", "edits": [EDIT]},
 "classes": ["cat", "dog", "owl", "car", "bus"],
 "nodes": [
  {"id": "/", "parent": null, "name": "root"},
  {"id": "animal/", "parent": "/", "name": "animal"},
  {"id": "vehicle/", "parent": "/", "name": "vehicle"},
  {"id": "cat", "parent": "animal/"},
  {"id": "dog", "parent": "animal/"},
  {"id": "owl", "parent": "animal/"},
  {"id": "car", "parent": "vehicle/"},
  {"id": "bus", "parent": "vehicle/"}
]}
"""


def test_a_folder_of_the_first_release_is_read_and_continued(history, tree):
    edits = (
        '{"kind": "move", "nodes": ["owl"], "to": "vehicle/", '
        "\"summary\": \"moved 'owl' from 'animal' to 'vehicle', to group them there\", "
        f'"before": "{"0" * 64}", "after": "{tree.hash}"}}'
    )
    classes = "b3e8ab3995b295dfdb4b807e4043e9e0f750d30dbb564319dda01828eb95d330"
    text = OLD_VERSION.replace("HASH", tree.hash).replace("EDIT", edits)
    history.folder.mkdir()
    path = history.folder / "000001.json"
    path.write_text(text.replace("CLASSES", classes))
    assert history.load() == tree
    (record,) = history.latest().edits
    assert (record.part_of, record.summary) == ("group", "moved 'owl' from 'animal' to 'vehicle'")
    assert save(history, tree).parent == 1


def test_nothing_is_created_before_the_first_save(history):
    assert history.versions() == []
    assert history.latest() is None
    assert not history.folder.exists()
    with pytest.raises(HistoryError, match="has no versions yet"):
        history.load()


def test_the_same_tree_may_be_saved_again(history, tree):
    assert save(history, tree).hash == save(history, tree).hash
    assert len(history.versions()) == 2


def test_an_old_version_may_be_the_parent(history, tree):
    for _ in range(3):
        save(history, tree)
    assert save(history, tree, parent=1).parent == 1
    with pytest.raises(HistoryError, match="no version 9 in .*; it has 1 to 4"):
        save(history, tree, parent=9)


def test_other_classes_are_refused(history, tree):
    save(history, tree)
    for paths in (["a/b", "a/c"], PATHS[::-1]):
        with pytest.raises(HistoryError, match="Version 1 .* other classes, or another order"):
            save(history, Hierarchy.from_paths(paths))
    assert len(history.versions()) == 1


def test_edits_must_lead_to_the_tree(history, tree):
    _, record = edit.move(tree, "owl", "vehicle")
    with pytest.raises(HistoryError, match="did not lead to this hierarchy"):
        save(history, tree, edits=[record])


@pytest.mark.parametrize(
    ("who", "why", "message"),
    [
        ("", "x", "person who saves this version is empty"),
        (None, "x", "must be text"),
        ("a\0b", "x", "control"),
        ("x" * 501, "x", "501 characters"),
        ("Ada", "", "reason of 1 to 2,000 characters"),
        ("Ada", 3, "Give a reason"),
        ("Ada", "x " * 1001, "Give a reason"),
        ("Ada", "so\u202eod", "bidirectional"),
        ("Ada", "bell\a", "control"),
    ],
)
def test_unusable_words_are_refused(history, tree, who, why, message):
    with pytest.raises(HistoryError, match=message):
        history.save(tree, who=who, why=why)
    assert not history.folder.exists()


@pytest.mark.parametrize(
    "number",
    ["../../etc/passwd", "1", "000001", 0, -1, 10**6, 1.0, True, float("nan"), [1], b"1", "1\0"],
)
def test_a_hostile_version_number_is_refused(history, tree, number):
    save(history, tree)
    with pytest.raises(HistoryError, match="Expected a version number from 1 to 999,999"):
        history.load(number)
    with pytest.raises(HistoryError, match="Expected a version number"):
        save(history, tree, parent=number)


def test_a_history_error_is_one_of_ours():
    assert issubclass(HistoryError, NBDTError)


def test_a_file_is_no_history(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(HistoryError, match="is a file; a history is a folder"):
        History(tmp_path / "x")


# Damage.


def alter(history, number, change):
    path = history.folder / f"{number:06d}.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:40],
        lambda text: "garbage",
        lambda text: text.replace('"number": 2', '"number": 1'),
        lambda text: text.replace('"who": "Ada"', '"who": "A\u202eda"'),
        lambda text: text.replace('"who": "Ada"', '"who": ["Ada"]'),
        lambda text: text.replace('"edits": []', '"edits": [{"kind": "rm"}]'),
        lambda text: text.replace('"parent": 1', '"parent": "1"'),
        lambda text: text.replace('"when": ', '"then": '),
        lambda text: text.replace('"history": {', '"history": [' * 100_000 + "{"),
    ],
)
def test_a_damaged_version_is_named_and_spoils_no_other(history, tree, change):
    for _ in range(3):
        save(history, tree)
    alter(history, 2, change)
    with pytest.raises(HistoryError, match=r"000002\.json"):
        history.load(2)
    with pytest.warns(UserWarning, match=r"000002\.json"):
        assert [version.number for version in history.versions()] == [1, 3]
    assert history.load() == tree
    assert save(history, tree).number == 4


def test_an_altered_tree_is_noticed(history, tree):
    save(history, tree)
    alter(history, 1, lambda text: text.replace('"name": "animal"', '"name": "beast"'))
    with pytest.raises(
        HistoryError, match=r"000001\.json' was altered: its hierarchy has the hash"
    ):
        history.load(1)


def test_a_damaged_latest_version_does_not_end_the_history(history, tree):
    save(history, tree)
    save(history, tree)
    alter(history, 2, lambda text: "garbage")
    assert (save(history, tree).number, history.latest().parent) == (3, 1)


def test_other_files_in_the_folder_do_not_matter(history, tree):
    save(history, tree)
    for name in ("notes.txt", "000007.json.bak", ".000002.json.x1", "1.json", "0000010.json"):
        (history.folder / name).write_text("x")
    assert save(history, tree).number == 2


def test_a_version_survives_json(history, tree):
    version = save(history, tree)
    assert Version.from_dict(json.loads(json.dumps(version.to_dict()))) == version
    with pytest.raises(HistoryError, match="damaged"):
        Version.from_dict({"number": 1})


def test_a_full_disk_leaves_no_trace(history, tree, monkeypatch):
    save(history, tree)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nbdt.hierarchies.edit.history.write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            save(history, tree)
    assert [path.name for path in history.folder.iterdir()] == ["000001.json"]
    assert save(history, tree).number == 2


# Several processes, some of them killed.

SAVER = f"""
import sys
from nbdt import Hierarchy
from nbdt.hierarchies.edit.history import History
folder, who, count = sys.argv[1:]
history, tree = History(folder), Hierarchy.from_paths({PATHS!r})
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(count)):
    print(history.save(tree, who=who, why=str(i)).number, flush=True)
"""


def start(code, *arguments):
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def go(child):
    child.stdin.write("\n")
    child.stdin.flush()


def close(child):
    child.stdin.close()
    child.stdout.close()
    return child.wait(60)


def test_concurrent_savers_lose_nothing(history, tree):
    children = [start(SAVER, history.folder, f"saver {n}", 25) for n in range(3)]
    for child in children:
        go(child)
    numbers = [int(line) for child in children for line in child.stdout]
    assert [close(child) for child in children] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions = history.versions()
    assert sorted(numbers) == [version.number for version in versions] == [*range(1, 76)]
    assert {(version.who, version.why) for version in versions} == {
        (f"saver {n}", str(i)) for n in range(3) for i in range(25)
    }
    assert all(history.load(version.number) == tree for version in versions)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_loses_no_saved_version(history, tree):
    saved = set()
    for round_ in range(4):
        child = start(SAVER, history.folder, f"round {round_}", 10_000)
        other = start(SAVER, history.folder, f"other {round_}", 5)
        go(child)
        go(other)
        lines = [child.stdout.readline() for _ in range(3 + round_)]
        time.sleep(0.003 * round_)
        child.kill()
        lines += list(child.stdout)  # what it printed before it died
        saved |= {int(line) for line in [*lines, *other.stdout] if line.endswith("\n")}
        assert (close(child), close(other)) == (-signal.SIGKILL, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = {version.number for version in history.versions()}
    assert saved <= numbers
    assert len(numbers - saved) <= 4  # saved, but killed before saying so
    assert all(history.load(number) == tree for number in numbers)
    assert save(history, tree).number > max(numbers)


KILLED_AT_RENAME = "import os\nos.replace = lambda *_: os.kill(os.getpid(), 9)\n" + SAVER
KILLED_AT_WRITING = KILLED_AT_RENAME.replace("replace", "fsync")


@pytest.mark.parametrize("code", [KILLED_AT_RENAME, KILLED_AT_WRITING], ids=["rename", "writing"])
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_saver_killed_halfway_leaves_a_number_that_is_skipped(history, tree, code):
    first = save(history, tree)
    child = start(code, history.folder, "Ada", 1)
    go(child)
    assert close(child) == -signal.SIGKILL
    assert (history.folder / "000002.json").stat().st_size == 0
    assert history.versions() == [first]
    assert history.latest() == first
    with pytest.raises(HistoryError):
        history.load(2)
    third = save(history, tree)
    assert (third.number, third.parent) == (3, 1)
