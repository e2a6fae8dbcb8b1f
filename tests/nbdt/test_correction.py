"""The record of a correction: what is refused, what comes back, what survives a killed writer."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbdt.correction import (
    Correction,
    CorrectionError,
    picture_hash,
    read_corrections,
    write_corrections,
)

IMAGE = "ab" * 32


def step(**changes):
    return Correction(**{"kind": "step", "image": IMAGE, "node": "n1", "child": "cat", **changes})


fractions = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3])
texts = st.text(min_size=1, max_size=50).filter(lambda t: t.isprintable())
records = st.one_of(
    st.builds(Correction, kind=st.just("step"), image=st.just(IMAGE), node=texts, child=texts),
    st.builds(Correction, kind=st.just("label"), image=st.just(IMAGE), label=texts, note=texts),
    st.builds(
        Correction, kind=st.just("region"), image=st.just(IMAGE), node=texts, region=fractions,
        model=st.just("0" * 64), hierarchy=st.none() | st.just("f" * 64),
    ),
)  # fmt: skip


@given(records)
def test_a_line_gives_the_very_record_back(record):
    line = record.to_json()
    assert "\n" not in line
    assert Correction.from_json(line) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "vote"}, "Unknown kind of correction 'vote'; there are step, label, region"),
        ({"child": None}, "A 'step' correction needs 'child'"),
        ({"label": "cat"}, "A 'step' correction has no 'label'; it has node, child"),
        ({"image": "abc"}, "'image' must be a SHA-256 of 64 hexadecimal digits, got 'abc'"),
        ({"model": "x" * 64}, "'model' must be a SHA-256"),
        ({"node": ""}, "'node' has 0 characters; expected 1 to"),
        ({"node": 3}, "'node' must be text, got 3"),
        ({"note": "x" * 5000}, "'note' has 5,000 characters; expected 0 to 4,000"),
        ({"time": "yesterday"}, "'time' must be ISO 8601 with a time zone"),
        ({"time": "2026-01-01T00:00:00"}, "with a time zone"),
        ({"kind": "region", "child": None, "region": (0, 0, 1, 2)}, "0 ≤ top < bottom ≤ 1"),
        ({"kind": "region", "child": None, "region": (0, 0, 1)}, "left, top, right and bottom"),
        ({"kind": "region", "region": (0.0, 0.0, float("nan"), 1.0)}, "left, top, right"),
        ({"kind": "region", "region": (False, 0.0, True, 1.0)}, "left, top, right"),
    ],
)
def test_what_cannot_be_a_correction_is_refused(changes, message):
    with pytest.raises(CorrectionError, match=message):
        step(**changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "'{' is not JSON"),
        ("[" * 50_000, "is not JSON .RecursionError"),
        ("[1]", "'.1.' is no JSON object with .format.: .nbdt-correction."),
        (
            '{"format": "nbdt-correction", "version": 9}',
            "format version 9; this release reads version 1. Upgrade",
        ),
        ('{"format": "nbdt-correction", "version": 1}', "'image', 'kind', 'time' is missing"),
        ('{"format": "nbdt-correction", "version": 1, "vote": 1}', "Unknown field 'vote'"),
        ('{"a": "' + "x" * 70_000 + '"}', "at most 65,536 characters"),
    ],
)
def test_a_line_that_is_no_correction_is_refused(line, message):
    with pytest.raises(CorrectionError, match=message):
        Correction.from_json(line)


def test_files_are_replaced_and_name_the_line_that_is_wrong(tmp_path):
    path = tmp_path / "c.jsonl"
    first, second = step(note="ä\u2028"), step(child="dog")
    write_corrections([second], path)
    write_corrections([first, second], path)
    assert read_corrections(path) == [first, second]
    path.write_text(second.to_json() + "\n\n{}\n")
    with pytest.raises(CorrectionError, match=r"c\.jsonl', line 3: .* is no JSON object with"):
        read_corrections(path)


def test_a_killed_writer_costs_its_own_record_only(tmp_path):
    path = tmp_path / "c.jsonl"
    whole = step()
    line = (whole.to_json() + "\n").encode()
    for length in range(len(line)):
        path.write_bytes(line + line[:length])
        kept = [whole, whole] if length == len(line) - 1 else [whole]
        assert read_corrections(path) == kept


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path):
    path = tmp_path / "c.jsonl"
    write_corrections([step()], path)
    before = path.read_bytes()
    limit = len(before) + 20  # bytes that this process may write to a file
    script = (
        "import resource, signal, sys\n"
        "from nbdt.correction import read_corrections, write_corrections\n"
        "said = read_corrections(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    write_corrections(said * 2, sys.argv[1])\n"
        "except OSError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(limit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "refused: " in done.stdout, done.stderr
    assert path.read_bytes() == before


def test_the_hash_is_of_the_picture():
    image = Image.new("RGB", (4, 2), "red")
    assert picture_hash(image) == picture_hash(image.convert("RGBA"))
    assert picture_hash(image) != picture_hash(image.transpose(Image.Transpose.ROTATE_90))
    other = image.copy()
    other.putpixel((0, 0), (254, 0, 0))
    assert picture_hash(image) != picture_hash(other)
    assert step(image=picture_hash(image)).image == picture_hash(image)


def test_a_record_is_read_by_people():
    content = json.loads(step(note="no tail", time="2026-01-31T12:00:00+00:00").to_json())
    assert content == {
        "format": "nbdt-correction", "version": 1, "kind": "step", "image": IMAGE, "node": "n1",
        "child": "cat", "time": "2026-01-31T12:00:00+00:00", "note": "no tail",
    }  # fmt: skip


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "c.jsonl").open("wb") as sparse:
        sparse.truncate(2**28 + 1)
    with pytest.raises(CorrectionError, match="at most 268,435,456 are read"):
        read_corrections(tmp_path / "c.jsonl")
