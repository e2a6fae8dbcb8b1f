"""What is odd about a photograph's pixels is said in the terminal, JSON, pages and rows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from nbdt.explain import Explanation, explain
from nbdt.explain.command import app
from nbdt.images.image import open_image

CAT = Path(__file__).parents[2] / "demo" / "static" / "cat.jpg"
OPTIONS = ["--model", "cifar10"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, the same of 12 bits in 16, its bands among others, and a black one."""
    folder = tmp_path_factory.mktemp("pictures")
    rgb = np.asarray(Image.open(CAT).convert("RGB").resize((80, 80)))
    Image.fromarray(rgb).save(folder / "plain.png")
    Image.fromarray(rgb // 20).save(folder / "black.png")
    deep = rgb.astype(np.uint16) * 16
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb")
    bands = np.concatenate([np.zeros_like(deep), deep[..., ::-1]], axis=2)
    tifffile.imwrite(folder / "six.tif", bands, photometric="minisblack", planarconfig="contig")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments), *OPTIONS])


def test_in_the_terminal_and_in_json(folder: Path, tmp_path: Path) -> None:
    files = [folder / name for name in ("deep.tif", "black.png", "plain.png")]
    shown = " ".join(run(*files, "--out", tmp_path).stdout.split())
    assert shown.count("declares no range that fits") == 1
    assert shown.count("nearly black: red ") == 1
    lines = run(*files, "--out", tmp_path, "--json").stdout.splitlines()
    deep, black, plain = map(json.loads, lines)
    assert "as black" in deep["remark"]
    assert "nearly black" in black["remark"]
    assert "remark" not in plain
    assert deep["class"] == plain["class"]


def test_on_the_page_and_after_loading(cifar10, folder: Path, tmp_path: Path) -> None:
    found = explain(cifar10, open_image(folder / "black.png"))[0]
    assert "nearly black" in found.remark
    assert found.to_dict()["made"]["remark"] == found.remark
    found.save(tmp_path / "page")
    assert found.remark in (tmp_path / "page" / "index.html").read_text("utf-8")
    loaded = Explanation.load(tmp_path / "page")
    assert loaded.remark == found.remark
    assert replace(loaded, photo=None).remark == found.remark
    assert explain(cifar10, folder / "plain.png")[0].remark == ""


def test_in_the_rows_of_a_batch(folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--out", tmp_path / "rows", "--bands", "6,5,4").exit_code == 3
    assert run(folder, "--out", tmp_path / "all").exit_code == 3
    rows = {
        kind: {
            Path(row["path"]).stem: row
            for row in pq.read_table(tmp_path / kind / "rows").to_pylist()
        }
        for kind in ("rows", "all")
    }
    assert rows["all"]["plain"]["remark"] is None
    assert "nearly black" in rows["all"]["black"]["remark"]
    assert "declares no range" in rows["all"]["deep"]["remark"]
    assert "--bands 4,3,2" in rows["all"]["six"]["error"]
    assert rows["rows"]["six"]["class"] == rows["all"]["deep"]["class"]
    assert "it shows 6, 5, 4 as red" in rows["rows"]["six"]["remark"]
    assert "bands 1 to 3, got --bands 6,5,4" in rows["rows"]["deep"]["error"]


def test_bands_of_single_files(folder: Path, tmp_path: Path) -> None:
    assert "6, 5, 4" in run(folder / "six.tif", "--out", tmp_path, "--bands", "6,5,4").stdout
    for wrong in ("4,3", "red", "1,2,3,4", "4;3;2"):
        result = run(folder / "six.tif", "--out", tmp_path, "--bands", wrong)
        assert result.exit_code == 2
        assert "4,3,2" in result.output
