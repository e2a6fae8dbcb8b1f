"""An explanation on the disk: the same comes back, damage is named, and its page is safe to open."""

import base64
import hashlib
import html
import io
import itertools
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import DecisionRules, Hierarchy, NBDTError
from nbdt.explain.result.contributions import Contribution, DecisionContributions
from nbdt.explain.result.explanation import Counterfactual, DecisionEvidence, Explanation, Neighbour
from nbdt.explain.result.facts import stop
from nbdt.explain.result.files import THUMBNAIL, VERSION, load, save
from nbdt.explain.result.html import to_html
from nbdt.explain.result.regions import Region
from nbdt.images.image import ImageError, refusal, refuse

HOSTILE = (
    "</style><script>pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    "\"'><svg onload=pwned=1>",
    "${pwned=1}{{pwned=1}}",
    "<link rel=stylesheet href=http://127.0.0.1:9>",
    "]]>&amp;&lt;",
    "猫 קאט 🐈",
    "../../evil",
)


def gone():
    refuse(refusal("x.png", "a picture", "none", "fetch it"))


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def picture(seed, side):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.info = {"exif": b"Exif\0\0secret place", "dpi": (72, 72), "comment": "secret place"}
    return image


def example(names=("cat", "dog", "car", "bus"), groups=("animal", "vehicle"), **fields):
    """An explanation with everything in it, of a path two decisions long."""
    tree = Hierarchy.from_paths(
        [[groups[0], names[0]], [groups[0], names[1]], [groups[1], names[2]], [groups[1], names[3]]]
    )
    rules = DecisionRules(tree, rule="marginal")
    z = torch.tensor([[2.0, 1.7, -1.3, 0.2]])
    path, rival = rules.paths(z)[0], rules.paths(z, [1])[0]
    regions = (Region(((1, 1), (1, 2), (2, 1)), (7, 7)), Region(((5, 5),), (7, 7)))
    change = Counterfactual(0, path.decisions[0].margin, rules.paths(z, [3])[0], (), False, None,
                            (3.1, 3.1), 0.0, 0.5, 6, "blur")  # fmt: skip
    flipped = Counterfactual(1, path.decisions[1].margin, rival, regions, True, names[1],
                             (0.3, -0.2), 4 / 49, 0.5, 12, "blur", picture(9, 32))  # fmt: skip
    neighbours = [
        Neighbour(f"{name}.png", name, 0.8 - i / 100, i, lambda i=i: picture(i, 300))
        for i, name in enumerate(names)
    ]
    lost = Neighbour("lost.png", names[0], 0.5, 77, gone)
    shown = Contribution("in.png", names[0], 0.9, "ab", lambda: picture(3, 300))
    absent = Contribution("lost.png", names[1], -0.4, "cd", gone)
    parts = DecisionContributions((shown,), (absent,), 412, 2.0, 0.1, 0.0)
    evidence = DecisionEvidence((neighbours[0], lost), (neighbours[1],))
    known = {
        "maps": (noise(0, 7, 7), noise(1, 7, 7)),
        "child_maps": (noise(2, 2, 7, 7), noise(3, 2, 7, 7)),
        "node_maps": {names[3]: noise(4, 7, 7), groups[1]: noise(5, 7, 7)},
        "photo": picture(8, 320),
        "evidence": (evidence, DecisionEvidence((), ())),
        "contributions": (parts, DecisionContributions((), (), 0, 0.0, 0.5, 0.1)),
        "counterfactuals": (change, flipped),
        "made": {"method": "closed form", "versions": {"nbdt": "0"}, "resolution": [7, 7]},
    }
    return Explanation(path, **{**known, **fields})


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


# ---- there and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("cat", "dog", "car", "bus"), HOSTILE[:4], HOSTILE[4:]])
def test_the_same_comes_back(tmp_path, names):
    before = example(names)
    save(before, tmp_path / "e")
    after = load(tmp_path / "e")
    assert after.path == before.path
    for group in ("maps", "child_maps"):
        for one, other in zip(getattr(before, group), getattr(after, group), strict=True):
            assert one.dtype == other.dtype == np.float32
            assert one.tobytes() == other.tobytes()
    assert list(after.node_maps) == list(before.node_maps)
    assert all(same(after.node_maps[node], before.node_maps[node]) for node in before.node_maps)
    assert same(after.photo, before.photo)
    assert after.counterfactuals == before.counterfactuals
    assert same(after.counterfactuals[1].picture, before.counterfactuals[1].picture)
    assert after.evidence == before.evidence
    assert after.contributions == before.contributions
    assert after.contributions[0].supporting[0].open().size == (THUMBNAIL, THUMBNAIL)
    assert after.made == before.made
    thumbnail = after.evidence[0].chosen[0].open()
    assert thumbnail.size == (THUMBNAIL, THUMBNAIL)
    with pytest.raises(ImageError, match=r"lost\.png.*original training data"):
        after.evidence[0].chosen[1].open()


def test_saving_what_was_loaded_gives_the_same_files(tmp_path):
    save(example(), tmp_path / "one")
    save(load(tmp_path / "one"), tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        if file.suffix != ".npz" and file.name != "manifest.json":  # an archive carries its time
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_bare_explanation_of_a_tensor_comes_back_too(tmp_path):
    bare = example(
        photo=None,
        evidence=(),
        contributions=(),
        counterfactuals=(),
        child_maps=(),
        node_maps={},
        made={},
    )
    save(bare, tmp_path / "e")
    after = load(tmp_path / "e")
    assert after.photo is None
    assert (after.evidence, after.counterfactuals, after.child_maps) == ((), (), ())
    assert not list((tmp_path / "e").glob("*.png"))
    assert (tmp_path / "e" / "index.html").read_text(encoding="utf-8").count("data:image") == 2


def test_infinite_log_probabilities_survive(tmp_path):
    explanation = example()
    decision = replace(explanation.path.decisions[0], log_probs=(0.0, -float("inf")))
    path = replace(explanation.path, decisions=(decision, explanation.path.decisions[1]))
    save(replace(explanation, path=path), tmp_path / "e")
    assert load(tmp_path / "e").path == path


def test_the_manifest_names_every_file_with_size_and_hash(tmp_path):
    save(example(), tmp_path / "e")
    manifest = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert manifest["version"] == VERSION
    files = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    del files["manifest.json"]
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    assert {"explanation.json", "maps.npz", "photo.png", "index.html", "decision-1.png",
            "counterfactual-2.png", "evidence-1-chosen-1.png"} <= files.keys()  # fmt: skip
    record = json.loads(files["explanation.json"])
    assert record["words"].startswith("It is")
    assert record["counterfactuals"][1]["regions"][0]["bounds"] == [1, 1, 3, 3]


def test_pictures_carry_nothing_but_pixels(tmp_path):
    save(example(), tmp_path / "e")
    for file in (tmp_path / "e").iterdir():
        assert b"secret place" not in file.read_bytes()
    inlined = re.findall(
        'data:image/png;base64,([^"]+)', (tmp_path / "e" / "index.html").read_text()
    )
    pictures = [base64.b64decode(data) for data in inlined]
    pictures += [file.read_bytes() for file in (tmp_path / "e").glob("*.png")]
    assert len(pictures) == 16
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            assert image.info == {}


def test_it_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.rename", fail)
    with pytest.raises(OSError, match="disk full"):
        save(example(), tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_never_overwritten(tmp_path, kind):
    target = tmp_path / "e"
    {"folder": target.mkdir, "file": target.touch,
     "link": lambda: target.symlink_to(tmp_path / "nowhere")}[kind]()  # fmt: skip
    with pytest.raises(NBDTError, match="exists already; name a new folder"):
        save(example(), target)


def test_what_is_not_plain_data_cannot_be_saved(tmp_path):
    with pytest.raises(NBDTError, match="`made` holds plain data only"):
        save(example(made={"model": object()}), tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


# ---- damage ------------------------------------------------------------------------------------


def rewrite(folder, name, data):
    """Replace a file and make the manifest agree, as a forger would."""
    (folder / name).write_bytes(data)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture
def saved(tmp_path):
    save(example(), tmp_path / "e")
    return tmp_path / "e"


@pytest.mark.parametrize("name", ["explanation.json", "maps.npz", "photo.png", "index.html"])
def test_a_missing_or_changed_file_is_named(saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NBDTError, match=rf"{re.escape(name)}.* is damaged: its size or SHA-256"):
        load(saved)
    (saved / name).unlink()
    with pytest.raises(NBDTError, match=rf"{re.escape(name)}.*No such file"):
        load(saved)


def test_a_folder_without_manifest_is_no_explanation(tmp_path):
    with pytest.raises(NBDTError, match="no saved explanation at .*manifest.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "explanation.json"])
def test_newer_versions_are_refused_by_name(saved, name):
    record = json.loads((saved / name).read_text())
    data = json.dumps({**record, "version": VERSION + 1}).encode()
    if name == "manifest.json":
        (saved / name).write_bytes(data)
    else:
        rewrite(saved, name, data)
    with pytest.raises(NBDTError, match=rf"{name}.* version {VERSION + 1}.*Upgrade nbdt-vision"):
        load(saved)


def test_pickled_arrays_are_refused_and_not_run(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    rewrite(saved, "maps.npz", npz(map_0=np.array([Bomb()], dtype=object)))
    with pytest.raises(NBDTError, match=r"maps\.npz.*damaged.*allow_pickle"):
        load(saved)
    assert not (tmp_path / "run").exists()


def huge():
    """An archive whose header claims more than any machine has."""
    data = npz(map_0=np.zeros((3, 3), dtype=np.float32))
    return data.replace(b"'shape': (3, 3), }      ", b"'shape': (99999999,9999)")


def corrupt():
    """An archive whose compressed bytes are none."""
    stream = io.BytesIO()
    np.savez_compressed(stream, map_0=np.arange(900, dtype=np.float32))
    data = bytearray(stream.getvalue())
    data[80:120] = b"\xff" * 40
    return bytes(data)


def encrypted():
    """An archive that asks for a password."""
    data = bytearray(npz(map_0=np.zeros((3, 3), dtype=np.float32)))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04nothing", "BadZipFile"),
        (b"", "BadZipFile"),
        (npz(map_0=np.zeros((3, 3))), "'map_0' is not a float32 map"),
        (npz(map_0=np.zeros((3, 3, 3), dtype=np.float32)), "'map_0' is not a float32 map"),
        (npz(map_0=np.zeros((3, 3), dtype=np.float32)), "expected 2 maps, one a decision, got 1"),
        (huge(), "damaged"),
        (corrupt(), "maps.npz.*damaged"),
        (encrypted(), "maps.npz.*damaged.*encrypted"),
    ],
)
def test_maps_that_do_not_fit_are_refused(saved, data, message):
    rewrite(saved, "maps.npz", data)
    with pytest.raises(NBDTError, match=message):
        load(saved)


def test_an_archive_that_unpacks_to_too_much_is_refused(saved, monkeypatch):
    monkeypatch.setattr("nbdt.explain.result.files.MAX_FILE", 2**22 - 2**17)
    rewrite(saved, "maps.npz", b"")
    stream = io.BytesIO()
    np.savez_compressed(stream, map_0=np.zeros((2**10, 2**10), dtype=np.float32))
    rewrite(saved, "maps.npz", stream.getvalue())
    with pytest.raises(NBDTError, match=r"maps would take 4,\d+,\d+ bytes"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"path": None},
        {"path": {"class": "cat", "class_index": 0, "log_prob": 0, "decisions": []}},
        {"photo": "../../etc/passwd"},
        {"photo": "nothing.png"},
        {"nodes": ["one"]},
        {"nodes": [1, 2]},
        {"evidence": [{"chosen": [{}], "rejected": []}]},
        {"counterfactuals": [{"decision": 0}]},
        {"tested": [None]},
        *(
            {
                "tested": [
                    None,
                    {
                        "log_odds": [1, 0, 0],
                        "changes": [[1, 0], [1, 0]],
                        "share": 0.1,
                        "regions": [{"cells": cells, "grid": [3, 3]}],
                    },
                ]
            }
            for cells in ([], [[0, 3]], [[-1, 0]])
        ),
        {
            "tested": [
                None,
                {"log_odds": [1, 0, 0], "changes": [[1, 0], [1, 0]], "share": 0.1, "regions": []},
            ]
        },
        {"made": 3},
    ],
)
def test_a_record_that_does_not_fit_is_damaged(saved, change):
    record = json.loads((saved / "explanation.json").read_text())
    rewrite(saved, "explanation.json", json.dumps({**record, **change}).encode())
    with pytest.raises(NBDTError, match=r"explanation\.json' is damaged: "):
        load(saved)


def test_only_pictures_that_the_record_names_are_decoded(saved, monkeypatch):
    record = json.loads((saved / "explanation.json").read_text())
    rewrite(saved, "bomb.png", b"no picture")
    assert load(saved).photo is not None
    monkeypatch.setattr("nbdt.explain.result.files.MAX_PIXELS", 1000)
    with pytest.raises(NBDTError, match=r"photo\.png"):
        load(saved)
    monkeypatch.undo()
    rewrite(saved, "explanation.json", json.dumps({**record, "photo": "bomb.png"}).encode())
    with pytest.raises(NBDTError, match=r"bomb\.png"):
        load(saved)


def test_files_are_bounded_together(saved, monkeypatch):
    size = sum(path.stat().st_size for path in saved.iterdir() if path.name != "manifest.json")
    monkeypatch.setattr("nbdt.explain.result.files.MAX_FILE", size)
    load(saved)
    monkeypatch.setattr("nbdt.explain.result.files.MAX_FILE", size - 1)
    with pytest.raises(NBDTError, match="more than"):
        load(saved)


def test_a_decision_that_does_not_fit_its_children_is_damaged(saved):
    record = json.loads((saved / "explanation.json").read_text())
    record["path"]["decisions"][0]["chosen"] = 2
    rewrite(saved, "explanation.json", json.dumps(record).encode())
    with pytest.raises(NBDTError, match="does not fit its children"):
        load(saved)


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"format": "other"}', b"[" * 10**5])
def test_what_is_no_manifest_is_refused(saved, data):
    (saved / "manifest.json").write_bytes(data)
    with pytest.raises(NBDTError, match=r"manifest\.json' is (not JSON|no JSON object with)"):
        load(saved)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "a\\b.png", "..", ""])
def test_the_manifest_cannot_reach_outside_its_folder(saved, name):
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": ""}
    path.write_text(json.dumps(manifest))
    with pytest.raises(NBDTError, match="is not a file of this folder"):
        load(saved)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_does_not_hang_the_reader(saved):
    (saved / "photo.png").unlink()
    os.mkfifo(saved / "photo.png")
    with pytest.raises(NBDTError, match=r"photo\.png.*regular file"):
        load(saved)


# ---- the page ----------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside():
    tags, links = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append(tag)
            links.extend(value for name, value in attributes if name in {"src", "href"})
            assert not any(name.startswith("on") for name, _ in attributes)

    text = to_html(example(HOSTILE[:4]))
    Reader().feed(text)
    assert len(links) == 10
    assert all(link.startswith(("data:image/png;base64,", "#decision-")) for link in links)
    assert not {"script", "link", "base", "form", "iframe"} & set(tags)
    assert not re.findall(r"@import|url\(", text)
    assert "default-src 'none'" in text


def test_names_that_no_encoding_holds_do_not_stop_a_page(tmp_path):
    """File names on Linux are bytes; those that are not UTF-8 arrive as lone surrogates."""
    explanation = example()
    strange = replace(explanation.evidence[0].chosen[0], reference="photo-\udcff.png")
    evidence = (replace(explanation.evidence[0], chosen=(strange,)), explanation.evidence[1])
    save(replace(explanation, evidence=evidence), tmp_path / "e")
    assert load(tmp_path / "e").evidence[0].chosen[0].reference == "photo-\udcff.png"


@pytest.fixture
def visit(open_file, tmp_path):
    """Save an explanation and open its page."""

    def write(explanation, width=1200, **options):
        save(explanation, tmp_path / "page")
        return open_file(tmp_path / "page" / "index.html", width=width, **options)

    return write


@pytest.mark.browser
@pytest.mark.parametrize("names", [HOSTILE[:4], HOSTILE[4:]])
@pytest.mark.parametrize("width", [1200, 360])
def test_hostile_names_are_only_ever_text(visit, names, width):
    explanation = example(names, groups=("</title><script>pwned=1</script>", "<b onclick=x>"))
    tab = visit(explanation, width=width)
    assert tab.locator("h1").text_content() == f"{explanation.path.class_name}, 51 %"
    assert tab.title() == f"Why “{explanation.path.class_name}”?"
    assert tab.evaluate("typeof pwned") == "undefined"
    assert tab.locator("script, link, b, iframe, main img[src='x']").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_all_of_the_explanation_is_on_the_page(visit):
    explanation = example()
    tab = visit(explanation)
    steps = tab.locator("ol.path > li a").all_text_contents()
    assert steps == [d.children[d.chosen] for d in explanation.path]
    assert tab.locator("section.tile").count() == tab.locator(".decision").count() == 2
    assert tab.locator(".pictures img").count() == 3  # one decision is close
    assert tab.locator(".thumbs img").count() == 3
    assert tab.locator(".thumbs .none").all_text_contents() == ["no picture kept"] * 2
    assert (
        explanation.contributions[0].words
        in tab.locator("section.tile", has=tab.locator("#decision-1")).text_content()
    )
    assert tab.locator(".change img").count() == 1
    assert "turns cat into dog" in tab.locator("#decision-2 .change").text_content()
    assert "Nothing that was tried" in tab.locator("#decision-1 .change").text_content()
    assert "closed form" in tab.locator("footer").text_content()
    widths = tab.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert all(width > 0 for width in widths)
    bars = tab.eval_on_selector_all(
        "ol.path .bar i", "bars => bars.map(b => b.offsetWidth / b.parentElement.offsetWidth)"
    )
    assert bars == pytest.approx([d.probability for d in explanation.path], abs=0.01)


def stopped_at(depth, **made):
    explanation = example()
    decision = explanation.path.decisions[depth]
    facts = {"node": decision.node_id, "name": decision.node, "probability": 0.97, "is_leaf": False,
             "depth": depth, "unknown": False, "accuracy": 0.95, "needed": 0.61}  # fmt: skip
    return replace(explanation, made={"answer": facts, **made})


@pytest.mark.parametrize("depth", [0, 1])
def test_the_page_marks_where_the_answer_stops_and_what_is_promised(depth):
    text = "95% of such answers are right, on average over photographs like these"
    explanation = stopped_at(depth, promise=text, removed_probability=0.7)
    page = to_html(explanation)
    assert page.count("The answer stops here.") == 1
    assert page.count(text) == 1
    assert "cannot occur here would have had 70 %" in page
    text = stop(explanation, depth)
    assert text in html.unescape(page)
    assert "With 61 %" in text
    decision = explanation.path.decisions[depth]
    assert f"not {decision.children[decision.runner_up]}" in page
    plain = to_html(replace(explanation, made={}))
    assert "stops here" not in plain


def test_an_answer_that_more_would_not_help_says_so():
    explanation = stopped_at(1)
    never = replace(explanation, made={"answer": {**explanation.made["answer"], "needed": 1.3}})
    assert "Even 100 %" in stop(never, 1)
    assert "contours of its map" in to_html(replace(explanation, child_maps=()))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_eye_ear_and_keyboard(visit, scheme):
    tab = visit(stopped_at(1, promise="95%"), width=360, color_scheme=scheme)
    alts = tab.eval_on_selector_all("img", "images => images.map(i => i.alt)")
    assert all(len(alt) > 10 for alt in alts)
    levels = tab.eval_on_selector_all("h1,h2,h3", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('href')") == "#decision-1"
    contrast = """() => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => {
        v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
      return [...document.querySelectorAll('h1,h2,h3,p,a,dt,dd,figcaption,.number,.none')].map(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }); }"""
    assert min(tab.evaluate(contrast)) >= 4.5
