"""The reader of exported files: the model's answers without torch, from any photograph."""

import copy
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from timm.data import create_transform

from nbdt.decide.maps import log_odds_coefficients, node_maps
from nbdt.images.image import open_image
from nbdt.model.export import export
from nbdt.network.preprocessing import Preprocessing
from nbdt.runtime import reader as module
from nbdt.runtime.reader import Reader, ReaderError, Reading, Step, open_photograph

CAT = Path(__file__).parents[3] / "demo" / "static" / "cat.jpg"
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def file(cifar10, tmp_path_factory):
    """The bundled model of ten classes, exported with answers."""
    place = tmp_path_factory.mktemp("exported") / "cifar10.onnx"
    export(cifar10, place, format="onnx", accuracy=0.95)
    return place


@pytest.fixture(scope="module")
def reader(file):
    return Reader(file, threads=1)


def assert_same(reader, model, photograph):
    """The reading of a file is the model's: path, probabilities, answer and maps."""
    found = reader(photograph)
    images = model.preprocess(open_image(photograph))[None]
    assert np.array_equal(reader.pixels(found.picture), images[0].numpy())
    path, answer = model.paths(images)[0], model.answer(images)[0]
    assert found.class_name == path.class_name
    assert found.probability == pytest.approx(path.probability, abs=1e-4)
    assert [step.name for step in found.path] == [d.children[d.chosen] for d in path]
    assert [step.probability for step in found.path] == pytest.approx(
        [d.probability for d in path], abs=1e-4
    )
    assert reader.nodes[found.answer.node]["id"] == answer.node
    assert found.answer.probability == pytest.approx(answer.probability, abs=1e-4)
    assert found.unknown == answer.unknown


def photographs():
    """Every kind of file, as a function of a real photograph that saves it under a path."""
    grey16 = np.linspace(0, 65535, 90 * 61).reshape(61, 90).astype(np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    clear = Image.linear_gradient("L")
    return {
        "landscape.jpg": lambda cat, to: cat.save(to),
        "portrait.jpg": lambda cat, to: cat.crop((0, 0, 301, 433)).save(to),
        "odd.webp": lambda cat, to: cat.resize((333, 77)).save(to, lossless=True),
        "smaller.png": lambda cat, to: cat.resize((31, 17)).save(to),
        "strip.png": lambda cat, to: cat.resize((900, 21)).save(to),
        "grey.jpg": lambda cat, to: cat.convert("L").save(to),
        "cmyk.jpg": lambda cat, to: cat.convert("CMYK").save(to),
        "ycbcr.tiff": lambda cat, to: cat.save(to, compression="jpeg"),
        "palette.png": lambda cat, to: cat.convert("P").save(to),
        "palette.gif": lambda cat, to: cat.convert("P").save(to, transparency=3),
        "alpha.png": lambda cat, to: (cat.putalpha(clear.resize(cat.size)), cat.save(to)),
        "grey alpha.png": lambda cat, to: Image.merge(
            "LA", [cat.convert("L"), clear.resize(cat.size)]
        ).save(to),
        "bits.png": lambda cat, to: cat.convert("1").save(to),
        "grey16.png": lambda cat, to: Image.fromarray(grey16).save(to),
        "grey16.tiff": lambda cat, to: Image.fromarray(grey16).save(to),
        "broken profile.jpg": lambda cat, to: cat.save(to, icc_profile=b"no profile"),
        "other profile.jpg": lambda cat, to: cat.save(to, icc_profile=profile),
    }


@pytest.mark.parametrize("name", photographs())
def test_every_kind_of_file_is_read_as_nbdt_does(reader, cifar10, name, tmp_path):
    with Image.open(CAT) as cat:
        photographs()[name](cat.convert("RGB"), tmp_path / name)
    assert_same(reader, cifar10, tmp_path / name)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_a_photograph(reader, cifar10, turn, tmp_path):
    with Image.open(CAT) as cat:
        exif = cat.getexif()
        exif[ORIENTATION] = turn
        cat.crop((0, 0, 300, 200)).save(tmp_path / "cat.jpg", exif=exif)
    assert_same(reader, cifar10, tmp_path / "cat.jpg")


def test_a_colour_of_16_bits(reader, cifar10, tmp_path):
    """Pillow writes none, so two grey rows become one of colour by hand."""
    tifffile = pytest.importorskip("tifffile")
    colours = np.random.default_rng(0).integers(0, 65536, (60, 80, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "c.tiff", colours, photometric="rgb")
    found = np.asarray(open_photograph(tmp_path / "c.tiff")).astype(int)
    assert np.abs(found - np.asarray(open_image(tmp_path / "c.tiff"))).max() <= 1


@pytest.mark.data
def test_real_photographs(reader, cifar10, data_dir, tmp_path):
    with tarfile.open(data_dir / "imagenet1000_s256_q90.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")][::50]
        archive.extractall(tmp_path, members=names, filter="data")
    assert len(names) == 20
    for name in names:
        assert_same(reader, cifar10, tmp_path / name)


@settings(max_examples=60)
@example(size=(41, 41), side=82, crop=0.875, method="bicubic")  # where 41 * (93 / 41) < 93
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    side=st.integers(1, 120),
    crop=st.sampled_from([0.5, 0.875, 0.89, 0.95, 1.0]),
    method=st.sampled_from(["bicubic", "bilinear"]),
)
def test_resizing_and_cropping_are_timms(reader, size, side, crop, method):
    if max(size) > module.STRIP * min(size):
        size = min(size), min(size)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    other = copy.copy(reader)
    moments = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.1)}
    how = {"crop_pct": crop, "interpolation": method, **moments}
    other.preprocessing = {"size": side, **how}
    image = Image.fromarray(noise)
    frame = other.frame(image)
    assert frame == Preprocessing(size=side, **how).frame(image)
    found = other.pixels(frame)
    transform = create_transform((3, side, side), crop_mode="center", **how)
    assert np.allclose(found, transform(image), atol=1e-5)


def test_maps_are_the_models(reader, cifar10):
    found = reader(CAT)
    with torch.no_grad():
        feature_map = cifar10.feature_map(cifar10.preprocess(open_image(CAT))[None]).double()
        head = copy.deepcopy(cifar10.head).double()
        nodes = torch.tensor([[step.node for step in found.path]])
        logits = head.linear(feature_map.mean(dim=(2, 3)))
        coefficients = log_odds_coefficients(logits, nodes, head.rules.tree, cifar10.rule)
        expected = node_maps(feature_map, head.linear.weight, coefficients)[0]
    assert found.maps.shape == expected.shape
    assert np.abs(found.maps - expected.numpy()).max() < 1e-4


def test_red_argues_for_a_step_and_blue_against_it():
    maps = np.float32([[[1, 0], [0, 0]], [[0, 0], [0, -2]]])
    path = [Step(1, "animal", 0.9), Step(2, "cat", 0.6)]
    grey = Image.new("RGB", (100, 100), "grey")
    sheet = Reading("cat", 0.54, path, None, None, maps, grey).draw()
    side = module.TILE  # a smaller picture is enlarged
    assert sheet.size == (2 * side + module.GAP, side + module.CAPTION)
    red, blue = sheet.getpixel((5, 5)), sheet.getpixel((2 * side + module.GAP - 5, side - 5))
    for found, colour in ((red, module.FOR), (blue, module.AGAINST)):
        mixed = [round(module.OPACITY * c + (1 - module.OPACITY) * 128) for c in colour]
        assert found == pytest.approx(mixed, abs=2)
    assert sheet.getpixel((side - 5, side - 5)) == pytest.approx((128, 128, 128), abs=4)
    assert sheet.getpixel((side + 2, 5)) == (255, 255, 255)  # between two tiles
    assert np.min(sheet.crop((0, side, 60, side + module.CAPTION))) < 50  # the name


def test_a_long_name_stays_below_its_tile():
    path = [Step(1, "a long name, " * 4, 0.9), Step(2, "", 0.6)]
    grey, maps = Image.new("RGB", (9, 9), "grey"), np.zeros((2, 2, 2), np.float32)
    sheet = np.asarray(Reading("cat", 0.54, path, None, None, maps, grey).draw())
    below = sheet[module.TILE :, : module.TILE + module.GAP].min(axis=(0, 2))
    assert below[: module.TILE].min() < 150
    assert below[module.TILE :].min() > 200


def test_a_batch_of_pixels(reader):
    pixels = np.stack([reader.pixels(reader(CAT).picture)] * 3)
    found = reader.run(pixels)
    assert found["decisions"].shape == (3, len(reader.nodes))
    assert np.array_equal(found["log_probs"][0], found["log_probs"][2])


def test_a_file_without_maps(cifar10, tmp_path):
    export(cifar10, tmp_path / "m.onnx", format="onnx", maps=False)
    found = Reader(tmp_path / "m.onnx")(CAT)
    assert found.maps is None
    with pytest.raises(ReaderError, match="no maps.*--no-maps"):
        found.draw()


def edited(file, to, **about):
    proto = onnx.load(file)
    facts = {entry.key: entry.value for entry in proto.metadata_props} | about
    onnx.helper.set_model_props(proto, facts)
    onnx.save(proto, to)
    return to


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": "other"}, "'other', version '1'"),
        ({"version": "2"}, "version '2'"),
        ({"classes": "["}, "JSONDecodeError"),
        ({"hierarchy": '{"nodes": [{"id": "a"}, {"id": "b", "parent": "c"}]}'}, "KeyError"),
    ],
)
def test_other_files_are_refused(file, tmp_path, about, message):
    with pytest.raises(ReaderError, match=f"is no file of nbdt export.*{message}"):
        Reader(edited(file, tmp_path / "m.onnx", **about))


def test_a_hierarchy_that_runs_in_a_circle_ends(file, reader, tmp_path):
    nodes = [{**node, "parent": reader.nodes[-1]["id"]} for node in reader.nodes]
    hostile = edited(file, tmp_path / "m.onnx", hierarchy=json.dumps({"nodes": nodes}))
    assert len(Reader(hostile)(CAT).path) == 1


def test_what_is_no_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    for name in ("m.onnx", "missing.onnx"):
        with pytest.raises(ReaderError, match=f"{name}.*nbdt export"):
            Reader(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.jpg", "text.jpg", "missing.jpg", "dark16.png", "float.tiff"])
def test_broken_photographs_are_named(reader, name, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(CAT.read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no photograph")
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(tmp_path / "dark16.png")
    Image.new("F", (9, 9)).save(tmp_path / "float.tiff")
    with pytest.raises(ReaderError, match=name):
        reader(tmp_path / name)


# ---- without torch -----------------------------------------------------------------------------

ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not {"torch", "timm", "nbdt", "onnx"} & sys.modules.keys()
"""


def alone(folder, *arguments):
    """Run a copy of the file in a process of its own, which has neither torch nor nbdt."""
    shutil.copy(module.__file__, folder)
    return subprocess.run(
        [sys.executable, "-c", ALONE, "reader.py", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def test_the_file_alone_is_a_command(reader, file, tmp_path):
    done = alone(tmp_path, file, CAT, "--maps", "maps.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{reader(CAT)}\n"
    assert np.array_equal(Image.open(tmp_path / "maps.png"), reader(CAT).draw())
    failed = alone(tmp_path, file, "missing.jpg")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: 'missing.jpg'")


def test_importing_it_loads_no_torch(tmp_path):
    code = (
        "import sys, nbdt.runtime.reader; print(*{'torch', 'timm', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
