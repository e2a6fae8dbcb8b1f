"""What a wheel holds, and that it works away from the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nbdt.images.image import open_image
from nbdt.model.export import export

ROOT = Path(__file__).parents[1]
FOLDERS = ("nbdt", "hierarchies", "train", "explain", "demo")
MEGABYTE = 2**20


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what it is made of."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sizes(wheel):
    """Uncompressed size of every file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel alone in it."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def elsewhere(installed, folder, *arguments):
    """What a fresh Python prints that finds the installed wheel before the checkout."""
    return run(sys.executable, *arguments, cwd=folder, PYTHONPATH=installed).strip()


def test_nbdt_is_the_only_name_it_installs(sizes):
    tops = {name.split("/")[0] for name in sizes}
    assert tops == {"nbdt", next(top for top in tops if top.endswith(".dist-info"))}


def test_nothing_else_lands_beside_it(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names <= {"nbdt", "bin"}


def in_wheel(path):
    """The name in the wheel of a file of the checkout."""
    name = path.relative_to(ROOT).as_posix()
    return name if name.startswith("nbdt/") else f"nbdt/{name}"


def test_every_module_is_in_it(sizes):
    modules = {in_wheel(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert modules <= sizes.keys()


@pytest.mark.parametrize(
    "pattern",
    [
        "nbdt/py.typed",
        "nbdt/bundled/*/*",
        "nbdt/runtime/web/*",
        "hierarchies/data/*",
        "explain/result/page.css",
        "train/recipes/*.toml",
    ],
)
def test_data_is_in_it(sizes, pattern):
    wanted = {in_wheel(path) for path in ROOT.glob(pattern) if path.is_file()}
    assert wanted
    assert wanted <= sizes.keys()


def test_no_other_file_strays_into_it(sizes):
    """Every file of a folder is either packaged or known to be left out."""
    left = {
        in_wheel(path)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - sizes.keys()
    assert not left
    assert not [name for name in sizes if "__pycache__" in name or "/tests/" in name]


def test_it_carries_its_licence_and_that_of_wordnet(wheel, sizes):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in sizes if name.endswith("/licenses/LICENSE"))
        assert archive.read(name).decode().startswith("MIT License")
        assert b"Princeton" in archive.read("nbdt/hierarchies/data/WORDNET-LICENSE.txt")


def test_it_stays_small(sizes):
    models, wordnet = {}, 0
    for name, size in sizes.items():
        match name.split("/"):
            case ["nbdt", "bundled", model, *_]:
                models[model] = models.get(model, 0) + size
            case ["nbdt", "hierarchies", "data", *_]:
                wordnet += size
    assert all(size <= 8 * MEGABYTE for size in models.values()), models
    assert wordnet <= MEGABYTE


def test_it_imports_away_from_the_checkout(installed, tmp_path):
    code = "import nbdt, nbdt.hierarchies.wordnet.database, nbdt.train.loss; print(nbdt.__file__)"
    found = elsewhere(installed, tmp_path, "-c", code)
    assert Path(found) == installed / "nbdt" / "__init__.py"


def test_its_data_is_found_away_from_the_checkout(installed, tmp_path):
    code = (
        "from nbdt.hierarchies.wordnet.database import wordnet\n"
        "import nbdt.hierarchies.wordnet.database as module\n"
        "wordnet(); print(module.__file__)"
    )
    assert Path(elsewhere(installed, tmp_path, "-c", code)).is_relative_to(installed)


def test_the_command_runs_away_from_the_checkout(installed, tmp_path):
    shown = elsewhere(installed, tmp_path, "-m", "nbdt", "--help")
    assert "explain" in shown
    assert "demo" in shown


def test_every_library_of_every_extra_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert pin.url is None
            assert [part.operator for part in pin.specifier] == ["=="], line
            assert "+" not in str(pin.specifier), (
                f"{line}: a local version exists on one index only"
            )
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_a_filelock_that_locks_a_removed_file_is_not_allowed():
    """`locked` removes the file before the release; 3.20 would then let two processes in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "filelock")
    assert not wanted.specifier.contains("3.20.0")


# ---- without torch -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_torch(wheel, tmp_path_factory):
    """The Python of an environment that has the wheel and what the reader needs, from a registry."""
    folder = tmp_path_factory.mktemp("small machine")
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--retries", "0"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    needed = [f"{name}=={version(name)}" for name in ("onnxruntime", "numpy", "pillow")]
    done = subprocess.run([*pip, *needed], capture_output=True, text=True, check=False)
    if "Could not find a version" in done.stderr:  # what pip says when no registry answers
        pytest.skip(f"no package registry answers: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_the_reader_runs_where_there_is_no_torch(without_torch, cifar10, tmp_path):
    export(cifar10, tmp_path / "model.onnx", format="onnx")
    cat = ROOT / "demo" / "static" / "cat.jpg"
    reader = (without_torch, "-m", "nbdt.runtime.reader")
    said = run(*reader, "model.onnx", cat, "--maps", "maps.png", cwd=tmp_path, PYTHONUTF8=1)
    path = cifar10.paths(cifar10.preprocess(open_image(cat))[None])[0]
    expected = " → ".join(f"{d.children[d.chosen]} {d.probability:.1%}" for d in path)
    assert said == f"{path.class_name} {path.probability:.1%}: {expected}\n"
    assert (tmp_path / "maps.png").stat().st_size > 1000
    missing = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('timm'))"
    assert run(without_torch, "-c", missing, cwd=tmp_path) == "None None\n"
