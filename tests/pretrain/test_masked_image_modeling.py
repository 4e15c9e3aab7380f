"""The pre-training model: the official outputs, the skipped work, its initialisation."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from eva_backbone import load_pretrained
from eva_pretrain.masked_image_modeling import (
    MaskedImageModeling,
    masked_image_modeling,
    masked_positions,
    negative_cosine,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "mim.safetensors"
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2,
         "mlp_dim": 48}  # fmt: skip
COUNTS = (5, 0, 16, 9, 1)  # masked patches of each sample: ragged, none, all


def _model(randomise, **options):
    return randomise(MaskedImageModeling(target_dim=7, **SIZES | options))


def _ragged_mask():
    rows = [torch.randperm(16) < count for count in COUNTS]
    return torch.stack(rows)


def _whole(model, images, mask):
    """The official way: compute everything, then select."""
    features = model.forward_features(images, mask)
    patches = features[:, model.num_prefix_tokens :]
    return model.lm_head(patches[mask])


# The official code


def test_official_predictions(tmp_path):
    """Of a file as `eva_psz14.pt`, which is {"model": ...}."""
    tensors = load_file(GOLDEN)
    state = {k.removeprefix("state."): t for k, t in tensors.items() if k.startswith("state.")}
    torch.save({"model": state}, tmp_path / "x.pt")
    sizes = {"img_size": 70, "embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_dim": 80}
    model = masked_image_modeling("eva_g_patch14", target_dim=768, **sizes)
    report = load_pretrained(model, tmp_path / "x.pt")
    assert (set(report.loaded), *report.skipped, *report.missing) == (set(state),)
    expected = tensors["output.masked_prediction"]
    for mask in (tensors["input.mask"], tensors["input.mask"].unflatten(1, (5, 5))):
        actual = model(tensors["input.image"], mask)
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-2


# What nobody reads is not computed


def _values_and_gradients(predict, model, images, mask, *, seed=0):
    model.zero_grad()
    images = images.clone().requires_grad_()
    torch.manual_seed(seed)
    out = predict(model, images, mask)
    out.backward(torch.linspace(-1, 2, out.numel()).view_as(out))
    named = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"out": out.detach(), "images": images.grad} | named


@pytest.mark.parametrize(
    "options",
    [
        {"drop_path_rate": 0.6, "activation_checkpointing": True},
        {"qkv_bias": "qkv", "layer_scale": 0.1},
        {"extra_tokens": ("mask",)},
        {"num_registers": 2, "positions": "none", "rotary": {}},
    ],
)
def test_skipping_equals_the_whole_computation(randomise, options):
    model = _model(randomise, **options).train()
    images, mask = torch.randn(len(COUNTS), 3, 32, 32), _ragged_mask()
    for seed in range(3):
        whole = _values_and_gradients(_whole, model, images, mask, seed=seed)
        predict = partial(MaskedImageModeling.__call__, positions=masked_positions(mask))
        actual = _values_and_gradients(predict, model, images, mask, seed=seed)
        assert actual["out"].shape == (sum(COUNTS), 7)
        for name, expected in whole.items():
            scale = expected.abs().max().item()
            torch.testing.assert_close(
                actual[name], expected, atol=1e-5 * max(1.0, scale), rtol=1e-5
            )


def test_hidden_pixels_are_not_seen(randomise):
    model, mask = _model(randomise), _ragged_mask()[:1]
    images = torch.randn(1, 3, 32, 32)
    pixels = mask.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    expected = model(images, mask)
    assert torch.equal(model(images + 9.0 * pixels, mask), expected)
    assert not torch.equal(model(images + 9.0 * ~pixels, mask), expected)


# Initialisation


def test_initialisation_of_the_official_pre_training():
    """A normal distribution of 0.015 cut at +-0.015: its own deviation is 0.540 times that."""
    model = MaskedImageModeling(target_dim=512, **SIZES | {"embed_dim": 256, "depth": 2})
    deviation = 0.015 * math.sqrt(
        1 - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) / math.erf(0.5**0.5)
    )
    assert deviation == pytest.approx(0.0081, abs=5e-5)
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if name.endswith("bias"):
            assert not values.any(), name
            continue
        if "norm" in name:
            assert (values == 1).all(), name
            continue
        residual = name.endswith(("attn.proj.weight", "fc2.weight"))
        divisor = math.sqrt(2 * (int(name.split(".")[1]) + 1)) if residual else 1.0
        assert values.abs().max() <= 0.015 / divisor * (1 + 1e-6), name
        error = 5 * deviation / math.sqrt(2 * values.numel())
        assert values.std().item() * divisor == pytest.approx(deviation, abs=error), name


# Loss


def test_negative_cosine_computes_in_float32():
    predictions, targets = torch.randn(400, 64).half(), 200 * torch.randn(400, 64)
    actual = negative_cosine(predictions, targets.half())
    assert actual.dtype == torch.float32
    expected = -F.cosine_similarity(predictions.double(), targets.half().double()).mean()
    torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=0)
