"""Patch embeddings of other channels than RGB, against timm's."""

import pytest
import torch
from timm.models._manipulate import adapt_input_conv

from eva_backbone import build_vit, load_pretrained


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 12])
def test_patch_embedding_is_inflated_as_timm_does(channels, tmp_path):
    torch.save(build_vit("eva_debug").state_dict(), tmp_path / "rgb.pt")
    model = build_vit("eva_debug", in_channels=channels)
    report = load_pretrained(model, tmp_path / "rgb.pt")
    stored = torch.load(tmp_path / "rgb.pt", weights_only=True)["patch_embed.proj.weight"]
    expected = adapt_input_conv(channels, stored)
    assert torch.allclose(model.patch_embed.proj.weight, expected, atol=1e-7)
    (name,) = report.resampled
    assert f"{(*stored.shape,)} -> {(*expected.shape,)}" in str(report)
    assert name == "patch_embed.proj.weight"


def test_other_channels_than_rgb_are_not_inflated(tmp_path):
    torch.save(build_vit("eva_debug", in_channels=4).state_dict(), tmp_path / "four.pt")
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight .*4"):
        load_pretrained(build_vit("eva_debug", in_channels=5), tmp_path / "four.pt")
