"""The store: nothing acknowledged is lost, and no visitor reaches another's corrections."""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import inspect, text

import nbdt
from nbdt import Hierarchy
from nbdt.correction import Correction, CorrectionError, picture_hash
from nbdt.demo.store import Store, database
from nbdt.demo.store.database import VERSION_TABLE, Limits, open_engine, writing
from nbdt.demo.store.place import StoreError, default_url, store_url
from nbdt.demo.store.schema import HierarchyRow, Table
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit.history import HistoryError
from nbdt.images.image import open_image
from tests.demo.colours import ANN, BOB
from tests.demo.stores import kept_photographs

UNPRIVILEGED = 65534  # the id of a user without rights
MODEL, OTHER = "1" * 64, "2" * 64
TREE = Hierarchy.from_nested({"animal": ["cat", "dog", "owl"], "vehicle": ["car", "bus"]})
PHOTO = Image.effect_noise((40, 30), 90).convert("RGB")


def label(text="cat", image=PHOTO, **more):
    return Correction("label", picture_hash(image), label=text, model=MODEL, **more)


# ---- where ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A real server of this test's own, on a socket in its folder."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, homes)]))
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    tools = Path(initdb).resolve().parent
    base = tmp_path_factory.mktemp("pg")
    who = {}
    if os.getuid() == 0:  # the server refuses to be root
        who = {"user": UNPRIVILEGED}
        for folder in [base, *base.parents][: len(base.relative_to("/tmp").parts)]:
            folder.chmod(0o755)
        shutil.chown(base, UNPRIVILEGED)
    data, log = base / "data", (base / "log").open("w")
    subprocess.run(
        [tools / "initdb", "-D", data, "-U", "nbdt", "-A", "trust", "--no-sync"],
        check=True, stdout=log, stderr=log, cwd=base, **who,
    )  # fmt: skip
    server = subprocess.Popen(
        [tools / "postgres", "-D", data, "-k", base, "-c", "listen_addresses="],
        stdout=log, stderr=log, cwd=base, **who,
    )  # fmt: skip
    try:
        yield f"postgresql://nbdt@/{{}}?host={base}", base
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        log.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty store, in each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/kept.sqlite"
    import psycopg

    address, _ = request.getfixturevalue("postgres")
    name = "t" + os.urandom(6).hex()
    for _ in range(100):
        try:
            with psycopg.connect(address.format("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            break
        except psycopg.OperationalError:
            time.sleep(0.1)
    return address.format(name)


@pytest.fixture
def store(url):
    opened = Store.open(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def roomy(tmp_path_factory):
    """A SQLite store for many examples."""
    limits = Limits(corrections_of_visitor=100_000)
    opened = Store.open(str(tmp_path_factory.mktemp("roomy") / "kept.sqlite"), limits=limits)
    yield opened
    opened.close()


@pytest.fixture
def small(tmp_path):
    """A SQLite store with very small limits."""
    limits = Limits(
        corrections_of_visitor=2, photograph_bytes=20_000, photograph_bytes_of_visitor=9_000,
        photograph_bytes_in_all=12_000, hierarchies_of_visitor=1, hierarchy_bytes=2_000, text=10,
        marks_of_visitor=1,
    )  # fmt: skip
    opened = Store.open(str(tmp_path / "small.sqlite"), limits=limits)
    yield opened
    opened.close()


def test_by_default_it_is_a_file_of_this_persons_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_url() == str(tmp_path / "nbdt" / "corrections.sqlite")
    store = Store.open(str(tmp_path / "new" / "kept.sqlite"))
    assert store.location == str(tmp_path / "new" / "kept.sqlite")
    store.close()
    mode = stat.S_IMODE((tmp_path / "new" / "kept.sqlite").stat().st_mode)
    assert mode == 0o600  # it may hold people's photographs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://me:secret@host/x", "SQLite or PostgreSQL, not in 'mysql'"),
        ("sqlite://", "in memory keeps nothing"),
        ("://x", "Expected a path or a URL of a store"),
    ],
)
def test_another_place_is_refused(text, message):
    with pytest.raises(StoreError, match=message) as refusal:
        store_url(text)
    assert "secret" not in str(refusal.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"Corrections cannot be kept in .*--store"):
        Store.open(str(tmp_path / "file" / "kept.sqlite"))
    with pytest.raises(StoreError, match="cannot be opened: .*") as refusal:
        Store.open("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(refusal.value)


def test_what_is_no_store_is_refused_and_kept_as_it_is(tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(str(noise))
    assert noise.read_bytes() == b"not a database" * 100
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match=r"holds other tables \(songs\)"):
        Store.open(str(other))


# ---- the schema -----------------------------------------------------------------------------


def schema_differences(engine):
    """What Alembic would change to get from the database to the declared tables."""
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {*Table.metadata.tables, VERSION_TABLE}
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        return compare_metadata(context, Table.metadata)


def test_a_new_store_has_the_declared_tables_and_the_latest_revision(url):
    engine = open_engine(url)
    assert schema_differences(engine) == []
    with engine.connect() as connection:
        revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    head = ScriptDirectory.from_config(database.migration_config()).get_current_head()
    assert revision == head
    engine.dispose()


def test_the_first_releases_store_has_the_declared_tables(tmp_path):
    """A table or column that is declared without a migration fails here."""
    fixture = Path(__file__).parents[1] / "fixtures" / "v0.1.0" / "store" / "corrections.sqlite"
    file = shutil.copy(fixture, tmp_path)
    store = Store.open(file)
    assert schema_differences(store._engine) == []
    before = {saved.id for saved in store.corrections()}
    assert before
    assert store.add_correction(label(), visitor=ANN) > max(before)
    store.close()


def test_a_newer_releases_store_is_refused_by_name_and_kept(url):
    store = Store.open(url)
    number = store.add_correction(label(), visitor=ANN)
    engine = store._engine
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '99'"))
        connection.execute(text("UPDATE about SET value = '7.1.0' WHERE key = 'release'"))
    with pytest.raises(
        StoreError, match=rf"by nbdt-vision 7\.1\.0, whose schema '99'.*{nbdt.__version__}.*upgrade"
    ):
        Store.open(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '1'"))
    assert [saved.id for saved in store.corrections()] == [number]
    store.close()


def test_a_release_that_changes_the_schema_carries_everything_over(url, tmp_path, monkeypatch):
    """What the next release will do: one more step, on a store with something in it."""
    store = Store.open(url)
    number = store.add_correction(label(note="Größe"), visitor=ANN, photo=PHOTO)
    store.close()
    later = tmp_path / "100%"
    shutil.copytree(database.MIGRATIONS, later)
    (later / "versions" / "v3.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision, down_revision, branch_labels, depends_on = '3', '2', None, None\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('correction') as table:\n"
        "        table.add_column(sa.Column('mood', sa.Text(), server_default='calm'))\n"
        "        table.alter_column('note', type_=sa.String(5000))\n"
    )
    monkeypatch.setattr("nbdt.demo.store.database.MIGRATIONS", later)
    store = Store.open(url)
    (saved,) = store.corrections()
    assert (saved.id, saved.correction.note) == (number, "Größe")
    assert picture_hash(store.photograph(saved.photograph)) == saved.correction.image
    with store._engine.begin() as connection:
        assert connection.scalar(text("SELECT mood FROM correction")) == "calm"
    assert store.add_correction(label(), visitor=ANN) > number
    store.close()


OPENS = """
import sys
from nbdt.demo.store import Store
print(len(Store.open(sys.argv[1]).corrections()))
"""


def test_servers_that_start_together_do_not_collide(url):
    runs = [
        subprocess.Popen([sys.executable, "-c", OPENS, url], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    for run in runs:
        out, errors = run.communicate(timeout=120)
        assert (run.returncode, out.strip()) == (0, "0"), errors


# ---- nothing acknowledged is lost -----------------------------------------------------------

WRITES = """
import sys
from nbdt.correction import Correction
from nbdt.demo.store import Store
store = Store.open(sys.argv[1])
for i in range(int(sys.argv[2])):
    said = Correction("label", "c" * 64, label=f"{sys.argv[3]}-{i}")
    print(store.add_correction(said, visitor=sys.argv[3]), said.label, flush=True)
"""


def writer(url, count, visitor):
    return subprocess.Popen(
        [sys.executable, "-c", WRITES, url, str(count), visitor],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_kill_9_right_after_the_acknowledgement_loses_nothing(url):
    acknowledged = {}
    for lines in (1, 7):
        process = writer(url, 10_000, ANN)
        for _ in range(lines):
            number, said = process.stdout.readline().split()
            acknowledged[int(number)] = said
        process.kill()
        rest = process.communicate()[0]
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):  # acknowledged before the signal arrived
                number, said = line.split()
                acknowledged[int(number)] = said
    store = Store.open(url)
    kept = {saved.id: saved.correction.label for saved in store.corrections()}
    store.close()
    assert acknowledged.items() <= kept.items()
    assert len(kept) <= len(acknowledged) + 2  # at most the one in flight, of each process


def test_two_servers_write_to_one_store_at_the_same_time(url):
    runs = [writer(url, 60, visitor) for visitor in (ANN, BOB)]
    said = [line.split() for run in runs for line in run.communicate(timeout=240)[0].splitlines()]
    assert [run.returncode for run in runs] == [0, 0]
    store = Store.open(url)
    kept = {str(saved.id): saved.correction.label for saved in store.corrections()}
    store.close()
    assert dict(said) == kept
    assert len(kept) == 120


def test_a_write_waits_for_the_disk(tmp_path):
    store = Store.open(str(tmp_path / "kept.sqlite"))
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    store.close()


# ---- corrections ----------------------------------------------------------------------------


def test_what_was_said_comes_back_as_it_was(store):
    image = picture_hash(PHOTO)
    said = [
        label(note="<img src=x onerror=alert(1)> ${1} {{2}} \u202e", reference="a.tar!b/c.png"),
        Correction("step", image, node="animal/", child="cat", model=MODEL, hierarchy=TREE.hash),
        Correction("region", image, node="animal/", region=(0.1, 0.2, 1 / 3, 1.0)),
    ]
    numbers = [store.add_correction(one, visitor=ANN) for one in said]
    saved = store.corrections(visitor=ANN)
    assert [one.correction for one in saved] == said
    assert [one.id for one in saved] == numbers
    assert store.corrections(visitor=BOB) == []
    assert [one.correction for one in store.corrections(ids=numbers[1:2])] == said[1:2]


@given(
    note=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200),
    box=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
@settings(max_examples=40)
def test_any_text_and_any_region_survive(roomy, note, box):
    try:
        said = Correction("region", "c" * 64, node="n", region=tuple(box), note=note)
    except CorrectionError:
        return
    number = roomy.add_correction(said, visitor=ANN)
    assert roomy.corrections(ids=[number])[0].correction == said


@pytest.mark.parametrize("note", ["a\0b", "half \ud83d"])
def test_text_that_no_database_takes_is_refused(store, note):
    with pytest.raises(StoreError, match="cannot be stored"):
        store.add_correction(label(note=note), visitor=ANN)
    assert store.corrections() == []


def test_numbers_are_never_given_again(store):
    first = store.add_correction(label(), visitor=ANN)
    store.delete_corrections([first], visitor=ANN)
    assert store.add_correction(label(), visitor=ANN) > first


def test_another_visitors_corrections_cannot_be_deleted(store):
    own, others = (store.add_correction(label(), visitor=v) for v in (ANN, BOB))
    with pytest.raises(StoreError, match=f"no correction of yours with the number {others}"):
        store.delete_corrections([own, others], visitor=ANN)
    assert len(store.corrections()) == 2  # all or none
    store.delete_corrections([own], visitor=ANN)
    store.delete_corrections([others])  # the operator
    assert store.corrections() == []


# ---- photographs ----------------------------------------------------------------------------


def camera_file():
    """A JPEG that says where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    import io

    stream = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_a_kept_photograph_has_the_same_hash_and_no_metadata(store):
    photo = open_image(camera_file())
    number = store.add_correction(label(image=photo), visitor=ANN, photo=photo)
    (saved,) = store.corrections()
    assert saved.id == number
    kept = store.photograph_bytes(saved.photograph)
    assert b"SECRET" not in kept
    assert b"EXIF" not in kept.upper()
    again = store.photograph(saved.photograph)
    assert again.tobytes() == photo.tobytes()
    assert picture_hash(again) == saved.correction.image
    (listed,) = kept_photographs(store)
    assert (listed.width, listed.height, listed.size) == (48, 64, len(kept))


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["RGB", "L", "RGBA", "1", "CMYK"]),
    seed=st.binary(min_size=1, max_size=60),
)
@settings(max_examples=40)
def test_every_photograph_is_kept_without_loss(roomy, size, mode, seed):
    image = Image.frombytes("RGB", size, (seed * 5000)[: 3 * size[0] * size[1]]).convert(mode)
    number = roomy.add_correction(label(image=image), visitor=BOB, photo=image)
    (saved,) = roomy.corrections(ids=[number])
    assert picture_hash(roomy.photograph(saved.photograph)) == picture_hash(image)


def test_without_consent_no_photograph_is_kept(store):
    store.add_correction(label(), visitor=ANN)
    assert kept_photographs(store) == []
    assert store.corrections()[0].photograph is None


def test_another_picture_than_the_corrected_one_is_refused(store):
    with pytest.raises(StoreError, match="not the one that the correction is about"):
        store.add_correction(label(), visitor=ANN, photo=Image.new("RGB", (9, 9)))
    assert store.corrections() == []


def test_two_corrections_share_a_copy_which_goes_with_the_last(store):
    first, second = (store.add_correction(label(), visitor=ANN, photo=PHOTO) for _ in range(2))
    others = store.add_correction(label(), visitor=BOB, photo=PHOTO)
    assert [kept.visitor for kept in kept_photographs(store)] == [ANN, BOB]
    store.delete_corrections([first], visitor=ANN)
    assert len(kept_photographs(store)) == 2
    store.delete_corrections([second], visitor=ANN)
    assert [kept.visitor for kept in kept_photographs(store)] == [BOB]
    assert [saved.id for saved in store.corrections()] == [others]


def test_a_photograph_is_only_its_visitors(store):
    store.add_correction(label(), visitor=BOB, photo=PHOTO)
    (kept,) = kept_photographs(store)
    with pytest.raises(StoreError, match=f"no photograph {kept.id}"):
        store.photograph(kept.id, visitor=ANN)
    assert store.photograph(kept.id, visitor=BOB).tobytes() == PHOTO.tobytes()


def test_a_visitor_can_be_forgotten(store):
    for visitor in (ANN, BOB):
        store.add_correction(label(), visitor=visitor, photo=PHOTO)
        store.mark_evidence("e", "x.png", visitor=visitor)
    saved = store.history(MODEL).save(TREE, who=ANN, why="mine")
    assert store.delete_visitor(ANN) == 3
    assert {one.visitor for one in store.corrections()} == {BOB}
    assert {one.visitor for one in kept_photographs(store)} == {BOB}
    assert {one.visitor for one in store.marks()} == {BOB}
    assert store.history(MODEL).latest().who == "unknown"
    assert store.history(MODEL).load(saved.number) == TREE


# ---- limits ---------------------------------------------------------------------------------


def test_what_strangers_may_fill_is_bounded(small):
    huge = Image.frombytes("RGB", (200, 200), os.urandom(120_000))
    with pytest.raises(StoreError, match=r"takes 0\.1 MB without loss; at most 0 MB are kept"):
        small.add_correction(label(image=huge), visitor=ANN, photo=huge)
    with pytest.raises(StoreError, match="room for 10 characters in a note, not 11"):
        small.add_correction(label(note="x" * 11), visitor=ANN)
    small.add_correction(label(), visitor=ANN)
    small.add_correction(label(), visitor=ANN)
    with pytest.raises(StoreError, match="room for 2 corrections of one visitor, not 3. Delete"):
        small.add_correction(label(), visitor=ANN)
    one, two = (Image.frombytes("RGB", (52, 52), os.urandom(8112)) for _ in range(2))
    small.add_correction(label(image=one), visitor="x", photo=one)
    with pytest.raises(StoreError, match="9,000 bytes of photographs of one visitor.*Delete some"):
        small.add_correction(label(image=two), visitor="x", photo=two)
    with pytest.raises(StoreError, match="12,000 bytes of photographs in this store"):
        small.add_correction(label(image=two), visitor="y", photo=two)
    assert len(kept_photographs(small)) == 1
    assert small.corrections(visitor="y") == []
    small.history(MODEL).save(TREE, who=ANN, why="mine")
    with pytest.raises(StoreError, match="room for 1 saved hierarchies of one visitor"):
        small.history(MODEL).save(TREE, who=ANN, why="mine")
    many = Hierarchy.from_nested({"a": [f"c{i}" for i in range(99)], "b": ["x", "y"]})
    with pytest.raises(StoreError, match="room for 2,000 bytes in a hierarchy"):
        small.history(MODEL).save(many, who=BOB, why="many")
    small.mark_evidence("e", "x", visitor=ANN)
    with pytest.raises(StoreError, match="room for 1 marks"):
        small.mark_evidence("e", "y", visitor=ANN)


# ---- hierarchies, marks, models -------------------------------------------------------------


def test_every_save_of_a_hierarchy_is_a_new_version(store):
    changed, record = edit.move(TREE, "owl", "vehicle")
    first = store.history(MODEL).save(TREE, who=ANN, why="birds")
    second = store.history(MODEL).save(changed, who=BOB, why="birds", edits=[record])
    elsewhere = store.history(OTHER).save(TREE, who=ANN, why="birds")
    assert [(s.who, s.why) for s in (first, second, elsewhere)] == [
        (ANN, "birds, version 1"), (BOB, "birds, version 2"), (ANN, "birds, version 1"),
    ]  # fmt: skip
    history = store.history(MODEL)
    assert history.versions() == [first, second]
    assert history.versions(1) == [history.latest()] == [second]
    assert [history.load(s.number) for s in (first, second)] == [TREE, changed]
    assert second.edits == (record,)
    for number in (999, elsewhere.number):
        with pytest.raises(HistoryError, match=f"no version {number} in this store"):
            history.load(number)
    with pytest.raises(HistoryError, match="did not lead to this hierarchy"):
        history.save(TREE, who=ANN, why="birds", edits=[record])
    assert history.versions() == [first, second]
    for name in ("a\u202eb", "two\nlines", "x" * 501):
        with pytest.raises(nbdt.NBDTError):
            store.history(MODEL).save(TREE, who=ANN, why=name)


def test_an_altered_hierarchy_is_noticed(store):
    saved = store.history(MODEL).save(TREE, who=ANN, why="birds")
    with writing(store._engine) as session:
        row = session.get(HierarchyRow, saved.number)
        row.content = TREE.to_json().replace('"owl"', '"elk"')
    with pytest.raises(HistoryError, match=f"saved hierarchy {saved.number} was altered"):
        store.history(MODEL).load(saved.number)


def test_rows_of_the_first_release_are_read(store):
    _, record = edit.move(TREE, "owl", "vehicle")
    old = {**record.to_dict(), "summary": f"{record.summary}, to group them there"}
    with writing(store._engine) as session:
        session.add(
            HierarchyRow(
                visitor="", model=MODEL, name="birds", version=1, hash=TREE.hash,
                time="2026-01-01T00:00:00+00:00", content=TREE.to_json(), edits=json.dumps([old]),
            )
        )  # fmt: skip
    (version,) = store.history(MODEL).versions()
    assert (version.why, version.when) == ("birds, version 1", "2026-01-01T00:00:00+00:00")
    assert version.edits[0].part_of == "group"
    assert store.history(MODEL).load() == TREE
    assert store.history(MODEL).save(TREE, who=ANN, why="birds").why == "birds, version 2"


def test_marks_are_listed_by_index_and_visitor(store):
    store.mark_evidence("one", "x.png", visitor=ANN, why="a watermark")
    store.mark_evidence("one", "x.png", visitor=ANN, bad=False)
    store.mark_evidence("two", "y.png", visitor=BOB)
    assert [(m.reference, m.bad, m.why) for m in store.marks("one", visitor=ANN)] == [
        ("x.png", True, "a watermark"), ("x.png", False, ""),
    ]  # fmt: skip
    assert len(store.marks()) == 3
    assert store.marks("one", visitor=BOB) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(hierarchies=2), "room for 2 saved hierarchies in this store, not 3. Download"),
        (
            Limits(hierarchy_text_in_all=1_000),
            "room for 1,000 characters of saved hierarchies in this store",
        ),
    ],
)
def test_hierarchies_of_all_together_are_bounded(url, limits, message):
    assert 350 < len(TREE.to_json()) < 490
    store = Store.open(url, limits=limits)
    for visitor in (ANN, BOB):
        store.history(MODEL).save(TREE, who=visitor, why="mine")
    with pytest.raises(StoreError, match=message):
        store.history(OTHER).save(TREE, who="c" * 64, why="mine")
    assert len(store.history(MODEL).versions()) == 2
    assert store.history(OTHER).versions() == []
    store.close()


def test_a_model_that_learnt_knows_its_parent_and_its_corrections(store, tmp_path):
    numbers = [store.add_correction(label(), visitor=ANN) for _ in range(3)]
    figures = {"before": {"soft": 0.5}, "after": {"soft": 0.75}}
    made = store.add_model_version(
        tmp_path, OTHER, parent=MODEL, learned=numbers[:2], left_out=1, accuracy=figures
    )
    assert store.model_versions() == [made]
    assert (made.folder, made.parent, made.learned) == (str(tmp_path), MODEL, 2)
    assert made.accuracy == json.loads(json.dumps(figures))
    assert [saved.learned_by for saved in store.corrections()] == [(made.id,), (made.id,), ()]
    with pytest.raises(StoreError, match="in the store already"):
        store.add_model_version(
            tmp_path, OTHER, parent=MODEL, learned=[], left_out=0, accuracy=figures
        )
    store.delete_corrections(numbers[:1])
    assert store.model_versions()[0].learned == 2  # it did learn from both


# ---- a full disk, and a store that is gone ------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A real disk of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=12m", "none", place], check=False
    )
    if not done or done.returncode:
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place):
    """Take every byte of a disk."""
    with suppress(OSError), (place / "others").open("wb", 0) as others:
        while True:
            others.write(b"x" * 4096)


@pytest.mark.parametrize("side", [150, 600])
def test_people_can_delete_on_a_full_disk_and_nothing_of_it_stays(disk, side):
    store = Store.open(str(disk / "s.sqlite"))
    kept = []
    with suppress(StoreError):
        for seed in range(1_000):
            photo = Image.effect_noise((side, side), 50 + seed / 10).convert("RGB")
            kept.append(store.add_correction(label(image=photo), visitor=ANN, photo=photo))
    assert 0 < len(kept) < 1_000
    piece = store.photograph_bytes(kept_photographs(store)[0].id)[5_000:5_040]
    fill(disk)
    store.delete_corrections(kept[:1])
    fill(disk)
    assert store.delete_visitor(ANN) == 2 * (len(kept) - 1)
    assert store.corrections() == []
    store.close()
    assert piece not in (disk / "s.sqlite").read_bytes()
    (disk / "others").unlink()
    again = Store.open(str(disk / "s.sqlite"))
    assert again.add_correction(label(), visitor=ANN, photo=PHOTO) > kept[-1]
    assert inspect(again._engine).has_table("nbdt_zeros") is False
    again.close()


@pytest.mark.parametrize("how", ["file", "log", "folder", "other"])
def test_a_store_that_is_gone_acknowledges_nothing(tmp_path, how):
    place = tmp_path / "kept"
    store = Store.open(str(place / "s.sqlite"))
    store.add_correction(label(), visitor=ANN)
    if how == "file":
        (place / "s.sqlite").unlink()
    elif how == "log":
        (place / "s.sqlite-wal").unlink()
    elif how == "folder":
        shutil.rmtree(place)
    else:
        Store.open(str(tmp_path / "t.sqlite")).close()
        (tmp_path / "t.sqlite").replace(place / "s.sqlite")
    with pytest.raises(StoreError, match="vanished"):
        store.add_correction(label(), visitor=BOB)
    with pytest.raises(StoreError, match="vanished"):
        store.delete_visitor(ANN)
    store.close()
