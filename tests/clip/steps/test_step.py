"""Cached features: the same random numbers in both passes, one graph at a time, half precision."""

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import safe_get_full_grad
from open_clip.loss import ClipLoss

from eva_contrastive.model.eva_clip import ClipOutput
from eva_contrastive.step import build_loss

RANDOM = {"drop_path_rate": 0.5, "patch_dropout": 0.5}
KINDS = ["contrastive", "sigmoid"]


def assert_same_gradients(found, expected, *, atol=2e-6, rtol=1e-4):
    assert found.keys() == expected.keys()
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=atol, rtol=rtol, msg=name)


def test_one_micro_batch_is_plain_open_clip(small_clip, device, tmp_path):
    pairs, model = small_clip.Pairs(), small_clip.make_clip()
    engine = small_clip.make_engine(model, tmp_path)
    found = small_clip.run_step(
        engine, "contrastive", small_clip.micro_batches(pairs, accumulate=1)
    )
    other = small_clip.make_clip()
    images, texts, scale, _ = other(pairs.images, pairs.tokens)
    loss = ClipLoss()(images, texts, scale)
    loss.backward()
    assert found["loss"] == pytest.approx(loss.item())
    assert_same_gradients(small_clip.gradients(model), small_clip.gradients(other))


def test_features_of_both_passes_are_equal(small_clip, device, tmp_path):
    """Patches and blocks are left out at random, for each micro-batch in its own way."""
    recorder = small_clip.Recorder(small_clip.make_clip(**RANDOM))
    engine = small_clip.make_engine(recorder, tmp_path, accumulate=4)
    pairs = small_clip.Pairs()
    pairs.images, pairs.tokens = (  # all micro-batches have the same pairs
        part[:4].repeat(4, *[1] * (part.ndim - 1)) for part in (pairs.images, pairs.tokens)
    )
    small_clip.run_step(engine, "contrastive", small_clip.micro_batches(pairs, accumulate=4))
    first, second = recorder.outputs[:4], recorder.outputs[4:]
    with_gradients = [one.image_features.requires_grad for one in recorder.outputs]
    assert with_gradients == [False] * 4 + [True] * 4
    for one, other in zip(first, second, strict=True):
        assert one.image_features.equal(other.image_features)
        assert one.text_features.equal(other.text_features)
    assert not first[0].image_features.equal(first[1].image_features)


@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_random_depth_and_patches(small_clip, device, tmp_path, kind, changes):
    """Those of one graph over all micro-batches, each computed with its own random numbers."""
    vision = RANDOM | changes
    sigmoid = kind == "sigmoid"
    model = small_clip.make_clip(sigmoid=sigmoid, **vision)
    engine = small_clip.make_engine(model, tmp_path, accumulate=4)
    batches = small_clip.micro_batches(small_clip.Pairs(), accumulate=4)
    measured = small_clip.run_step(engine, kind, batches)
    other = small_clip.make_clip(sigmoid=sigmoid, **vision)
    outputs = [other(*pairs) for pairs in batches]
    together = ClipOutput(
        torch.cat([one.image_features for one in outputs]),
        torch.cat([one.text_features for one in outputs]),
        *outputs[0][2:],
    )
    loss = build_loss(kind)(together)
    loss.backward()
    assert measured["loss"] == pytest.approx(loss.item())
    assert_same_gradients(small_clip.gradients(model), small_clip.gradients(other))


@pytest.mark.parametrize(
    ("kind", "precision", "tolerance"), [("contrastive", "fp16", 0.01), ("sigmoid", "bf16", 0.05)]
)
def test_half_precision(small_clip, device, tmp_path, monkeypatch, kind, precision, tolerance):
    """Gradients of the full batch in float32, with fp16's loss scale and DeepSpeed's division."""
    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    found, losses, norms = [], [], []
    for settings in ({}, {"precision": precision, "stage": 1}):
        accumulate = 4 if settings else 1
        model = small_clip.make_clip(sigmoid=kind == "sigmoid")
        engine = small_clip.make_engine(model, tmp_path, accumulate=accumulate, **settings)
        if precision == "fp16" and settings:  # the first one, 65536, overflows
            engine.optimizer.loss_scaler.cur_scale = 256.0
        batches = small_clip.micro_batches(small_clip.Pairs(), accumulate=accumulate)
        losses.append(small_clip.run_step(engine, kind, batches)["loss"])
        scale = engine.loss_scale
        found.append({n: safe_get_full_grad(p) / scale for n, p in model.named_parameters()})
        norms.append(engine.step()[0])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert norms[1] == pytest.approx(norms[0], rel=tolerance)
    full, cached = found
    for name, gradient in full.items():
        size = gradient.norm()
        if size > 1e-3:  # others are rounding errors
            assert (cached[name] - gradient).norm() < 4 * tolerance * size, name
