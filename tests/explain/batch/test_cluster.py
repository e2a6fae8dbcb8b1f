"""Batches past one machine: in object stores, on other file systems, on a Ray cluster."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from typer.testing import CliRunner

from nbdt import NBDT, NBDTError
from nbdt.explain.batch import cluster
from nbdt.explain.batch.folder import read_maps
from nbdt.explain.command import app
from nbdt.images.dataset import count_inputs, is_collection, iter_inputs
from nbdt.storage import LocalStorage, RemoteStorage, is_uri, open_storage
from tests import oracle

from .batches import content, draw, run, tiny
from .object_store import serving

pytestmark = pytest.mark.filterwarnings(
    r"ignore::DeprecationWarning:ray\..*"
)  # its own, of its own
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return tiny(NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As a worker of the cluster has it: another number of threads adds up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as monkeypatch, serving(monkeypatch) as found:
        yield found


def fill(store, prefix, count):
    """Pictures in two folders, the third broken, something else, something hidden."""
    for index in range(count):
        stream = io.BytesIO()
        draw_to(stream, index)
        name = f"{prefix}/{'a' if index < count // 2 else 'b'}/{index:02}.png"
        store.put(name, b"no image" if index == 2 else stream.getvalue())
    store.put(f"{prefix}/notes.md", b"text")
    store.put(f"{prefix}/.hidden.png", b"hidden")


def draw_to(stream, seed):
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    from PIL import Image

    Image.fromarray(values).resize((40, 30)).save(stream, "png")


def rows_in(store, out):
    parts = sorted(name for name in store.below(out) if name.startswith("rows/"))
    tables = [pq.read_table(pa.BufferReader(store.below(out)[name])) for name in parts]
    return pa.concat_tables(tables).to_pylist()


# ---- storage ----


@pytest.fixture(params=["disk", "subtree", "s3"])
def somewhere(request, tmp_path):
    if request.param == "disk":
        return LocalStorage(tmp_path / "out")
    if request.param == "subtree":
        inner = SubTreeFileSystem(os.fspath(tmp_path), LocalFileSystem())
        return RemoteStorage(inner, "out", "elsewhere")
    request.getfixturevalue("store")
    return open_storage("s3://places/out")


def test_a_storage_holds_files_and_folders(somewhere):
    assert not somewhere.exists("rows/a")
    assert somewhere.names("rows") == []
    for data in (b"old", b"new" * 4_000_000):  # the second goes to S3 in parts
        somewhere.write("rows/a", data)
        with somewhere.open("rows/a") as file:
            assert file.read() == data
    assert somewhere.names("rows") == ["a"]  # nothing aside is left
    with somewhere.folder("pages/one") as folder:
        (folder / "index.html").write_text("page")
        (folder / "data").mkdir()
        (folder / "data" / "map.bin").write_bytes(b"map")
    with somewhere.open("pages/one/data/map.bin") as file:
        assert file.read() == b"map"
    with somewhere.folder("pages/one") as folder:
        (folder / "other").write_text("page")
    assert somewhere.names("pages/one") == ["other"]
    for name in ("rows/a", "pages", "nothing"):
        somewhere.remove(name)
    assert not somewhere.exists("pages/one/other")
    with pytest.raises(FileNotFoundError):
        somewhere.open("rows/a")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("http://host/x", "'http://host/x': expected a path, or a URI of"),
        ("s3://key:secret@bucket/x", "a password in a URI would be written"),
        ("s3://bucket/x?nonsense=1", "cannot be reached"),
    ],
)
def test_a_uri_that_cannot_be_is_refused(where, message, store):
    with pytest.raises(NBDTError, match=message) as reported:
        open_storage(where)
    assert "secret" not in str(reported.value)


def test_what_is_a_uri():
    assert is_uri("s3://bucket/a b%20?endpoint_override=localhost:9000")
    assert not any(map(is_uri, ["photos/a.jpg", "/x", "C:\\x", "C://x", "s3:/bucket"]))


# ---- one process, another file system ----


def test_a_batch_in_an_object_store_is_that_of_a_disk(small, store, tmp_path):
    fill(store, "shop/photos", 10)
    for name, data in store.below("shop/photos").items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    run(small, [tmp_path / "photos"], tmp_path / "out")
    done = run(small, ["s3://shop/photos"], "s3://shop/out")
    assert (done.folder, done.images, done.failed) == ("s3://shop/out", 10, 1)
    rows = rows_in(store, "shop/out")
    for row, expected in zip(
        rows, pq.read_table(tmp_path / "out" / "rows").to_pylist(), strict=True
    ):
        assert row["path"].removeprefix("s3://shop") == expected["path"].removeprefix(str(tmp_path))
        same = row.keys() - {"path", "modified_ns", "error"}
        assert {name: row[name] for name in same} == {name: expected[name] for name in same}
    on_disk = content(tmp_path / "out")
    maps = {name: data for name, data in store.below("shop/out").items() if "maps/" in name}
    assert maps == {name: data for name, data in on_disk.items() if "maps/" in name}
    assert read_maps("s3://shop/out", 0).shape == read_maps(tmp_path / "out", 0).shape

    assert run(small, ["s3://shop/photos"], "s3://shop/out").repeated == 10
    fill(store, "shop/new", 4)
    time.sleep(1)  # an object's date is in seconds
    store.put("shop/photos/a/01.png", store.below("shop/new")["a/00.png"])
    assert run(small, ["s3://shop/photos"], "s3://shop/out").repeated == 6
    with pytest.raises(NBDTError, match=r"'s3://shop/out' holds another batch \(maps: "):
        run(small, ["s3://shop/photos"], "s3://shop/out", maps="none")


def test_a_batch_is_the_same_through_any_file_system(small, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(5):
        draw(tmp_path / "photos" / f"{index}.png", index)
    options = {"pages": True, "maps": "png"}
    run(small, [tmp_path / "photos"], tmp_path / "one", **options)
    through = SubTreeFileSystem(os.fspath(tmp_path), LocalFileSystem())
    left = tmp_path / "many" / "rows" / ".part-000000.parquet.abcd"
    left.parent.mkdir(parents=True)
    (tmp_path / "many" / "batch.json").write_bytes(content(tmp_path / "one")["batch.json"])
    left.write_bytes(b"half")
    from nbdt.explain.batch import explain_all

    inputs = [os.fspath(tmp_path / "photos")]
    given = {"part_size": 4, "batch_size": 3, "workers": 0, "precision": "float32", **options}
    where = RemoteStorage(through, "many", "through")
    assert explain_all(small, inputs, where, **given).images == 5
    assert content(tmp_path / "many").keys() == content(tmp_path / "one").keys()
    for name, data in content(tmp_path / "one").items():
        if not name.startswith("pages/"):
            assert content(tmp_path / "many")[name] == data, name
    assert explain_all(small, inputs, where, **given).repeated == 5


def test_lists_tables_and_archives_may_be_in_an_object_store(store, tmp_path):
    import tarfile

    fill(store, "lists/photos", 4)
    names = [f"s3://lists/photos/{n}" for n in ("a/00.png", "a/01.png", "b/02.png", "b/03.png")]
    store.put("lists/list.txt", "\n".join(names).encode())
    store.put("lists/table.csv", ("path\n" + "\n".join(names)).encode())
    table = io.BytesIO()
    pq.write_table(pa.table({"path": names}), table)
    store.put("lists/table.parquet", table.getvalue())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"cat"))
    store.put("lists/photos.tar.gz", packed.getvalue())
    for where in ("photos", "list.txt", "table.csv", "table.parquet"):
        assert is_collection(f"s3://lists/{where}")
        found = list(iter_inputs([f"s3://lists/{where}"]))
        assert [source.reference for source in found] == names
        assert found[0].read() == store.below("lists/photos")["a/00.png"]
        assert found[0].state()[0] == len(found[0].read())
    (member,) = iter_inputs(["s3://lists/photos.tar.gz"])
    assert (member.reference, member.read()) == ("s3://lists/photos.tar.gz!cat/1.png", b"cat")
    assert count_inputs(["s3://lists/photos", "s3://lists/list.txt"]) == 8
    (missing,) = iter_inputs(["s3://lists/none.png"])
    assert missing.state() == (None, None)
    with pytest.raises(NBDTError, match="'s3://lists/none.png': expected a readable file"):
        missing.read()
    with pytest.raises(NBDTError, match="cannot be read as paths|expected a readable file"):
        list(iter_inputs(["s3://lists/none.txt"]))


# ---- a cluster ----


def test_without_ray_the_extra_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NBDTError, match=r"needs ray; install it with: pip install 'nbdt-vision\["):
        run(small, [tmp_path], tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_none_is_refused(small, tmp_path):
    with pytest.raises(NBDTError, match="Did you mean 'ray'"):
        run(small, [tmp_path], tmp_path / "out", engine="rays")
    result = CliRunner().invoke(
        app, [os.fspath(tmp_path), "--engine", "rays", "--out", os.fspath(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "'rays' is not one of" in " ".join(result.output.replace("│", " ").split())


def node(**resources):
    return {"Alive": True, "Resources": resources}


def test_workers_share_out_the_nodes():
    two = [node(CPU=8.0), node(CPU=8.0)]
    assert cluster.workers_of(two, None) == (2, {"num_cpus": 8})
    assert cluster.workers_of(two, 3) == (3, {"num_cpus": 4})
    assert cluster.workers_of([node(CPU=1.0)], 2) == (2, {"num_cpus": 0.5})
    gpus = [node(CPU=4.0), node(CPU=32.0, GPU=4.0), node(CPU=32.0, GPU=4.0)]
    assert cluster.workers_of(gpus, None) == (8, {"num_cpus": 8, "num_gpus": 1.0})
    assert cluster.workers_of(gpus, 16) == (16, {"num_cpus": 4, "num_gpus": 0.5})
    with pytest.raises(NBDTError, match="at least 1"):
        cluster.workers_of(two, 0)
    with pytest.raises(NBDTError, match="no node with a CPU"):
        cluster.workers_of([{"Alive": False, "Resources": {}}], None)


def children():
    """Processes below this one: {pid: command line}."""
    parents, found = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
    below, wave = {}, {os.getpid()}
    while wave:
        wave = {pid for pid, parent in parents.items() if parent in wave}
        below |= {pid: found[pid] for pid in wave}
    return below


def at_work():
    return {pid for pid, command in children().items() if "ray::Worker" in command}


@pytest.fixture(scope="module")
def ray(store):
    """A cluster on this machine, for all tests; afterwards nothing of it is left."""
    before = children().keys()
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: an age on a busy machine
        yield stack.enter_context(cluster.connected("local"))
    end = time.monotonic() + 20
    while children().keys() - before and time.monotonic() < end:
        time.sleep(0.1)
    assert not children().keys() - before


@pytest.mark.slow
@ON_LINUX
def test_a_worker_killed_midway_changes_nothing(small, store, ray):
    fill(store, "many/photos", 40)
    run(small, ["s3://many/photos"], "s3://many/one")
    seen, killed = [], []

    def kill_one(images):
        seen.append(images)
        if len(seen) == 2:
            killed.append(min(at_work()))
            os.kill(killed[0], signal.SIGKILL)

    rows = []
    done = run(
        small, ["s3://many/photos"], "s3://many/two", engine="ray", workers=2,
        on_images=kill_one, on_rows=rows.extend,
    )  # fmt: skip
    assert len(killed) == 1
    assert (done.images, done.failed, done.repeated, done.missing_parts) == (40, 1, 0, 0)
    assert store.below("many/two") == store.below("many/one")
    assert sorted(row["row"] for row in rows) == list(range(40))
    assert run(small, ["s3://many/photos"], "s3://many/two").repeated == 40


@pytest.mark.slow
@ON_LINUX
def test_a_batch_whose_caller_was_killed_goes_on_on_the_cluster(small, ray, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(80):
        draw(photos / f"{index:02}.png", index)
    (photos / "17.png").write_bytes(b"no image")
    small.save(tmp_path / "model")
    address = ray.get_runtime_context().gcs_address
    arguments = [tmp_path / "model", photos, tmp_path / "out", address]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.programs.die_on_cluster", *map(str, arguments)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/rows").glob("part-*")}
    assert 3 <= len(made) < 20, "the caller died too late for this test"

    done = run(small, [photos], tmp_path / "out", engine="ray", workers=2)
    assert (done.images, done.failed, done.missing_parts) == (80, 1, 0)
    assert done.repeated >= 12
    for name, age in made.items():
        assert (tmp_path / "out" / "rows" / name).stat().st_mtime_ns == age, "repeated"
    run(small, [photos], tmp_path / "one")
    assert content(tmp_path / "out") == content(tmp_path / "one")


@pytest.mark.slow
def test_what_is_wrong_on_a_node_is_told(small, ray, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NBDTError, match="has no column"):
        run(small, [tmp_path / "t.csv"], tmp_path / "out", engine="ray", workers=1)
    with pytest.raises(NBDTError, match="maps: .npz. there, .none. now"):
        run(small, [tmp_path / "t.csv"], tmp_path / "out", engine="ray", maps="none")
