"""Cascades: who answers, that all else is the large model's, and what is saved."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

import nbdt
from nbdt import NBDT, DecisionRules, Hierarchy, NBDTError
from nbdt.decide.stopping import weakest_decision
from nbdt.hierarchies import edit
from nbdt.hierarchies.measure.cascade import in_cascade
from nbdt.model.cascade import LARGE, SMALL, Gate, members, scale_logits, split
from nbdt.model.fingerprint import embedding_hash, model_hash
from nbdt.model.saved import CASCADE_VERSION
from tests import oracle
from tests.cascades import COUNT, batch, cascade, large, photographs, small


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@given(
    oracle.trees(),
    st.sampled_from(oracle.RULES),
    st.integers(0, 99),
    st.sampled_from([None, 1, 2, 5]),
)
def test_the_weakest_decision_is_the_references(tree, rule, seed, depth):
    z = oracle.logits(tree, batch=5, scale=4.0, seed=seed)
    found = weakest_decision(DecisionRules(tree, rule=rule), torch.tensor(z), depth=depth)
    assert found.numpy() == pytest.approx(oracle.weakest_decision(tree, z, rule, depth))


def test_each_image_is_answered_by_the_model_that_is_sure():
    model, images = cascade(), batch()
    seen = interpolate(images, (24, 24), mode="bicubic", antialias=True)
    mean, std = (
        torch.tensor(of)[:, None, None] for of in (large().preprocess.mean, large().preprocess.std)
    )
    own = ((seen * std + mean) - 0.5) / 0.25
    with torch.inference_mode():
        first, second = small().logits(own), large().logits(images)
        z = first.double().numpy()
        weakest = oracle.weakest_decision(model.hierarchy, z, model.rule)
        expected = torch.where(torch.tensor(weakest > 0.91)[:, None], first, second)
        found = model.logits(images)
    assert 2 < (weakest > 0.91).sum() < len(images) - 2
    close(found, expected)
    chances = model.head.rules(expected)
    close(model(images), chances)
    assert [p.class_index for p in model.paths(images)] == chances.argmax(1).tolist()
    with nbdt.flat(model):
        close(model(images), expected)


@pytest.mark.parametrize(("threshold", "who"), [(0.0, SMALL), (1.0, LARGE)])
def test_the_ends_are_the_two_models(threshold, who):
    model, images = cascade(threshold), batch()
    alone = members(model)[who]
    given = alone.preprocess.reduce(images) if who == SMALL else images
    with torch.inference_mode():
        assert torch.equal(model.logits(images), alone.logits(given))
    assert [part.by for part in split(model, images)] == [who]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_asks_the_large_model_less(one, other):
    low, high = (set(_answered_by_small(t)) for t in sorted((one, other)))
    assert low >= high


def _answered_by_small(threshold):
    return [
        row for part in split(cascade(threshold), batch()) if part.by == SMALL for row in part.rows
    ]


def test_parts_know_their_feature_maps_and_nothing_else():
    model, images = cascade(), batch()
    part = split(model, images)[0]
    assert part.by == SMALL
    plain = model.cascade.small
    with torch.no_grad():
        known = part.model.feature_map(part.images)
        assert part.model.feature_map(part.images.clone()) is known
        close(known, plain.feature_map(part.images))
        close(part.model.feature_map(part.images.flip(0)), known.flip(0))
    given = part.images.requires_grad_()
    (slope,) = torch.autograd.grad(part.model.logits(given).sum(), given)
    assert slope.abs().sum() > 0


def test_features_maps_and_embeddings_are_the_large_models():
    model, images = cascade(), batch(3)
    assert torch.equal(model.feature_map(images), large().feature_map(images))
    assert torch.equal(model.features(images), large().features(images))
    assert embedding_hash(model) == embedding_hash(large())


def test_the_fingerprint_is_its_own():
    hashes = {
        model_hash(one) for one in (large(), small(), cascade(), cascade(0.7), cascade(depth=2))
    }
    assert len(hashes) == 5


def test_depth_counts_the_first_decisions_alone():
    deep, upper = cascade(), cascade(depth=1)
    with torch.inference_mode():
        z = small().logits(upper.cascade.small.preprocess.reduce(batch()))
    assert (upper.cascade.confidence(z) >= deep.cascade.confidence(z)).all()
    assert (upper.cascade.confidence(z) > deep.cascade.confidence(z)).any()


def test_scaled_logits_keep_who_answers(tmp_path):
    cascade().save(tmp_path / "model")
    model, images = NBDT.load(tmp_path / "model"), batch()  # of weights that no other test has
    scale_logits(model, 0.5)
    with torch.inference_mode():
        close(model.logits(images), cascade().logits(images) * 0.5)
    assert [p.rows for p in split(model, images)] == [p.rows for p in split(cascade(), images)]


def test_edits_and_restrictions_carry_the_cascade_along():
    model, images = cascade(), batch()
    tree, _ = edit.swap(model.hierarchy, "cat", "truck")
    edited = model.with_hierarchy(tree)
    assert edited.cascade.small.hierarchy == edited.hierarchy == tree
    allowed = list(model.hierarchy.classes[:4])
    fewer = model.restrict(allowed)
    assert fewer.cascade.small.hierarchy.classes == tuple(allowed)
    fewer.cascade.gate = Gate(0.0)
    with torch.inference_mode():
        reduced = model.cascade.small.preprocess.reduce(images)
        close(fewer.logits(images), small().logits(reduced)[:, :4])
    assert fewer.eval().cascade.small.reference["removed.weight"].shape[0] == 6


def _changed(model, how):
    if how != "edited":
        model = model.restrict([*model.hierarchy.classes[:4]])
    return model.with_hierarchy(Hierarchy.from_paths([*model.hierarchy.classes]))


@pytest.mark.parametrize("how", ["edited", "edited with fewer classes"])
def test_no_edit_changes_who_answers(how, tmp_path):
    model, images = cascade(), batch()
    changed = _changed(model, how)
    count = changed.hierarchy.num_classes
    with torch.inference_mode():
        close(changed.logits(images), model.logits(images)[:, :count])
    assert [p.rows for p in split(changed, images)] == [p.rows for p in split(model, images)]
    changed.save(tmp_path / "m")
    again = NBDT.load(tmp_path / "m")
    assert model_hash(again) == model_hash(changed) != model_hash(model)
    with torch.inference_mode():
        close(again.logits(images), changed.logits(images))
    if count < 10:
        close(
            again.cascade.small.reference["removed.bias"],
            changed.cascade.small.reference["removed.bias"],
        )


def test_an_edited_cascade_can_be_scaled():
    model, images = NBDT.load("cifar10"), batch()
    model = in_cascade(model, model)
    model.cascade.gate = Gate(0.91)
    fewer = _changed(model, "edited with fewer classes")
    with torch.inference_mode():
        before, rows = fewer.logits(images), [p.rows for p in split(fewer, images)]
        scale_logits(fewer, 0.5)
        close(fewer.logits(images), before * 0.5)
    assert [p.rows for p in split(fewer, images)] == rows


# ---- on the disk ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascades") / "model"
    cascade(0.91, 1.5, 3).save(folder)
    return folder


def test_it_loads_as_it_was_saved(saved):
    model, images = cascade(0.91, 1.5, 3), batch()
    again = NBDT.load(saved)
    with torch.inference_mode():
        close(again.logits(images), model.logits(images))
    assert again.cascade.gate == model.cascade.gate
    assert model_hash(again) == model_hash(model)
    assert not [module for module in again.modules() if module.training]
    assert NBDT.load(saved / "small").cascade is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_both_models_take_another_precision(dtype, tmp_path):
    model = copy.deepcopy(cascade()).to(dtype)
    with torch.no_grad():
        found = model(batch().to(dtype))
        assert found.dtype == torch.float32
        agree = found.argmax(dim=1) == cascade()(batch()).argmax(dim=1)
    assert agree.sum() >= COUNT - 2
    cascade().save(tmp_path / "m", dtype=torch.int8)
    files = [tmp_path / "m" / "model.safetensors", tmp_path / "m" / SMALL / "model.safetensors"]
    assert abs(files[0].stat().st_size - files[1].stat().st_size) < 1000
    assert NBDT.load(tmp_path / "m").cascade is not None


def test_it_is_refused_by_versions_that_do_not_know_it(saved):
    assert json.loads((saved / "config.json").read_text())["version"] == CASCADE_VERSION == 3


def _other(saved, tmp_path, change):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    change(folder)
    return folder


def _set(**values):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        config["cascade"] |= values
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(threshold=1.5), "damaged cascade"),
        (_set(threshold="high"), "damaged cascade"),
        (_set(temperature=0), "damaged cascade"),
        (_set(depth=0), "damaged cascade"),
        (_set(sha256="0"), "not the small model"),
        (lambda f: (f / "small" / "config.json").write_text("{}"), "not the small model"),
        (lambda f: shutil.rmtree(f / "small"), "no small/config.json"),
        (lambda f: (f / "small" / "model.safetensors").write_bytes(b""), "SHA-256|safetensors"),
    ],
)
def test_damage_is_refused(saved, tmp_path, change, message):
    with pytest.raises(NBDTError, match=message):
        NBDT.load(_other(saved, tmp_path, change))


def test_a_link_out_of_the_folder_is_refused(saved, tmp_path):
    def change(folder):
        shutil.move(folder / "small", tmp_path / "elsewhere")
        (folder / "small").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NBDTError, match="link out"):
        NBDT.load(_other(saved, tmp_path, change))


def test_a_memory_can_be_seen_but_not_fitted():
    model = cascade()
    with pytest.raises(NBDTError, match="make the cascade again"):
        model.refit()


def test_only_models_of_the_same_classes_make_one():
    other = large().restrict(large().hierarchy.classes[:9])
    with pytest.raises(NBDTError, match="truck"):
        in_cascade(other, large())
    with pytest.raises(NBDTError, match="cascade itself"):
        in_cascade(small(), cascade())


def test_classes_in_another_order_are_put_in_order():
    from nbdt import Hierarchy

    names = [*large().hierarchy.classes][::-1]
    tree = Hierarchy.from_nested({"a": names[:5], "b": names[5:]}, names)
    head = type(large().head).from_linear(
        torch.nn.Linear(large().head.in_features, 10), tree, rule="marginal"
    )
    head.linear.load_state_dict(
        {name: value.flip(0) for name, value in large().head.linear.state_dict().items()}
    )
    turned = NBDT(large().backbone, head, large().architecture, small().preprocess).eval()
    one, other = in_cascade(turned, large()), in_cascade(small(), large())
    z = np.random.default_rng(0).standard_normal((3, large().head.in_features)).astype("f4")
    with torch.inference_mode():
        rows = [m.cascade.small.head.logits(torch.from_numpy(z)) for m in (one, other)]
    close(*rows)


def test_it_answers_photographs(saved):
    model = NBDT.load(saved)
    answers = model.answer(torch.stack([model.preprocess(photo) for photo in photographs(2)]))
    assert len(answers) == 2


def test_models_in_onnx_runtime_make_one_too(tmp_path):
    pytest.importorskip("onnxruntime")
    from tests.in_onnx import batch as pictures
    from tests.in_onnx import in_onnx, made

    plain = made("small_convnet")
    for first, second in ((plain, in_onnx(plain)), (in_onnx(plain), plain)):
        model = in_cascade(first, second)
        model.cascade.gate = Gate(0.5)
        folder = tmp_path / type(first.backbone).__name__
        model.save(folder)
        again, images = NBDT.load(folder), pictures(plain)
        assert [type(one.backbone) for one in members(again).values()] == [
            type(one.backbone) for one in (first, second)
        ]
        with torch.inference_mode():
            close(again.logits(images), model.logits(images))
        assert model_hash(again) == model_hash(model)
