"""In the training step of every project, whatever wraps a linear layer takes effect.

So do LoRA, int8 and hooks; a model that reads a layer's weight would bypass them without a word.
"""

import pytest
import torch
from torch import nn

STEPS = {
    "masked features": lambda steps: steps.pretraining("masked_features"),
    "distillation": lambda steps: steps.pretraining("distillation"),
    "tokens": lambda steps: steps.pretraining("tokens"),
    "tokenizer": lambda steps: steps.tokenizer(),
    "classification": lambda steps: steps.classification("plain"),
    "class token": lambda steps: steps.classification("class token"),
    "detection": lambda steps: steps.detection(),
    "adapter": lambda steps: steps.segmentation("mask2former"),
    "pyramid": lambda steps: steps.segmentation("upernet"),
}


class Added(nn.Module):
    """A layer and a trained addition to what it gives; nobody can read a weight here."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.added = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        out = self.layer(x)
        return out + torch.linspace(-1, 2, out.shape[-1]) * self.added


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No process group of other tests, where mmdetection would average over processes."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


@pytest.mark.parametrize("kind", STEPS)
def test_every_linear_layer_is_called(kind, steps):
    step = STEPS[kind](steps)
    # torch's own attention, which Mask2Former's decoder uses, reads the weight of its last layer
    inside = [m for m in step.model.modules() if isinstance(m, nn.MultiheadAttention)]
    theirs = {id(module) for attention in inside for module in attention.modules()}
    trained = {
        name: module
        for name, module in step.model.named_modules()
        if isinstance(module, nn.Linear)
        and id(module) not in theirs
        and module.weight.requires_grad
    }
    assert trained
    with torch.no_grad():
        for parameter in step.model.parameters():
            if not parameter.any():  # branches that start at zero would give no gradient
                parameter.normal_(std=0.02)
    for name, module in trained.items():
        parent, _, child = name.rpartition(".")
        setattr(step.model.get_submodule(parent), child, Added(module))
    step.run(step.model, torch.device("cpu")).backward()
    bypassed = [
        name
        for name in trained
        if (gradient := step.model.get_submodule(name).added.grad) is None or not gradient.any()
    ]
    assert not bypassed
