"""Whatever wraps or replaces a linear layer or a convolution takes effect.

So do LoRA, int8 and fp8 layers and hooks; a model that reads a layer's weight instead of calling it
bypasses them without a word.
"""

import pytest
import torch
from torch import nn

from eva_backbone import SimpleFeaturePyramid, VisionTransformer

SIZES = {"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 2, "num_heads": 2}
SIZES |= {"mlp_dim": 24}
WINDOWS = {"extra_tokens": (), "window_size": 2, "global_attn_indexes": (1,), "final_norm": False}
MODELS = {
    "plain": {"extra_tokens": ("cls", "mask"), "layer_scale": 0.5, "drop_path_rate": 0.2},
    "one bias": {"qkv_bias": "qkv"},
    "table": {"rel_pos": "table"},
    "vitdet": WINDOWS | {"rel_pos": "vitdet"},
    "beit": WINDOWS | {"rel_pos": "beit"},
    "checkpointing": {"activation_checkpointing": True},
}
WRAPPED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class LoRA(nn.Module):
    """A frozen layer and a trained addition to its output; nobody can read a weight here."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.added = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        out = self.layer(x)
        channels = 1 if isinstance(self.layer, WRAPPED[1:]) else -1
        ramp = torch.linspace(-1, 2, out.shape[channels]) * self.added
        return out + ramp.view(-1, 1, 1) if channels == 1 else out + ramp


def _layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, WRAPPED)]


def _wrap(model, name):
    wrapped = LoRA(model.get_submodule(name))
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, wrapped)
    return wrapped


def _check(model, run, name):
    """Wrap one layer: the output follows, a gradient arrives."""
    expected = run(model).detach()
    lora = _wrap(model, name)
    out = run(model)
    torch.testing.assert_close(out.detach(), expected, atol=0, rtol=0)  # zero so far
    (out * torch.randn_like(out)).sum().backward()
    assert lora.calls, name
    assert lora.added.grad is not None, name
    assert lora.added.grad.abs() > 1e-9, name
    with torch.no_grad():
        lora.added.fill_(1.0)
    assert (run(model).detach() - expected).abs().max() > 1e-5, name


def _vit(kind, randomise):
    torch.manual_seed(0)
    return randomise(VisionTransformer(**SIZES | MODELS[kind])).eval()


@pytest.mark.parametrize("kind", MODELS)
def test_every_layer_of_every_vit(kind, randomise):
    images = torch.randn(2, 3, 56, 56)
    names = _layers(_vit(kind, randomise))
    assert len(names) == 1 + 4 * SIZES["depth"]
    for name in names:
        model = _vit(kind, randomise).train(kind == "checkpointing")
        _check(model, lambda vit: vit.forward_feature_map(images), name)


def test_every_layer_of_the_pyramid(randomise):
    features = torch.randn(1, 16, 4, 4)
    names = _layers(SimpleFeaturePyramid(in_channels=16, out_channels=8))
    assert len(names) == 11
    for name in names:
        torch.manual_seed(0)
        pyramid = randomise(SimpleFeaturePyramid(in_channels=16, out_channels=8))
        _check(pyramid, lambda p: torch.cat([x.flatten() for x in p.pyramid(features)]), name)
