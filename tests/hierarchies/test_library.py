"""Shipped trees: their provenance and content, and that their commands rebuild them."""

import json
import lzma
from pathlib import Path

import pytest

from nbdt import Hierarchy, NBDTError
from nbdt.hierarchies import shipped
from nbdt.hierarchies.library import class_list, find, title_of
from nbdt.hierarchies.shipped import available, load
from tests.maintainer_scripts import script

build_library = script("build_library")

DATA = Path(shipped.__file__).parent / "data"
FROM_SHARED = {"imagenet1k-induced"}
HERE = sorted({*build_library.RECIPES} - FROM_SHARED)
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_each_tree_says_where_it_comes_from():
    trees = available()
    assert [*trees] == [*build_library.RECIPES]
    for name, tree in trees.items():
        assert tree.name == name
        assert tree.command == f"python tools/build_library.py {name}"
        assert all((tree.title, tree.source, tree.licence))


@pytest.mark.parametrize("name", build_library.RECIPES)
def test_each_tree_loads_and_is_what_its_record_says(name):
    tree = load(name)
    record = available()[name]
    assert tree.num_classes == record.classes
    assert tree.hash == record.hash


def test_class_names_are_everyday_ones_in_the_models_order():
    pytest.importorskip("torchvision")
    from torchvision.models import ResNet50_Weights

    assert [*load("cifar10-wordnet").classes] == [*load("cifar10-induced").classes] == CIFAR10
    trees = [load(f"imagenet1k-{kind}") for kind in ("readable", "wordnet", "induced")]
    assert len({(tree.classes, tree.class_wnids) for tree in trees}) == 1
    names = trees[0].classes
    assert len({name.casefold() for name in names}) == 1000
    assert not any(mark in name for name in names for mark in ",:+/")
    pairs = dict(zip(ResNet50_Weights.IMAGENET1K_V1.meta["categories"], names, strict=True))
    assert sum(theirs == ours for theirs, ours in pairs.items()) > 650
    assert (pairs["crane"], pairs["crane bird"]) == ("construction crane", "crane (bird)")
    assert (pairs["Egyptian cat"], pairs["ashcan"]) == ("Egyptian cat", "trash can")


def test_wordnet_trees_put_classes_where_wordnet_does():
    tree = load("imagenet1k-wordnet")
    under = {tree.names[node] for node in tree.path_to(tree.index("castle"))}
    assert "structure" in under
    assert all(tree.nodes[leaf].wnid for leaf in tree.leaf_nodes)


def test_together_they_are_small():
    ours = [path for path in DATA.iterdir() if path.name.endswith((".json", ".json.xz"))]
    assert {path.name.split(".")[0] for path in ours} == {*available(), "trees"}
    assert sum(path.stat().st_size for path in ours) < 300_000


def rebuilt(names, data, folder):
    build_library.build(names, data, folder)
    records = json.loads((folder / "trees.json").read_text())
    return {record["name"]: ShippedHash(record) for record in records}


class ShippedHash(dict):
    """A record, compared by all it says; printed by what to do when it differs."""

    def __repr__(self):
        return f"{self['hash'][:12]} (if the change is wanted: {self['command']})"


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_its_command_rebuilds_it(name, tmp_path):
    assert rebuilt([name], tmp_path, tmp_path)[name] == vars(available()[name])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FROM_SHARED))
def test_its_command_rebuilds_it_from_the_shared_data(name, tmp_path, data_dir):
    assert rebuilt([name], data_dir, tmp_path)[name] == vars(available()[name])


def test_large_trees_are_compressed_and_the_other_form_removed(tmp_path):
    small, large = load("cifar10-wordnet"), load("imagenet1k-wordnet")
    (tmp_path / "x.json.xz").write_bytes(b"old")
    build_library.save("x", small, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    build_library.save("x", large, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json.xz"]
    assert Hierarchy.from_json(lzma.decompress((tmp_path / "x.json.xz").read_bytes())) == large


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(NBDTError, match="Did you mean 'cifar10-wordnet'.*There are: 'cifar10-w"):
        load("cifar10-wordnets")
    with pytest.raises(NBDTError, match="no such file.*Did you mean 'imagenet1k-wordnet'"):
        find("imagenet-wordnet")


def test_an_altered_file_is_noticed(monkeypatch):
    other = load("cifar10-induced").to_json().encode()
    monkeypatch.setattr(shipped, "_read", lambda name: other)
    with pytest.raises(NBDTError, match="cifar10-wordnet.*altered.*reinstall"):
        load("cifar10-wordnet")


def test_find_takes_names_models_folders_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = load("cifar10-wordnet")
    assert find("cifar10-wordnet") == tree
    (tmp_path / "model").mkdir()
    tree.save("model/hierarchy.json")
    assert find("model") == find(tmp_path / "model") == find("model/hierarchy.json") == tree
    assert [*find("cifar10").classes] == CIFAR10  # the bundled model
    (tmp_path / "paths.txt").write_text("a/b\na/c\n")
    assert find("paths.txt").classes == ("b", "c")
    # A shipped name wins; a path is a path.
    Hierarchy.from_paths(["x/1", "x/2"]).save("cifar10-wordnet")
    assert find("cifar10-wordnet") == tree
    assert find("./cifar10-wordnet").classes == ("1", "2")


def test_find_refuses_a_folder_without_a_tree(tmp_path):
    with pytest.raises(NBDTError, match="neither a saved model nor a history"):
        find(tmp_path)


def test_class_lists_come_from_lines_or_trees(tmp_path):
    file = tmp_path / "names"
    file.write_bytes("\ufeffcrane\r\n\r\n maple tree \r\nécole\n".encode())
    assert class_list(str(file)) == (["crane", "maple tree", "école"], None)
    names, wnids = class_list("imagenet1k-wordnet")
    assert (names[0], wnids[0]) == ("tench", "n01440764")
    for content in (b"", b"\n \n", b"\xff\x00a"):
        file.write_bytes(content)
        with pytest.raises(NBDTError, match="class name or id a line|not UTF-8 text"):
            class_list(str(file))


def test_titles_cannot_steer_a_terminal():
    assert title_of("cifar10-wordnet") == "CIFAR-10 in WordNet"
    assert title_of("some/folder/tree.json") == "tree.json"
    assert title_of("evil\x1b[31m.json").isprintable()
