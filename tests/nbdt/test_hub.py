"""Fetching a model, and loading the folder of an untrusted one."""

import json
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.model.hub import figures
from nbdt.model.saved import file_hashes

TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
ROOT = Path(__file__).parents[2]


def make():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()


@pytest.fixture
def model():
    made = make()
    made.reference = {"logits": 3 * torch.randn(2, 4).half(), "labels": torch.tensor([0, 1])}
    made.provenance = {"accuracy": {"test": {"flat": 0.9, "soft": 0.89, "hard": 0.875}}}
    return made


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


class Hub:
    """A hub whose repositories are folders."""

    def __init__(self, root):
        self.root = root
        self.calls = []

    def download(self, repo_id, *, allow_patterns, **options):
        self.calls.append(options)
        folder = self.root / repo_id
        if not folder.exists():
            raise OSError("404")
        assert {path.name for path in folder.iterdir()} <= set(allow_patterns)
        return str(folder)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.download)
    return made


def test_a_folder_that_was_uploaded_comes_back(model, saved, fake):
    shutil.copytree(saved, fake.root / "someone" / "animals")
    again = NBDT.from_pretrained("someone/animals", revision="main")
    assert fake.calls[0]["revision"] == "main"
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    assert again.hierarchy == TREE
    assert not again.training


def test_a_card_shows_each_kind_of_answer():
    shares = {"flat": 0.5, "hard": 0.25}
    card = figures({"accuracy": {"held out": shares, "test": dict(reversed(shares.items()))}})
    assert "| images | flat | hard |" in card
    assert "| test | 50.00% | 25.00% |" in card


def test_from_pretrained_takes_folders_and_bundled_names(saved, fake):
    assert NBDT.from_pretrained(saved).hierarchy == TREE
    assert NBDT.from_pretrained("cifar10").hierarchy.num_classes == 10
    assert not fake.calls
    with pytest.raises(NBDTError, match=r"'no/one' is no folder, and could not be fetched.*404"):
        NBDT.from_pretrained("no/one")
    with pytest.raises(NBDTError, match="from_pretrained takes no architecture"):
        NBDT.from_pretrained(saved, architecture="resnet50")


def test_torch_hub():
    model = torch.hub.load(str(ROOT), "cifar10", source="local")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    again = torch.hub.load(str(ROOT), "pretrained", "cifar10", source="local")
    assert again.hierarchy == model.hierarchy
    larger = torch.hub.load(str(ROOT), "imagenet", source="local")
    assert larger.hierarchy.num_classes == 1000


# Hostile and damaged folders.


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def edit_preprocessing(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    edit(folder, preprocessing={**config["preprocessing"], **changes})


def edit_tensors(folder, change, *, rehash):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    path.unlink()
    save_file(state, path)
    if rehash:
        edit(folder, sha256=file_hashes(folder))


def flip_a_bit(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link_out(folder):
    outside = folder.parent / "secret.safetensors"
    os.replace(folder / "model.safetensors", outside)
    (folder / "model.safetensors").symlink_to(outside)


def device(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


def replace(folder, name, old, new):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


HOSTILE = {
    "a changed bit": (flip_a_bit, "is not the file that was saved.*Fetch the model again"),
    "a wrong hash": (
        lambda f: edit(f, sha256={"model.safetensors": "00" * 32}),
        "is not the file that was saved",
    ),
    "a hash of another type": (
        lambda f: edit(f, sha256={"model.safetensors": 7}),
        "is not the file that was saved",
    ),
    "hashes that are no mapping": (lambda f: edit(f, sha256=[1]), "wrong 'sha256'"),
    "a file outside in the hashes": (
        lambda f: edit(f, sha256={"../../etc/passwd": "00"}),
        "names files no model has: '../../etc/passwd'",
    ),
    "a missing tensor": (
        lambda f: edit_tensors(f, lambda s: s.pop("head.linear.bias"), rehash=True),
        "missing: 'head.linear.bias'",
    ),
    "an extra tensor": (
        lambda f: edit_tensors(f, lambda s: s.update(evil=torch.zeros(2)), rehash=True),
        "unexpected: 'evil'",
    ),
    "a tensor of another shape": (
        lambda f: edit_tensors(
            f, lambda s: s.update({"head.linear.bias": torch.zeros(9)}), rehash=True
        ),
        r"of another shape: 'head.linear.bias \(9,\) for \(4,\)'",
    ),
    "a missing file": (lambda f: (f / "hierarchy.json").unlink(), "not complete: .*hierarchy.json"),
    "a missing reference": (
        lambda f: (f / "reference.safetensors").unlink(),
        "not complete: .*reference.safetensors",
    ),
    "an oversized header": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "is not a safetensors file",
    ),
    "a header longer than the file": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 900) + b"{}"),
        "is not a safetensors file",
    ),
    "a pickle": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n"),
        "is not a safetensors file",
    ),
    "a link out": (link_out, "is a link out of the model's folder"),
    "a device": (device, "is a link out of the model's folder, to '/dev/zero'"),
    "a folder for a file": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        "is not an ordinary file",
    ),
    "a path for an architecture": (
        lambda f: edit(f, architecture="../../evil"),
        "timm knows no architecture '../../evil'",
    ),
    "a hub repository for an architecture": (
        lambda f: edit(f, architecture="hf-hub:evil/model"),
        "timm knows no architecture 'hf-hub:evil/model'",
    ),
    "a local folder for an architecture": (
        lambda f: edit(f, architecture="local-dir:/tmp/evil"),
        "timm knows no architecture",
    ),
    "code in an option": (
        lambda f: edit(f, architecture="small_convnet,act_layer=os.system"),
        "expected act_layer to be relu .*, got 'os.system'",
    ),
    "an option of timm that is not ours": (
        lambda f: edit(f, architecture="small_convnet,pretrained_cfg=evil"),
        "unknown option 'pretrained_cfg'",
    ),
    "NaN": (
        lambda f: replace(f, "config.json", '"crop_pct": ', '"crop_pct": NaN, "x": '),
        "crop_pct nan",
    ),
    "infinity": (
        lambda f: replace(f, "config.json", '"crop_pct": ', '"crop_pct": 1e999, "x": '),
        "damaged preprocessing",
    ),
    "a number of a million digits": (
        lambda f: replace(f, "config.json", '"size": ', '"size": ' + "9" * 900_000),
        "is not JSON",
    ),
    "a huge size": (lambda f: edit_preprocessing(f, size=10**9), "size 1e.09 is not from 1 to"),
    "a size that is no number": (lambda f: edit_preprocessing(f, size=[3]), "damaged preproc"),
    "a crop of nothing": (lambda f: edit_preprocessing(f, crop_pct=1e-9), "crop_pct 1e-09 is not"),
    "a division by zero": (lambda f: edit_preprocessing(f, std=[0, 1, 1]), "is not above 0"),
    "deep JSON": (
        lambda f: (f / "config.json").write_text("[" * 200_000),
        "is not JSON",
    ),
    "an endless config": (
        lambda f: (f / "config.json").write_text(" " * (2**20 + 1)),
        "larger than 1,048,576 bytes",
    ),
    "another tree": (
        lambda f: (
            (f / "hierarchy.json").unlink(),
            Hierarchy.from_paths(["a/cat", "a/dog", "b/car", "b/bus"]).save(f / "hierarchy.json"),
        ),
        "hierarchy.json is not the one this model was saved with",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_not_as_it_was_saved_is_refused(saved, kind):
    damage, message = HOSTILE[kind]
    damage(saved)
    with pytest.raises(NBDTError, match=message):
        NBDT.load(saved)


# Options, architecture and tensors are read where the network is built.
EARLY = [k for k in HOSTILE if not re.search("option|architecture|tensor", k)]


@pytest.mark.parametrize("kind", EARLY)
def test_it_is_refused_before_a_network_is_built(saved, kind, monkeypatch):
    def built(*_args, **_kwargs):
        raise AssertionError("a network was built")

    HOSTILE[kind][0](saved)
    monkeypatch.setattr("nbdt.model.model.create_timm", built)
    with pytest.raises(NBDTError):
        NBDT.load(saved)


@pytest.mark.parametrize(
    "change", [lambda config: config.pop("sha256"), lambda config: config["sha256"].clear()]
)
def test_a_file_of_tensors_without_a_hash_is_refused(saved, change):
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(NBDTError, match=r"has no SHA-256 of 'model.safetensors'"):
        NBDT.load(saved)


def test_links_of_the_hubs_cache_are_followed(saved, tmp_path):
    cache = tmp_path / "models--someone--animals"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in saved.iterdir():
        blob = cache / "blobs" / f"sha-{path.name}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    assert NBDT.load(snapshot).hierarchy == TREE
