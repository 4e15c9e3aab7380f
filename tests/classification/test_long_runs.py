"""What timm makes of our weights."""

import pytest
import timm
import torch

from eva_classification.models import build_classifier


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", ["eva_giant_patch14_224", "eva_large_patch14_196"])
def test_timm_loads_every_form(name, pooling, tmp_path, randomise):
    sizes = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2}
    variant = "eva_l_patch14" if "large" in name else "eva_g_patch14"
    ours = randomise(
        build_classifier(variant, num_classes=5, pooling=pooling, mlp_dim=64, **sizes)
    ).eval()
    torch.save(ours.state_dict(), tmp_path / "model.pt")
    theirs = timm.create_model(
        name, mlp_ratio=2, num_classes=5, checkpoint_path=str(tmp_path / "model.pt"),
        global_pool="avg" if pooling == "mean" else "token", **sizes,
    ).eval()  # fmt: skip
    images = torch.randn(2, 3, 28, 28)
    expected = theirs(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-4)
