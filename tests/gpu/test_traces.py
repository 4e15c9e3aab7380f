"""Traces on a GPU: saved, read again, the same values, also at another size."""

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("exact")


class _Map(nn.Module):
    def __init__(self, vit):
        super().__init__()
        self.vit = vit

    def forward(self, images):
        return self.vit.forward_feature_map(images)


@pytest.mark.parametrize("rel_pos", ["none", "vitdet", "beit"])
@torch.no_grad()
def test_a_saved_trace(rel_pos, gpu, make_vit, tmp_path):
    windows = {"window_size": 3, "global_attn_indexes": (1,), "extra_tokens": ()}
    vit = make_vit(img_size=40, patch_size=8, rel_pos=rel_pos, **windows).to(gpu)
    images = torch.randn(2, 3, 40, 48, device=gpu)
    torch.jit.save(torch.jit.trace(_Map(vit), images), tmp_path / "vit.ts")
    program = torch.jit.load(tmp_path / "vit.ts", map_location=gpu)
    expected = vit.forward_feature_map(images)
    torch.testing.assert_close(program(images), expected, atol=1e-4, rtol=1e-4)
    turned = images.transpose(2, 3)
    if rel_pos == "beit":
        with pytest.raises(RuntimeError, match="expanded size of the tensor"):
            program(turned)
    else:
        expected = vit.forward_feature_map(turned)
        torch.testing.assert_close(program(turned), expected, atol=1e-4, rtol=1e-4)
