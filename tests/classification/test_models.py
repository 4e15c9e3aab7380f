"""Classifiers: official names, golden logits, parameter counts, loading by file."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from eva_classification.models import (
    ImageClassifier,
    build_classifier,
    build_linear_probe,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def _golden(name):
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {
        key.removeprefix("state."): value
        for key, value in tensors.items()
        if key.startswith("state.")
    }
    return state, tensors


@pytest.mark.parametrize(
    ("name", "pooling", "qkv_bias"),
    [
        ("classify_mean_fc_norm", "mean", "qv"),
        ("classify_norm_cls", "cls", "qv"),
        ("classify_eva_l_style", "mean", "qkv"),
    ],
)
def test_golden_logits(name, pooling, qkv_bias):
    state, tensors = _golden(name)
    width = state["cls_token"].shape[-1]
    sizes = {
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "embed_dim": width,
        "depth": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "mlp_dim": state["blocks.0.mlp.fc1.weight"].shape[0],
    }
    images = tensors["input.image"]
    for heads in (2, 4):  # the number of heads is not in the weights
        model = ImageClassifier(
            num_classes=state["head.weight"].shape[0], pooling=pooling, qkv_bias=qkv_bias,
            img_size=images.shape[-1], num_heads=heads, **sizes,
        ).eval()  # fmt: skip
        model.load_state_dict(state, strict=True)
        error = (model(images) - tensors["output.logits"]).abs().max().item()
        if error < 1e-4:
            return
    pytest.fail(f"logits differ by {error}")


@pytest.mark.parametrize(
    ("variant", "classes", "size", "count"),
    [
        ("eva_g_patch14", 21841, 224, 1_041_920_081),
        ("eva_g_patch14", 1000, 224, 1_012_555_112),
        ("eva_g_patch14", 1000, 336, 1_013_005_672),
        ("eva_g_patch14", 1000, 560, 1_014_447_464),
        ("eva_l_patch14", 1000, 196, 304_142_312),
        ("eva_l_patch14", 1000, 336, 304_531_432),
        ("eva_l_patch14", 21841, 224, 325_565_777),
    ],
)
def test_counts_of_the_official_logs(variant, classes, size, count):
    with torch.device("meta"):
        model = build_classifier(variant, num_classes=classes, img_size=size)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_probe_normalises_with_batch_statistics():
    probe = build_linear_probe("eva_debug", num_classes=5, img_size=32)
    images = torch.randn(6, 3, 32, 32)
    features = probe.pool(images)
    expected = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-6).sqrt()
    logits = probe(images)
    torch.testing.assert_close(logits, probe.head[1](expected), atol=1e-4, rtol=1e-4)
    logits.sum().backward()
    assert probe.head[1].weight.grad is not None
    assert probe.blocks[0].mlp.fc1.weight.grad is None


def test_a_frozen_patch_embedding():
    model = build_classifier("eva_debug", num_classes=3, freeze_patch_embed=True)
    assert not any(p.requires_grad for p in model.patch_embed.parameters())
    assert model.blocks[0].mlp.fc1.weight.requires_grad
