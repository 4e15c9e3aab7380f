"""Live parity with timm's EVA-01, an independent implementation."""

import pytest
import timm
import torch

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture
def pair(make_classifier):
    """timm's `eva_giant_patch14_224` and ours, tiny, with the same weights in float32."""
    ours = make_classifier(img_size=56, depth=3, mlp_dim=80)
    theirs = timm.create_model(
        "eva_giant_patch14_224",
        img_size=56,
        embed_dim=32,
        depth=3,
        num_heads=2,
        mlp_ratio=80 / 32,
        num_classes=10,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs.eval()


def test_forward(pair):
    ours, theirs = pair
    images = torch.randn(2, 3, 56, 56)
    expected = theirs(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, **TOLERANCE)
    torch.testing.assert_close(
        ours.forward_features(images), theirs.forward_features(images), **TOLERANCE
    )


def test_gradients(pair, assert_same_gradients):
    images, weights = torch.randn(2, 3, 56, 56), torch.randn(2, 10)
    found = []
    for model in pair:
        pixels = images.clone().requires_grad_()
        (model(pixels) * weights).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append(gradients | {"pixels": pixels.grad})
    assert_same_gradients(*found)
