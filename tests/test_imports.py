"""The layout: which folder may import which, and what an import loads."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {  # each folder and the folders it may import from, itself aside
    "nbdt": set(),
    "hierarchies": {"nbdt"},
    "train": {"nbdt", "hierarchies"},
    "explain": {"nbdt", "hierarchies"},
    "demo": {"nbdt", "hierarchies", "explain"},
}
CORE = {"torch", "numpy", "networkx", "safetensors", "PIL"}
CORE_EXCEPTIONS = {
    "nbdt/__main__.py": {"typer"},
    "nbdt/files.py": {"filelock"},
    "nbdt/images/archives.py": {"pyarrow"},
    "nbdt/images/deep.py": {"tifffile"},
    "nbdt/images/tables.py": {"pyarrow"},
    "nbdt/model/export.py": {"rich", "typer"},
    "nbdt/runtime/convert.py": {"onnx", "onnxruntime", "onnxscript"},
    "nbdt/runtime/reader.py": {"onnxruntime"},
    "nbdt/runtime/session.py": {"onnxruntime"},
    "nbdt/model/hub.py": {"huggingface_hub"},
    "nbdt/model/model.py": {"huggingface_hub"},
    "nbdt/network/fetch.py": {"huggingface_hub"},
    "nbdt/network/described.py": {"timm"},
    "nbdt/network/load.py": {"timm"},
    "nbdt/network/preprocessing.py": {"timm"},
    "nbdt/network/small_networks.py": {"timm"},
    "nbdt/progress.py": {"rich"},
    "nbdt/memory/refit.py": {"pyarrow"},
    "nbdt/memory/table.py": {"filelock", "lancedb", "pyarrow"},
    "nbdt/memory/tuning.py": {"scipy"},
    "nbdt/storage.py": {"pyarrow"},
    "nbdt/torchvision_cpu.py": {"torchvision"},
}
EXTRAS = {
    "nbdt": ["export"],
    "hierarchies": ["export"],
    "train": ["train"],
    "explain": ["scale"],
    "demo": ["demo"],
}  # the extras whose libraries a folder may use
DISTRIBUTIONS = {
    "gradio_client": "gradio-client",
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "sklearn": "scikit-learn",
}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

PACKAGE = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
AROUND = [
    path for folder in ("tests", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.py")
]


class Import(NamedTuple):
    """One imported module, by its absolute name, and how it was written."""

    module: str
    relative: bool
    line: int


def package_of(path):
    """Name of the package a file belongs to: ``nbdt.train.recipes`` for train/recipes/x.py."""
    parts = path.relative_to(ROOT).parts[:-1]
    return ".".join(parts if parts[0] == "nbdt" else ("nbdt", *parts))


def imports(path):
    """All imports of a file, those inside functions and of literal names included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, False, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = package_of(path).split(".")
                parts = [*package[: len(package) - node.level + 1], base]
                base = ".".join(part for part in parts if part)
            for alias in node.names:  # what is imported may itself be a module
                yield Import(f"{base}.{alias.name}", node.level > 0, node.lineno)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and getattr(node.func, "id", getattr(node.func, "attr", None))
            in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            name = str(node.args[0].value)
            yield Import(package_of(path) + name if name[0] == "." else name, False, node.lineno)


def folder_of(module):
    """The folder a module of this package is in; None for other packages."""
    first, second, *_ = [*module.split("."), ""]
    if first != "nbdt":
        return None
    return second if second in FOLDERS else "nbdt"


def where(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_folder_has_code():
    assert {path.relative_to(ROOT).parts[0] for path in PACKAGE} == set(FOLDERS)


def test_folders_import_only_the_folders_below():
    wrong = []
    for path in PACKAGE:
        here = path.relative_to(ROOT).parts[0]
        for found in imports(path):
            there = folder_of(found.module)
            if there not in {None, here, *FOLDERS[here]}:
                wrong.append(f"{where(path, found.line)} {here} imports {there}")
    assert not wrong


def test_imports_are_relative_inside_a_folder_and_absolute_across():
    wrong = []
    for path in PACKAGE:
        here = path.relative_to(ROOT).parts[0]
        for found in imports(path):
            there = folder_of(found.module)
            if there is not None and found.relative != (there == here):
                wrong.append(f"{where(path, found.line)} {found.module}")
    assert not wrong


def test_no_folder_is_imported_by_its_bare_name():
    """``import train`` works in a checkout at best."""
    bare = FOLDERS.keys() - {"nbdt"}
    wrong = [
        f"{where(path, found.line)} {found.module}"
        for path in [*PACKAGE, *AROUND]
        for found in imports(path)
        if not found.relative and found.module.split(".")[0] in bare
    ]
    assert not wrong


def outside(path):
    """(library, line) of everything a file imports from neither Python nor this package."""
    for found in imports(path):
        library = found.module.split(".")[0]
        if not found.relative and library != "nbdt" and library not in sys.stdlib_module_names:
            yield library, found.line


def test_the_core_uses_few_libraries():
    wrong = []
    for path in (ROOT / "nbdt").rglob("*.py"):
        allowed = CORE | CORE_EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
        wrong += [
            f"{where(path, line)} {name}" for name, line in outside(path) if name not in allowed
        ]
    assert not wrong


def test_every_imported_library_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements):
        return {re.match(r"[\w.-]+", text)[0].lower() for text in requirements}

    wrong = []
    for path in PACKAGE:
        declared = names(project["dependencies"])
        for extra in EXTRAS.get(path.relative_to(ROOT).parts[0], []):
            declared |= names(project["optional-dependencies"][extra])
        wrong += [
            f"{where(path, line)} {name}"
            for name, line in outside(path)
            if DISTRIBUTIONS.get(name, name) not in declared
        ]
    assert not wrong


def test_nothing_unpickles():
    wrong = [
        f"{where(path, found.line)} {found.module}"
        for path in PACKAGE
        for found in imports(path)
        if found.module.split(".")[0] in PICKLES
    ]
    for path in PACKAGE:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            called = ast.unparse(call.func)
            options = {given.arg: ast.unparse(given.value) for given in call.keywords}
            if (  # published weights come as .pth; this reads their tensors and nothing else
                (called == "torch.load" and options.get("weights_only") != "True")
                or called == "torch.save"
                or options.get("allow_pickle", "False") != "False"
            ):
                wrong.append(f"{where(path, call.lineno)} {ast.unparse(call)}")
    assert not wrong


def test_checks_survive_python_without_asserts():
    wrong = [
        where(path, node.lineno)
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not wrong


# Cycles.

LAZY = {  # whose imports make no cycle, each with its reason
    "nbdt/__init__.py": "loads the public names on first use",
    "nbdt/__main__.py": "nothing imports it; it loads the command that is asked for",
    "hierarchies/__init__.py": "loads the public names on first use",
    "train/__init__.py": "loads the public names on first use",
    "explain/__init__.py": "loads the public names on first use",
}


def file_graph(paths):
    """The files that each file imports, imports inside functions and for types included."""
    files = {}
    for path in paths:
        package = package_of(path)
        files[package if path.stem == "__init__" else f"{package}.{path.stem}"] = path
    graph = {}
    for path in paths:
        graph[path] = set()
        for found in imports(path):
            parts = found.module.split(".")
            prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            there = next((files[name] for name in prefixes if name in files), None)
            if there is not None:
                graph[path].add(there)
    return graph


def cycles(graph):
    """Groups of files that import each other, directly or through others."""
    directed = nx.DiGraph(graph)
    groups = [group for group in nx.strongly_connected_components(directed) if len(group) > 1]
    return groups + [{node} for node in nx.nodes_with_selfloops(directed)]


def test_no_files_import_each_other_in_a_circle():
    graph = file_graph(PACKAGE)
    for name in LAZY:
        graph[ROOT / name] = set()
    found = [sorted(path.relative_to(ROOT).as_posix() for path in group) for group in cycles(graph)]
    assert not found


def test_a_circle_is_found(tmp_path, monkeypatch):
    """Through an import in a function, one for types alone, and one of a submodule's name."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "nbdt" / "part").mkdir(parents=True)
    sources = {
        "nbdt/__init__.py": "",
        "nbdt/a.py": "def f():\n    from .part import b",
        "nbdt/part/__init__.py": "",
        "nbdt/part/b.py": "if TYPE_CHECKING:\n    from ..c import Thing",
        "nbdt/c.py": "import nbdt.a",
        "nbdt/d.py": "from .a import f\nfrom . import c",
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in sources]
    (group,) = cycles(file_graph(paths))
    assert {path.name for path in group} == {"a.py", "b.py", "c.py"}
    (tmp_path / "nbdt" / "c.py").write_text("import nbdt.part")
    assert cycles(file_graph(paths)) == []


# Size.


def own_lines(function):
    """Lines of a function's code: without its signature, decorators and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_a_reader_can_take_in_folders_files_and_functions():
    folders = Counter(path.parent for path in PACKAGE)
    wrong = [f"{path.relative_to(ROOT)}: {n} files" for path, n in folders.items() if n > 14]
    for path in PACKAGE:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 350:
            wrong.append(f"{where(path, 1)} {text.count(chr(10))} lines")
        wrong += [
            f"{where(path, node.lineno)} {node.name}: {own_lines(node)} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and own_lines(node) > 45
        ]
    assert not wrong


def test_every_file_is_named_after_something():
    assert not [where(path, 1) for path in [*PACKAGE, *AROUND] if path.stem in {"utils", "util"}]


# What is loaded, asked of fresh processes.

HEAVY = {
    "captum",
    "gradio",
    "lightning",
    "matplotlib",
    "numpy",
    "pytorch_lightning",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
}
HELP = """
import contextlib, io, sys
sys.argv = ["nbdt", "--help"]
from nbdt.__main__ import main
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    main()
if "explain" not in shown.getvalue():
    raise SystemExit(shown.getvalue())
"""


def loaded(code, folder):
    """Top-level names in ``sys.modules`` after a fresh process ran the code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import nbdt", HEAVY),
        ("import nbdt; dir(nbdt); nbdt.__version__", HEAVY),
        (HELP, HEAVY),
        ("from nbdt import Hierarchy, HierarchyError, NBDTError, Path", HEAVY - {"numpy"}),
        (
            "from nbdt import Hierarchy as H; H.from_paths(['a/b', 'a/c', 'd/e', 'd/f']).depth",
            HEAVY - {"numpy"},
        ),
        ("from nbdt import DecisionRules, NBDTHead, attach", HEAVY - {"torch", "numpy"}),
        ("import nbdt.hierarchies, nbdt.train, nbdt.explain, nbdt.demo", HEAVY),
        ("from nbdt.train import TreeSupervisionLoss", HEAVY - {"torch", "numpy"}),
    ],
    ids=["package", "names", "help", "hierarchy", "use", "head", "folders", "loss"],
)
def test_an_import_loads_only_what_it_needs(code, unwanted, tmp_path):
    assert loaded(code, tmp_path) & unwanted == set()


def test_what_is_missing_is_an_attribute_error():
    import nbdt

    with pytest.raises(AttributeError, match="'nbdt' has no attribute 'Herarchy'"):
        _ = nbdt.Herarchy


def test_every_public_name_can_be_had():
    import nbdt

    assert all(getattr(nbdt, name) for name in nbdt.__all__)
    assert set(nbdt.__all__) <= set(dir(nbdt))


@pytest.mark.parametrize("package", ["nbdt", "nbdt.hierarchies", "nbdt.train", "nbdt.explain"])
def test_no_module_hides_what_its_package_offers(package):
    """A submodule called like a function would take its place once it is imported."""
    folder = ROOT / ("nbdt" if package == "nbdt" else package.removeprefix("nbdt."))
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    offered = set(importlib.import_module(package).__all__)
    assert offered & modules <= {"edit", "formats"}  # offered as modules


@pytest.mark.parametrize(
    "statement",
    [
        "from nbdt.train import train",
        "from nbdt.explain import explain",
        "from nbdt.hierarchies import from_classifier",
        "import nbdt.demo.app",
    ],
)
def test_what_rests_on_torchvision_imports_by_itself(statement):
    """Beside a CPU-only torch, in a process that has not repaired torchvision yet."""
    subprocess.run([sys.executable, "-c", statement], check=True)
