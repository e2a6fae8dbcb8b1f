"""`nbdt hierarchy`: every verb as a person types it, its output, files and exit status."""

import json
import os
import sys
from types import SimpleNamespace

import networkx as nx
import pytest

from nbdt import Hierarchy, __main__
from nbdt.hierarchies import formats
from nbdt.hierarchies.library import find
from nbdt.hierarchies.shipped import available, load

ZOO = Hierarchy.from_nested(
    {
        "animal": {"bird": ["owl", "crane"], "mammal": ["cat", "dog", "seal"]},
        "vehicle": ["car", "bus"],
    }
)


@pytest.fixture
def nbdt(capsys, tmp_path, monkeypatch):
    """Runs `nbdt hierarchy …` in an empty folder."""
    entry = ("hierarchies.command", "Show, make, edit, compare and convert hierarchies.", "")
    monkeypatch.setitem(__main__.COMMANDS, "hierarchy", entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    ZOO.save("zoo.json")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nbdt", "hierarchy", *map(str, arguments)])
        status = 0
        try:
            __main__.main()
        except SystemExit as stop:
            status = stop.code or 0
        shown = capsys.readouterr()
        return SimpleNamespace(status=status, out=shown.out, err=shown.err)

    return run


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- show, list ---------------------------------------------------------------------------------


def test_show_prints_the_tree(nbdt):
    done = nbdt("show", "zoo.json")
    assert done.status == 0
    assert "│   └── mammal 3\n│       ├── cat\n" in done.out
    assert "7 classes, 5 groups, depth 3" in done.out
    assert "cat" not in nbdt("show", "zoo.json", "--depth", 1).out.partition("\n")[0]


def test_show_json_can_be_read_back(nbdt):
    assert Hierarchy.from_json(nbdt("show", "zoo.json", "--json").out) == ZOO


@pytest.mark.parametrize("suffix", ["svg", "png", "html"])
def test_show_draws_into_a_file(nbdt, tmp_path, suffix):
    done = nbdt("show", "cifar10-wordnet", "--out", f"tree.{suffix}")
    assert (done.status, done.out) == (0, f"saved: tree.{suffix}\n")
    assert (tmp_path / f"tree.{suffix}").stat().st_size > 2000


def test_a_model_name_shows_its_tree(nbdt):
    assert Hierarchy.from_json(nbdt("show", "cifar10", "--json").out) == find("cifar10")


def test_list_names_trees_with_licences_and_models(nbdt):
    out = nbdt("list").out
    for name, tree in available().items():
        assert name in out
        assert tree.licence in out
    assert "cifar10" in out.splitlines()[-1]
    assert {record["name"] for record in json.loads(nbdt("list", "--json").out)} == {*available()}


# ---- wordnet, induce -----------------------------------------------------------------------------


def test_wordnet_builds_a_tree_and_says_what_is_doubtful(nbdt):
    done = nbdt("wordnet", "crane", "heron", "bank", "pitcher", "--json")
    data = json.loads(done.out)
    assert data["hierarchy"]["classes"] == ["crane", "heron", "bank", "pitcher"]
    doubtful = {choice["given"] for choice in data["senses"] if choice["ambiguous"]}
    text = nbdt("wordnet", "crane", "heron", "bank", "pitcher").out
    assert doubtful
    assert f"{len(doubtful)} to check" in text
    assert all(f"  {name}: " in text for name in doubtful)


def test_wordnet_reads_names_from_a_file_and_takes_senses(nbdt, tmp_path):
    (tmp_path / "names.txt").write_text("crane\nheron\ncat\n")
    done = nbdt("wordnet", "names.txt", "--sense", "crane=n03126707", "--out", "tree.json")
    assert done.status == 0
    tree = Hierarchy.load("tree.json")
    assert tree.classes == ("crane", "heron", "cat")
    assert tree.nodes[tree.index("crane")].wnid == "n03126707"
    assert tree.hash != Hierarchy.from_json(json.dumps(json.loads(
        nbdt("wordnet", "names.txt", "--json").out)["hierarchy"])).hash  # fmt: skip


def test_readable_takes_any_names_and_says_how_each_was_read(nbdt, tmp_path):
    (tmp_path / "names.txt").write_text("crane\nheron\nexcavator\nSKU-12\n")
    done = nbdt("readable", "names.txt", "--out", "tree.json")
    assert done.status == 0
    assert "WordNet knows 3 of 4 names." in done.out
    assert "Without a sense: 'SKU-12'." in done.out
    tree = Hierarchy.load("tree.json")
    assert tree.classes == ("crane", "heron", "excavator", "SKU-12")
    assert nbdt("wordnet", "crane", "SKU-12").status == 1  # as ever
    done = nbdt("readable", "names.txt", "--sense", "crane=n03126707", "--json")
    data = json.loads(done.out)
    assert data["senses"]["unknown"] == ["SKU-12"]
    changed = Hierarchy.from_json(json.dumps(data["hierarchy"]))
    assert changed.nodes[changed.index("crane")].wnid == "n03126707"
    assert changed.hash != tree.hash
    assert nbdt("readable", "crane", "--sense", "crane").status == 2


def test_readable_keeps_the_ids_of_a_tree(nbdt):
    done = nbdt("readable", "cifar10-wordnet", "--out", "ids.json")
    assert "WordNet knows" not in done.out  # nothing was chosen
    assert Hierarchy.load("ids.json").class_wnids == load("cifar10-wordnet").class_wnids


def test_wordnet_lists_all_names_that_it_does_not_know(nbdt, tmp_path):
    done = nbdt("wordnet", "cat", "zzyx", "qwrt", "--out", "tree.json")
    assert (done.status, done.out) == (1, "")
    assert "'zzyx'" in done.err
    assert "'qwrt'" in done.err
    assert "Traceback" not in done.err
    assert files(tmp_path) == ["zoo.json"]


def test_induce_from_the_bundled_model(nbdt):
    done = nbdt("induce", "cifar10", "--json")
    assert Hierarchy.from_json(done.out).classes == load("cifar10-wordnet").classes


# ---- edit, diff ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["move", "seal", "bird"], "moved 'seal' from 'mammal' to 'bird'"),
        (["group", "cat", "dog", "--name", "pet"], "grouped 'cat', 'dog' as 'pet'"),
        (["ungroup", "bird"], "ungrouped 'bird'"),
        (["rename", "bird", "avian"], "renamed 'bird' to 'avian'"),
        (["swap", "owl", "cat"], "swapped 'owl'"),
        (["merge", "bird", "mammal", "--name", "beast"], "merged 'bird' and 'mammal' as 'beast'"),
        (["merge", "bird", "vehicle"], "merged 'bird' and 'vehicle'"),
        (["split", "mammal", "cat", "dog", "--name", "pet"], "split 'cat', 'dog' off 'mammal'"),
    ],
)
def test_edit_changes_a_copy_and_says_what_that_can_change(nbdt, words, said):
    done = nbdt("edit", "zoo.json", *words, "--out", "new.json")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(said)
    assert "Under 'marginal' this edit" in done.out
    assert Hierarchy.load("zoo.json") == ZOO
    record = json.loads(nbdt("edit", "zoo.json", *words, "--json").out)
    assert record["edit"]["before"] == ZOO.hash
    assert record["edit"]["after"] == Hierarchy.load("new.json").hash != ZOO.hash
    assert nbdt("diff", "zoo.json", "new.json").out != nbdt("diff", "zoo.json", "zoo.json").out


def test_edit_without_out_saves_nothing_and_says_so(nbdt, tmp_path):
    done = nbdt("edit", "zoo.json", "move", "seal", "bird")
    assert "Nothing was saved" in done.out
    assert files(tmp_path) == ["zoo.json"]


@pytest.mark.parametrize(
    "words",
    [
        ["move", "seal"],
        ["move", "seal", "bird", "--name", "x"],
        ["group", "cat", "dog"],
        ["fly", "cat"],
        ["split", "mammal", "cat", "--name", "x"],
    ],
)
def test_a_misused_edit_is_a_usage_error(nbdt, tmp_path, words):
    done = nbdt("edit", "zoo.json", *words, "--out", "new.json")
    assert (done.status, done.out) == (2, "")
    assert "Usage" in done.err
    assert files(tmp_path) == ["zoo.json"]


def test_an_impossible_edit_explains_itself(nbdt, tmp_path):
    done = nbdt("edit", "zoo.json", "move", "animal", "bird", "--out", "new.json")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: 'animal' cannot be moved into 'bird'")
    assert files(tmp_path) == ["zoo.json"]


def test_a_history_keeps_every_edit_and_gives_its_latest_tree(nbdt, tmp_path):
    done = nbdt(
        "edit", "zoo.json", "move", "seal", "bird", "--history", "kept", "--why", "it swims"
    )
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("saved: version 2 in kept\n")
    assert nbdt("edit", "kept", "move", "owl", "mammal", "--history", "kept").status == 0
    listed = nbdt("history", "kept").out.splitlines()
    assert [line.split()[0] for line in listed] == ["1", "2", "3"]
    assert listed[1].endswith(": it swims")
    assert listed[2].endswith(": moved 'owl' from 'bird' to 'mammal'")
    versions = json.loads(nbdt("history", "kept", "--json").out)
    assert [version["parent"] for version in versions] == [None, 1, 2]
    assert find("kept").hash == versions[-1]["hash"]
    assert find("kept/000001.json") == ZOO
    nbdt("edit", "kept/000001.json", "ungroup", "bird", "--history", "kept")  # a branch
    assert json.loads(nbdt("history", "kept", "--json").out)[3]["parent"] == 1


def test_who_has_no_name_is_known_by_number(nbdt, monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert nbdt("edit", "zoo.json", "move", "seal", "bird", "--history", "kept").status == 0
    assert f"  user {os.getuid()}: " in nbdt("history", "kept").out


def test_a_history_is_of_one_tree(nbdt, tmp_path):
    nbdt("edit", "zoo.json", "move", "seal", "bird", "--history", "kept")
    nbdt("edit", "zoo.json", "move", "owl", "mammal", "--out", "other.json")
    done = nbdt("edit", "other.json", "ungroup", "mammal", "--history", "kept")
    assert (done.status, done.out) == (1, "")
    assert "is no version in 'kept'; name the folder itself" in done.err
    assert files(tmp_path / "kept") == ["000001.json", "000002.json"]
    done = nbdt("history", "nowhere")
    assert (done.status, done.out) == (1, "")
    assert "There are no versions in 'nowhere'" in done.err


def test_diff_in_words_and_as_json(nbdt):
    nbdt("edit", "zoo.json", "move", "seal", "bird", "--out", "new.json")
    done = nbdt("diff", "zoo.json", "new.json")
    assert done.out.startswith("moved 'seal' from 'mammal' to 'bird'\n")
    data = json.loads(nbdt("diff", "zoo.json", "new.json", "--json").out)
    assert [change["kind"] for change in data["changes"]] == ["moved"]
    assert "the same" in nbdt("diff", "zoo.json", "zoo.json").out
    other = nbdt("diff", "zoo.json", "cifar10-wordnet")
    assert other.status == 1
    assert "different classes" in other.err


# ---- check, convert --------------------------------------------------------------------------------


def test_check_accepts_what_is_right(nbdt):
    done = nbdt("check", "zoo.json")
    assert done.status == 0
    assert "7 classes, 5 inner nodes, depth 3" in done.out
    assert json.loads(nbdt("check", "zoo.json", "--json").out)["valid"] is True


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('{"a": ["b"', "not JSON"),
        ("", "empty"),
        ("a/b\na/b\n", "a/b|'b'"),
        ('{"format": "nbdt-hierarchy", "version": 9}', "version"),
        ('{"a": {"b": {"c": {}}, "d": {}}}', "single child"),
    ],
)
def test_check_says_what_is_wrong(nbdt, tmp_path, content, wrong):
    import re

    (tmp_path / "bad.json").write_text(content)
    done = nbdt("check", "bad.json")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: 'bad.json'")
    assert re.search(wrong, done.err)
    asked = nbdt("check", "bad.json", "--json")
    assert asked.status == 1
    assert json.loads(asked.out)["valid"] is False


def test_check_compares_the_class_order_and_remarks_on_doubtful_things(nbdt, tmp_path):
    done = nbdt("check", "zoo.json", "--classes", "zoo.json")
    assert done.status == 0
    (tmp_path / "names.txt").write_text("\n".join(reversed(ZOO.classes)))
    done = nbdt("check", "zoo.json", "--classes", "names.txt")
    assert done.status == 1
    assert "contradicts" in done.err
    Hierarchy.from_paths([f"all/{n}" for n in range(50)]).save("wide.json")
    assert "'all' has 50 children" in nbdt("check", "wide.json").out


def test_check_takes_the_names_that_it_asks_for(nbdt, tmp_path):
    edges = [("r", "animal"), ("r", "thing"), ("animal", "cat"), ("animal", "dog"), ("thing", "car"),
             ("thing", "bus")]  # fmt: skip
    graph = nx.node_link_data(nx.DiGraph(edges), edges="edges")
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert "class order" in nbdt("check", "graph.json").err
    (tmp_path / "names.txt").write_text("dog\ncar\ncat\nbus")
    assert "4 classes" in nbdt("check", "graph.json", "--classes", "names.txt").out


def test_convert_reads_every_format_and_keeps_ids(nbdt, tmp_path):
    assert nbdt("convert", "zoo.json", "x.json").out == "saved: x.json\n"
    assert formats.read("x.json") == ZOO
    rows = [[ZOO.names[n] for n in ZOO.path_of_class(i)][1:] for i in range(ZOO.num_classes)]
    for suffix, mark in (("txt", "/"), ("csv", ",")):
        (tmp_path / f"x.{suffix}").write_text("\n".join(mark.join(row) for row in rows))
        assert nbdt("convert", f"x.{suffix}", f"{suffix}.json").status == 0
        assert formats.read(f"{suffix}.json") == ZOO


def test_convert_takes_formats_and_shipped_trees(nbdt, tmp_path):
    assert nbdt("convert", "cifar10-wordnet", "w.json").status == 0
    assert Hierarchy.load("w.json") == load("cifar10-wordnet")
    for name in ("x.nwk", "x.txt"):  # formats that would lose ids
        done = nbdt("convert", "cifar10-wordnet", name)
        assert (done.status, done.out) == (1, "")
        assert ".json" in done.err
        assert not (tmp_path / name).exists()
    graph = nx.node_link_data(ZOO.to_networkx(), edges="links")
    (tmp_path / "x.json").write_text(json.dumps(graph))
    assert nbdt("convert", "x.json", "y.json").status == 0
    assert Hierarchy.load("y.json").classes == ZOO.classes
    assert nbdt("convert", "zoo.json", "z.xyz").status == 1
    assert nbdt("convert", "zoo.json", "z.svg").status == 0


def test_a_tree_that_is_there_is_not_replaced_unasked(nbdt, tmp_path):
    before = (tmp_path / "zoo.json").read_bytes()
    for words in (["edit", "zoo.json", "ungroup", "bird", "--out"], ["convert", "cifar10-wordnet"]):
        done = nbdt(*words, "zoo.json")
        assert done.status == 1
        assert "exists already" in done.err
        assert (tmp_path / "zoo.json").read_bytes() == before
    assert nbdt("convert", "cifar10-wordnet", "zoo.json", "--overwrite").status == 0
    assert Hierarchy.load("zoo.json") == load("cifar10-wordnet")


# ---- all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["show", "check", "diff", "edit", "convert"])
def test_what_is_not_there_is_an_error_in_words(nbdt, verb):
    rest = {"diff": ["zoo.json"], "edit": ["ungroup", "x"], "convert": ["x.json"]}
    done = nbdt(verb, "nothing\x1b[31m.json", *rest.get(verb, []))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: There is no")
    assert "\x1b" not in done.err


@pytest.mark.parametrize("words", [["fly"], ["show"], ["wordnet"], ["show", "zoo.json", "--depth", "0"],
                                   ["induce"], ["wordnet", "cat", "--sense", "cat"]])  # fmt: skip
def test_misuse_is_exit_status_2(nbdt, words):
    done = nbdt(*words)
    assert (done.status, done.out) == (2, "")
    assert "Usage" in done.err


def test_help_names_every_verb(nbdt):
    out = nbdt("--help").out
    for verb in ("show", "list", "wordnet", "induce", "edit", "diff", "check", "convert"):
        assert verb in out


def test_of_a_models_tree_edit_says_what_its_own_rule_makes_of_it(nbdt):
    done = nbdt("edit", "imagenet", "move", "tench", "vehicle")
    assert "Under 'marginal' this edit" in done.out
    assert "representative" not in done.out
