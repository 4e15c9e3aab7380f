"""Number formats of inference: by hardware, by autocast, int8; a warning of slow bf16."""

import copy

import pytest
import torch
from torch import nn

from eva_backbone import VisionTransformer
from eva_runs import precision
from eva_runs.precision import lower_backbone, precision_of, resolve, to_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("half", "kind", "device", "warns"),
    [(18, "bf16", "cpu", True), (110, "bf16", "cpu", False), (18, "bf16", "cuda", False),
     (18, "auto", "cpu", False)],
)  # fmt: skip
def test_slow_bf16_is_warned_of_with_both_rates(monkeypatch, caplog, half, kind, device, warns):
    rates = {torch.bfloat16: half, torch.float32: 113}
    monkeypatch.setattr(precision, "rate_of", rates.__getitem__)
    precision.warn_of_slow_bf16(kind, torch.device(device))
    assert ("18 GF/s" in caplog.text and "113" in caplog.text) == warns


def test_the_probe_measures_and_draws_no_random_number():
    before = torch.get_rng_state()
    assert 0.1 < precision.rate_of(torch.float32) < 1e5
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [("avx2", "fp32"), ("avx512_f", "fp32"), ("avx512_bf16", "bf16"), ("amx_bf16", "bf16"),
     ("bf16", "bf16"), ("sve_bf16", "bf16")],
)  # fmt: skip
def test_auto_asks_a_cpu_for_its_instructions(monkeypatch, instructions, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True, "sve": False})
    assert resolve("auto", CPU) == chosen
    assert resolve(None, CPU) == "fp32"  # as published, on any CPU
    assert resolve("bf16", CPU) == "bf16"
    assert resolve("auto", torch.device("mps")) == "fp32"


def test_auto_of_a_gpu_is_bf16_where_it_is_native(monkeypatch):
    gpu = torch.device("cuda", 0)
    for capability, chosen in {(9, 0): "bf16", (8, 0): "bf16", (7, 5): "fp16"}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, is_=capability: is_)
        assert resolve("auto", gpu) == chosen
        assert resolve(None, gpu) == "fp16"


@pytest.fixture
def vit():
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    vit = VisionTransformer(mlp_dim=128, **sizes).eval().requires_grad_(False)
    for value in vit.parameters():
        value.normal_(std=0.2)
    return vit


def cosine(one, other):
    return torch.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0)


def test_int8_is_of_the_weights_of_the_vits_layers(vit, caplog):
    images = torch.randn(2, 3, 32, 32)
    expected = vit(images)
    model = nn.Sequential(vit, nn.Linear(64, 3))
    changed = to_precision(model, "int8", CPU)[0]
    assert precision_of(model) == "int8"
    assert "memory" in caplog.text  # and is not for speed
    assert all(
        type(layer.weight).__name__ == "Int8Tensor"
        for layer in changed.blocks.modules()
        if isinstance(layer, nn.Linear)
    )
    assert type(model[1].weight) is nn.Parameter
    assert cosine(changed(images), expected) > 0.999


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_backbone_is_lowered_as_by_autocast_with_outputs_in_float32(vit, kind):
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vit

        def forward(self, images):
            return {"p4": self.net.forward_feature_map(images)}

    images, plain = torch.randn(1, 3, 32, 48), Backbone()
    lowered = copy.deepcopy(plain)
    lower_backbone(lowered, kind, CPU)
    with torch.autocast("cpu", precision.DTYPES[kind]):
        expected = plain(images)["p4"].float()
    found = lowered(images)["p4"]
    assert found.dtype == torch.float32
    assert found.equal(expected)
    assert not found.equal(plain(images)["p4"])
    assert lowered.net.blocks[0].mlp.fc1.weight.dtype == precision.DTYPES[kind]
