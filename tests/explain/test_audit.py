"""The audit: equal to reference implementations and Quantus, right where the answer is known."""

import hashlib
import io
import json
import re

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.stats import spearmanr
from torch import nn
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy, NBDTError, attach
from nbdt.decide.head import NBDTHead
from nbdt.explain.audit import methods as audit_methods
from nbdt.explain.audit import sanity
from nbdt.explain.audit.command import WIDTH, app
from nbdt.explain.audit.methods import method_maps
from nbdt.explain.audit.perturbation import (
    BASELINES,
    Trials,
    area,
    curves,
    ranked,
    specificity,
    swap,
    top,
)
from nbdt.explain.audit.report import save, tables
from nbdt.explain.audit.result import CURVES, beaten, estimate, per_image
from nbdt.explain.audit.run import audit
from nbdt.explain.inputs import model_inside
from nbdt.explain.maps.hiding import blurred
from nbdt.explain.maps.layers import PLAIN_SIDE
from nbdt.explain.maps.log_odds import LogOdds, fixed_spread, log_odds, of_logits
from nbdt.model.remember import make_memory
from nbdt.network.preprocessing import Preprocessing
from nbdt.tree.index import TreeIndex
from tests import oracle

TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
RNG = np.random.default_rng(0)


# ---- a network whose right explanation is known --------------------------------------------------

SIDE, CELL = 32, 4
KIND, WHICH = (4, 4, 8), (20, 20, 8)  # top, left and side of squares, in pixels


def square(place):
    top, left, side = place
    found = torch.zeros(SIDE, SIDE)
    found[top : top + side, left : left + side] = 1
    return found


CHECKER = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 * 2.0 - 1


class Known(nn.Module):
    """Red checks in one square say animal or vehicle, green ones in another say which of them.

    Nothing else matters. With `shaky`, all the rest makes a tiny but very steep difference: its
    gradient is large, its effect is none.
    """

    num_classes = 0

    def __init__(self, shaky=False):
        super().__init__()
        self.shaky = shaky

    def forward_features(self, images):
        kind, which = (
            images[:, channel] * CHECKER * square(place)
            for channel, place in enumerate((KIND, WHICH))
        )
        if self.shaky:
            rest = 1 - square(KIND) - square(WHICH)
            kind = kind + 0.02 * torch.sin(500 * images[:, 0]) * rest
            which = which + 0.02 * torch.sin(500 * images[:, 1]) * rest
        return nn.functional.avg_pool2d(torch.stack([kind, which], dim=1), CELL)

    def forward_head(self, feature_map, pre_logits=True):
        return feature_map.mean(dim=(2, 3))


def known(shaky=False):
    head = NBDTHead(2, TREE, rule="representative")
    with torch.no_grad():
        head.linear.weight.copy_(50.0 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]))
        head.linear.bias.zero_()
    plain = Preprocessing(SIDE, (0.0,) * 3, (1.0,) * 3, 1.0, "bicubic")
    return NBDT(Known(shaky), head, "hand-made", plain).eval()


def known_images(count=30):
    """Noise, with one pattern in each of the two squares that matter."""
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    signs = torch.randint(0, 2, (count, 2), generator=generator) * 2.0 - 1
    images[:, 0] += signs[:, 0, None, None] * CHECKER * square(KIND)
    images[:, 1] += signs[:, 1, None, None] * CHECKER * square(WHICH)
    return images


@pytest.fixture(scope="module")
def known_audit():
    return audit(known(), known_images(), checked=3)


def test_the_right_map_beats_both_controls_everywhere(known_audit):
    for controls in beaten(known_audit.methods, "grad-cam").values():
        assert controls == ["random", "centre"]
    assert any(
        finding.startswith("grad-cam: finds what decides: better than both controls")
        for finding in known_audit.findings
    )


def test_controls_lose(known_audit):
    best, random, centre = (known_audit.methods[n] for n in ("grad-cam", "random", "centre"))
    for curve in CURVES:
        sign = -1 if curve.startswith("deletion") else 1
        for control in (random, centre):
            assert sign * best.estimates[curve].mean > sign * control.estimates[curve].mean + 0.1


def test_the_right_maps_are_specific_and_a_class_map_is_not(known_audit):
    for baseline in BASELINES:
        name = f"specificity path_share {baseline}"
        assert known_audit.methods["grad-cam"].estimates[name].mean == 1
        for shared in ("class grad-cam", "random", "centre"):
            assert known_audit.methods[shared].estimates[name].mean <= 0.5
    assert any(f.startswith("grad-cam: is specific") for f in known_audit.findings)
    assert any(f.startswith("class grad-cam: FAILS to be specific") for f in known_audit.findings)


def test_a_method_that_a_model_deceives_is_found_out():
    """Its gradient points everywhere but where the evidence is."""
    model, images = known(shaky=True), known_images()
    nodes = [TREE.path_of_class(p.class_index)[1:] for p in model.paths(images)]
    maps = method_maps(model, images, nodes, "saliency")
    values, right = np.abs(maps[0][0]), square(KIND).bool().numpy()
    assert values[right].sum() < 0.5 * right.mean() * values.sum()
    found = audit(model, images, methods=["grad-cam", "saliency"], checked=2)
    assert set(found.methods) == {"grad-cam", "saliency", "random", "centre"}
    assert any(f.startswith("grad-cam: finds what decides: better") for f in found.findings)
    assert any(f.startswith("saliency: FAILS to find what decides") for f in found.findings)


def test_maps_that_ignore_the_model_fail_on_every_count(monkeypatch):
    def brightness(model, images, nodes):
        return [
            (image.abs().sum(0).numpy(),) * len(p) for image, p in zip(images, nodes, strict=True)
        ]

    monkeypatch.setattr(audit_methods, "OTHERS", {"brightness": brightness})
    images = known_images()
    images[:, 2, :8, 24:] += 5  # bright, and of no consequence
    found = audit(known(), images, methods=["brightness"], checked=2)
    said = [f for f in found.findings if "FAILS" in f]
    assert any("FAILS the sanity check" in finding for finding in said)
    assert any("FAILS to be specific" in finding for finding in said)


# ---- against reference implementations -------------------------------------------------------------------------


def tiny(rule="representative", tree=TREE):
    torch.manual_seed(0)
    return NBDT.from_timm("resnet10t", tree, rule=rule).eval()


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", [oracle.family, oracle.zoo, lambda: oracle.star(20)])
def test_log_odds_equal_the_reference(tree, rule):
    h = tree()
    z = torch.tensor(oracle.logits(h))
    found = log_odds(z, TreeIndex(h), rule).numpy()
    reference = oracle.log_odds(h, oracle.node_scores(h, z.numpy(), rule))
    assert np.abs(found - reference)[:, 1:].max() < 1e-9
    assert not found[:, 0].any()


def test_log_odds_stay_exact_and_differentiable_where_p_is_1():
    h = oracle.family()
    z = torch.tensor([[900.0, -900.0, 900.0, -900.0]], dtype=torch.float64, requires_grad=True)
    found = log_odds(z, TreeIndex(h), "representative")
    assert found.abs().max() == 1800
    found.sum().backward()
    assert z.grad.isfinite().all()


@pytest.fixture(scope="module")
def curve_case():
    """Pictures to hide parts of, (trials, maps, their ranks) for each of two images."""
    model = tiny()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    cases = []
    for image, path in zip(images, model.paths(images), strict=True):
        nodes = TREE.path_of_class(path.class_index)[1:]
        maps = [RNG.random((4, 4), dtype=np.float32) for _ in nodes]
        trials = Trials(model, image, nodes, (4, 4))
        cases.append((trials, maps, ranked(maps, (4, 4), RNG)))
    return cases


@pytest.mark.parametrize("baseline", BASELINES)
def test_curves_equal_the_reference(curve_case, baseline):
    for trials, maps, ranks in curve_case:
        whole, none = (v[0].numpy() for v in (trials.image, BASELINES[baseline](trials.image)))
        deletion, insertion = curves(trials, ranks, baseline, steps=5)
        assert len(deletion) == len(insertion) == len(maps)
        for row, (node, values) in enumerate(zip(trials.nodes, maps, strict=True)):

            def probability(pixels, trials=trials, node=node):
                logits = trials.model.logits(torch.from_numpy(pixels)[None]).detach()
                return float(of_logits(trials.model, logits)[0, node].sigmoid())

            references = [
                oracle.region_curve(probability, *pair, values, (4, 4), 5)
                for pair in ((none, whole), (whole, none))
            ]
            assert np.abs(deletion[row] - references[0]).max() < 1e-5
            assert np.abs(insertion[row] - references[1]).max() < 1e-5
            assert abs(area(deletion)[row] - oracle.trapezia(references[0])) < 1e-5


def test_specificity_and_swap_equal_the_reference(curve_case):
    for trials, _, ranks in curve_case:
        after = trials.log_odds(top(ranks, 0.2), "mean")
        spread = RNG.uniform(0.5, 2, len(after))
        path = range(len(after))
        found = specificity(trials.before, after, spread)
        assert np.allclose(found, oracle.path_specificity(trials.before, after, path, spread))
        assert np.allclose(swap(trials.before, after), oracle.swaps(trials.before, after, path))
    assert np.isnan(specificity(np.ones(1), np.zeros((1, 1)), np.ones(1))).all()
    assert np.isnan(swap(np.ones(1), np.zeros((1, 1)))).all()


@given(st.integers(2, 6), st.integers(0, 999))
@settings(max_examples=25)
def test_a_shared_map_is_half_right_and_shifts_change_nothing(decisions, seed):
    rng = np.random.default_rng(seed)
    before, spread = rng.normal(size=decisions), rng.uniform(0.5, 2, decisions)
    shared = np.tile(rng.normal(size=decisions), (decisions, 1))
    assert np.allclose(swap(before, shared), 0.5)
    assert specificity(before, shared, spread).mean() <= 0.5
    after, shift = rng.normal(size=(decisions, decisions)), rng.normal(size=decisions)
    for measure, scale in ((swap, ()), (specificity, (spread,))):
        found = measure(before, after, *scale)
        assert np.allclose(found, measure(before + shift, after + shift, *scale))
        assert ((found >= 0) & (found <= 1)).all()


def test_no_picture_runs_twice(curve_case):
    trials, _, ranks = curve_case[0]
    again = Trials(trials.model, trials.image[0], trials.nodes, (4, 4))
    with audit_methods.counted_passes(trials.model) as passes:
        first = curves(again, ranks, "blur", 5)
        assert np.array_equal(first, curves(again, ranks, "blur", 5))
        assert again.before.tolist() == again.log_odds(np.zeros((4, 4), bool), "blur").tolist()
    assert sum(passes) == 2 + 2 * 4 * len(ranks)  # whole, hidden, and what is between


def test_one_map_for_all_decisions_reaches_half_of_the_swaps(known_audit):
    for baseline in BASELINES:
        for shared in ("class grad-cam", "random", "centre"):
            assert known_audit.methods[shared].estimates[f"swap {baseline}"].mean == 0.5
        assert known_audit.methods["grad-cam"].estimates[f"swap {baseline}"].mean == 1


def test_the_spread_is_that_of_the_reference_set_not_of_the_audited_images():
    model = tiny()
    assert (fixed_spread(model) == 1).all()
    logits = torch.tensor(oracle.logits(TREE, batch=40)).half()
    model.reference = {"logits": logits, "labels": torch.zeros(40).long()}
    scores = oracle.node_scores(TREE, logits.double().numpy(), "representative")
    expected = oracle.log_odds(TREE, scores).std(axis=0, ddof=1)
    assert np.allclose(fixed_spread(model)[1:], expected[1:], rtol=1e-6)
    found = audit(model, torch.randn(1, 3, 32, 32), methods=["grad-cam"], checked=1)
    assert "40 photographs" in found.made["spread"]


def test_few_images_give_no_verdict():
    found = audit(known(), known_images(29), methods=["grad-cam"], checked=1)
    (finding,) = found.findings
    assert "29 images" in finding
    assert "30" in finding
    assert "FAILS" not in finding


@pytest.mark.parametrize("method", ["occlusion", "lime"])
def test_hidden_pictures_are_shared_by_all_decisions(method):
    model = tiny()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    nodes = [TREE.path_of_class(p.class_index)[1:] for p in model.paths(images)]
    with audit_methods.counted_passes(model) as passes:
        together = method_maps(model, images, nodes, method)
    shared = sum(passes)
    with audit_methods.counted_passes(model) as passes:
        alone = [method_maps(model, images, [[node]], method)[0][0] for node in nodes[0]]
    assert sum(passes) == len(nodes[0]) * shared
    for one, other in zip(together[0], alone, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_a_levels_regions_are_what_specificity_is_measured_on():
    model, images = known(), known_images(4)
    nodes = [TREE.path_of_class(p.class_index)[1:] for p in model.paths(images)]
    maps, regions = audit_methods.claims(model, images, nodes, "default")
    for own, found, squares in zip(maps, regions, [(KIND, WHICH)] * 4, strict=True):
        assert len(own) == len(found) == 2
        for region, place in zip(found, squares, strict=True):
            assert set(np.unique(region)) == {0, 1}
            seen = np.kron(region, np.ones((CELL, CELL))) * square(place).numpy()
            assert seen.sum() >= 0.5 * square(place).sum()  # it covers what decides
    result = audit(model, images, methods=["default"], checked=1).methods["default"]
    assert result.estimates["specificity path_share mean"].mean == 1
    assert 10 < result.passes < 25


def test_decisions_with_one_map_share_its_ranking():
    shared, other = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    ranks = ranked([shared, shared, other], (4, 4), RNG)
    assert np.array_equal(ranks[0], ranks[1])
    assert not np.array_equal(ranks[1], ranks[2])


def test_ties_are_ordered_at_random():
    flat = np.zeros((4, 4), dtype=np.float32)
    ranks = np.stack([ranked([flat], (4, 4), RNG)[0].ravel() for _ in range(40)])
    assert {tuple(sorted(row)) for row in ranks} == {tuple(range(16))}
    assert 4 < ranks[:, 0].mean() < 11


def test_a_blur_keeps_a_plain_image_and_erases_checks():
    plain = torch.full((1, 3, 24, 40), 0.7)
    assert torch.allclose(blurred(plain), plain)
    assert blurred(CHECKER[None, None].expand(1, 3, -1, -1)).abs().max() < 0.05


# ---- sanity -------------------------------------------------------------------------------------


def test_rank_correlation_equals_scipy():
    for _ in range(20):
        first, second = RNG.integers(0, 6, (2, 4, 5)).astype(np.float32)
        reference = spearmanr(first.ravel(), second.ravel()).statistic
        assert abs(sanity.rank_correlation(first, second) - reference) < 1e-12
    flat = np.ones((4, 5), dtype=np.float32)
    assert sanity.rank_correlation(flat, first) == 0
    assert sanity.rank_correlation(flat, 2 * flat) == 1


def test_a_model_whose_memory_is_open_is_randomised_too(tmp_path):
    model = tiny()
    make_memory(model, tmp_path / "memory")
    model.use_memory(tmp_path / "memory")
    assert model.memory is not None
    _, changed = next(sanity.randomised(model))
    assert changed.memory is None


def test_weights_are_replaced_from_the_head_down_and_the_model_is_left_alone():
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    replaced = []
    for name, changed in sanity.randomised(model):
        state = changed.state_dict()
        fresh = [key for key in weights if not torch.equal(state[key], before[key])]
        replaced.append((name, fresh))
    assert replaced[0] == ("head", ["head.linear.weight"])
    counts = [len(fresh) for _, fresh in replaced]
    assert counts == sorted(counts)
    assert replaced[-1][0] == "all"
    matrices = [key for key in weights if before[key].ndim > 1]
    assert set(matrices) <= set(replaced[-1][1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_noise_stays_within_its_radius():
    model = tiny()
    images = torch.zeros(2, 3, 32, 32)
    moved = sanity.noisy(model, images, RNG) * torch.tensor(model.preprocess.std)[:, None, None]
    assert 0.9 * sanity.RADIUS < moved.abs().max() <= sanity.RADIUS + 1e-6


def test_sensitivity_is_the_relative_change():
    maps = [(np.array([[3.0, 4.0]], dtype=np.float32),)]
    after = [(np.array([[3.0, 3.0]], dtype=np.float32),)]
    assert sanity.sensitivity(maps, after) == pytest.approx([1 / 5])
    nothing = [(np.zeros((1, 2), dtype=np.float32),)]
    assert np.isnan(sanity.sensitivity(nothing, after)).all()


# ---- intervals ----------------------------------------------------------------------------------


def test_an_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(size=60), seed) for seed in range(300)]
    assert 0.9 < np.mean([value.low < 0 < value.high for value in found]) < 0.98


def test_images_are_resampled_not_decisions():
    values = np.array([1.0, 2.0, np.nan, 5.0, np.nan, np.nan])
    found = per_image(values, np.array([3, 1, 2]))
    assert found[:2].tolist() == [1.5, 5.0]
    assert np.isnan(found[2])
    assert estimate(found).images == 2
    assert estimate(np.array([np.nan])).to_dict()["mean"] is None


def test_few_images_give_no_interval():
    found = estimate(np.array([0.5, 0.6, 0.7, 0.8]))
    assert str(found) == "0.650"
    assert found.to_dict()["low"] is None
    assert not found.low > 0  # nothing is shown to be better


# ---- use ----------------------------------------------------------------------------------------


def test_progress_reaches_its_end():
    done = {}

    def counted(items, count, what):
        done[what] = [count, 0]
        for item in items:
            yield item
            done[what][1] += 1

    audit(known(), known_images(10), methods=["grad-cam"], checked=2, progress=counted)
    assert done["images"] == [10, 10]
    assert len(done) == 3
    assert all(expected == reached for expected, reached in done.values())


def test_a_seed_gives_the_same_audit_and_the_model_is_left_alone():
    model, images = known(), known_images(4)
    weights = model.head.linear.weight.clone()
    first, second = (
        audit(model, images, methods=["saliency"], checked=2).to_dict() for _ in range(2)
    )
    for method in (*first["methods"], *second["methods"]):
        assert method.pop("seconds") >= 0  # all else is the same
    assert first == second
    assert [method["passes"] for method in first["methods"]] == [2, 0, 0]  # one for each decision
    assert torch.equal(weights, model.head.linear.weight)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("rule", oracle.RULES)
def test_other_networks_and_frozen_weights_are_audited(rule):
    model = NBDT.from_timm("vit_tiny_patch16_224,img_size=64", TREE, rule=rule).eval()
    model.requires_grad_(requires_grad=False)
    images = torch.randn(1, 3, 64, 64)
    found = audit(model, images, methods=["grad-cam", "class grad-cam"], checked=1)
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_attached_network_without_positions_is_audited_on_a_plain_grid():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 6), nn.ReLU(), nn.Linear(6, 4))
    images = torch.randn(2, 3, SIDE, SIDE)
    model = model_inside(attach(network, TREE, rule="marginal").eval(), images, None)
    found = audit(model, images, methods=["default", "occlusion"], checked=1)
    assert found.made["regions"] == [PLAIN_SIDE, PLAIN_SIDE]
    assert 10 < found.methods["default"].passes < 25
    with pytest.raises(NBDTError, match="no layer with positions"):
        audit(model, images, methods=["grad-cam"])


def test_networks_that_need_the_channels_first_are_audited():
    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1, stride=4), nn.Linear(4 * 64, 4)

        def forward(self, images):
            return self.fc(self.conv(images).relu().view(len(images), -1))

    torch.manual_seed(0)
    images = torch.randn(1, 3, SIDE, SIDE)
    model = model_inside(attach(Viewed(), TREE, rule="marginal").eval(), images, None)
    found = audit(model, images, methods=["default", "grad-cam"], checked=1)
    assert found.methods["default"].passes > 10


def test_published_grad_cam_equals_captum():
    model = tiny("marginal")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    nodes = [TREE.path_of_class(p.class_index)[1:] for p in model.paths(images)]
    layer = model.backbone.layer4
    of_class = LayerGradCam(model.logits, layer)
    clipped, flat = (method_maps(model, images, nodes, f"{m} grad-cam") for m in ("layer", "class"))
    for row, own in enumerate(nodes):
        image = images[row : row + 1]
        whole = of_class.attribute(image, TREE.class_indices[own[-1]])[0, 0].detach()
        for index, node in enumerate(own):
            found = LayerGradCam(LogOdds(model, node), layer).attribute(
                image, relu_attributions=True
            )
            assert np.allclose(clipped[row][index], found[0, 0].detach(), atol=1e-5)
            assert np.allclose(flat[row][index], whole, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "methods", "message"),
    [
        (torch.zeros(0, 3, 32, 32), ["saliency"], "at least one image"),
        (torch.zeros(1, 1, 32, 32), ["saliency"], r"got \(1, 1, 32, 32\)"),
        (
            torch.zeros(1, 3, 32, 32),
            ["grad_cam"],
            "Unknown method 'grad_cam'.*Did you mean 'grad-cam'",
        ),
        (torch.zeros(1, 3, 32, 32), ["random"], "at least one method that is no control"),
    ],
)
def test_bad_input_is_refused(images, methods, message):
    with pytest.raises(NBDTError, match=message):
        audit(known(), images, methods=methods)


def test_training_mode_is_refused():
    with pytest.raises(NBDTError, match=r"call model\.eval\(\)"):
        audit(known().train(), known_images(1))


def test_a_saved_audit_is_whole_and_offline(known_audit, tmp_path):
    save(known_audit, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["made"]["images"] == 30
    text = (tmp_path / "out" / "index.html").read_text()
    assert "http://" not in text and "https://" not in text  # noqa: PT018
    assert text.count("data:image/png;base64,") == 1
    assert "default-src 'none'" in text
    with pytest.raises(NBDTError, match="exists already; name a new folder"):
        save(known_audit, tmp_path / "out")


def test_tables_keep_intervals_on_one_line(known_audit):
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    found = tables(known_audit)
    for table in found:
        console.print(table)
    text = console.export_text()
    cells = [str(cell) for table in found for column in table.columns for cell in column.cells]
    intervals = [cell for cell in cells if "[" in cell]
    assert len(intervals) > 50
    assert all(text.count(cell) >= intervals.count(cell) for cell in intervals)
    last = {
        row.split("│")[1].strip(): row.split("│")[-3:-1] for row in text.splitlines() if "│" in row
    }
    for name, method in known_audit.methods.items():
        assert [float(cell) for cell in last[name]] == pytest.approx(
            [round(method.passes), method.seconds], abs=0.006
        )


def test_the_command_counts_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NBDT.from_timm("small_convnet", TREE, rule="marginal").eval().save("model")
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for index in range(2):
        noise = Image.effect_noise((40, 40), 80 + index).convert("RGB")
        noise.save(tmp_path / "photos" / "cat" / f"{index}.png")
    (tmp_path / "photos" / "bad.png").write_text("no image")
    arguments = ["model", "--methods", "grad-cam", "--data", "photos", "--json", "--out", "out"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3, done.stderr
    assert json.loads(done.stdout)["made"]["images"] == 2
    assert "bad.png" in done.stderr
    assert (tmp_path / "out" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing"], "at least one readable image|missing"),
        (["--data", ".", "--out", "."], "exists already"),
        (["--data", ".", "--methods", "guided grad-cam"], "Unknown method 'guided grad-cam'"),
    ],
)
def test_the_commands_errors(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["cifar10", "--methods", "grad-cam", *arguments])
    assert isinstance(done.exception, NBDTError | OSError)
    assert re.search(message, str(done.exception))
    assert done.stdout == ""


# ---- another library's measure -------------------------------------------------------------------


class Probabilities(nn.Module):
    """Images to the probability of every node among its siblings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        logits = self.model.head.linear(self.model.features(images.float()))
        return log_odds(logits, self.model.head.rules.tree, self.model.rule).sigmoid()


@pytest.mark.filterwarnings("ignore")
def test_deletion_equals_quantus_region_perturbation(curve_case):
    import quantus

    model = curve_case[0][0].model
    images = torch.cat([trials.image for trials, *_ in curve_case])
    images = images - images.mean(dim=(2, 3), keepdim=True)  # so that 0 is the mean colour
    values = [RNG.random((4, 4), dtype=np.float32) for _ in images]
    first = [trials.nodes[:1] for trials, *_ in curve_case]
    ours = np.concatenate([
        curves(Trials(model, *one, (4, 4)), ranked([own], (4, 4), RNG), "mean", 16)[0]
        for *one, own in zip(images, first, values, strict=True)
    ])  # fmt: skip
    metric = quantus.RegionPerturbation(
        patch_size=8, regions_evaluation=16, perturb_baseline=0.0, normalise=False,
        disable_warnings=True,
    )  # fmt: skip
    theirs = metric(
        model=Probabilities(model).eval(), x_batch=images.numpy(), y_batch=np.array(first)[:, 0],
        a_batch=np.stack([np.kron(v, np.ones((8, 8))) for v in values])[:, None],
        device="cpu", softmax=False,
    )  # fmt: skip
    assert np.abs(ours[:, :1] - np.array(theirs) - ours[:, 1:]).max() < 1e-5
